//! One transformer layer: attention and feed-forward, each a branch beside a skip connection.

use super::attention::{AttendedGrads, Attention};
use super::branch::{Branch, Wiring};
use super::feed_forward::FeedForward;
use crate::error::Result;
use crate::nn::rules::Carried;
use crate::nn::{residual, Around, Norm, Rules};
use crate::trace::{Inside, LayerGrads, LayerTrace};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// One transformer layer.
#[derive(Debug, Clone)]
pub struct Block {
    /// Tokens meet here.
    pub attention: Branch<Attention>,
    /// Each token by itself.
    pub feed_forward: Branch<FeedForward>,
    /// Where the norms stand.
    pub wiring: Wiring,
}

/// What a layer computes behind its attention: the fields of [`LayerTrace`] of the same names.
pub struct Finished {
    /// `[B,T,F]`
    pub hidden: Tensor,
    /// `[B,T,D]`
    pub sum: Tensor,
    /// `[B,T,D]`
    pub output: Tensor,
}

/// The upper part of a layer's [`LayerGrads`], and what reaches its input through the skip connection.
#[derive(Debug)]
pub(super) struct Upper {
    by_input: Tensor,
    context: Tensor,
    pub(super) attention: Tensor,
    value: Tensor,
    passed: Option<Passed>,
}

/// What the reverse of a layer comes through above its attention, and is not asked for any more.
#[derive(Debug)]
struct Passed {
    sum: Tensor,
    fed: Tensor,
    hidden: Tensor,
    normed: Tensor,
    mid: Tensor,
    mixed: Tensor,
}

impl Block {
    /// Runs the layer on `x` `[B,T,D]`.
    pub fn forward(&self, x: &Tensor, around: &Arc<Around>) -> Result<LayerTrace> {
        self.forward_scaled(x, around, 1.0)
    }

    /// The same, behind attention for some tokens alone: those of the record's [`LayerTrace::rows`].
    pub(super) fn forward_rows(
        &self,
        x: &Tensor,
        around: &Arc<Around>,
        rows: Option<&Range<usize>>,
    ) -> Result<LayerTrace> {
        self.run(x, around, 1.0, rows)
    }

    /// The same with every attention probability multiplied by `factor` (an intervention: rows no longer sum to 1).
    pub fn forward_scaled(&self, x: &Tensor, around: &Arc<Around>, factor: f64) -> Result<LayerTrace> {
        self.run(x, around, factor, None)
    }

    fn run(&self, x: &Tensor, around: &Arc<Around>, factor: f64, rows: Option<&Range<usize>>) -> Result<LayerTrace> {
        let (own, result) = self.attention.op.forward(&self.read(x)?, around, factor, rows)?;
        let mixed = self.attention.added(result)?;
        let mid = match rows {
            Some(rows) => residual::forward(&x.narrow(1, rows.start, rows.len())?, &mixed)?, // [B,R,D]
            None => residual::forward(x, &mixed)?,
        };
        let Finished { hidden, sum, output } = self.finish(&mid)?;
        Ok(LayerTrace {
            around: around.clone(),
            input: x.clone(),
            query: own.query,
            key: own.key,
            value: own.value,
            attention: own.attention,
            rows: rows.cloned(),
            mid,
            hidden,
            sum,
            output,
        })
    }

    /// The layer's attention `[B,H,T,T]` on `x` `[B,T,D]`, and nothing behind it.
    pub(super) fn probabilities(&self, x: &Tensor, around: &Around) -> Result<Tensor> {
        Ok(self.attention.op.probabilities(&self.read(x)?, around)?.2)
    }

    /// What queries, keys and values are made of, `[B,T,D]`: the first norm's output, or (no norm in front) the input.
    pub fn read(&self, x: &Tensor) -> Result<Tensor> {
        self.attention.read(x, self.wiring)
    }

    /// The state between the branches, from `mid`.
    fn between(&self, mid: &Tensor) -> Result<Tensor> {
        self.attention.left(mid, self.wiring)
    }

