//! Layer normalisation over the last dimension, biased variance, as in PyTorch.

use crate::error::Result;
use crate::nn::rules::NormRule;
use candle_core::{DType, Tensor, D};

/// `y = (x - mean) / sqrt(var + eps) * weight + bias`
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[D]`
    pub weight: Tensor,
    /// `[D]`
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// `[..., D]` -> `[..., D]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // candle's fused kernel takes eps as f32 and has no f64 form; the tests' f64 models use the composed one.
        if x.dtype() == DType::F64 {
            let (centred, deviation) = self.statistics(x)?;
            return Ok(centred.broadcast_div(&deviation)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?);
        }
        Ok(candle_nn::ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps as f32)?)
    }

    /// Reverse pass at the input `x`: `[..., D]` -> `[..., D]`
    pub fn reverse(&self, x: &Tensor, grad: &Tensor, rule: NormRule) -> Result<Tensor> {
        if rule == NormRule::Identity {
            return Ok(grad.clone());
        }
        let (centred, deviation) = self.statistics(x)?;
        let g = grad.broadcast_mul(&self.weight)?;
        let straight = g.broadcast_sub(&g.mean_keepdim(D::Minus1)?)?;
        let g = if rule == NormRule::Gradient {
            let normal = centred.broadcast_div(&deviation)?;
            (straight - normal.broadcast_mul(&(g * &normal)?.mean_keepdim(D::Minus1)?)?)?
        } else {
            straight
        };
        Ok(g.broadcast_div(&deviation)?)
    }

    /// `x - mean` `[..., D]` and the deviation `sqrt(var + eps)` `[..., 1]`.
    fn statistics(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        Ok((centred, deviation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    fn norm(eps: f64) -> LayerNorm {
        LayerNorm { weight: check::random(&[6], 1), bias: check::random(&[6], 2), eps }
    }

    #[test]
    fn vjp_equals_finite_differences_and_autograd() -> Result<()> {
        let (n, x, g) = (norm(1e-5), check::random(&[2, 3, 6], 3), check::random(&[2, 3, 6], 4));
        let vjp = n.reverse(&x, &g, NormRule::Gradient)?;
        check::finite_differences(&x, &g, |x| n.forward(x), &vjp);
        check::autograd(&x, &g, |x| n.forward(x), &vjp);
        Ok(())
    }

    #[test]
    fn a_constant_deviation_conserves_relevance_but_for_the_shift() -> Result<()> {
        let (n, x, g) = (norm(1e-5), check::random(&[2, 3, 6], 3), check::random(&[2, 3, 6], 4));
        let got = (&x * n.reverse(&x, &g, NormRule::Constant)?)?.sum(D::Minus1)?;
        let want = (n.forward(&x)?.broadcast_sub(&n.bias)? * g)?.sum(D::Minus1)?;
        check::close(&got, &want, 1e-12);
        Ok(())
    }

    #[test]
    fn fused_and_composed_forward_agree() -> Result<()> {
        let n = norm(1e-12);
        let x = check::random(&[2, 3, 6], 3);
        let f32 = |t: &Tensor| t.to_dtype(DType::F32);
        let fused = LayerNorm { weight: f32(&n.weight)?, bias: f32(&n.bias)?, eps: n.eps }.forward(&f32(&x)?)?;
        check::close(&fused.to_dtype(DType::F64)?, &n.forward(&x)?, 1e-5);
        Ok(())
    }
}
