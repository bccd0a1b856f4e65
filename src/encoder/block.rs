//! One transformer layer: attention and feed-forward, each with a skip connection and a layer norm before or after.

use crate::error::Result;
use crate::nn::{attention, Activation, LayerNorm, Linear, Rules};
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

    /// Reverse of the whole sub-layer: `[B,T,D]` -> `[B,T,D]`
    fn vjp(&self, hidden: &Tensor, grad: &Tensor, rules: &Rules) -> Result<Tensor> {
        match self {
            FeedForward::Plain { fc1, activation, fc2 } => {
                fc1.vjp(&activation.vjp(hidden, &fc2.vjp(grad)?, rules.activation)?)
            }
            FeedForward::Gated { weights_in, weights_out } => {
                let (gate, value) = halves(hidden)?;
                let grad = weights_out.vjp(grad)?; // [B,T,F]
                let by_gate = Activation::Silu.vjp(&gate, &(&grad * &value)?, rules.activation)?;
                let by_value = (grad * Activation::Silu.forward(&gate)?)?;
                weights_in.vjp(&Tensor::cat(&[by_gate, by_value], D::Minus1)?)
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
        let pre = self.placement == NormPlacement::Pre;
        let read = if pre { self.norm1.forward(x)? } else { x.clone() };
        let project = |linear: &Linear| attention::split_heads(&linear.forward(&read)?, self.heads);
        let (query, key, value) = (project(&self.query)?, project(&self.key)?, project(&self.value)?);
        let attention = attention::probabilities(&query, &key, mask)?;
        let context = attention::context(&attention, &value)?;
        let mixed = self.projection.forward(&attention::merge_heads(&context)?)?;
        let mid = (x + scaled(mixed, &self.scale1)?)?;

        let (hidden, sum, output) = self.finish(&mid)?;
        Ok(LayerTrace { input: x.clone(), query, key, value, attention, context, mid, hidden, sum, output })
    }

    /// The layer from `mid` `[B,T,D]` on: the feed-forward's hidden state `[B,T,F]`, the state after its skip
    /// connection and the state leaving the layer, `[B,T,D]`. Tokens do not meet here.
    pub fn finish(&self, mid: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let pre = self.placement == NormPlacement::Pre;
        let normed = if pre { self.norm2.forward(mid)? } else { self.norm1.forward(mid)? };
        let hidden = self.feed_forward.hidden(&normed)?;
        let branch = scaled(self.feed_forward.output(&hidden)?, &self.scale2)?;
        let sum = if pre { (mid + branch)? } else { (normed + branch)? };
        let output = if pre { sum.clone() } else { self.norm2.forward(&sum)? };
        Ok((hidden, sum, output))
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

    /// Reverses the layer: from the derivative by its output `[B,T,D]` to those by everything inside it.
    pub fn backward(&self, t: &LayerTrace, output: &Tensor, rules: &Rules) -> Result<LayerGrads> {
        let pre = self.placement == NormPlacement::Pre;
        let sum = if pre { output.clone() } else { self.norm2.vjp(&t.sum, output, rules.norm)? };
        let branch = self.feed_forward.vjp(&t.hidden, &scaled(sum.clone(), &self.scale2)?, rules)?;
        let mid = if pre {
            (&sum + self.norm2.vjp(&t.mid, &branch, rules.norm)?)?
        } else {
            self.norm1.vjp(&t.mid, &(sum + branch)?, rules.norm)?
        };

        let mixed = self.projection.vjp(&scaled(mid.clone(), &self.scale1)?)?;
        let context = attention::split_heads(&mixed, self.heads)?;
        let (attention, value) = attention::context_vjp(&t.attention, &t.value, &context, rules.matmul)?;
        let soft = (rules.softmax, rules.matmul);
        let (query, key) = attention::probabilities_vjp(&t.query, &t.key, &t.attention, &attention, soft)?;
        let unproject = |linear: &Linear, grad: &Tensor| linear.vjp(&attention::merge_heads(grad)?);
        let read =
            ((unproject(&self.query, &query)? + unproject(&self.key, &key)?)? + unproject(&self.value, &value)?)?;
        let input = if pre { (&mid + self.norm1.vjp(&t.input, &read, rules.norm)?)? } else { (&mid + read)? };
        Ok(LayerGrads { input, value, attention, context, mid, output: output.clone() })
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
