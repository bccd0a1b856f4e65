//! One transformer layer: attention and feed-forward, each with a skip connection and a layer norm before or after.

use crate::error::Result;
use crate::nn::relevance::join;
use crate::nn::rules::{ActivationRule, Carried};
use crate::nn::{attention, residual, Activation, LayerNorm, Linear, Rules};
use crate::trace::{LayerGrads, LayerTrace};
use candle_core::{Tensor, D};

/// Where the layer norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// ViT: `a = x + attn(norm1 x)`, `x' = a + ffn(norm2 a)`.
    Pre,
    /// BERT: `a = norm1(x + attn(x))`, `x' = norm2(a + ffn(a))`.
    Post,
}

/// The feed-forward sub-layer.
#[derive(Debug, Clone)]
pub enum FeedForward {
    /// `fc2(f(fc1 x))`
    Plain {
        /// `[F,D]`
        fc1: Linear,
        /// `hidden_act`
        activation: Activation,
        /// `[D,F]`
        fc2: Linear,
    },
    /// SwiGLU, `weights_out(silu(u) * v)` with `[u, v] = weights_in x` (DINOv2 giant).
    Gated {
        /// `[2F,D]`
        weights_in: Linear,
        /// `[D,F]`
        weights_out: Linear,
    },
}

/// What a layer computes behind its attention: the fields of [`LayerTrace`] of the same names.
pub struct Finished {
    /// `[B,T,F]`
    pub hidden: Tensor,
    /// `[B,T,D]`
    pub fed: Tensor,
    /// `[B,T,D]`
    pub sum: Tensor,
    /// `[B,T,D]`
    pub output: Tensor,
}

/// The upper part of a layer's [`LayerGrads`], and what reaches its input through the skip connection.
pub(super) struct Upper {
    sum: Tensor,
    fed: Tensor,
    hidden: Tensor,
    normed: Tensor,
    mid: Tensor,
    by_input: Tensor,
    mixed: Tensor,
    context: Tensor,
    pub(super) attention: Tensor,
    value: Tensor,
}

/// One transformer layer.
#[derive(Debug, Clone)]
pub struct Block {
    /// H
    pub heads: usize,
    /// Where the norms stand.
    pub placement: NormPlacement,
    /// `[D,D]`
    pub query: Linear,
    /// `[D,D]`
    pub key: Linear,
    /// `[D,D]`
    pub value: Linear,
    /// `[D,D]` output projection
    pub projection: Linear,
    /// Around attention.
    pub norm1: LayerNorm,
    /// Around the feed-forward.
    pub norm2: LayerNorm,
    /// The feed-forward.
    pub feed_forward: FeedForward,
    /// `[D]` layer scale of the attention branch (DINOv2).
    pub scale1: Option<Tensor>,
    /// `[D]` layer scale of the feed-forward branch.
    pub scale2: Option<Tensor>,
}

fn scaled(x: Tensor, scale: &Option<Tensor>) -> Result<Tensor> {
    Ok(match scale {
        Some(scale) => x.broadcast_mul(scale)?,
        None => x,
    })
}

impl FeedForward {
    /// State before the activation: `[B,T,D]` -> `[B,T,F]` (gated: `[B,T,2F]`)
    fn hidden(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            FeedForward::Plain { fc1, .. } => fc1.forward(x),
            FeedForward::Gated { weights_in, .. } => weights_in.forward(x),
        }
    }

    /// The rest: `[B,T,F]` -> `[B,T,D]`
    fn output(&self, hidden: &Tensor) -> Result<Tensor> {
        match self {
            FeedForward::Plain { activation, fc2, .. } => fc2.forward(&activation.forward(hidden)?),
            FeedForward::Gated { weights_out, .. } => {
                let (gate, value) = halves(hidden)?;
                weights_out.forward(&(Activation::Silu.forward(&gate)? * value)?)
            }
        }
    }

    /// Reverse of the whole sub-layer, which read `read`: what reaches its hidden state `[B,T,F]` and its input `[B,T,D]`.
    fn reverse(
        &self,
        read: impl FnOnce() -> Result<Tensor>,
        hidden: &Tensor,
        arriving: &Tensor,
        rules: &Rules,
    ) -> Result<(Tensor, Tensor)> {
        let rule = rules.feed_forward;
        match self {
            FeedForward::Plain { fc1, activation, fc2 } => {
                let by_activated = fc2.reverse(|| activation.forward(hidden), arriving, rule)?;
                let by_hidden = activation.reverse(hidden, &by_activated, rules.activation)?;
                let by_read = fc1.reverse(read, &by_hidden, rule)?;
                Ok((by_hidden, by_read))
            }
            FeedForward::Gated { weights_in, weights_out } => {
                let (gate, value) = halves(hidden)?;
                let activated = Activation::Silu.forward(&gate)?;
                let by_product = weights_out.reverse(|| Ok((&activated * &value)?), arriving, rule)?; // [B,T,F]
                let share = if rules.activation == ActivationRule::Gradient { 1.0 } else { 0.5 };
                let by_activated = ((&by_product * &value)? * share)?;
                let by_gate = Activation::Silu.reverse(&gate, &by_activated, rules.activation)?;
                let by_value = ((by_product * activated)? * share)?;
                let by_hidden = Tensor::cat(&[by_gate, by_value], D::Minus1)?;
                let by_read = weights_in.reverse(read, &by_hidden, rule)?;
                Ok((by_hidden, by_read))
            }
        }
    }
}

