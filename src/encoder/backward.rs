//! The reverse pass: the only place that walks the layers backwards.

use crate::encoder::block::Upper;
use crate::encoder::{Block, Encoder, Pool, ReadOut, Reading};
use crate::error::{Error, Result};
use crate::nn::rules::{Carried, NormRule};
use crate::nn::{Around, Rules};
use crate::trace::{Grads, HeadGrads, LayerGrads, LayerTrace, Trace};
use candle_core::{DType, Tensor};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Relevance this many times the explained value is a blow-up, not an explanation.
const BLOW_UP: f64 = 1e3;

/// Is handed each layer's number and gradients.
pub type EachLayer<'e> = &'e mut dyn FnMut(usize, LayerGrads) -> Result<()>;

/// A reverse pass on its way down: it goes as far as it is asked.
#[derive(Debug)]
pub struct Walk {
    /// Layers that it has not gone through.
    left: usize,
    /// What arrives at the output of the last of them, `[B,T,D]`.
    arriving: Tensor,
    /// The only tokens at which something arrives.
    rows: Option<Range<usize>>,
    /// Where that layer was gone through down to its attention: its record, and what reached it.
    upper: Option<(LayerTrace, Upper)>,
    rules: Rules,
    /// Relevance it began with, `[B]`.
    start: Tensor,
    /// Whether it leaves [`LayerGrads::inside`] out.
    bare: bool,
}

impl Walk {
    /// What arrives below the layers it has gone through, `[B,T,D]`.
    pub fn arriving(&self) -> &Tensor {
        &self.arriving
    }

    /// What reaches a layer's attention.
    fn above(&self, block: &Block, layer: &LayerTrace) -> Result<Upper> {
        let upper = block.backward_to_attention(layer, &self.arriving, &self.rules, self.rows.as_ref())?;
        Ok(if self.bare { upper.bare() } else { upper })
    }

    /// The same, leaving out what of each layer [`LayerGrads::inside`] holds.
    pub fn bare(self, bare: bool) -> Self {
        Walk { bare, ..self }
    }

    /// Layers that it has not gone through.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl Encoder {
    /// Pulls `seed` `[B,C]` back through a recorded pass under `rules`, and keeps everything.
    ///
    /// # Errors
    /// As [`Encoder::backward_each`].
    pub fn backward(&self, trace: &Trace, seed: &Tensor, rules: &Rules) -> Result<Grads> {
        let mut layers = Vec::with_capacity(self.blocks.len());
        let (head, embedding) = self.backward_each(trace, seed, rules, &mut |_, own| {
            layers.push(own);
            Ok(())
        })?;
        layers.reverse();
        Ok(Grads { embedding, layers, head })
    }

    /// The same, each layer's gradients handed to `each` with the layer's number, the last layer first, and dropped unless it
    /// keeps them; with what reached the head and the first layer's input `[B,T,D]`.
    ///
    /// # Errors
    /// [`Error::Usage`] when the trace kept no layers; [`Error::Numeric`] naming the layer in which modified rules blow
    /// up: a value that is not finite, or relevance summing to 10^3 times what it started from; and those of `each`.
    pub fn backward_each(
        &self,
        trace: &Trace,
        seed: &Tensor,
        rules: &Rules,
        each: EachLayer<'_>,
    ) -> Result<(HeadGrads, Tensor)> {
        let (head, mut walk) = self.begin(trace, seed, rules)?;
        while let Some((number, own)) = self.step(trace, &mut walk)? {
            each(number, own)?;
        }
        Ok((head, walk.arriving))
    }

    /// Pulls `seed` `[B,C]` back through the head: what reached it, and a walk that has gone through no layer yet.
    ///
    /// # Errors
    /// [`Error::Usage`] when the trace kept no layers.
    pub fn begin(&self, trace: &Trace, seed: &Tensor, rules: &Rules) -> Result<(HeadGrads, Walk)> {
        let count = self.blocks.len();
        if trace.layers.len() != count && trace.again.as_ref().is_none_or(|again| again.inputs.len() != count) {
            return Err(Error::Usage(
                "the reverse pass needs a trace made with Keep::Layers, Keep::Reverse or Keep::Inputs".into(),
            ));
        }
        let around = self.around_of(&trace.around, count);
        let head = self.pulled_from_head((&trace.last, &trace.pooled), &around, seed, rules)?;
        let start = (seed * &trace.logits)?.sum(1)?;
        let start = if rules.carried == Carried::Relevance { seed.sum(1)? } else { start }; // [B]
        let walk = self.start((count, self.head.rows()), head.last.clone(), rules, start);
        Ok((head, walk))
    }

