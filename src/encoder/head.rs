//! From the last state to logits: what is pooled, the steps between, and one or two classifiers.

use super::pool::Pool;
use crate::error::{Error, Result};
use crate::nn::relevance::quotient;
use crate::nn::rules::Carried;
use crate::nn::{residual, Activation, Around, Linear, Norm, Rules};
use crate::scale::Scale;
use crate::trace::HeadGrads;
use candle_core::{Tensor, D};
use std::ops::Range;
use std::sync::Arc;

/// An operation between pooling and classifier.
#[derive(Debug, Clone)]
pub enum Step {
    /// A linear map.
    Linear(Linear),
    /// A pointwise nonlinearity.
    Activation(Activation),
    /// A norm.
    Norm(Norm),
    /// The vector made one of length 1.
    Unit,
    /// The length of the vector, `[B,P]` -> `[B,1]`.
    Length,
}

/// One classifier with what it reads.
#[derive(Debug, Clone)]
pub struct Reading {
    /// What it reads.
    pub pool: Pool,
    /// What is done before.
    pub steps: Vec<Step>,
    /// `[C,P]`
    pub classifier: Linear,
}

/// The classification head: one reading, or two whose logits are averaged (DeiT).
#[derive(Debug, Clone)]
pub struct Head {
    /// One or two.
    pub readings: Vec<Reading>,
    /// What the logits are.
    pub scale: Scale,
}

impl Step {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Step::Linear(linear) => linear.forward(x),
            Step::Activation(activation) => activation.forward(x),
            Step::Norm(norm) => norm.forward(x),
            Step::Unit => Norm::unit(x, 0.0)?.forward(x),
            Step::Length => Ok(x.sqr()?.sum_keepdim(1)?.sqrt()?),
        }
    }

    fn reverse(&self, x: &Tensor, arriving: &Tensor, rules: &Rules) -> Result<Tensor> {
        match self {
            Step::Linear(linear) => linear.reverse(|| Ok(x.clone()), arriving, rules.classifier),
            Step::Activation(activation) => activation.reverse(x, arriving, rules.activation),
            Step::Norm(norm) => norm.reverse(x, arriving, rules.norm),
            Step::Unit => Norm::unit(x, 0.0)?.reverse(x, arriving, rules.norm),
            // `|x| = sum_i x_i (x_i / |x|)`: the derivative, and of relevance the part of each term.
            Step::Length => {
                let direction = quotient(x, &self.forward(x)?)?;
                match rules.carried {
                    Carried::Gradient => Ok(direction.broadcast_mul(arriving)?),
                    Carried::Relevance => Ok(direction.sqr()?.broadcast_mul(arriving)?),
                }
            }
        }
    }
}

impl Reading {
    /// The states between: the pooled one `[B,P]`, and what leaves each step.
    fn states(&self, pooled: &Tensor) -> Result<Vec<Tensor>> {
        let mut states = vec![pooled.clone()];
        for step in &self.steps {
            let next = step.forward(states.last().unwrap_or(pooled))?;
            states.push(next);
        }
        Ok(states)
    }

    fn classify(&self, pooled: &Tensor) -> Result<Tensor> {
        let state = self.steps.iter().try_fold(pooled.clone(), |state, step| step.forward(&state))?;
        self.classifier.forward(&state)
    }

    /// From the seed `[B,C]` to what leaves each step, and the pooled state `[B,P]`.
    fn reverse(&self, pooled: &Tensor, seed: &Tensor, rules: &Rules) -> Result<(Vec<Tensor>, Tensor)> {
        let states = self.states(pooled)?;
        let read = || Ok(states.last().unwrap_or(pooled).clone());
        let mut arriving = self.classifier.reverse(read, seed, rules.classifier)?;
        let mut by_steps = Vec::with_capacity(self.steps.len());
        for (step, x) in self.steps.iter().zip(&states).rev() {
            by_steps.push(arriving.clone());
            arriving = step.reverse(x, &arriving, rules)?;
        }
        by_steps.reverse();
        Ok((by_steps, arriving))
    }
}

