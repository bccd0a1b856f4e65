//! Layer norm and RMS norm over the last dimension and their reverse, a row at a time, rows side by side.

use super::lanes::sum;
use super::memory::{by_rows, Floats, Row};
use crate::error::Result;
use crate::nn::rules::NormRule;
use crate::nn::{Centre, Norm};
use candle_core::Tensor;

/// `[..., D]` -> `[..., D]`; none where the composed path must do it.
pub fn norm(norm: &Norm, x: &Tensor) -> Result<Option<Tensor>> {
    let x = x.contiguous()?;
    let (Some(x_), Some(w)) = (Floats::of(&x), Floats::of(&norm.weight)) else { return Ok(None) };
    let b = norm.bias.as_ref().and_then(Floats::of);
    let (Some(x_), Some(w)) = (x_.in_order(), w.in_order()) else { return Ok(None) };
    let b = b.as_ref().and_then(Floats::in_order);
    if b.is_some() != norm.bias.is_some() {
        return Ok(None);
    }
    by_rows(x.shape(), w.len(), &Forward { x: x_, w, b, norm }).map(Some)
}

struct Forward<'a> {
    x: &'a [f32],
    w: &'a [f32],
    b: Option<&'a [f32]>,
    norm: &'a Norm,
}

impl Row for Forward<'_> {
    #[inline(always)]
    fn write(&self, number: usize, out: &mut [f32]) {
        let x = &self.x[number * out.len()..(number + 1) * out.len()];
        let (centre, scale) = moments(x, self.norm);
        for ((out, x), w) in out.iter_mut().zip(x).zip(self.w) {
            *out = (x - centre) * scale * w;
        }
        for (out, b) in out.iter_mut().zip(self.b.unwrap_or_default()) {
            *out += b;
        }
    }
}

/// The reverse at the input `x`, where a gradient is carried: `[..., D]` -> `[..., D]`; none as above.
pub fn norm_vjp(norm: &Norm, x: &Tensor, grad: &Tensor, rule: NormRule) -> Result<Option<Tensor>> {
    let (x, grad) = (x.contiguous()?, grad.contiguous()?);
    let (Some(x_), Some(g_), Some(w)) = (Floats::of(&x), Floats::of(&grad), Floats::of(&norm.weight)) else {
        return Ok(None);
    };
    let (Some(x_), Some(g_), Some(w)) = (x_.in_order(), g_.in_order(), w.in_order()) else { return Ok(None) };
    if x.dims() != grad.dims() {
        return Ok(None);
    }
    by_rows(x.shape(), w.len(), &Reverse { x: x_, g: g_, w, norm, rule }).map(Some)
}

struct Reverse<'a> {
    x: &'a [f32],
    g: &'a [f32],
    w: &'a [f32],
    norm: &'a Norm,
    rule: NormRule,
}

impl Row for Reverse<'_> {
    #[inline(always)]
    fn write(&self, number: usize, out: &mut [f32]) {
        let at = number * out.len()..(number + 1) * out.len();
        let (x, g, w) = (&self.x[at.clone()], &self.g[at], &self.w[..out.len()]);
        let share = 1.0 / out.len() as f32;
        let (centre, scale) = moments(x, self.norm);
        let by_centre = match self.norm.centre {
            Centre::Mean => sum(g, |i, g| g * w[i]) * share,
            Centre::None => 0.0,
        };
        let by_scale = match self.rule {
            NormRule::Gradient => sum(g, |i, g| g * w[i] * (x[i] - centre)) * scale * scale * share,
            NormRule::Constant | NormRule::Identity => 0.0,
        };
        for (((out, x), g), w) in out.iter_mut().zip(x).zip(g).zip(w) {
            *out = (g * w - by_centre - (x - centre) * by_scale) * scale;
        }
    }
}

/// What is subtracted from a row, and one over its deviation.
#[inline(always)]
fn moments(x: &[f32], norm: &Norm) -> (f32, f32) {
    let share = 1.0 / x.len() as f32;
    let centre = match norm.centre {
        Centre::Mean => sum(x, |_, x| x) * share,
        Centre::None => 0.0,
    };
    let variance = sum(x, |_, x| (x - centre) * (x - centre)) * share;
    (centre, 1.0 / (variance + norm.eps as f32).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::wide::composed;
    use super::*;
    use crate::nn::check;
    use candle_core::DType;

    #[test]
    fn kernels_equal_the_composed_path() -> Result<()> {
        let random = |shape: &[usize], seed: u64| check::random(shape, seed).to_dtype(DType::F32).unwrap();
        for (width, size) in [(1, 1.0), (6, 30.0), (16, 1.0), (197, 1.0), (768, 300.0)] {
            let (x, grad) = ((random(&[2, 3, width], 1) * size)?, random(&[2, 3, width], 2));
            for (centre, shifted) in
                [(Centre::Mean, true), (Centre::Mean, false), (Centre::None, true), (Centre::None, false)]
            {
                let bias = shifted.then(|| random(&[width], 4));
                let own = Norm { weight: random(&[width], 3), bias, eps: 1e-5, centre };
                check::close(&own.forward(&x)?, &composed(|| own.forward(&x))?, 1e-5);
                for rule in [NormRule::Gradient, NormRule::Constant] {
                    let want = composed(|| own.reverse(&x, &grad, rule))?;
                    let most = want.abs()?.max_all()?.to_scalar::<f32>()?;
                    check::close(&own.reverse(&x, &grad, rule)?, &want, 1e-5 * f64::from(most.max(1.0)));
                }
            }
        }
        Ok(())
    }
}
