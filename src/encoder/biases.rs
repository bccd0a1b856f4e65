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
use super::merging::{self, Merging};
use super::Encoder;
use crate::error::{Error, Result};
use crate::nn::{attention, Around, Linear, Norm};
use crate::trace::{Grads, HeadGrads, Inside, LayerGrads};
use candle_core::{Tensor, D};
use std::sync::Arc;

/// A constant, and what a reverse pass carried to where it is added.
type Constant<'a> = (&'a Tensor, Tensor);

impl Encoder {
    /// Relevance of the constants of each layer, and last of final norm and head: L + 1 tensors `[B,T]`. What acts on a
    /// pooled state is booked at the tokens it was pooled from, for class token and patch mean at the class token; what acts on merged
    /// tokens, to equal parts at the tokens of the first layer that they stand for.
    ///
    /// # Errors
    /// As [`Encoder::layer_constants`].
    pub fn constants(&self, grads: &Grads, first: &Arc<Around>) -> Result<Vec<Tensor>> {
        let layers = grads.layers.iter().enumerate().map(|(number, own)| self.layer_constants(number, own, first));
        layers.chain([self.head_constants(&grads.head, first)]).collect()
    }

    /// Relevance of one layer's constants, `[B,T]`; `first`: what the first layer consulted.
    ///
    /// # Errors
    /// [`Error::Usage`] where what a reverse pass carried into the layer was dropped.
    pub fn layer_constants(&self, number: usize, grads: &LayerGrads, first: &Arc<Around>) -> Result<Tensor> {
        let (Some(block), Some(inside)) = (self.blocks.get(number), &grads.inside) else {
            return Err(Error::Usage("constants are asked of a reverse pass that did not keep them".into()));
        };
        let around = self.around_of(first, number);
        let none = || -> Result<Tensor> { Ok(grads.input.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?.zeros_like()?) };
        let sum = total(block.biases(grads, inside)?)?;
        let inner = total(block.inner_biases(inside)?)?;
        let inner = match (inner, around.windows(block.attention.op.reach)) {
            (Some(inner), Some(windows)) => Some(windows.booked(&inner)?),
            (inner, _) => inner,
        };
        let merged = total(block.merging_biases(inside))?;
        let merged = merged.map(|merged| merging::spread(&merged, around.places)).transpose()?;
        let parts: Vec<Tensor> = [sum, inner, merged].into_iter().flatten().collect();
        let all = parts.into_iter().try_fold(none()?, |sum, part| Ok::<_, Error>((sum + part)?))?;
        self.spread(all, first, number)
    }

    /// Relevance of the constants of final norm and head, `[B,T]`.
    ///
    /// # Errors
    /// Tensor operations.
    pub fn head_constants(&self, grads: &HeadGrads, first: &Arc<Around>) -> Result<Tensor> {
        let head = self.head.constants(grads)?;
        let head = match self.final_norm.as_ref().and_then(|n| n.bias.as_ref()) {
            Some(shift) => (head + share(shift, &grads.normed)?)?,
            None => head,
        };
        self.spread(head, first, self.blocks.len())
    }

    /// What a layer's tokens have `[B,T]`, to equal parts at the tokens of the first layer that they stand for.
    ///
    /// # Errors
    /// Tensor operations.
    pub fn spread(&self, amounts: Tensor, first: &Arc<Around>, layer: usize) -> Result<Tensor> {
        let merges = (0..layer.min(self.blocks.len())).rev().filter(|number| self.blocks[*number].merging.is_some());
        let mut amounts = amounts;
        for number in merges {
            amounts = merging::spread(&amounts, self.around_of(first, number).places)?;
        }
        Ok(amounts)
    }
}

/// What constants have together.
fn total(constants: Vec<Constant<'_>>) -> Result<Option<Tensor>> {
    constants.into_iter().try_fold(None, |sum: Option<Tensor>, (constant, grad)| {
        let own = share(constant, &grad)?;
        Ok(Some(match sum {
            Some(sum) => (sum + own)?,
            None => own,
        }))
    })
}

/// `sum_d b_d g_d`: `[D]`, `[...,D]` -> `[...]`
fn share(constant: &Tensor, grad: &Tensor) -> Result<Tensor> {
    Ok(grad.broadcast_mul(constant)?.sum(D::Minus1)?)
}

impl Block {
    /// Every constant that the layer adds to a token's states.
    fn biases<'a>(&'a self, g: &LayerGrads, inside: &Inside) -> Result<Vec<Constant<'a>>> {
        let Block { attention, feed_forward, wiring, merging: _ } = self;
        let Branch { norm: first_norm, op: Attention { projection, .. }, scale: _ } = attention;
        let Branch { norm: second_norm, op, scale: _ } = feed_forward;
        let FeedForward { into, activation: _, gate: _, inner, out } = op;

        let (first_shift, second_shift) = match wiring {
            Wiring::Pre => (g.read.clone(), inside.normed.clone()),
            Wiring::Post => (inside.normed.clone(), inside.output.clone()),
            Wiring::ResPost => (attention.scaled(inside.mixed.clone())?, feed_forward.scaled(inside.fed.clone())?),
        };
        let [_, by_inner] = &inside.inner;
        let [by_attended, by_fed] = &inside.results;
        Ok(present([
            (shift(first_norm), Some(first_shift)),
            (shift(second_norm), Some(second_shift)),
            (projection.bias.as_ref(), Some(by_attended.clone())),
            (into.bias.as_ref(), Some(inside.hidden.clone())),
            (shift(inner), by_inner.clone()),
            (out.bias.as_ref(), Some(by_fed.clone())),
        ]))
    }

    /// Every constant within attention, where tokens may be sorted by windows.
    fn inner_biases<'a>(&'a self, inside: &Inside) -> Result<Vec<Constant<'a>>> {
        let Attention { heads: _, query, key, value, inner, projection: _, scores: _, reach: _ } = &self.attention.op;
        let merged = |grad: Option<&Tensor>| grad.map(attention::merge_heads).transpose();
        let [by_inner, _] = &inside.inner;
        Ok(present([
            (shift(inner), by_inner.clone()),
            (query.bias.as_ref(), merged(inside.query.as_ref())?),
            (key.bias.as_ref(), merged(inside.key.as_ref())?),
            (value.bias.as_ref(), merged(Some(&inside.value))?),
        ]))
    }

    /// Every constant that a merging behind the layer adds to merged tokens.
    fn merging_biases<'a>(&'a self, inside: &Inside) -> Vec<Constant<'a>> {
        let Some((Merging { norm, order: _, reduction }, by)) = self.merging.as_ref().zip(inside.merged.as_ref())
        else {
            return Vec::new();
        };
        present([(norm.bias.as_ref(), Some(by.normed.clone())), (reduction.bias.as_ref(), Some(by.reduced.clone()))])
    }
}

fn shift(norm: &Option<Norm>) -> Option<&Tensor> {
    norm.as_ref().and_then(|norm| norm.bias.as_ref())
}

/// Those that a model has, and that something reached.
fn present<const N: usize>(all: [(Option<&Tensor>, Option<Tensor>); N]) -> Vec<Constant<'_>> {
    all.into_iter().filter_map(|(constant, grad)| constant.zip(grad)).collect()
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