    /// The layer from `mid` `[B,T,D]` on. Tokens do not meet here.
    pub fn finish(&self, mid: &Tensor) -> Result<Finished> {
        let (branch, state) = (&self.feed_forward, self.between(mid)?);
        let (hidden, result) = branch.op.forward(&branch.read(&state, self.wiring)?)?;
        let fed = branch.added(result)?;
        let sum = residual::forward(&state, &fed)?;
        let output = branch.left(&sum, self.wiring)?;
        Ok(Finished { hidden, sum, output })
    }

    /// What attention adds to the skip connection, `[B,T,D]`, layer scale included.
    pub fn mixed(&self, t: &LayerTrace) -> Result<Tensor> {
        let rows = t.rows.as_ref().filter(|rows| rows.len() < t.attention.dims()[2]);
        let attention = match rows {
            Some(rows) => t.attention.narrow(2, rows.start, rows.len())?,
            None => t.attention.clone(),
        };
        self.attention.added(self.attention.op.result(&attention, &t.value)?)
    }

    /// What the feed-forward adds to the skip connection, `[B,T,D]`, layer scale included.
    pub fn fed(&self, t: &LayerTrace) -> Result<Tensor> {
        self.feed_forward.added(self.feed_forward.op.output(&t.hidden)?)
    }

    /// What each token's value adds to a state per unit of attention: values `[H,T,E]` through the heads' parts of the
    /// output projection and the layer scale, `[T,H,D]`. The projection's bias is not in it.
    pub fn contributions(&self, value: &Tensor) -> Result<Tensor> {
        self.scaled_like(self.attention.op.contributions(value)?)
    }

    /// What values of all heads together, `[T,D]`, are worth behind the output projection and the layer scale, `[T,D]`;
    /// the projection's bias is not in it.
    pub fn sent(&self, values: &Tensor) -> Result<Tensor> {
        let weight = self.attention.op.projection.weight.to_dtype(values.dtype())?;
        self.scaled_like(values.matmul(&weight.t()?)?)
    }

    fn scaled_like(&self, sent: Tensor) -> Result<Tensor> {
        match &self.attention.scale {
            Some(scale) => Ok(sent.broadcast_mul(&scale.to_dtype(sent.dtype())?)?),
            None => Ok(sent),
        }
    }

    /// The norm through which the state after attention's skip connection goes on; none: it goes on as it is.
    pub fn norm_behind_attention(&self) -> Option<&Norm> {
        self.attention.behind(self.wiring)
    }

    /// The norm that reads the state after attention's skip connection, on its way on or into the feed-forward.
    pub fn norm_after_attention(&self) -> Option<&Norm> {
        self.norm_behind_attention().or(self.feed_forward.in_front(self.wiring))
    }

    /// The norm through which the layer's output goes; none: it leaves as it is.
    pub fn norm_behind_feed_forward(&self) -> Option<&Norm> {
        self.feed_forward.behind(self.wiring)
    }

    /// H
    pub fn heads(&self) -> usize {
        self.attention.op.heads
    }

    /// D
    pub fn width(&self) -> usize {
        self.attention.op.projection.weight.dims()[0]
    }

    /// Numbers a token's feed-forward holds before its activation: F, gated 2F.
    pub fn hidden_width(&self) -> usize {
        self.feed_forward.op.into.weight.dims()[0]
    }

    /// Reverses the layer down to its attention: from what arrives at its output `[B,T,D]`, which is 0 but in `rows`.
    pub(super) fn backward_to_attention(
        &self,
        t: &LayerTrace,
        output: &Tensor,
        rules: &Rules,
        rows: Option<&Range<usize>>,
    ) -> Result<Upper> {
        let tokens = t.input.dim(1)?;
        match rows.or(t.rows.as_ref()) {
            // Tokens do not meet from the output down to the attention: what is 0 stays so.
            Some(rows) if rows.len() < tokens => {
                let output = output.narrow(1, rows.start, rows.len())?.contiguous()?;
                self.upper(&t.only(rows)?, &output, rules)?.among(rows, tokens)
            }
            _ => self.upper(t, output, rules),
        }
    }

