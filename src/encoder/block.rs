//! One transformer layer: attention and feed-forward, each a branch beside a skip connection.

use super::attention::{AttendedGrads, Attention};
use super::branch::{Branch, Wiring};
use super::feed_forward::{FedGrads, FeedForward};
use super::merging::Merging;
use crate::error::Result;
use crate::nn::rules::Carried;
use crate::nn::{residual, Around, Norm, Rules};
use crate::trace::{Inside, LayerGrads, LayerTrace, Merged};
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
    /// What makes one of four tokens before the next layer reads them.
    pub merging: Option<Merging>,
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
    output: Tensor,
    merged: Option<Box<Merged>>,
    sum: Tensor,
    fed: Tensor,
    hidden: Tensor,
    normed: Tensor,
    mid: Tensor,
    mixed: Tensor,
    results: [Tensor; 2],
    inner: [Option<Tensor>; 2],
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
        let mixed = self.attention.added(result, self.wiring)?;
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
        self.attention.op.probabilities(&self.read(x)?, around)
    }

    /// What the next layer reads of this one's output `[B,T,D]`: the same, or merged `[B,T/4,2D]`.
    pub(super) fn passed_on(&self, output: Tensor, around: &Around) -> Result<Tensor> {
        self.merging.as_ref().map_or_else(|| Ok(output.clone()), |merging| merging.forward(&output, around.places))
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
        let fed = branch.added(result, self.wiring)?;
        let sum = residual::forward(&state, &fed)?;
        let output = branch.left(&sum, self.wiring)?;
        Ok(Finished { hidden, sum, output })
    }

    /// What attention adds to the skip connection, `[B,T,D]`, layer scale included.
    pub fn mixed(&self, t: &LayerTrace) -> Result<Tensor> {
        self.attention.added(self.attended(t)?, self.wiring)
    }

    /// The result of attention, `[B,T,D]`.
    fn attended(&self, t: &LayerTrace) -> Result<Tensor> {
        let rows = t.rows.as_ref().filter(|rows| rows.len() < t.attention.dims()[2]);
        let attention = match rows {
            Some(rows) => t.attention.narrow(2, rows.start, rows.len())?,
            None => t.attention.clone(),
        };
        self.attention.op.result(&attention, &t.value, &t.around)
    }

    /// What the feed-forward adds to the skip connection, `[B,T,D]`, layer scale included.
    pub fn fed(&self, t: &LayerTrace) -> Result<Tensor> {
        self.feed_forward.added(self.feed_forward.op.output(&t.hidden)?, self.wiring)
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

    /// Reverses the layer down to its attention: from what arrives at what it passed on `[B,T,D]`, which is 0 but in `rows`.
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

    fn upper(&self, t: &LayerTrace, arriving: &Tensor, rules: &Rules) -> Result<Upper> {
        let (wiring, attention, feed) = (self.wiring, &self.attention, &self.feed_forward);
        let between = || self.between(&t.mid);
        let merged = self.merging.as_ref().map(|own| own.reverse(&t.output, arriving, t.around.places, rules));
        let merged = merged.transpose()?.map(Box::new);
        let output = merged.as_ref().map_or(arriving, |merged| &merged.state);

        let sum = feed.reverse_to_sum(&t.sum, output, wiring, rules.norm)?;
        let result = || feed.op.output(&t.hidden);
        let (by_skip, fed, by_fed) = feed.reverse_to_parts(between, result, &sum, wiring, rules)?;
        let read = || feed.read(&between()?, wiring);
        let FedGrads { inner: second, hidden, read: by_read } = feed.op.reverse(read, &t.hidden, &by_fed, rules)?;
        let by_state = feed.reverse_to_state(between, (&by_skip, &by_read), wiring, rules)?;
        let mid = attention.reverse_to_sum(&t.mid, &by_state, wiring, rules.norm)?;
        let normed = if feed.in_front(wiring).is_some() { by_read } else { by_state };

        let input = || Ok(t.input.clone());
        let (by_input, mixed, by_mixed) =
            attention.reverse_to_parts(input, || self.attended(t), &mid, wiring, rules)?;
        let kept = (&t.attention, &t.value);
        let own = attention.op.reverse_to_attention(kept, &by_mixed, &t.around, rules)?;
        let AttendedGrads { inner: first, context, attention, value } = own;
        let (output, results, inner) = (output.clone(), [by_mixed, by_fed], [first, second]);
        let passed = Some(Passed { output, merged, sum, fed, hidden, normed, mid, mixed, results, inner });
        Ok(Upper { by_input, context, attention, value, passed })
    }

    /// Reverses the layer: from what arrives at its output `[B,T,D]` to what reaches everything inside it.
    pub fn backward(&self, t: &LayerTrace, output: &Tensor, rules: &Rules) -> Result<LayerGrads> {
        let upper = self.backward_to_attention(t, output, rules, None)?;
        self.backward_from_attention(t, upper, rules)
    }

    /// The rest of [`Block::backward`], from what reached the layer's attention.
    pub(super) fn backward_from_attention(&self, t: &LayerTrace, upper: Upper, rules: &Rules) -> Result<LayerGrads> {
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
        let parts = (query.as_ref(), key.as_ref(), &value);
        let read = op.reverse_to_read(|| self.read(&t.input), parts, carried, &t.around, rules)?;
        let state = || Ok(t.input.clone());
        let input = self.attention.reverse_to_state(state, (&by_input, &read), self.wiring, rules)?;
        let inside = passed.map(|p| {
            let Passed { output, merged, sum, fed, hidden, normed, mid, mixed, results, inner } = p;
            Box::new(Inside {
                query,
                key,
                value,
                context,
                inner,
                results,
                mixed,
                mid,
                normed,
                hidden,
                fed,
                sum,
                output,
                merged,
            })
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
            let each = |x: &Tensor| place(x, 1);
            let [first, second] = &p.inner;
            Ok(Passed {
                output: place(&p.output, 1)?,
                merged: p.merged,
                results: [place(&p.results[0], 1)?, place(&p.results[1], 1)?],
                inner: [first.as_ref().map(each).transpose()?, second.as_ref().map(each).transpose()?],
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
    use crate::encoder::{Gate, Order};
    use crate::nn::{
        check, Activation, Centre, Cosine, Linear, Offsets, Places, Reach, Relative, Rotary, Scores, Windowing,
    };
    use candle_core::{DType, Device};

    /// A small random f64 block: width 8, 2 heads, feed-forward width 6.
    fn block(wiring: Wiring, gate: Gate, scale: bool, scores: Scores, reach: Reach, inner: bool) -> Block {
        let mut seed = 0;
        let mut tensor = |shape: &[usize]| {
            seed += 1;
            check::random(shape, seed)
        };
        let mut linear =
            |out: usize, input: usize| Linear { weight: tensor(&[out, input]), bias: Some(tensor(&[out])) };
        let (query, key, value, projection) = (linear(8, 8), linear(8, 8), linear(8, 8), linear(8, 8));
        let (into, out) = (linear(if gate == Gate::None { 6 } else { 12 }, 8), linear(8, 6));
        let mut norm = |width: usize| {
            let (weight, bias) = (tensor(&[width]), Some(tensor(&[width])));
            Norm { weight, bias, eps: 1e-6, centre: Centre::Mean }
        };
        let (first, second) = (norm(8), norm(8));
        let [inside, between] = [8, 6].map(|width| inner.then(|| norm(width)));
        let feed_forward = FeedForward { into, activation: Activation::Gelu, gate, inner: between, out };
        let attention = Attention { heads: 2, query, key, value, inner: inside, projection, scores, reach };
        let mut scales = || scale.then(|| tensor(&[8]));
        Block {
            attention: Branch { norm: Some(first), op: attention, scale: scales() },
            feed_forward: Branch { norm: Some(second), op: feed_forward, scale: scales() },
            wiring,
            merging: None,
        }
    }

    #[test]
    fn backward_equals_finite_differences() -> Result<()> {
        let (x, g) = (check::random(&[2, 3, 8], 91), check::random(&[2, 3, 8], 92));
        let reach = Reach::Within(1);
        let around = Arc::new(Around::new(Places::Line, None, (3, DType::F64, &Device::Cpu), [reach])?);
        let rotary = Scores::Rotary(Rotary::line(10.0));
        for wiring in [Wiring::Pre, Wiring::Post, Wiring::ResPost] {
            let kinds = [
                (Gate::None, false, Scores::Dot, true),
                (Gate::First, false, Scores::Dot, true),
                (Gate::None, true, rotary.clone(), true),
                (Gate::First, true, rotary.clone(), false),
            ];
            for ((gate, scale, scores, norm), inner) in kinds.into_iter().flat_map(|k| [(k.clone(), false), (k, true)])
            {
                let mut block = block(wiring, gate, scale, scores, reach, inner);
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

    #[test]
    fn windows_and_merging_equal_finite_differences() -> Result<()> {
        // A grid of 4x6 in windows of 3, shifted by 1: there is padding, and windows of tokens that do not see one another.
        let (places, reach) = (
            Places::Grid { prefix: 0, rows: 4, columns: 6 },
            Reach::Windows(Windowing { side: 3, shift: 1, fixed: false }),
        );
        let around = Arc::new(Around::new(places, None, (24, DType::F64, &Device::Cpu), [reach])?);
        let table = Relative { table: check::random(&[25, 2], 3), offsets: Offsets::Window { side: 3 } };
        let cosine = Cosine { scale: check::random(&[2], 4), table: table.clone() };
        let (x, g) = (check::random(&[2, 24, 8], 91), check::random(&[2, 6, 16], 92));
        for (wiring, scores, order) in [
            (Wiring::Pre, Scores::Table(table), Order::NormFirst),
            (Wiring::ResPost, Scores::Cosine(cosine), Order::MapFirst),
        ] {
            let width = if order == Order::NormFirst { 32 } else { 16 };
            let (weight, bias) = (check::random(&[width], 5), Some(check::random(&[width], 6)));
            let norm = Norm { weight, bias, eps: 1e-6, centre: Centre::Mean };
            let reduction = Linear { weight: check::random(&[16, 32], 7), bias: None };
            let mut block = block(wiring, Gate::None, false, scores, reach, false);
            block.merging = Some(Merging { norm, order, reduction });
            let run = |x: &Tensor| block.passed_on(block.forward(x, &around)?.output, &around);
            let grads = block.backward(&block.forward(&x, &around)?, &g, &Rules::GRADIENT)?;
            check::finite_differences(&x, &g, run, &grads.input);
        }
        Ok(())
    }
}
