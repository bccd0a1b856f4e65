//! Softmax over the last dimension and its reverse, a row at a time, rows side by side.

use super::lanes::{exp, greatest, sum};
use super::memory::{by_rows, Floats, Row};
use super::wide;
use crate::error::Result;
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, D};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Probabilities of scores `[..., T]`, which a mask of fewer dimensions or of size 1 in some is added to. The scores' memory is
/// used anew where it can be: they must be nobody else's.
pub fn softmax(scores: Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    if Floats::of(&scores).is_none_or(|own| own.in_order().is_none()) {
        return Ok(candle_nn::ops::softmax_last_dim(&scores)?);
    }
    scores.inplace_op1(&InPlace)?;
    Ok(scores)
}

/// Reverse of a softmax with the probabilities `p`: `p (g - sum(p g))`, `[..., T]`.
pub fn softmax_vjp(p: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let grad = grad.contiguous()?;
    if let (Some(own), Some(arriving)) = (Floats::of(p), Floats::of(&grad)) {
        if let (Some(p), Some(g)) = (own.in_order(), arriving.in_order()) {
            let width = grad.dim(D::Minus1)?;
            return by_rows(grad.shape(), width, &Vjp { p, g });
        }
    }
    let weighted = (p * &grad)?;
    Ok((&weighted - p.broadcast_mul(&weighted.sum_keepdim(D::Minus1)?)?)?)
}

struct Vjp<'a> {
    p: &'a [f32],
    g: &'a [f32],
}

impl Row for Vjp<'_> {
    #[inline(always)]
    fn write(&self, number: usize, out: &mut [f32]) {
        let at = number * out.len()..(number + 1) * out.len();
        let (p, g) = (&self.p[at.clone()], &self.g[at]);
        let total = sum(p, |i, p| p * g[i]);
        for ((out, p), g) in out.iter_mut().zip(p).zip(g) {
            *out = p * (g - total);
        }
    }
}

struct InPlace;

impl InplaceOp1 for InPlace {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let width = layout.dims().last().copied().unwrap_or(1).max(1);
        let (CpuStorage::F32(numbers), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("softmax: the scores are not f32 in order");
        };
        let each = (4096 / width).max(1) * width;
        let chunk = |rows| wide::dispatch(Rows { rows, width });
        match to - from <= each {
            true => chunk(&mut numbers[from..to]),
            false => numbers[from..to].par_chunks_mut(each).for_each(chunk),
        }
        Ok(())
    }
}

struct Rows<'a> {
    rows: &'a mut [f32],
    width: usize,
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact_mut(self.width) {
            normalise(row);
        }
    }
}

#[inline(always)]
fn normalise(x: &mut [f32]) {
    let top = greatest(x);
    for x in x.iter_mut() {
        *x = exp(*x - top);
    }
    let total = sum(x, |_, x| x);
    for x in x.iter_mut() {
        *x /= total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::DType;

    #[test]
    fn kernels_equal_the_composed_path() -> Result<()> {
        for (size, width) in [(1.0, 1), (30.0, 5), (1.0, 16), (9.0, 197), (1e4, 40)] {
            let x = (check::random(&[2, 3, 7, width], 1) * size)?.to_dtype(DType::F32)?;
            let g = check::random(&[2, 3, 7, width], 2).to_dtype(DType::F32)?;
            let hidden: Vec<f32> = (0..width).map(|i| if i % 3 == 1 { f32::MIN } else { 0.0 }).collect();
            let mask = Tensor::from_vec(hidden, (1, 1, 1, width), x.device())?;
            for mask in [None, Some(&mask)] {
                let got = softmax(x.copy()?, mask)?;
                let want = wide::composed(|| softmax(x.copy().unwrap(), mask))?;
                check::close(&got, &want, 1e-6);
                check::close(&softmax_vjp(&got, &g)?, &wide::composed(|| softmax_vjp(&got, &g))?, 1e-6);
            }
            let masked = softmax(x.copy()?, Some(&mask))?;
            assert!(width < 2 || masked.narrow(D::Minus1, 1, 1)?.max_all()?.to_scalar::<f32>()? == 0.0);
        }
        let broken = Tensor::new(&[[1f32, f32::NAN, 2.0]], &candle_core::Device::Cpu)?;
        assert!(softmax(broken, None)?.to_vec2::<f32>()?[0].iter().all(|p| p.is_nan()));
        Ok(())
    }
}
