//! The addition `y = a + b` of a skip connection, with the rules that divide what arrives at y among a and b.

use crate::error::Result;
use crate::nn::kernels;
use crate::nn::relevance::quotient;
use crate::nn::rules::{Carried, ResidualRule};
use candle_core::Tensor;

/// `a + b`, both of one shape.
pub fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    kernels::add(a, b)
}

/// What reaches `a` and `b` of what arrives at their sum, `[B,...]` each. Both are only asked for where the rule needs them.
pub fn reverse(
    a: impl FnOnce() -> Result<Tensor>,
    b: impl FnOnce() -> Result<Tensor>,
    arriving: &Tensor,
    (rule, carried): (ResidualRule, Carried),
) -> Result<(Tensor, Tensor)> {
    match (rule, carried) {
        (ResidualRule::Plain, Carried::Gradient) => Ok((arriving.clone(), arriving.clone())),
        (ResidualRule::Plain, Carried::Relevance) => shares(&a()?, &b()?, arriving),
        (ResidualRule::SignAligned(gamma), _) => {
            let (fa, fb) = factors(&a()?, &b()?, gamma)?;
            Ok(((arriving * fa)?, (arriving * fb)?))
        }
        (ResidualRule::Proportional, _) => {
            let (ra, rb) = shares(&a()?, &b()?, arriving)?;
            let (ta, tb) = (total(&ra)?, total(&rb)?);
            let both = (ta.abs()? + tb.abs()?)?;
            let all = total(arriving)?;
            let rescaled = |r: &Tensor, t: &Tensor| -> Result<Tensor> {
                let wanted = (quotient(&t.abs()?, &both)? * &all)?;
                Ok(r.broadcast_mul(&quotient(&wanted, t)?)?)
            };
            Ok((rescaled(&ra, &ta)?, rescaled(&rb, &tb)?))
        }
    }
}

/// `a q(R, a + b)` and `b q(R, a + b)`.
fn shares(a: &Tensor, b: &Tensor, relevance: &Tensor) -> Result<(Tensor, Tensor)> {
    let s = quotient(relevance, &(a + b)?)?;
    Ok(((a * &s)?, (b * &s)?))
}

/// The sum of each example, `[B,1,...]`.
fn total(x: &Tensor) -> Result<Tensor> {
    let sums = x.flatten_from(1)?.sum_keepdim(1)?; // [B,1]
    let ones = vec![1; x.rank() - 1];
    Ok(sums.reshape([&[x.dims()[0]], &ones[..]].concat())?)
}

/// ResLRP's factors on gradients, `y w(a) / (w(a) a + w(b) b)` and the same for b; 0 where y = 0. `w(z)` is 1 + gamma
/// where z has the sign of y, else 1.
pub fn factors(a: &Tensor, b: &Tensor, gamma: f64) -> Result<(Tensor, Tensor)> {
    let dtype = a.dtype();
    let y = (a + b)?;
    let weight = |z: &Tensor| -> Result<Tensor> { Ok(((z * &y)?.gt(0.0)?.to_dtype(dtype)?.affine(gamma, 1.0))?) };
    let (wa, wb) = (weight(a)?, weight(b)?);
    let absent = y.eq(0.0)?.to_dtype(dtype)?;
    let denominator = (((&wa * a)? + (&wb * b)?)? + &absent)?;
    let scale = (&y / denominator)?;
    // Where y underflows although a and b do not, the quotient could be anything: it is 0 by definition.
    let scale = (scale * absent.affine(-1.0, 1.0)?)?;
    Ok(((&scale * wa)?, (scale * wb)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn every_rule_conserves_relevance() -> Result<()> {
        let (a, b, g) = (check::random(&[2, 3, 4], 1), check::random(&[2, 3, 4], 2), check::random(&[2, 3, 4], 3));
        let y = (&a + &b)?;
        for gamma in [0.0, 0.25, 1.0, 10.0] {
            let rule = (ResidualRule::SignAligned(gamma), Carried::Gradient);
            let (ga, gb) = reverse(|| Ok(a.clone()), || Ok(b.clone()), &g, rule)?;
            check::close(&((&a * ga)? + (&b * gb)?)?, &(&y * &g)?, 1e-12);
        }
        let (ga, gb) =
            reverse(|| Ok(a.clone()), || Ok(b.clone()), &g, (ResidualRule::SignAligned(0.0), Carried::Gradient))?;
        check::close(&ga, &g, 1e-12);
        check::close(&gb, &g, 1e-12);
        for rule in [ResidualRule::Plain, ResidualRule::Proportional] {
            let (ra, rb) = reverse(|| Ok(a.clone()), || Ok(b.clone()), &g, (rule, Carried::Relevance))?;
            check::close(&(total(&ra)? + total(&rb)?)?, &total(&g)?, 1e-6);
        }
        Ok(())
    }

    #[test]
    fn a_sum_of_zero_sends_nothing() -> Result<()> {
        let a = check::random(&[1, 4], 1);
        let (fa, fb) = factors(&a, &a.neg()?, 1.0)?;
        check::close(&fa, &a.zeros_like()?, 0.0);
        check::close(&fb, &a.zeros_like()?, 0.0);
        Ok(())
    }
}
