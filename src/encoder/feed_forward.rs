//! The feed-forward operation of a layer: two linear maps with an activation between them, gated or not.

use crate::error::Result;
use crate::nn::rules::ActivationRule;
use crate::nn::{Activation, Linear, Rules};
use candle_core::{Tensor, D};

/// Two linear maps with an activation between.
#[derive(Debug, Clone)]
pub struct FeedForward {
    /// `[F,D]`, gated `[2F,D]`
    pub into: Linear,
    /// `hidden_act`
    pub activation: Activation,
    /// Whether a second half of the hidden state gates the first.
    pub gate: Gate,
    /// `[D,F]`
    pub out: Linear,
}

/// What is between the two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `f(u)`
    None,
    /// `f(u) * v`, u the first half of the hidden state and v the second (SwiGLU, GeGLU).
    First,
}

impl FeedForward {
    /// The state before the activation, `[B,T,F]` (gated: `[B,T,2F]`), and the result `[B,T,D]` for what is read, `[B,T,D]`.
    pub(super) fn forward(&self, read: &Tensor) -> Result<(Tensor, Tensor)> {
        match self.gate {
            Gate::None => {
                let (hidden, activated) = self.into.activated(read, self.activation)?;
                Ok((hidden, self.out.forward(&activated)?))
            }
            Gate::First => {
                let hidden = self.into.forward(read)?;
                let result = self.output(&hidden)?;
                Ok((hidden, result))
            }
        }
    }

    /// The result once more, from the state before the activation: `[B,T,F]` -> `[B,T,D]`
    pub(super) fn output(&self, hidden: &Tensor) -> Result<Tensor> {
        match self.gate {
            Gate::None => self.out.forward(&self.activation.forward(hidden)?),
            Gate::First => {
                let (first, second) = halves(hidden)?;
                self.out.forward(&(self.activation.forward(&first)? * second)?)
            }
        }
    }

    /// Reverse of the whole operation, which read `read`: what reaches its hidden state `[B,T,F]` and its input `[B,T,D]`.
    pub(super) fn reverse(
        &self,
        read: impl FnOnce() -> Result<Tensor>,
        hidden: &Tensor,
        arriving: &Tensor,
        rules: &Rules,
    ) -> Result<(Tensor, Tensor)> {
        let rule = rules.feed_forward;
        let by_hidden = match self.gate {
            Gate::None => {
                let by_activated = self.out.reverse(|| self.activation.forward(hidden), arriving, rule)?;
                self.activation.reverse(hidden, &by_activated, rules.activation)?
            }
            Gate::First => {
                let (first, second) = halves(hidden)?;
                let activated = self.activation.forward(&first)?;
                let by_product = self.out.reverse(|| Ok((&activated * &second)?), arriving, rule)?; // [B,T,F]
                let share = if rules.activation == ActivationRule::Gradient { 1.0 } else { 0.5 };
                let by_activated = ((&by_product * &second)? * share)?;
                let by_first = self.activation.reverse(&first, &by_activated, rules.activation)?;
                let by_second = ((by_product * activated)? * share)?;
                Tensor::cat(&[by_first, by_second], D::Minus1)?
            }
        };
        let by_read = self.into.reverse(read, &by_hidden, rule)?;
        Ok((by_hidden, by_read))
    }
}

fn halves(hidden: &Tensor) -> Result<(Tensor, Tensor)> {
    let width = hidden.dim(D::Minus1)? / 2;
    let half = |from| hidden.narrow(D::Minus1, from, width).and_then(|t| t.contiguous());
    Ok((half(0)?, half(width)?))
}