impl Head {
    /// Pooled state `[B,P]` of all readings, from the last state `[B,T,D]`, already normed where the family does so.
    pub(super) fn pool(&self, states: &Tensor, around: &Around) -> Result<Tensor> {
        match &self.readings[..] {
            [one] => one.pool.forward(states, around),
            all => {
                let all = all.iter().map(|r| r.pool.forward(states, around)).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::cat(&all, D::Minus1)?)
            }
        }
    }

    /// Logits `[B,C]` from the pooled state `[B,P]`.
    pub(super) fn classify(&self, pooled: &Tensor) -> Result<Tensor> {
        match &self.readings[..] {
            [one] => one.classify(pooled),
            [first, second] => {
                let (of_first, of_second) = halves(pooled)?;
                Ok(((first.classify(&of_first)? + second.classify(&of_second)?)? * 0.5)?)
            }
            other => Err(Error::Model(format!("a head of {} classifiers", other.len()))),
        }
    }

    /// What it says of each token by itself, `[T,D]` -> `[T,C]`: its first classifier, whatever that pools.
    pub fn each(&self, states: &Tensor) -> Result<Tensor> {
        match self.readings.first() {
            Some(reading) => reading.classify(states),
            None => Err(Error::Model("a head that reads nothing".into())),
        }
    }

    /// The same head reading one token.
    pub fn at(&self, token: usize) -> Self {
        let at = |reading: &Reading| Reading { pool: Pool::Token(token), ..reading.clone() };
        Head { readings: self.readings.first().map(at).into_iter().collect(), scale: self.scale }
    }

    /// The tokens from the first to the last that it reads, where it does not pool all of them.
    pub fn rows(&self) -> Option<Range<usize>> {
        let of = |reading: &Reading| match reading.pool {
            Pool::Token(number) => Some(number..number + 1),
            Pool::Last | Pool::Mean { .. } | Pool::Max | Pool::Beside(_) | Pool::Probe(_) => None,
        };
        let all = self.readings.iter().map(of).collect::<Option<Vec<_>>>()?;
        all.into_iter().reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
    }

    /// Whether its one classifier reads a single token.
    pub fn reads_one_token(&self) -> bool {
        matches!(&self.readings[..], [Reading { pool: Pool::Token(_), .. }])
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

    /// Reverse of [`Head::classify`]: `[B,C]` -> what leaves the steps of each reading, and the pooled state `[B,P]`
    fn classify_reverse(&self, pooled: &Tensor, seed: &Tensor, rules: &Rules) -> Result<(Vec<Vec<Tensor>>, Tensor)> {
        match &self.readings[..] {
            [one] => {
                let (steps, by_pooled) = one.reverse(pooled, seed, rules)?;
                Ok((vec![steps], by_pooled))
            }
            [first, second] => {
                let (of_first, of_second) = halves(pooled)?;
                let (to_first, to_second) = match rules.carried {
                    Carried::Gradient => ((seed * 0.5)?, (seed * 0.5)?),
                    Carried::Relevance => {
                        let half = |r: &Reading, x: &Tensor| -> Result<Tensor> { Ok((r.classify(x)? * 0.5)?) };
                        let rule = (rules.residual, rules.carried);
                        residual::reverse(|| half(first, &of_first), || half(second, &of_second), seed, rule)?
                    }
                };
                let (first_steps, by_first) = first.reverse(&of_first, &to_first, rules)?;
                let (second_steps, by_second) = second.reverse(&of_second, &to_second, rules)?;
                Ok((vec![first_steps, second_steps], Tensor::cat(&[by_first, by_second], D::Minus1)?))
            }
            other => Err(Error::Model(format!("a head of {} classifiers", other.len()))),
        }
    }

    /// Reverse of the whole head, an optional norm before it included, at the last state `[B,T,D]`.
    pub(super) fn backward(
        &self,
        norm: Option<&Norm>,
        (last, pooled): (&Tensor, &Tensor),
        around: &Arc<Around>,
        seed: &Tensor,
        rules: &Rules,
    ) -> Result<HeadGrads> {
        let (steps, by_pooled) = self.classify_reverse(pooled, seed, rules)?;
        let states = norm.map_or_else(|| Ok(last.clone()), |n| n.forward(last))?;
        let pools = match &self.readings[..] {
            [one] => one.pool.clone(),
            all => Pool::Beside(all.iter().map(|r| r.pool.clone()).collect()),
        };
        let (normed, constants) = pools.reverse(&states, &by_pooled, around, rules)?;
        let read = self.readings.iter().map(|r| r.pool.readout(&states, around)).collect::<Result<_>>()?;
        let by_last = match norm {
            Some(norm) => norm.reverse(last, &normed, rules.norm)?,
            None => normed.clone(),
        };
        Ok(HeadGrads { logits: seed.clone(), steps, pooled: by_pooled, constants, read, normed, last: by_last })
    }
}