    fn start(
        &self,
        (left, rows): (usize, Option<Range<usize>>),
        arriving: Tensor,
        rules: &Rules,
        start: Tensor,
    ) -> Walk {
        self.passes.backward.fetch_add(1, Ordering::Relaxed);
        Walk { left, arriving, rows, upper: None, rules: *rules, start, bare: false }
    }

    /// Pulls what arrives at the output of the last of `layers`, the first layers of a pass, back through them, to what
    /// reaches the first layer's input `[B,T,D]`. `start` `[B]` is the relevance the pass began with.
    ///
    /// # Errors
    /// [`Error::Numeric`] and those of `each` as [`Encoder::backward_each`].
    pub fn walk(
        &self,
        layers: &[LayerTrace],
        arriving: &Tensor,
        rules: &Rules,
        start: &Tensor,
        each: EachLayer<'_>,
    ) -> Result<Tensor> {
        let mut walk = self.start((layers.len(), None), arriving.clone(), rules, start.clone());
        for (number, layer) in layers.iter().enumerate().rev() {
            let own = self.through(number, layer, &mut walk)?;
            each(number, own)?;
        }
        Ok(walk.arriving)
    }

    /// What reaches the attention of the next layer of a walk `[B,H,T,T]`, which goes no further; none below the first.
    ///
    /// # Errors
    /// Whatever the operations report.
    pub fn peek(&self, trace: &Trace, walk: &mut Walk) -> Result<Option<Tensor>> {
        if walk.upper.is_none() {
            let Some((number, block)) = self.next(walk) else { return Ok(None) };
            let Some(layer) = self.recorded(trace, number)? else { return Ok(None) };
            let upper = walk.above(block, &layer)?;
            walk.upper = Some((layer.into_owned(), upper));
        }
        Ok(walk.upper.as_ref().map(|(_, upper)| upper.attention.clone()))
    }

    /// Goes through one more layer, the last one first: its number and gradients; none below the first.
    ///
    /// # Errors
    /// [`Error::Numeric`] as [`Encoder::backward_each`].
    pub fn step(&self, trace: &Trace, walk: &mut Walk) -> Result<Option<(usize, LayerGrads)>> {
        let Some((number, _)) = self.next(walk) else { return Ok(None) };
        let layer = match &walk.upper {
            Some((layer, _)) => Cow::Owned(layer.clone()),
            None => match self.recorded(trace, number)? {
                Some(layer) => layer,
                None => return Ok(None),
            },
        };
        Ok(Some((number, self.through(number, &layer, walk)?)))
    }

    fn next(&self, walk: &Walk) -> Option<(usize, &Block)> {
        let number = walk.left.checked_sub(1)?;
        Some((number, self.blocks.get(number)?))
    }

    fn through(&self, number: usize, layer: &LayerTrace, walk: &mut Walk) -> Result<LayerGrads> {
        let block = &self.blocks[number];
        let upper = match walk.upper.take() {
            Some((_, upper)) => upper,
            None => walk.above(block, layer)?,
        };
        let rules = &walk.rules;
        let own = block.backward_from_attention(layer, upper, rules)?;
        if *rules != Rules::GRADIENT {
            bounded(&layer.input, &own.input, rules, &walk.start, number)?;
        }
        walk.arriving = own.input.clone();
        (walk.left, walk.rows) = (number, None);
        Ok(own)
    }

    /// Pulls `seed` `[B,C]` back through the head to the state it read.
    pub fn head_backward(&self, head: &ReadOut, seed: &Tensor, rules: &Rules) -> Result<HeadGrads> {
        self.pulled_from_head((&head.last, &head.pooled), &head.around, seed, rules)
    }