    fn upper(&self, t: &LayerTrace, output: &Tensor, rules: &Rules) -> Result<Upper> {
        let (wiring, attention, feed) = (self.wiring, &self.attention, &self.feed_forward);
        let between = || self.between(&t.mid);

        let sum = feed.reverse_to_sum(&t.sum, output, wiring, rules.norm)?;
        let (by_skip, fed, by_result) = feed.reverse_to_parts(between, || self.fed(t), &sum, rules)?;
        let read = || feed.read(&between()?, wiring);
        let (hidden, by_read) = feed.op.reverse(read, &t.hidden, &by_result, rules)?;
        let by_state = feed.reverse_to_state(between, (&by_skip, &by_read), wiring, rules)?;
        let mid = attention.reverse_to_sum(&t.mid, &by_state, wiring, rules.norm)?;
        let normed = if feed.in_front(wiring).is_some() { by_read } else { by_state };

        let input = || Ok(t.input.clone());
        let (by_input, mixed, by_result) = attention.reverse_to_parts(input, || self.mixed(t), &mid, rules)?;
        let kept = (&t.attention, &t.value);
        let AttendedGrads { context, attention, value } = attention.op.reverse_to_attention(kept, &by_result, rules)?;
        let passed = Some(Passed { sum, fed, hidden, normed, mid, mixed });
        Ok(Upper { by_input, context, attention, value, passed })
    }

    /// Reverses the layer: from what arrives at its output `[B,T,D]` to what reaches everything inside it.
    pub fn backward(&self, t: &LayerTrace, output: &Tensor, rules: &Rules) -> Result<LayerGrads> {
        let upper = self.backward_to_attention(t, output, rules, None)?;
        self.backward_from_attention(t, upper, output, rules)
    }

    /// The rest of [`Block::backward`], from what reached the layer's attention.
    pub(super) fn backward_from_attention(
        &self,
        t: &LayerTrace,
        upper: Upper,
        output: &Tensor,
        rules: &Rules,
    ) -> Result<LayerGrads> {
        let Upper { by_input, context, attention, value, passed } = upper;
        let op = &self.attention.op;
        let queries = op.reverse_to_queries((&t.query, &t.key, &t.attention), &attention, &t.around, rules)?;
        let (query, key) = queries.unzip();
        // Relevance of the three projections is summed, as if they were one matrix; behind no norm the input is used by
        // each.
        let carried = match self.attention.in_front(self.wiring) {
            Some(_) => Carried::Gradient,
            None => rules.carried,
        };
        let read =
            op.reverse_to_read(|| self.read(&t.input), (query.as_ref(), key.as_ref(), &value), carried, rules)?;
        let state = || Ok(t.input.clone());
        let input = self.attention.reverse_to_state(state, (&by_input, &read), self.wiring, rules)?;
        let inside = passed.map(|Passed { sum, fed, hidden, normed, mid, mixed }| {
            let output = output.clone();
            Box::new(Inside { query, key, value, context, mixed, mid, normed, hidden, fed, sum, output })
        });
        Ok(LayerGrads { input, read, attention, inside })
    }
}

impl LayerTrace {
    /// What a layer did with some tokens, behind the products in which all meet.
    fn only(&self, rows: &Range<usize>) -> Result<Self> {
        let narrow = |x: &Tensor, dim: usize| x.narrow(dim, rows.start, rows.len())?.contiguous();
        // Fields that may hold few tokens already.
        let first = self.rows.as_ref().map_or(0, |own| own.start);
        let behind = |x: &Tensor| x.narrow(1, rows.start - first, rows.len())?.contiguous();
        Ok(LayerTrace {
            around: self.around.clone(),
            input: narrow(&self.input, 1)?,
            query: self.query.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            attention: narrow(&self.attention, 2)?,
            rows: Some(rows.clone()),
            mid: behind(&self.mid)?,
            hidden: behind(&self.hidden)?,
            sum: behind(&self.sum)?,
            output: behind(&self.output)?,
        })
    }
}

