//! The reverse pass: the only place that walks the layers backwards.

use crate::encoder::{Encoder, Pool, ReadOut, Reading};
use crate::error::{Error, Result};
use crate::nn::rules::{Carried, NormRule};
use crate::nn::{Around, Rules};
use crate::trace::{Grads, HeadGrads, LayerGrads, LayerTrace, Trace};
use candle_core::{DType, Tensor};
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// Relevance this many times the explained value is a blow-up, not an explanation.
const BLOW_UP: f64 = 1e3;

/// Is handed each layer's number and gradients.
pub type EachLayer<'e> = &'e mut dyn FnMut(usize, LayerGrads) -> Result<()>;

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
        if trace.layers.len() != self.blocks.len() {
            return Err(Error::Usage("the reverse pass needs a trace made with Keep::Layers".into()));
        }
        let head = self.pulled_from_head((&trace.last, &trace.pooled), &trace.around, seed, rules)?;
        let start = (seed * &trace.logits)?.sum(1)?;
        let start = if rules.carried == Carried::Relevance { seed.sum(1)? } else { start }; // [B]
        let embedding = self.walk(&trace.layers, &head.last, rules, &start, each)?;
        Ok((head, embedding))
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
        self.passes.backward.fetch_add(1, Ordering::Relaxed);
        let mut state = arriving.clone();
        for (number, (block, layer)) in self.blocks.iter().zip(layers).enumerate().rev() {
            let own = block.backward(layer, &state, rules)?;
            if *rules != Rules::GRADIENT {
                bounded(&layer.input, &own.input, rules, start, number)?;
            }
            state = own.input.clone();
            each(number, own)?;
        }
        Ok(state)
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
        Ok(self.blocks[layer].backward_to_attention(record, arriving, &Rules::GRADIENT)?.attention)
    }

    /// The derivative of the seeded logits by the last layer's attention, `[B,H,T,T]`, from a trace that kept it.
    ///
    /// # Errors
    /// [`Error::Usage`] when the trace kept no layer.
    pub fn last_attention(&self, trace: &Trace, seed: &Tensor) -> Result<Tensor> {
        let record = trace.layers.last().ok_or_else(|| Error::Usage("the trace kept no layer".into()))?;
        let read = (&trace.last, &trace.pooled);
        let head = self.pulled_from_head(read, &trace.around, seed, &Rules::GRADIENT)?;
        self.local_attention(self.blocks.len() - 1, record, &head.last)
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