/// What the first reading and what the second pooled, `[B,P]` -> `[B,P/2]` each.
fn halves(pooled: &Tensor) -> Result<(Tensor, Tensor)> {
    let width = pooled.dim(1)? / 2;
    Ok((pooled.narrow(1, 0, width)?.contiguous()?, pooled.narrow(1, width, width)?.contiguous()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{check, Centre, Places};
    use candle_core::{DType, Device};

    #[test]
    fn heads_equal_finite_differences() -> Result<()> {
        let linear = |out: usize, input: usize, seed| Linear { weight: check::random(&[out, input], seed), bias: None };
        let states = check::random(&[2, 6, 4], 7);
        let seed = check::random(&[2, 3], 8);
        let norm = |d: usize| Norm {
            weight: check::random(&[d], 9),
            bias: Some(check::random(&[d], 10)),
            eps: 1e-6,
            centre: Centre::Mean,
        };
        let reading = |pool, steps, classifier| Reading { pool, steps, classifier };
        let dense = vec![Step::Linear(linear(5, 4, 1)), Step::Activation(Activation::Tanh), Step::Norm(norm(5))];
        let beside = Pool::Beside(vec![Pool::Token(0), Pool::Mean { from: 2 }]);
        let heads = [
            vec![reading(Pool::Token(0), dense.clone(), linear(3, 5, 2))],
            vec![
                reading(Pool::Token(0), Vec::new(), linear(3, 4, 3)),
                reading(Pool::Token(1), Vec::new(), linear(3, 4, 4)),
            ],
            vec![reading(beside, Vec::new(), linear(3, 8, 5))],
            vec![reading(Pool::Mean { from: 0 }, dense.clone(), linear(3, 5, 6))],
            vec![reading(Pool::Last, dense.clone(), linear(3, 5, 6))],
            vec![reading(Pool::Max, dense, linear(3, 5, 7))],
            vec![reading(Pool::Token(1), vec![Step::Unit], linear(3, 4, 10))],
            vec![reading(Pool::Token(1), vec![Step::Length], linear(3, 1, 11))],
        ];
        let padded = Tensor::new(&[[1u8, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], &Device::Cpu)?;
        for mask in [None, Some(&padded)] {
            let around = Arc::new(Around::new(Places::Line, mask, (6, DType::F64, &Device::Cpu), [])?);
            for readings in heads.clone() {
                let head = Head { readings, scale: Scale::Softmax };
                for norm in [None, Some(&norm(4))] {
                    let pool = |s: &Tensor| head.pool(&norm.map_or(Ok(s.clone()), |n| n.forward(s))?, &around);
                    let read = (&states, &pool(&states)?);
                    let grads = head.backward(norm, read, &around, &seed, &Rules::GRADIENT)?;
                    check::finite_differences(&states, &seed, |s| head.classify(&pool(s)?), &grads.last);
                }
            }
        }
        Ok(())
    }
}