fn halves(hidden: &Tensor) -> Result<(Tensor, Tensor)> {
    let width = hidden.dim(D::Minus1)? / 2;
    let half = |from| hidden.narrow(D::Minus1, from, width).and_then(|t| t.contiguous());
    Ok((half(0)?, half(width)?))
}

impl Block {
    /// Runs the layer on `x` `[B,T,D]`; `mask` as in [`attention::probabilities`].
    pub fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<LayerTrace> {
        self.forward_scaled(x, mask, 1.0)
    }

    /// The same with every attention probability multiplied by `factor` (an intervention: rows no longer sum to 1).
    pub fn forward_scaled(&self, x: &Tensor, mask: Option<&Tensor>, factor: f64) -> Result<LayerTrace> {
        let read = self.read(x)?;
        let project = |linear: &Linear| attention::split_heads(&linear.forward(&read)?, self.heads);
        let (query, key, value) = (project(&self.query)?, project(&self.key)?, project(&self.value)?);
        let attention = attention::probabilities(&query, &key, mask)?;
        let attention = if factor == 1.0 { attention } else { (attention * factor)? };
        let context = attention::context(&attention, &value)?;
        let mixed = scaled(self.projection.forward(&attention::merge_heads(&context)?)?, &self.scale1)?;
        let mid = (x + &mixed)?;

        let Finished { hidden, fed, sum, output } = self.finish(&mid)?;
        Ok(LayerTrace { input: x.clone(), query, key, value, attention, context, mixed, mid, hidden, fed, sum, output })
    }

    /// What queries, keys and values are made of, `[B,T,D]`: the first norm's output, or (post-norm) the input itself.
    pub fn read(&self, x: &Tensor) -> Result<Tensor> {
        match self.placement {
            NormPlacement::Pre => self.norm1.forward(x),
            NormPlacement::Post => Ok(x.clone()),
        }
    }

    /// What the feed-forward reads, from `mid`.
    fn normed(&self, mid: &Tensor) -> Result<Tensor> {
        match self.placement {
            NormPlacement::Pre => self.norm2.forward(mid),
            NormPlacement::Post => self.norm1.forward(mid),
        }
    }

    /// The layer from `mid` `[B,T,D]` on. Tokens do not meet here.
    pub fn finish(&self, mid: &Tensor) -> Result<Finished> {
        let pre = self.placement == NormPlacement::Pre;
        let normed = self.normed(mid)?;
        let hidden = self.feed_forward.hidden(&normed)?;
        let fed = scaled(self.feed_forward.output(&hidden)?, &self.scale2)?;
        let sum = if pre { (mid + &fed)? } else { (normed + &fed)? };
        let output = if pre { sum.clone() } else { self.norm2.forward(&sum)? };
        Ok(Finished { hidden, fed, sum, output })
    }

    /// What each token's value adds to a state per unit of attention: values `[H,T,E]` through the heads' parts of the
    /// output projection and the layer scale, `[T,H,D]`. The projection's bias is not in it.
    pub fn contributions(&self, value: &Tensor) -> Result<Tensor> {
        let (h, _, e) = value.dims3()?;
        let weight = self.projection.weight.t()?.to_dtype(value.dtype())?.contiguous()?; // [H*E,D]
        let parts = value.matmul(&weight.reshape((h, e, weight.dim(1)?))?)?; // [H,T,D]
        let parts = match &self.scale1 {
            Some(scale) => parts.broadcast_mul(&scale.to_dtype(value.dtype())?)?,
            None => parts,
        };
        Ok(parts.transpose(0, 1)?.contiguous()?)
    }

