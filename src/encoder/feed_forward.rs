//! The feed-forward operation of a layer: two linear maps with an activation between them, gated or not.

use crate::error::Result;
use crate::nn::rules::ActivationRule;
use crate::nn::{Activation, Linear, Norm, Rules};
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
    /// Norm in front of the second map (EVA-02).
    pub inner: Option<Norm>,
    /// `[D,F]`
    pub out: Linear,
}

/// What a reverse pass carried into a feed-forward.
pub(super) struct FedGrads {
    /// By what left [`FeedForward::inner`], `[B,T,F]`.
    pub inner: Option<Tensor>,
    /// By its hidden state, `[B,T,F]` (gated: `[B,T,2F]`).
    pub hidden: Tensor,
    /// By what it read, `[B,T,D]`.
    pub read: Tensor,
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
        let (hidden, activated) = match self.gate {
            Gate::None => self.into.activated(read, self.activation)?,
            Gate::First => {
                let hidden = self.into.forward(read)?;
                let activated = self.activated(&hidden)?;
                (hidden, activated)
            }
        };
        Ok((hidden, self.out.forward(&self.normed(activated)?)?))
    }

    /// The result once more, from the state before the activation: `[B,T,F]` -> `[B,T,D]`
    pub(super) fn output(&self, hidden: &Tensor) -> Result<Tensor> {
        self.out.forward(&self.normed(self.activated(hidden)?)?)
    }

    /// Behind the activation and its gate, `[B,T,F]`.
    fn activated(&self, hidden: &Tensor) -> Result<Tensor> {
        match self.gate {
            Gate::None => self.activation.forward(hidden),
            Gate::First => {
                let (first, second) = halves(hidden)?;
                Ok((self.activation.forward(&first)? * second)?)
            }
        }
    }

    /// What the second map reads.
    fn normed(&self, activated: Tensor) -> Result<Tensor> {
        self.inner.as_ref().map_or_else(|| Ok(activated.clone()), |norm| norm.forward(&activated))
    }

    /// Reverse of the whole operation, which read `read`.
    pub(super) fn reverse(
        &self,
        read: impl FnOnce() -> Result<Tensor>,
        hidden: &Tensor,
        arriving: &Tensor,
        rules: &Rules,
    ) -> Result<FedGrads> {
        let rule = rules.feed_forward;
        let by_normed = self.out.reverse(|| self.normed(self.activated(hidden)?), arriving, rule)?; // [B,T,F]
        let (by_activated, inner) = match &self.inner {
            Some(norm) => (norm.reverse(&self.activated(hidden)?, &by_normed, rules.norm)?, Some(by_normed)),
            None => (by_normed, None),
        };
        let by_hidden = match self.gate {
            Gate::None => self.activation.reverse(hidden, &by_activated, rules.activation)?,
            Gate::First => {
                let (first, second) = halves(hidden)?;
                let activated = self.activation.forward(&first)?;
                let share = if rules.activation == ActivationRule::Gradient { 1.0 } else { 0.5 };
                let by_first = ((&by_activated * &second)? * share)?;
                let by_first = self.activation.reverse(&first, &by_first, rules.activation)?;
                let by_second = ((by_activated * activated)? * share)?;
                Tensor::cat(&[by_first, by_second], D::Minus1)?
            }
        };
        let by_read = self.into.reverse(read, &by_hidden, rule)?;
        Ok(FedGrads { inner, hidden: by_hidden, read: by_read })
    }
}

fn halves(hidden: &Tensor) -> Result<(Tensor, Tensor)> {
    let width = hidden.dim(D::Minus1)? / 2;
    let half = |from| hidden.narrow(D::Minus1, from, width).and_then(|t| t.contiguous());
    Ok((half(0)?, half(width)?))
}
