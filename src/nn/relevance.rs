//! What relevance-carrying rules share: the stabilised quotient and the joining of several uses of one tensor.
//!
//! Chefer, Gur & Wolf, CVPR 2021. `q(a, b) = a / (b + 1e-9)`, 0 where b = 0. Do not enlarge the 1e-9: it changes maps.

use crate::error::{Error, Result};
use crate::nn::kernels;
use crate::nn::rules::Carried;
use candle_core::Tensor;

const EPSILON: f64 = 1e-9;

/// `q(a, b)`, shapes broadcast.
pub fn quotient(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let denominator = (b + EPSILON)?;
    let vanished = (denominator.eq(0.0)?.to_dtype(b.dtype())? * EPSILON)?;
    let present = b.ne(0.0)?.to_dtype(b.dtype())?;
    Ok(a.broadcast_div(&(denominator + vanished)?)?.broadcast_mul(&present)?)
}

/// What reaches a tensor `x` that was used several times: gradients add up; relevances by `x sum_k q(R_k, x)`. `x` is only
/// asked for where it is needed.
pub fn join(x: impl FnOnce() -> Result<Tensor>, parts: &[&Tensor], carried: Carried) -> Result<Tensor> {
    let mut parts = parts.iter();
    let Some(first) = parts.next() else { return Ok(x()?.zeros_like()?) };
    match carried {
        Carried::Gradient => parts.try_fold((*first).clone(), |sum, part| kernels::add(&sum, part)),
        Carried::Relevance => {
            let x = x()?;
            let sum = parts.try_fold(quotient(first, &x)?, |sum, part| Ok::<_, Error>((sum + quotient(part, &x)?)?))?;
            Ok((x * sum)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn quotients_survive_zero() -> Result<()> {
        let a = Tensor::new(&[1.0f64, 1.0, 2.0], &Device::Cpu)?;
        let b = Tensor::new(&[0.0f64, -1e-9, 4.0], &Device::Cpu)?;
        let q = quotient(&a, &b)?.to_vec1::<f64>()?;
        assert!(q[0] == 0.0 && (q[1] / 1e9 - 1.0).abs() < 1e-9 && (q[2] - 0.5).abs() < 1e-9, "{q:?}");
        Ok(())
    }
}
