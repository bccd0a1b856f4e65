//! `y = x W^T + b`, weights stored `[out, in]` as in PyTorch.

use crate::error::Result;
use candle_core::Tensor;

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
        let y = matmul_last(x, &self.weight.t()?)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    /// Derivative with respect to the input: `[..., out]` -> `[..., in]`
    pub fn vjp(&self, grad: &Tensor) -> Result<Tensor> {
        matmul_last(grad, &self.weight)
    }
}

/// `x M` over the last dimension of `x`, for x of rank 2 or 3 and M of rank 2.
///
/// A batch is multiplied example by example (a matrix with stride 0 over the batch): every example then sees the same
/// block sizes whatever the batch size, so its numbers do not depend on its neighbours.
fn matmul_last(x: &Tensor, m: &Tensor) -> Result<Tensor> {
    Ok(match x.rank() {
        3 => x.contiguous()?.broadcast_matmul(m)?,
        _ => x.contiguous()?.matmul(m)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

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

    #[test]
    fn an_example_does_not_depend_on_its_batch() -> Result<()> {
        let l = Linear { weight: check::random(&[96, 70], 1).to_dtype(candle_core::DType::F32)?, bias: None };
        let x = check::random(&[8, 33, 70], 3).to_dtype(candle_core::DType::F32)?;
        let (all, one) = (l.forward(&x)?, l.forward(&x.narrow(0, 5, 1)?)?);
        assert_eq!(all.get(5)?.to_vec2::<f32>()?, one.get(0)?.to_vec2::<f32>()?);
        Ok(())
    }
}
