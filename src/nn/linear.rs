//! `y = x W^T + b`, weights stored `[out, in]` as in PyTorch.

use crate::error::Result;
use crate::nn::relevance::quotient;
use crate::nn::rules::LinearRule;
use crate::nn::{kernels, Activation};
use candle_core::Tensor;

/// Added to the gamma rule's denominator, with its sign.
const STABILISER: f64 = 1e-6;

/// A linear map with optional bias.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `[..., in]` -> `[..., out]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        kernels::matmul(x, &self.weight.t()?, self.bias.as_ref())
    }

    /// The same before and behind an activation, `[..., out]` each.
    pub fn activated(&self, x: &Tensor, f: Activation) -> Result<(Tensor, Tensor)> {
        kernels::matmul_activated(x, &self.weight.t()?, self.bias.as_ref(), f)
    }

    /// Derivative with respect to the input: `[..., out]` -> `[..., in]`
    pub fn vjp(&self, grad: &Tensor) -> Result<Tensor> {
        times(grad, &self.weight)
    }

    /// Reverse pass under a rule: from what arrives at the output, `[..., out]`, to what reaches the input `x`,
    /// `[..., in]`. `x` is only asked for where the rule needs it.
    pub fn reverse(&self, x: impl FnOnce() -> Result<Tensor>, arriving: &Tensor, rule: LinearRule) -> Result<Tensor> {
        match rule {
            LinearRule::Gradient => self.vjp(arriving),
            LinearRule::Gamma(gamma) => self.gamma(&x()?, arriving, gamma),
            LinearRule::ZPlus => self.z_plus(&x()?, arriving, false),
            LinearRule::ZPlusSplit => self.z_plus(&x()?, arriving, true),
        }
    }

    /// z+ on relevance, bias ignored: with `Z = x+ W+^T + x- W-^T` and `S = q(R, Z)`, `R_x = x+ (S W+) + x- (S W-)`.
    /// `split`: one Z and S for each of the two parts.
    fn z_plus(&self, x: &Tensor, relevance: &Tensor, split: bool) -> Result<Tensor> {
        let (xp, wp) = (x.relu()?, self.weight.relu()?);
        let (xn, wn) = ((x - &xp)?, (&self.weight - &wp)?);
        let (zp, zn) = (times(&xp, &wp.t()?)?, times(&xn, &wn.t()?)?);
        let (sp, sn) = if split {
            (quotient(relevance, &zp)?, quotient(relevance, &zn)?)
        } else {
            let s = quotient(relevance, &(zp + zn)?)?;
            (s.clone(), s)
        };
        Ok(((xp * times(&sp, &wp)?)? + (xn * times(&sn, &wn)?)?)?)
    }

    /// The generalised gamma rule on gradients (Achtibat et al., ICML 2024). With `t' = t + gamma max(t, 0)` and
    /// `t" = t + gamma min(t, 0)`: outputs y > 0 use `z = W' x+ + W" x- + b'`, outputs y < 0 `z = W" x+ + W' x- + b"`;
    /// input i gets `R_i = sum_j (its term in z_j) R_j / z_j` and hands on `R_i / x_i`.
    ///
    /// With P the sum of positive and N that of negative products, `z = Wx + gamma P` or `Wx + gamma N`, and
    /// `P, N = (Wx +- |W||x|) / 2`: two products forward and two back instead of eight.
    fn gamma(&self, x: &Tensor, grad: &Tensor, gamma: f64) -> Result<Tensor> {
        let dtype = x.dtype();
        let magnitude = self.weight.abs()?;
        let product = times(x, &self.weight.t()?)?; // Wx
        let absolute = times(&x.abs()?, &magnitude.t()?)?; // |W||x|
        let part = |sign: f64| -> Result<Tensor> {
            let z = (&product + ((&product + (&absolute * sign)?)? * (gamma / 2.0))?)?;
            let Some(bias) = &self.bias else { return Ok(z) };
            let kept = if sign > 0.0 { bias.relu()? } else { (bias - bias.relu()?)? };
            Ok(z.broadcast_add(&(bias + (kept * gamma)?)?)?)
        };
        let y = match &self.bias {
            Some(bias) => product.broadcast_add(bias)?,
            None => product.clone(),
        };
        let relevance = (grad * &y)?;
        let sent = |z: Tensor, wanted: Tensor| -> Result<Tensor> {
            let below = z.lt(0.0)?.to_dtype(dtype)?;
            let z = (z + below.affine(-2.0 * STABILISER, STABILISER)?)?;
            Ok(((&relevance * wanted.to_dtype(dtype)?)? / z)?)
        };
        let (up, down) = (sent(part(1.0)?, y.gt(0.0)?)?, sent(part(-1.0)?, y.lt(0.0)?)?);
        let plain = (times(&(&up + &down)?, &self.weight)? * (1.0 + gamma / 2.0))?;
        let signed = (times(&(up - down)?, &magnitude)? * (gamma / 2.0))?;
        let sign = x.sign()?;
        Ok(((plain * sign.abs()?)? + (signed * sign)?)?)
    }
}

