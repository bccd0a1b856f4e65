//! From the last state to logits: what is pooled, an optional dense layer, one or two classifiers.

use crate::error::Result;
use crate::nn::{Activation, LayerNorm, Linear, Rules};
use candle_core::{Tensor, D};

/// What the classifier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    First,
    /// The first token for the first classifier, the second (distillation) token for the second.
    FirstAndSecond,
    /// The first token beside the mean of the patch tokens (DINOv2).
    ClassAndPatchMean,
}

/// The classification head.
#[derive(Debug, Clone)]
pub struct Head {
    /// What is read.
    pub pooling: Pooling,
    /// Tokens before the first patch, needed by the patch mean.
    pub prefix: usize,
    /// A dense layer with activation before the classifier (BERT's pooler and its kin).
    pub dense: Option<(Linear, Activation)>,
    /// One classifier, or two whose logits are averaged (DeiT).
    pub classifiers: Vec<Linear>,
}

impl Head {
    /// Pooled state `[B,P]` from the last state `[B,T,D]`, already layer-normed where the family does so.
    pub(super) fn pool(&self, states: &Tensor) -> Result<Tensor> {
        let token = |i: usize| states.narrow(1, i, 1)?.squeeze(1)?.contiguous();
        Ok(match self.pooling {
            Pooling::First => token(0)?,
            Pooling::FirstAndSecond => Tensor::cat(&[token(0)?, token(1)?], D::Minus1)?,
            Pooling::ClassAndPatchMean => {
                let patches = states.dim(1)? - self.prefix;
                let mean = states.narrow(1, self.prefix, patches)?.mean(1)?;
                Tensor::cat(&[token(0)?, mean], D::Minus1)?
            }
        })
    }

    /// Logits `[B,C]` from the pooled state `[B,P]`.
    pub(super) fn classify(&self, pooled: &Tensor) -> Result<Tensor> {
        if let Pooling::FirstAndSecond = self.pooling {
            let width = pooled.dim(1)? / 2;
            let logits = |i: usize| self.classifiers[i].forward(&pooled.narrow(1, i * width, width)?.contiguous()?);
            return Ok(((logits(0)? + logits(1)?)? * 0.5)?);
        }
        match &self.dense {
            Some((dense, activation)) => self.classifiers[0].forward(&activation.forward(&dense.forward(pooled)?)?),
            None => self.classifiers[0].forward(pooled),
        }
    }

    /// Reverse of [`Head::classify`]: [B,C] -> [B,P]
    pub(super) fn classify_vjp(&self, pooled: &Tensor, grad: &Tensor, rules: &Rules) -> Result<Tensor> {
        if let Pooling::FirstAndSecond = self.pooling {
            let half = (grad * 0.5)?;
            let parts = [self.classifiers[0].vjp(&half)?, self.classifiers[1].vjp(&half)?];
            return Ok(Tensor::cat(&parts, D::Minus1)?);
        }
        let grad = self.classifiers[0].vjp(grad)?;
        match &self.dense {
            Some((dense, activation)) => {
                dense.vjp(&activation.vjp(&dense.forward(pooled)?, &grad, rules.activation)?)
            }
            None => Ok(grad),
        }
    }

    /// Reverse of [`Head::pool`]: [B,P] -> [B,T,D]
    pub(super) fn pool_vjp(&self, grad: &Tensor, tokens: usize) -> Result<Tensor> {
        let (b, p) = grad.dims2()?;
        let zeros = |n: usize, d: usize| Tensor::zeros((b, n, d), grad.dtype(), grad.device());
        if let Pooling::First = self.pooling {
            return Ok(Tensor::cat(&[grad.unsqueeze(1)?, zeros(tokens - 1, p)?], 1)?);
        }
        let d = p / 2;
        let (first, second) = (grad.narrow(1, 0, d)?.unsqueeze(1)?, grad.narrow(1, d, d)?.unsqueeze(1)?);
        Ok(if let Pooling::FirstAndSecond = self.pooling {
            Tensor::cat(&[first, second, zeros(tokens - 2, d)?], 1)?
        } else {
            let patches = tokens - self.prefix;
            let each = (second * (1.0 / patches as f64))?.broadcast_as((b, patches, d))?.contiguous()?;
            Tensor::cat(&[first, zeros(self.prefix - 1, d)?, each], 1)?
        })
    }

    /// Reverse of the whole head, an optional layer norm before it included: `[B,C]` -> (`[B,P]`, `[B,T,D]`)
    pub(super) fn backward(
        &self,
        norm: Option<&LayerNorm>,
        last: &Tensor,
        pooled: &Tensor,
        seed: &Tensor,
        rules: &Rules,
    ) -> Result<(Tensor, Tensor)> {
        let by_pooled = self.classify_vjp(pooled, seed, rules)?;
        let states = self.pool_vjp(&by_pooled, last.dim(1)?)?;
        let states = match norm {
            Some(norm) => norm.vjp(last, &states, rules.norm)?,
            None => states,
        };
        Ok((by_pooled, states))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn heads_equal_finite_differences() -> Result<()> {
        let linear = |out: usize, input: usize, seed| Linear { weight: check::random(&[out, input], seed), bias: None };
        let states = check::random(&[2, 6, 4], 7);
        let seed = check::random(&[2, 3], 8);
        let norm = LayerNorm { weight: check::random(&[4], 9), bias: check::random(&[4], 10), eps: 1e-6 };
        let heads = [
            Head {
                pooling: Pooling::First,
                prefix: 1,
                dense: Some((linear(5, 4, 1), Activation::Tanh)),
                classifiers: vec![linear(3, 5, 2)],
            },
            Head {
                pooling: Pooling::FirstAndSecond,
                prefix: 2,
                dense: None,
                classifiers: vec![linear(3, 4, 3), linear(3, 4, 4)],
            },
            Head { pooling: Pooling::ClassAndPatchMean, prefix: 2, dense: None, classifiers: vec![linear(3, 8, 5)] },
        ];
        for head in heads {
            for norm in [None, Some(&norm)] {
                let pool = |s: &Tensor| head.pool(&norm.map_or(Ok(s.clone()), |n| n.forward(s))?);
                let (_, grad) = head.backward(norm, &states, &pool(&states)?, &seed, &Rules::GRADIENT)?;
                check::finite_differences(&states, &seed, |s| head.classify(&pool(s)?), &grad);
            }
        }
        Ok(())
    }
}
