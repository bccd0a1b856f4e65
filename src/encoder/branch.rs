//! A branch of a layer: an operation beside a skip connection, with a norm in front of it, behind it, or behind the sum. Whether norms
//! stand in front or behind is decided here and nowhere else.

use crate::error::Result;
use crate::nn::relevance::join;
use crate::nn::rules::{Carried, NormRule};
use crate::nn::{residual, Norm, Rules};
use candle_core::Tensor;

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// In front of each operation (ViT): `x' = x + f(norm x)`.
    Pre,
    /// Behind each skip connection (BERT): `x' = norm(x + f(x))`.
    Post,
    /// Behind each operation (Swin v2): `x' = x + norm(f(x))`.
    ResPost,
}

/// An operation with its norm, its layer scale and its skip connection.
#[derive(Debug, Clone)]
pub struct Branch<O> {
    /// In front, behind the operation or behind the sum, as the layer's [`Wiring`] says; none where there is no norm.
    pub norm: Option<Norm>,
    /// Attention or feed-forward.
    pub op: O,
    /// `[D]` layer scale of what the operation adds (DINOv2).
    pub scale: Option<Tensor>,
}

impl<O> Branch<O> {
    /// The norm in front of the operation.
    pub fn in_front(&self, wiring: Wiring) -> Option<&Norm> {
        self.norm.as_ref().filter(|_| wiring == Wiring::Pre)
    }

    /// The norm behind the skip connection.
    pub fn behind(&self, wiring: Wiring) -> Option<&Norm> {
        self.norm.as_ref().filter(|_| wiring == Wiring::Post)
    }

    /// The norm between the operation and the skip connection.
    fn between(&self, wiring: Wiring) -> Option<&Norm> {
        self.norm.as_ref().filter(|_| wiring == Wiring::ResPost)
    }

    /// What the operation reads of a state `[B,T,D]`.
    pub(super) fn read(&self, x: &Tensor, wiring: Wiring) -> Result<Tensor> {
        self.in_front(wiring).map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
    }

    /// The state that leaves the branch, from the sum with the skip connection.
    pub(super) fn left(&self, sum: &Tensor, wiring: Wiring) -> Result<Tensor> {
        self.behind(wiring).map_or_else(|| Ok(sum.clone()), |norm| norm.forward(sum))
    }

    /// What the operation's result adds to the skip connection.
    pub(super) fn added(&self, result: Tensor, wiring: Wiring) -> Result<Tensor> {
        let normed = match self.between(wiring) {
            Some(norm) => norm.forward(&result)?,
            None => result,
        };
        self.scaled(normed)
    }

    /// Times the layer scale.
    pub(super) fn scaled(&self, x: Tensor) -> Result<Tensor> {
        match &self.scale {
            Some(scale) => Ok(x.broadcast_mul(scale)?),
            None => Ok(x),
        }
    }

    /// From what arrives at the state that left to what reaches the sum.
    pub(super) fn reverse_to_sum(&self, sum: &Tensor, left: &Tensor, wiring: Wiring, rule: NormRule) -> Result<Tensor> {
        self.behind(wiring).map_or_else(|| Ok(left.clone()), |norm| norm.reverse(sum, left, rule))
    }

    /// From the sum to the two that were added: what reaches the state through the skip connection, what the operation
    /// added, and the operation's result.
    pub(super) fn reverse_to_parts(
        &self,
        state: impl FnOnce() -> Result<Tensor>,
        result: impl Fn() -> Result<Tensor>,
        sum: &Tensor,
        wiring: Wiring,
        rules: &Rules,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let added = || self.added(result()?, wiring);
        let (by_skip, by_added) = residual::reverse(state, added, sum, (rules.residual, rules.carried))?;
        let by_normed = match rules.carried {
            Carried::Gradient => self.scaled(by_added.clone())?,
            Carried::Relevance => by_added.clone(), // a branch's scaling keeps its relevance
        };
        let by_result = match self.between(wiring) {
            Some(norm) => norm.reverse(&result()?, &by_normed, rules.norm)?,
            None => by_normed,
        };
        Ok((by_skip, by_added, by_result))
    }

    /// What reaches the state the branch was given, through the skip connection and through what the operation read.
    pub(super) fn reverse_to_state(
        &self,
        state: impl Fn() -> Result<Tensor>,
        (by_skip, by_read): (&Tensor, &Tensor),
        wiring: Wiring,
        rules: &Rules,
    ) -> Result<Tensor> {
        match self.in_front(wiring) {
            Some(norm) => {
                let through_norm = norm.reverse(&state()?, by_read, rules.norm)?;
                join(state, &[by_skip, &through_norm], rules.carried)
            }
            None => join(state, &[by_skip, by_read], rules.carried),
        }
    }
}