/// `x M` over the last dimension of `x`.
fn times(x: &Tensor, m: &Tensor) -> Result<Tensor> {
    kernels::matmul(x, m, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::DType;

    fn linear() -> Linear {
        Linear { weight: check::random(&[4, 3], 1), bias: Some(check::random(&[4], 2)) }
    }

    #[test]
    fn vjp_equals_finite_differences_and_autograd() -> Result<()> {
        let (l, x, g) = (linear(), check::random(&[2, 5, 3], 3), check::random(&[2, 5, 4], 4));
        check::finite_differences(&x, &g, |x| l.forward(x), &l.vjp(&g)?);
        check::autograd(&x, &g, |x| l.forward(x), &l.vjp(&g)?);
        Ok(())
    }

    /// Relevance of one input vector under the gamma rule, term by term.
    fn gamma_by_terms(l: &Linear, x: &[f64], g: &[f64], gamma: f64) -> Vec<f64> {
        let (w, b) = (l.weight.to_vec2::<f64>().unwrap(), l.bias.as_ref().unwrap().to_vec1::<f64>().unwrap());
        let up = |t: f64| t + gamma * t.max(0.0);
        let down = |t: f64| t + gamma * t.min(0.0);
        let mut relevance = vec![0.0; x.len()];
        for (j, row) in w.iter().enumerate() {
            let y = row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b[j];
            let change = |t: f64| if y > 0.0 { up(t) } else { down(t) };
            let terms: Vec<f64> = row.iter().zip(x).map(|(w, x)| change(w * x)).collect();
            let z = terms.iter().sum::<f64>() + change(b[j]);
            let z = z + STABILISER * if z < 0.0 { -1.0 } else { 1.0 };
            relevance.iter_mut().zip(terms).for_each(|(r, t)| *r += t * g[j] * y / z);
        }
        relevance
    }

    #[test]
    fn rules_equal_their_definitions() -> Result<()> {
        let (l, x, g) = (linear(), check::random(&[1, 3], 3), check::random(&[1, 4], 4));
        let (xs, gs) = (x.get(0)?.to_vec1::<f64>()?, g.get(0)?.to_vec1::<f64>()?);
        for gamma in [0.0, 0.25, 1.0] {
            let got = (&x * l.reverse(|| Ok(x.clone()), &g, LinearRule::Gamma(gamma))?)?.get(0)?.to_vec1::<f64>()?;
            for (got, want) in got.iter().zip(gamma_by_terms(&l, &xs, &gs, gamma)) {
                assert!((got - want).abs() < 1e-12, "gamma {gamma}: {got} instead of {want}");
            }
        }
        // z+ keeps the sum of relevance wherever an output has a positive product.
        let r = l.reverse(|| Ok(x.clone()), &g, LinearRule::ZPlus)?.sum_all()?.to_scalar::<f64>()?;
        assert!((r - gs.iter().sum::<f64>()).abs() < 1e-6, "{r} instead of {gs:?}");
        Ok(())
    }

    #[test]
    fn an_example_does_not_depend_on_its_batch() -> Result<()> {
        // Tokens of an example, width and outputs: one row, few results, narrow and deep, many of each.
        let shapes =
            [(1, 40, 7), (1, 70, 300), (2, 128, 128), (3, 128, 100), (5, 600, 64), (33, 70, 96), (70, 700, 65)];
        for (t, width, out) in shapes {
            let x = check::random(&[20, t, width], 3).to_dtype(DType::F32)?;
            let weight = check::random(&[out, width], 4).to_dtype(DType::F32)?;
            let l = Linear { weight, bias: None };
            let (all, one) = (l.forward(&x)?, l.forward(&x.narrow(0, 13, 1)?)?);
            assert_eq!(all.get(13)?.to_vec2::<f32>()?, one.get(0)?.to_vec2::<f32>()?, "{t} x {width} to {out}");
            let pooled = x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
            let (all, one) = (l.forward(&pooled)?, l.forward(&pooled.narrow(0, 13, 1)?)?);
            assert_eq!(all.get(13)?.to_vec1::<f32>()?, one.get(0)?.to_vec1::<f32>()?, "pooled, {width} to {out}");
        }
        Ok(())
    }
}