    /// Reverses the layer down to its attention: from what arrives at its output `[B,T,D]`.
    pub(super) fn backward_to_attention(&self, t: &LayerTrace, output: &Tensor, rules: &Rules) -> Result<Upper> {
        let pre = self.placement == NormPlacement::Pre;
        let (projection, residual) = (rules.projection, (rules.residual, rules.carried));
        let unscaled = |g: &Tensor, scale: &Option<Tensor>| match rules.carried {
            Carried::Gradient => scaled(g.clone(), scale),
            Carried::Relevance => Ok(g.clone()), // a branch's scaling keeps its relevance
        };

        let sum = if pre { output.clone() } else { self.norm2.reverse(&t.sum, output, rules.norm)? };
        let skipped = || if pre { Ok(t.mid.clone()) } else { self.normed(&t.mid) };
        let (by_skip, fed) = residual::reverse(skipped, &t.fed, &sum, residual)?;
        let by_fed = unscaled(&fed, &self.scale2)?;
        let (hidden, by_read) = self.feed_forward.reverse(|| self.normed(&t.mid), &t.hidden, &by_fed, rules)?;
        let (normed, mid) = if pre {
            let through_norm = self.norm2.reverse(&t.mid, &by_read, rules.norm)?;
            (by_read, join(&t.mid, &[&by_skip, &through_norm], rules.carried)?)
        } else {
            let normed = join(&self.normed(&t.mid)?, &[&by_skip, &by_read], rules.carried)?;
            let mid = self.norm1.reverse(&t.mid, &normed, rules.norm)?;
            (normed, mid)
        };

        let (by_input, mixed) = residual::reverse(|| Ok(t.input.clone()), &t.mixed, &mid, residual)?;
        let by_mixed = unscaled(&mixed, &self.scale1)?;
        let merged = self.projection.reverse(|| attention::merge_heads(&t.context), &by_mixed, projection)?;
        let context = attention::split_heads(&merged, self.heads)?;
        let (attention, value) = attention::context_reverse((&t.attention, &t.value, &t.context), &context, rules)?;
        Ok(Upper { sum, fed, hidden, normed, mid, by_input, mixed, context, attention, value })
    }

    /// Reverses the layer: from what arrives at its output `[B,T,D]` to what reaches everything inside it.
    pub fn backward(&self, t: &LayerTrace, output: &Tensor, rules: &Rules) -> Result<LayerGrads> {
        let pre = self.placement == NormPlacement::Pre;
        let upper = self.backward_to_attention(t, output, rules)?;
        let Upper { sum, fed, hidden, normed, mid, by_input, mixed, context, attention, value } = upper;
        let queries = attention::probabilities_reverse((&t.query, &t.key, &t.attention), &attention, rules)?;
        let unproject = |linear: &Linear, g: &Tensor| {
            linear.reverse(|| self.read(&t.input), &attention::merge_heads(g)?, rules.projection)
        };
        let mut parts = vec![unproject(&self.value, &value)?];
        let (query, key) = queries.unzip();
        for (linear, part) in [(&self.query, &query), (&self.key, &key)] {
            if let Some(part) = part {
                parts.insert(parts.len() - 1, unproject(linear, part)?); // query, key, value: a fixed order of summing
            }
        }
        let parts: Vec<&Tensor> = parts.iter().collect();
        let read = if pre {
            // Relevance of the three projections is summed, as if they were one matrix; behind no norm (post-norm) the
            // input is used by each.
            join(&t.input, &parts, Carried::Gradient)?
        } else {
            join(&t.input, &parts, rules.carried)?
        };
        let through_norm = if pre { self.norm1.reverse(&t.input, &read, rules.norm)? } else { read.clone() };
        let input = join(&t.input, &[&by_input, &through_norm], rules.carried)?;
        let output = output.clone();
        Ok(LayerGrads {
            input,
            read,
            query,
            key,
            value,
            attention,
            context,
            mixed,
            mid,
            normed,
            hidden,
            fed,
            sum,
            output,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::nn::check;

    /// A small random f64 block: width 8, 2 heads, feed-forward width 6.
    pub fn block(placement: NormPlacement, gated: bool, scale: bool) -> Block {
        let mut seed = 0;
        let mut tensor = |shape: &[usize]| {
            seed += 1;
            check::random(shape, seed)
        };
        let mut linear =
            |out: usize, input: usize| Linear { weight: tensor(&[out, input]), bias: Some(tensor(&[out])) };
        let (query, key, value, projection) = (linear(8, 8), linear(8, 8), linear(8, 8), linear(8, 8));
        let feed_forward = match gated {
            false => FeedForward::Plain { fc1: linear(6, 8), activation: Activation::Gelu, fc2: linear(8, 6) },
            true => FeedForward::Gated { weights_in: linear(12, 8), weights_out: linear(8, 6) },
        };
        let mut norm = || LayerNorm { weight: tensor(&[8]), bias: tensor(&[8]), eps: 1e-6 };
        let (norm1, norm2) = (norm(), norm());
        let mut scales = || scale.then(|| tensor(&[8]));
        let (scale1, scale2) = (scales(), scales());
        Block { heads: 2, placement, query, key, value, projection, norm1, norm2, feed_forward, scale1, scale2 }
    }

    #[test]
    fn backward_equals_finite_differences() -> Result<()> {
        let (x, g) = (check::random(&[2, 3, 8], 91), check::random(&[2, 3, 8], 92));
        for placement in [NormPlacement::Pre, NormPlacement::Post] {
            for (gated, scale) in [(false, false), (true, false), (false, true)] {
                let block = block(placement, gated, scale);
                let trace = block.forward(&x, None)?;
                let grads = block.backward(&trace, &g, &Rules::GRADIENT)?;
                check::finite_differences(&x, &g, |x| Ok(block.forward(x, None)?.output), &grads.input);
            }
        }
        Ok(())
    }
}
