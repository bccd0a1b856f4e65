//! What a model adds on its own: the relevance of biases and norm shifts, token by token.
//!
//! Srinivas & Fleuret, NeurIPS 2019 (FullGrad). Every linear bias and norm shift b from the first layer to the head
//! contributes `sum_d b_d g_d`, g at the output of its operation. Under rules that conserve relevance, the states
//! entering any layer and the constants from there on make the logit.
//!
//! The parts of a layer and of the head are taken apart without `..`: a new field cannot be forgotten here.

use super::attention::Attention;
use super::block::Block;
use super::branch::{Branch, Wiring};
use super::feed_forward::FeedForward;
use super::head::{Head, Reading, Step};
use super::Encoder;
use crate::error::{Error, Result};
use crate::nn::{attention, Linear, Norm};
use crate::trace::{Grads, HeadGrads, Inside, LayerGrads};
use candle_core::{Tensor, D};

/// A constant, and what a reverse pass carried to where it is added.
type Constant<'a> = (&'a Tensor, Tensor);

impl Encoder {
    /// Relevance of the constants of each layer, and last of final norm and head: L + 1 tensors `[B,T]`. What acts on a
    /// pooled state is booked at the tokens it was pooled from, for class token and patch mean at the class token.
    ///
    /// # Errors
    /// As [`Encoder::layer_constants`].
    pub fn constants(&self, grads: &Grads) -> Result<Vec<Tensor>> {
        let layers = grads.layers.iter().enumerate().map(|(number, own)| self.layer_constants(number, own));
        layers.chain([self.head_constants(&grads.head)]).collect()
    }

    /// Relevance of one layer's constants, `[B,T]`.
    ///
    /// # Errors
    /// [`Error::Usage`] where what a reverse pass carried into the layer was dropped.
    pub fn layer_constants(&self, number: usize, grads: &LayerGrads) -> Result<Tensor> {
        let (Some(block), Some(inside)) = (self.blocks.get(number), &grads.inside) else {
            return Err(Error::Usage("constants are asked of a reverse pass that did not keep them".into()));
        };
        let mut sum: Option<Tensor> = None;
        for (constant, grad) in block.biases(grads, inside)? {
            let own = share(constant, &grad)?;
            sum = Some(match sum {
                Some(sum) => (sum + own)?,
                None => own,
            });
        }
        match sum {
            Some(sum) => Ok(sum),
            None => Ok(grads.input.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?.zeros_like()?),
        }
    }

    /// Relevance of the constants of final norm and head, `[B,T]`.
    pub fn head_constants(&self, grads: &HeadGrads) -> Result<Tensor> {
        let head = self.head.constants(grads)?;
        Ok(match self.final_norm.as_ref().and_then(|n| n.bias.as_ref()) {
            Some(shift) => (head + share(shift, &grads.normed)?)?,
            None => head,
        })
    }
}

/// `sum_d b_d g_d`: `[D]`, `[...,D]` -> `[...]`
fn share(constant: &Tensor, grad: &Tensor) -> Result<Tensor> {
    Ok(grad.broadcast_mul(constant)?.sum(D::Minus1)?)
}

impl Block {
    /// Every constant the layer adds.
    fn biases<'a>(&'a self, g: &LayerGrads, inside: &Inside) -> Result<Vec<Constant<'a>>> {
        let Block { attention, feed_forward, wiring } = self;
        let Branch { norm: first_norm, op, scale: first_scale } = attention;
        let Attention { heads: _, query, key, value, projection, scores: _, reach: _ } = op;
        let Branch { norm: second_norm, op, scale: second_scale } = feed_forward;
        let FeedForward { into, activation: _, gate: _, out } = op;

        let (first_shift, second_shift) = match wiring {
            Wiring::Pre => (&g.read, &inside.normed),
            Wiring::Post => (&inside.normed, &inside.output),
        };
        let scaled = |grad: &Tensor, scale: &Option<Tensor>| match scale {
            Some(scale) => grad.broadcast_mul(scale),
            None => Ok(grad.clone()),
        };
        let shift = |norm: &'a Option<Norm>| norm.as_ref().and_then(|n| n.bias.as_ref());
        let merged = |grad: Option<&Tensor>| grad.map(attention::merge_heads).transpose();
        let all = [
            (shift(first_norm), Some(first_shift.clone())),
            (shift(second_norm), Some(second_shift.clone())),
            (projection.bias.as_ref(), Some(scaled(&inside.mixed, first_scale)?)),
            (into.bias.as_ref(), Some(inside.hidden.clone())),
            (out.bias.as_ref(), Some(scaled(&inside.fed, second_scale)?)),
            (query.bias.as_ref(), merged(inside.query.as_ref())?),
            (key.bias.as_ref(), merged(inside.key.as_ref())?),
            (value.bias.as_ref(), merged(Some(&inside.value))?),
        ];
        Ok(all.into_iter().filter_map(|(constant, grad)| constant.zip(grad)).collect())
    }
}

impl Reading {
    /// Every constant it adds to the explained output.
    fn biases<'a>(&'a self, steps: &[Tensor], seed: &Tensor) -> Vec<Constant<'a>> {
        let Reading { pool: _, steps: own, classifier: Linear { weight: _, bias } } = self;
        let of_step = |step: &'a Step| match step {
            Step::Linear(linear) => linear.bias.as_ref(),
            Step::Norm(norm) => norm.bias.as_ref(),
            Step::Activation(_) | Step::Unit | Step::Length => None,
        };
        let classifier = bias.as_ref().map(|b| (b, seed.clone()));
        let steps = own.iter().zip(steps).filter_map(|(step, grad)| Some((of_step(step)?, grad.clone())));
        classifier.into_iter().chain(steps).collect()
    }
}

impl Head {
    /// `[B,T]`
    fn constants(&self, grads: &HeadGrads) -> Result<Tensor> {
        let (b, tokens, _) = grads.last.dims3()?;
        let seed = (&grads.logits * (1.0 / self.readings.len().max(1) as f64))?; // each reading's part of the mean
        let mut booked = Tensor::zeros((b, tokens), seed.dtype(), seed.device())?;
        if let (Some(constants), Some(at)) = (&grads.constants, grads.read.first()) {
            booked = (booked + at.broadcast_mul(&constants.unsqueeze(1)?)?)?;
        }
        for ((reading, steps), at) in self.readings.iter().zip(&grads.steps).zip(&grads.read) {
            for (constant, grad) in reading.biases(steps, &seed) {
                booked = (booked + at.broadcast_mul(&share(constant, &grad)?.unsqueeze(1)?)?)?;
            }
        }
        Ok(booked)
    }
}
