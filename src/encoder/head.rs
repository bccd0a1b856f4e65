//! From the last state to logits: what is pooled, an optional dense layer, one or two classifiers.

use crate::error::{Error, Result};
use crate::nn::relevance::quotient;
use crate::nn::rules::Carried;
use crate::nn::{residual, Activation, LayerNorm, Linear, Rules};
use crate::scale::Scale;
use crate::trace::HeadGrads;
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
    /// What the logits are.
    pub scale: Scale,
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

    /// The seed `[B,C]` that explains probabilities where `seed` explains logits: its product with their derivative,
    /// `p (s - sum(p s))` for a softmax.
    ///
    /// # Errors
    /// [`Error::Refused`] for a head that gives values.
    pub fn probability_seed(&self, logits: &Tensor, seed: &Tensor) -> Result<Tensor> {
        match self.scale {
            Scale::Softmax => {
                let p = candle_nn::ops::softmax_last_dim(&logits.contiguous()?)?;
                let weighted = (&p * seed)?;
                Ok((&weighted - p.broadcast_mul(&weighted.sum_keepdim(1)?)?)?)
            }
            Scale::Sigmoid => {
                let p = candle_nn::ops::sigmoid(logits)?;
                Ok(((&p * p.affine(-1.0, 1.0)?)? * seed)?)
            }
            Scale::Value => Err(Error::Refused("a probability is asked of a model that gives a value".into())),
        }
    }

    /// Reverse of [`Head::classify`]: `[B,C]` -> what reaches the dense layer's output, and the pooled state `[B,P]`
    fn classify_reverse(&self, pooled: &Tensor, arriving: &Tensor, rules: &Rules) -> Result<(Option<Tensor>, Tensor)> {
        let rule = rules.classifier;
        if let Pooling::FirstAndSecond = self.pooling {
            let width = pooled.dim(1)? / 2;
            let part = |i: usize| Ok(pooled.narrow(1, i * width, width)?.contiguous()?);
            let (first, second) = match rules.carried {
                Carried::Gradient => ((arriving * 0.5)?, (arriving * 0.5)?),
                Carried::Relevance => {
                    let logits = |i: usize| -> Result<Tensor> { Ok((self.classifiers[i].forward(&part(i)?)? * 0.5)?) };
                    residual::reverse(|| logits(0), &logits(1)?, arriving, (rules.residual, rules.carried))?
                }
            };
            let first = self.classifiers[0].reverse(|| part(0), &first, rule)?;
            let second = self.classifiers[1].reverse(|| part(1), &second, rule)?;
            return Ok((None, Tensor::cat(&[first, second], D::Minus1)?));
        }
        let Some((dense, activation)) = &self.dense else {
            return Ok((None, self.classifiers[0].reverse(|| Ok(pooled.clone()), arriving, rule)?));
        };
        let hidden = dense.forward(pooled)?;
        let by_activated = self.classifiers[0].reverse(|| activation.forward(&hidden), arriving, rule)?;
        let by_hidden = activation.reverse(&hidden, &by_activated, rules.activation)?;
        let by_pooled = dense.reverse(|| Ok(pooled.clone()), &by_hidden, rule)?;
        Ok((Some(by_hidden), by_pooled))
    }

    /// Reverse of [`Head::pool`]: `[B,P]` -> `[B,T,D]`; `states` are what was pooled.
    fn pool_reverse(
        &self,
        states: impl FnOnce() -> Result<Tensor>,
        arriving: &Tensor,
        tokens: usize,
        carried: Carried,
    ) -> Result<Tensor> {
        let (b, p) = arriving.dims2()?;
        let zeros = |n: usize, d: usize| Tensor::zeros((b, n, d), arriving.dtype(), arriving.device());
        if let Pooling::First = self.pooling {
            return Ok(Tensor::cat(&[arriving.unsqueeze(1)?, zeros(tokens - 1, p)?], 1)?);
        }
        let d = p / 2;
        let (first, second) = (arriving.narrow(1, 0, d)?.unsqueeze(1)?, arriving.narrow(1, d, d)?.unsqueeze(1)?);
        if let Pooling::FirstAndSecond = self.pooling {
            return Ok(Tensor::cat(&[first, second, zeros(tokens - 2, d)?], 1)?);
        }
        let patches = tokens - self.prefix;
        let share = (second * (1.0 / patches as f64))?;
        let each = match carried {
            Carried::Gradient => share.broadcast_as((b, patches, d))?.contiguous()?,
            Carried::Relevance => {
                let states = states()?.narrow(1, self.prefix, patches)?;
                states.broadcast_mul(&quotient(&share, &states.mean_keepdim(1)?)?)?
            }
        };
        Ok(Tensor::cat(&[first, zeros(self.prefix - 1, d)?, each], 1)?)
    }

    /// Reverse of the whole head, an optional layer norm before it included, at the last state `[B,T,D]`.
    pub(super) fn backward(
        &self,
        norm: Option<&LayerNorm>,
        (last, pooled): (&Tensor, &Tensor),
        seed: &Tensor,
        rules: &Rules,
    ) -> Result<HeadGrads> {
        let (dense, by_pooled) = self.classify_reverse(pooled, seed, rules)?;
        let states = || norm.map_or_else(|| Ok(last.clone()), |n| n.forward(last));
        let normed = self.pool_reverse(states, &by_pooled, last.dim(1)?, rules.carried)?;
        let by_last = match norm {
            Some(norm) => norm.reverse(last, &normed, rules.norm)?,
            None => normed.clone(),
        };
        Ok(HeadGrads { logits: seed.clone(), dense, pooled: by_pooled, normed, last: by_last })
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
                scale: Scale::Softmax,
            },
            Head {
                pooling: Pooling::FirstAndSecond,
                prefix: 2,
                dense: None,
                classifiers: vec![linear(3, 4, 3), linear(3, 4, 4)],
                scale: Scale::Softmax,
            },
            Head {
                pooling: Pooling::ClassAndPatchMean,
                prefix: 2,
                dense: None,
                classifiers: vec![linear(3, 8, 5)],
                scale: Scale::Softmax,
            },
        ];
        for head in heads {
            for norm in [None, Some(&norm)] {
                let pool = |s: &Tensor| head.pool(&norm.map_or(Ok(s.clone()), |n| n.forward(s))?);
                let grads = head.backward(norm, (&states, &pool(&states)?), &seed, &Rules::GRADIENT)?;
                check::finite_differences(&states, &seed, |s| head.classify(&pool(s)?), &grads.last);
            }
        }
        Ok(())
    }
}