impl Upper {
    /// What reached some tokens, among `tokens` of which nothing reached the others.
    fn among(self, rows: &Range<usize>, tokens: usize) -> Result<Self> {
        let place = |x: &Tensor, dim: usize| x.pad_with_zeros(dim, rows.start, tokens - rows.end);
        let passed = |p: Passed| -> Result<Passed> {
            Ok(Passed {
                sum: place(&p.sum, 1)?,
                fed: place(&p.fed, 1)?,
                hidden: place(&p.hidden, 1)?,
                normed: place(&p.normed, 1)?,
                mid: place(&p.mid, 1)?,
                mixed: place(&p.mixed, 1)?,
            })
        };
        Ok(Upper {
            by_input: place(&self.by_input, 1)?,
            context: place(&self.context, 2)?,
            attention: place(&self.attention, 2)?,
            value: self.value,
            passed: self.passed.map(passed).transpose()?,
        })
    }

    /// Without what [`LayerGrads::inside`] alone holds.
    pub(super) fn bare(self) -> Self {
        Upper { passed: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::Gate;
    use crate::nn::{check, Activation, Centre, Linear, Places, Reach, Rotary, Scores};
    use candle_core::{DType, Device};

    /// A small random f64 block: width 8, 2 heads, feed-forward width 6.
    fn block(wiring: Wiring, gate: Gate, scale: bool, scores: Scores) -> Block {
        let mut seed = 0;
        let mut tensor = |shape: &[usize]| {
            seed += 1;
            check::random(shape, seed)
        };
        let mut linear =
            |out: usize, input: usize| Linear { weight: tensor(&[out, input]), bias: Some(tensor(&[out])) };
        let (query, key, value, projection) = (linear(8, 8), linear(8, 8), linear(8, 8), linear(8, 8));
        let into = linear(if gate == Gate::None { 6 } else { 12 }, 8);
        let feed_forward = FeedForward { into, activation: Activation::Gelu, gate, out: linear(8, 6) };
        let attention = Attention { heads: 2, query, key, value, projection, scores, reach: Reach::Within(1) };
        let mut norm = || Norm { weight: tensor(&[8]), bias: Some(tensor(&[8])), eps: 1e-6, centre: Centre::Mean };
        let (first, second) = (norm(), norm());
        let mut scales = || scale.then(|| tensor(&[8]));
        Block {
            attention: Branch { norm: Some(first), op: attention, scale: scales() },
            feed_forward: Branch { norm: Some(second), op: feed_forward, scale: scales() },
            wiring,
        }
    }

    #[test]
    fn backward_equals_finite_differences() -> Result<()> {
        let (x, g) = (check::random(&[2, 3, 8], 91), check::random(&[2, 3, 8], 92));
        let around = Around::new(Places::Line, None, (3, DType::F64, &Device::Cpu), [Reach::Within(1)])?;
        let around = Arc::new(around);
        let rotary = Scores::Rotary(Rotary { theta: 10.0 });
        for wiring in [Wiring::Pre, Wiring::Post] {
            let kinds = [
                (Gate::None, false, Scores::Dot, true),
                (Gate::First, false, Scores::Dot, true),
                (Gate::None, true, rotary.clone(), true),
                (Gate::First, true, rotary.clone(), false),
            ];
            for (gate, scale, scores, norm) in kinds {
                let mut block = block(wiring, gate, scale, scores);
                if !norm {
                    block.attention.norm = None;
                }
                let trace = block.forward(&x, &around)?;
                let grads = block.backward(&trace, &g, &Rules::GRADIENT)?;
                check::finite_differences(&x, &g, |x| Ok(block.forward(x, &around)?.output), &grads.input);
            }
        }
        Ok(())
    }
}
