//! Normalisation over the last dimension, biased variance, as in PyTorch: LayerNorm and RMSNorm.

use crate::error::Result;
use crate::nn::kernels;
use crate::nn::rules::NormRule;
use candle_core::{DType, Tensor, D};

/// What is subtracted before a norm divides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Centre {
    /// The mean: LayerNorm.
    Mean,
    /// Nothing: RMSNorm.
    None,
}

/// `y = (x - centre) / sqrt(mean((x - centre)^2) + eps) * weight + bias`
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[D]`
    pub weight: Tensor,
    /// `[D]`
    pub bias: Option<Tensor>,
    /// Added to the variance.
    pub eps: f64,
    /// What is subtracted first.
    pub centre: Centre,
}

impl Norm {
    /// Division of vectors like these `[..., D]` by their length, which is `sqrt(D)` times the root of the mean square.
    pub fn unit(like: &Tensor, eps: f64) -> Result<Self> {
        let d = like.dim(D::Minus1)?;
        let weight = Tensor::full((d as f64).sqrt().recip(), d, like.device())?.to_dtype(like.dtype())?;
        Ok(Norm { weight, bias: None, eps, centre: Centre::None })
    }

    /// `[..., D]` -> `[..., D]`
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(normed) = kernels::norm(self, x)? {
            return Ok(normed);
        }
        // candle's fused kernels take eps as f32, have no f64 form, and on the CPU take the variance as a difference of means of
        // squares, which loses digits.
        if x.dtype() == DType::F64 || (x.dtype() == DType::F32 && x.device().is_cpu()) {
            let normal = self.centred(x)?.broadcast_div(&self.deviation(x)?)?.broadcast_mul(&self.weight)?;
            return match &self.bias {
                Some(bias) => Ok(normal.broadcast_add(bias)?),
                None => Ok(normal),
            };
        }
        let (x, eps) = (x.contiguous()?, self.eps as f32);
        Ok(match (self.centre, &self.bias) {
            (Centre::Mean, Some(bias)) => candle_nn::ops::layer_norm(&x, &self.weight, bias, eps)?,
            (Centre::Mean, None) => candle_nn::ops::layer_norm(&x, &self.weight, &self.weight.zeros_like()?, eps)?,
            (Centre::None, Some(bias)) => candle_nn::ops::rms_norm(&x, &self.weight, eps)?.broadcast_add(bias)?,
            (Centre::None, None) => candle_nn::ops::rms_norm(&x, &self.weight, eps)?,
        })
    }

    /// Reverse pass at the input `x`: `[..., D]` -> `[..., D]`
    pub fn reverse(&self, x: &Tensor, grad: &Tensor, rule: NormRule) -> Result<Tensor> {
        if rule == NormRule::Identity {
            return Ok(grad.clone());
        }
        if let Some(arriving) = kernels::norm_vjp(self, x, grad, rule)? {
            return Ok(arriving);
        }
        let deviation = self.deviation(x)?;
        let g = grad.broadcast_mul(&self.weight)?;
        let straight = self.centred(&g)?;
        let g = if rule == NormRule::Gradient {
            let normal = self.centred(x)?.broadcast_div(&deviation)?;
            (straight - normal.broadcast_mul(&(g * &normal)?.mean_keepdim(D::Minus1)?)?)?
        } else {
            straight
        };
        Ok(g.broadcast_div(&deviation)?)
    }

    /// The linear part without the division, `weight * (v - centre)`, of any vectors `[..., D]`.
    pub fn linear(&self, v: &Tensor) -> Result<Tensor> {
        Ok(self.centred(v)?.broadcast_mul(&self.weight.to_dtype(v.dtype())?)?)
    }

    /// The division at an input: `sqrt(mean((x - centre)^2) + eps)`, `[..., D]` -> `[..., 1]`
    pub fn deviation(&self, x: &Tensor) -> Result<Tensor> {
        Ok((self.centred(x)?.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?)
    }

    fn centred(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.centre {
            Centre::Mean => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            Centre::None => x.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    fn norms(eps: f64) -> Vec<Norm> {
        let norm = |centre, bias: bool| Norm {
            weight: check::random(&[6], 1),
            bias: bias.then(|| check::random(&[6], 2)),
            eps,
            centre,
        };
        vec![norm(Centre::Mean, true), norm(Centre::Mean, false), norm(Centre::None, true), norm(Centre::None, false)]
    }

    #[test]
    fn vjp_equals_finite_differences_and_autograd() -> Result<()> {
        let (x, g) = (check::random(&[2, 3, 6], 3), check::random(&[2, 3, 6], 4));
        for n in norms(1e-5) {
            let vjp = n.reverse(&x, &g, NormRule::Gradient)?;
            check::finite_differences(&x, &g, |x| n.forward(x), &vjp);
            check::autograd(&x, &g, |x| n.forward(x), &vjp);
        }
        Ok(())
    }

    #[test]
    fn a_constant_deviation_conserves_relevance_but_for_the_shift() -> Result<()> {
        let (x, g) = (check::random(&[2, 3, 6], 3), check::random(&[2, 3, 6], 4));
        for n in norms(1e-5) {
            let got = (&x * n.reverse(&x, &g, NormRule::Constant)?)?.sum(D::Minus1)?;
            let unshifted = Norm { bias: None, ..n };
            let want = (unshifted.forward(&x)? * &g)?.sum(D::Minus1)?;
            check::close(&got, &want, 1e-12);
            let parts = unshifted.linear(&x)?.broadcast_div(&unshifted.deviation(&x)?)?;
            check::close(&parts, &unshifted.forward(&x)?, 1e-12);
        }
        Ok(())
    }

    #[test]
    fn fused_and_composed_forward_agree() -> Result<()> {
        let x = check::random(&[2, 3, 6], 3);
        let f32 = |t: &Tensor| t.to_dtype(DType::F32);
        for n in norms(1e-12) {
            let bias = n.bias.as_ref().map(f32).transpose()?;
            let fused = Norm { weight: f32(&n.weight)?, bias, ..n.clone() }.forward(&f32(&x)?)?;
            check::close(&fused.to_dtype(DType::F64)?, &n.forward(&x)?, 1e-5);
        }
        Ok(())
    }
}
