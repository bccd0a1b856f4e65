//! Erf-form GELU and its reverse in one sweep over the numbers, parts of it side by side.
//!
//! candle evaluates erf entry by entry on one thread; this is a quotient of polynomials, many entries at once.

use super::lanes::exp;
use super::memory::{by_rows, Floats, Row};
use crate::error::Result;
use crate::nn::Activation;
use candle_core::Tensor;

/// `x Phi(x)`, same shape.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    Ok(sweep(x, x, Kind::Forward)?.map_or_else(|| x.gelu_erf(), Ok)?)
}

/// `grad * d/dx x Phi(x)`, same shape.
pub fn gelu_vjp(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    sweep(x, grad, Kind::Vjp)?.map_or_else(|| Ok((Activation::Gelu.derivative(x)? * grad)?), Ok)
}

/// `grad * Phi(x)`: GELU's gate as a constant, same shape.
pub fn gelu_gate(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    sweep(x, grad, Kind::Gate)?.map_or_else(|| Ok((Activation::Gelu.gate(x)? * grad)?), Ok)
}

#[derive(Clone, Copy)]
enum Kind {
    Forward,
    Vjp,
    Gate,
}

/// Entry by entry, of two tensors of one shape; none where the composed path must do it.
fn sweep(x: &Tensor, grad: &Tensor, kind: Kind) -> Result<Option<Tensor>> {
    let (x, grad) = (x.contiguous()?, grad.contiguous()?);
    let (Some(first), Some(second)) = (Floats::of(&x), Floats::of(&grad)) else { return Ok(None) };
    let (Some(xs), Some(grads), true) = (first.in_order(), second.in_order(), x.dims() == grad.dims()) else {
        return Ok(None);
    };
    let width = x.dims().last().copied().unwrap_or(1);
    by_rows(x.shape(), width, &Sweep { x: xs, grad: grads, kind }).map(Some)
}

struct Sweep<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    kind: Kind,
}

impl Row for Sweep<'_> {
    #[inline(always)]
    fn write(&self, number: usize, out: &mut [f32]) {
        let at = number * out.len()..(number + 1) * out.len();
        let each = out.iter_mut().zip(&self.x[at.clone()]).zip(&self.grad[at]);
        match self.kind {
            Kind::Forward => each.for_each(|((out, x), _)| *out = x * cdf(*x)),
            Kind::Vjp => each.for_each(|((out, x), grad)| *out = grad * x.mul_add(density(*x), cdf(*x))),
            Kind::Gate => each.for_each(|((out, x), grad)| *out = grad * cdf(*x)),
        }
    }
}

/// Rational approximation of erf for f32, from Eigen (`generic_fast_erf`): within 2e-7 of erf everywhere.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_3e-10_f32;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p.mul_add(s, c);
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = q.mul_add(s, c);
    }
    x * p / q
}

#[inline(always)]
fn cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

#[inline(always)]
fn density(x: f32) -> f32 {
    0.398_942_3 * exp(-0.5 * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::DType;

    #[test]
    fn kernel_equals_the_composed_path() -> Result<()> {
        let x64 = (check::random(&[3, 5001], 1) * 9.0)?;
        let g64 = check::random(&[3, 5001], 2);
        let (x, g) = (x64.to_dtype(DType::F32)?, g64.to_dtype(DType::F32)?);
        check::close(&gelu(&x)?.to_dtype(DType::F64)?, &x64.gelu_erf()?, 2e-6);
        let want = (Activation::Gelu.derivative(&x64)? * &g64)?;
        check::close(&gelu_vjp(&x, &g)?.to_dtype(DType::F64)?, &want, 2e-6);
        check::close(&gelu_gate(&x, &g)?.to_dtype(DType::F64)?, &gelu_gate(&x64, &g64)?, 2e-6);
        Ok(())
    }
}
