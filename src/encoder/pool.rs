//! What of the last state a classifier reads: a token, a mean, or what a learned query reads of all.

use super::probe::{Probe, ProbeGrads};
use crate::error::{Error, Result};
use crate::nn::relevance::quotient;
use crate::nn::rules::Carried;
use crate::nn::{Around, Places, Rules};
use candle_core::{DType, Device, Tensor, D};
use std::sync::Arc;

/// What of the last state is read.
#[derive(Debug, Clone)]
pub enum Pool {
    /// One token.
    Token(usize),
    /// The last real token.
    Last,
    /// The mean of the real tokens from this one on.
    Mean {
        /// The first that takes part.
        from: usize,
    },
    /// Of each number of a state the greatest of all real tokens (sentence encoders).
    Max,
    /// What a learned query reads of all.
    Probe(Box<Probe>),
    /// Several, one behind the other in one long vector.
    Beside(Vec<Pool>),
}

impl Pool {
    /// The pooled state `[B,P]` of the last state `[B,T,D]`, already normed where the family does so.
    pub(super) fn forward(&self, states: &Tensor, around: &Around) -> Result<Tensor> {
        match self {
            Pool::Token(number) => Ok(states.narrow(1, *number, 1)?.squeeze(1)?.contiguous()?),
            Pool::Probe(probe) => probe.forward(states, around),
            Pool::Last => {
                let last = self.readout(states, around)?; // [B,T]
                Ok(states.broadcast_mul(&last.unsqueeze(2)?)?.sum(1)?)
            }
            Pool::Mean { from } => Ok(self.mean_keepdim(states, *from, around)?.squeeze(1)?),
            Pool::Max => Ok(real_alone(states, around)?.max(1)?),
            Pool::Beside(parts) => {
                let parts = parts.iter().map(|p| p.forward(states, around)).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::cat(&parts, D::Minus1)?)
            }
        }
    }

    /// `[B,1,D]`
    fn mean_keepdim(&self, states: &Tensor, from: usize, around: &Around) -> Result<Tensor> {
        let own = states.narrow(1, from, states.dim(1)? - from)?;
        let Some(real) = &around.real else { return Ok(own.mean_keepdim(1)?) };
        let real = real.narrow(1, from, own.dim(1)?)?.unsqueeze(2)?; // [B,N,1]
        Ok(own.broadcast_mul(&real)?.sum_keepdim(1)?.broadcast_mul(&real.sum_keepdim(1)?.recip()?)?)
    }

    /// Number of states it reads, P / D.
    fn width(&self) -> usize {
        match self {
            Pool::Token(_) | Pool::Last | Pool::Mean { .. } | Pool::Max | Pool::Probe(_) => 1,
            Pool::Beside(parts) => parts.iter().map(Pool::width).sum(),
        }
    }

    /// Reverse: `[B,P]` -> `[B,T,D]`; `states` are what was pooled. With the relevance of constants within it, `[B]`.
    pub(super) fn reverse(
        &self,
        states: &Tensor,
        arriving: &Tensor,
        around: &Around,
        rules: &Rules,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let ((_, tokens, _), (_, p)) = (states.dims3()?, arriving.dims2()?);
        Ok(match self {
            Pool::Token(number) => (arriving.unsqueeze(1)?.pad_with_zeros(1, *number, tokens - number - 1)?, None),
            Pool::Probe(probe) => {
                let ProbeGrads { states, constants } = probe.reverse(states, arriving, around, rules)?;
                (states, Some(constants))
            }
            Pool::Last => {
                let last = self.readout(states, around)?;
                (arriving.unsqueeze(1)?.broadcast_mul(&last.unsqueeze(2)?)?, None)
            }
            // Of a number that several tokens have, each gets its part.
            Pool::Max => (arriving.unsqueeze(1)?.broadcast_mul(&greatest(states, around)?)?, None),
            Pool::Mean { from } => {
                let weights = self.readout(states, around)?.narrow(1, *from, tokens - from)?;
                let share = arriving.unsqueeze(1)?.broadcast_mul(&weights.unsqueeze(2)?)?; // [B,N,D]
                let each = match rules.carried {
                    Carried::Gradient => share,
                    Carried::Relevance => {
                        let mean = self.mean_keepdim(states, *from, around)?;
                        (states.narrow(1, *from, tokens - from)? * quotient(&share, &mean)?)?
                    }
                };
                (each.pad_with_zeros(1, *from, 0)?, None)
            }
            Pool::Beside(parts) => {
                let d = p / self.width().max(1);
                let mut sum: Option<(Tensor, Option<Tensor>)> = None;
                let mut at = 0;
                for part in parts {
                    let own = arriving.narrow(1, at * d, part.width() * d)?.contiguous()?;
                    at += part.width();
                    let (own, constants) = part.reverse(states, &own, around, rules)?;
                    sum = Some(match sum {
                        Some((sum, known)) => ((sum + own)?, known.or(constants)),
                        None => (own, constants),
                    });
                }
                sum.ok_or_else(|| Error::Model("a head that reads nothing".into()))?
            }
        })
    }

    /// How much of each of `tokens` real tokens of one example the head reads, where that is no single token's row, `[1,T]` in f64;
    /// `states` `[1,T,D]` are what it reads.
    pub fn shares(&self, tokens: usize, states: &dyn Fn() -> Result<(Tensor, Arc<Around>)>) -> Result<Option<Tensor>> {
        match self {
            Pool::Token(_) => Ok(None),
            Pool::Last | Pool::Mean { .. } => {
                let alone = Around::new(Places::Line, None, (tokens, DType::F64, &Device::Cpu), [])?;
                Ok(Some(self.readout(&Tensor::zeros((1, tokens, 1), DType::F64, &Device::Cpu)?, &alone)?))
            }
            Pool::Max => {
                let (states, around) = states()?;
                Ok(Some(self.readout(&states, &around)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?))
            }
            Pool::Probe(probe) => {
                let (states, around) = states()?;
                Ok(Some(probe.shares(&states, &around)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?))
            }
            Pool::Beside(parts) => parts.first().map_or(Ok(None), |first| first.shares(tokens, states)),
        }
    }

    /// How much of each token of the states `[B,T,D]` the head reads, `[B,T]`: one-hot, 1/N of the real tokens, a query's
    /// attention, or the share of numbers of which it has the greatest. Of several beside each other the first counts: where a class token stands beside the patches' mean, its
    /// row is the readout.
    pub fn readout(&self, states: &Tensor, around: &Around) -> Result<Tensor> {
        let (b, tokens, _) = states.dims3()?;
        let row = |weight: &dyn Fn(usize) -> f64| -> Result<Tensor> {
            let row: Vec<f64> = (0..tokens).map(weight).collect();
            let row = Tensor::from_vec(row, (1, tokens), &candle_core::Device::Cpu)?;
            Ok(row.to_dtype(states.dtype())?.to_device(states.device())?.broadcast_as((b, tokens))?.contiguous()?)
        };
        match self {
            Pool::Token(number) => row(&|t| if t == *number { 1.0 } else { 0.0 }),
            Pool::Probe(probe) => probe.shares(states, around),
            Pool::Max => Ok(greatest(states, around)?.mean(D::Minus1)?),
            Pool::Last => match &around.real {
                None => row(&|t| if t + 1 == tokens { 1.0 } else { 0.0 }),
                // Real tokens are counted up to each; the one that reaches their number is the last.
                Some(real) => {
                    let real = real.to_dtype(states.dtype())?;
                    let reached = real.cumsum(1)?.broadcast_eq(&real.sum_keepdim(1)?)?.to_dtype(states.dtype())?;
                    Ok((reached * real)?)
                }
            },
            Pool::Mean { from } => match &around.real {
                None => row(&|t| if t < *from { 0.0 } else { 1.0 / (tokens - from) as f64 }),
                Some(real) => {
                    let taking_part =
                        (row(&|t| if t < *from { 0.0 } else { 1.0 })? * real.to_dtype(states.dtype())?)?;
                    Ok(taking_part.broadcast_div(&taking_part.sum_keepdim(1)?)?)
                }
            },
            Pool::Beside(parts) => match parts.first() {
                Some(first) => first.readout(states, around),
                None => Err(Error::Model("a head that reads nothing".into())),
            },
        }
    }
}