    fn pulled_from_head(
        &self,
        read: (&Tensor, &Tensor),
        around: &Arc<Around>,
        seed: &Tensor,
        rules: &Rules,
    ) -> Result<HeadGrads> {
        self.head.backward(self.final_norm.as_ref(), read, around, seed, rules)
    }

    /// The derivative of classifier and final norm on the mean over all tokens of a state, by that state `[B,T,D]`: the
    /// pooling of CLIP-like models, for a head of one classifier that reads a single token.
    pub fn mean_head_backward(&self, state: &Tensor, seed: &Tensor) -> Result<Tensor> {
        let mean = state.mean(1)?; // [B,D]
        let [Reading { pool: Pool::Token(_), steps, classifier }] = &self.head.readings[..] else {
            return Err(Error::Refused("a mean in place of the class token needs a head that reads one token".into()));
        };
        if !steps.is_empty() {
            return Err(Error::Refused(
                "a mean in place of the class token needs a head of one classifier alone".into(),
            ));
        }
        let by_read = classifier.vjp(seed)?;
        let by_mean = match &self.final_norm {
            Some(norm) => norm.reverse(&mean, &by_read, NormRule::Gradient)?,
            None => by_read,
        };
        let share = (by_mean * (1.0 / state.dim(1)? as f64))?.unsqueeze(1)?;
        Ok(share.broadcast_as(state.shape())?.contiguous()?)
    }

    /// Pulls what arrives at the output of one layer back through that layer alone.
    pub fn layer_backward(
        &self,
        layer: usize,
        record: &LayerTrace,
        arriving: &Tensor,
        rules: &Rules,
    ) -> Result<LayerGrads> {
        self.blocks[layer].backward(record, arriving, rules)
    }

    /// The derivative by one layer's attention, `[B,H,T,T]`, of what arrives at its output.
    pub fn local_attention(&self, layer: usize, record: &LayerTrace, arriving: &Tensor) -> Result<Tensor> {
        Ok(self.blocks[layer].backward_to_attention(record, arriving, &Rules::GRADIENT, None)?.attention)
    }

    /// The derivative of the seeded logits by the last layer's attention, `[B,H,T,T]`, from a trace that kept it.
    ///
    /// # Errors
    /// [`Error::Usage`] when the trace kept no layer.
    pub fn last_attention(&self, trace: &Trace, seed: &Tensor) -> Result<Tensor> {
        let record = trace.layers.last().ok_or_else(|| Error::Usage("the trace kept no layer".into()))?;
        let read = (&trace.last, &trace.pooled);
        let around = self.around_of(&trace.around, self.blocks.len());
        let head = self.pulled_from_head(read, &around, seed, &Rules::GRADIENT)?;
        let block = self.blocks.last().ok_or_else(|| Error::Model("the model has no layers".into()))?;
        let rows = self.head.rows();
        Ok(block.backward_to_attention(record, &head.last, &Rules::GRADIENT, rows.as_ref())?.attention)
    }
}

/// Refuses relevance that has left all bounds at the input of a layer.
fn bounded(input: &Tensor, carried: &Tensor, rules: &Rules, start: &Tensor, layer: usize) -> Result<()> {
    let relevance = match rules.carried {
        Carried::Gradient => (input * carried)?,
        Carried::Relevance => carried.clone(),
    };
    let numbers = |t: Tensor| -> Result<Vec<f64>> {
        Ok(t.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?)
    };
    let sums = numbers(
        relevance
            .to_dtype(if input.dtype() == DType::F64 { DType::F64 } else { DType::F32 })?
            .flatten_from(1)?
            .sum(1)?,
    )?;
    for (row, (sum, start)) in sums.iter().zip(numbers(start.clone())?).enumerate() {
        // A logit near zero is no yardstick: relevance of order 1 is never a blow-up.
        let allowed = if rules.bounds_relevance() { BLOW_UP * start.abs().max(1.0) } else { f64::INFINITY };
        if !sum.is_finite() || sum.abs() > allowed {
            return Err(Error::Numeric(format!(
                "the relevance of rules `{}` blows up in layer {layer}: it sums to {sum:.3e} from {start:.3e} at the start (example {row} of the batch); try --dtype f32, or rules that bound it, such as reslrp",
                rules.name
            )));
        }
    }
    Ok(())
}
