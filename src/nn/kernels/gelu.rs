//! Erf-form GELU and its reverse pass in one parallel sweep over f32 memory.
//!
//! candle's elementwise loops run on one thread and evaluate erf entry by entry; this sweep uses all threads and a
//! polynomial that the compiler can vectorise.

use crate::error::Result;
use crate::nn::Activation;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

const CHUNK: usize = 4096;

/// `x Phi(x)`, same shape.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() && x.dtype() == DType::F32 {
        return Ok(x.contiguous()?.apply_op1_no_bwd(&Forward)?);
    }
    Ok(x.gelu_erf()?)
}

/// `grad * d/dx x Phi(x)`, same shape.
pub fn gelu_vjp(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() && x.dtype() == DType::F32 {
        return Ok(x.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &Reverse(|x| cdf(x) + x * density(x)))?);
    }
    Ok((Activation::Gelu.derivative(x)? * grad)?)
}

/// `grad * Phi(x)`: GELU's gate as a constant, same shape.
pub fn gelu_gate(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() && x.dtype() == DType::F32 {
        return Ok(x.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &Reverse(cdf))?);
    }
    Ok((Activation::Gelu.gate(x)? * grad)?)
}

/// Rational approximation of erf for f32, from Eigen (`generic_fast_erf`): within 2e-7 of erf everywhere.
#[inline]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_3e-10_f32;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p * s + c;
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = q * s + c;
    }
    x * p / q
}

#[inline]
fn cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

#[inline]
fn density(x: f32) -> f32 {
    0.398_942_3 * (-0.5 * x * x).exp()
}

struct Forward;

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * cdf(x);
            }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

/// Multiplies by a function of the input; generic, so that each sweep has its function inlined.
struct Reverse<F>(F);

impl<F: Fn(f32) -> f32 + Sync> CustomOp2 for Reverse<F> {
    fn name(&self) -> &'static str {
        "gelu-vjp"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, grad) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(grad.par_chunks(CHUNK)).for_each(|((y, x), grad)| {
            for ((y, &x), &grad) in y.iter_mut().zip(x).zip(grad) {
                *y = grad * (self.0)(x);
            }
        });
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let data = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&data[from..to]),
        None => candle_core::bail!("gelu: the tensor is not contiguous"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

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