/// States whose padded tokens are less than any real one.
fn real_alone(states: &Tensor, around: &Around) -> Result<Tensor> {
    let Some(real) = &around.real else { return Ok(states.clone()) };
    let real = real.to_dtype(states.dtype())?.unsqueeze(2)?; // [B,T,1]
    let below = (states.min_keepdim(1)? - 1.0)?; // [B,1,D]
    Ok((states.broadcast_mul(&real)? + below.broadcast_mul(&real.affine(-1.0, 1.0)?)?)?)
}

/// 1 where a token has the greatest number of all real ones, divided among those that have it, `[B,T,D]`.
fn greatest(states: &Tensor, around: &Around) -> Result<Tensor> {
    let own = real_alone(states, around)?;
    let reached = own.broadcast_eq(&own.max_keepdim(1)?)?.to_dtype(states.dtype())?;
    Ok(reached.broadcast_div(&reached.sum_keepdim(1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_head_reads_sums_to_one() -> Result<()> {
        let unread = || -> Result<(Tensor, Arc<Around>)> { panic!("the states are not asked for") };
        let shares = |pool: Pool| pool.shares(3, &unread).map(|found| found.map(|s| s.to_vec2::<f64>().unwrap()));
        assert_eq!(shares(Pool::Token(0))?, None);
        assert_eq!(shares(Pool::Beside(vec![Pool::Token(0), Pool::Mean { from: 1 }]))?, None);
        assert_eq!(shares(Pool::Last)?, Some(vec![vec![0.0, 0.0, 1.0]]));
        assert_eq!(shares(Pool::Mean { from: 1 })?, Some(vec![vec![0.0, 0.5, 0.5]]));
        Ok(())
    }

    #[test]
    fn the_greatest_of_each_number_is_pooled_of_real_tokens_alone() -> Result<()> {
        let states = Tensor::new(
            &[[[1.0f64, 5.0], [3.0, 2.0], [9.0, 9.0]], [[1.0, 4.0], [1.0, 2.0], [0.0, 6.0]]],
            &Device::Cpu,
        )?;
        let mask = Tensor::new(&[[1u8, 1, 0], [1, 1, 1]], &Device::Cpu)?;
        let around = Around::new(Places::Line, Some(&mask), (3, DType::F64, &Device::Cpu), [])?;
        assert_eq!(Pool::Max.forward(&states, &around)?.to_vec2::<f64>()?, [[3.0, 5.0], [1.0, 6.0]]);
        // Two tokens have the 1 of the second text.
        let read = Pool::Max.readout(&states, &around)?.to_vec2::<f64>()?;
        assert_eq!(read, [[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]);
        Ok(())
    }
}
