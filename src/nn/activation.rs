//! Pointwise nonlinearities, by HuggingFace's `hidden_act` names.

use crate::error::{Error, Result};
use crate::nn::kernels;
use crate::nn::rules::ActivationRule;
use candle_core::Tensor;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// A pointwise nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, the erf form: what HuggingFace calls `gelu`.
    Gelu,
    /// The tanh approximation: `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`.
    GeluTanh,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// `x sigmoid(x)`: `silu`, `swish`.
    Silu,
    /// `tanh(x)`
    Tanh,
}

impl Activation {
    /// Reads `hidden_act`.
    ///
    /// # Errors
    /// [`Error::Model`] for an activation we lack, naming those we have.
    pub fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "tanh" => Activation::Tanh,
            _ => {
                return Err(Error::Model(format!(
                    "config.json: activation `{name}` is not supported; supported are gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, relu, silu, swish, tanh"
                )))
            }
        })
    }

    /// `f(x)`, same shape.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Gelu => kernels::gelu(x)?,
            Activation::GeluTanh => x.gelu()?,
            Activation::QuickGelu => (x * candle_nn::ops::sigmoid(&(x * 1.702)?)?)?,
            Activation::Relu => x.relu()?,
            Activation::Silu => x.silu()?,
            Activation::Tanh => x.tanh()?,
        })
    }

    /// Reverse pass at the input `x`, same shape.
    pub fn vjp(self, x: &Tensor, grad: &Tensor, rule: ActivationRule) -> Result<Tensor> {
        let ActivationRule::Gradient = rule;
        if self == Activation::Gelu {
            return kernels::gelu_vjp(x, grad);
        }
        Ok((self.derivative(x)? * grad)?)
    }

    /// `f'(x)`, same shape.
    pub fn derivative(self, x: &Tensor) -> Result<Tensor> {
        let logistic = |scale: f64| -> Result<Tensor> {
            let s = candle_nn::ops::sigmoid(&(x * scale)?)?;
            // d/dx x s(kx) = s + k x s (1 - s)
            Ok((&s + ((x * scale)? * (&s * s.affine(-1.0, 1.0)?)?)?)?)
        };
        Ok(match self {
            Activation::Gelu => {
                let cdf = (x * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?;
                let density = (((x.sqr()? * -0.5)?.exp()?) * (1.0 / (2.0 * PI).sqrt()))?;
                (cdf + (x * density)?)?
            }
            Activation::GeluTanh => {
                let k = (2.0 / PI).sqrt();
                let cube = (x.sqr()? * x)?;
                let t = ((x + (cube * 0.044715)?)? * k)?.tanh()?;
                let inner = (x.sqr()? * (3.0 * 0.044715))?.affine(k, k)?;
                let slope = (t.sqr()?.affine(-1.0, 1.0)? * inner)?;
                (t.affine(0.5, 0.5)? + ((x * 0.5)? * slope)?)?
            }
            Activation::QuickGelu => logistic(1.702)?,
            Activation::Relu => x.gt(0.0)?.to_dtype(x.dtype())?,
            Activation::Silu => logistic(1.0)?,
            Activation::Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn vjps_equal_finite_differences_and_autograd() -> Result<()> {
        let (x, g) = (check::random(&[3, 7], 5), check::random(&[3, 7], 6));
        use Activation::*;
        for f in [Gelu, GeluTanh, QuickGelu, Relu, Silu, Tanh] {
            let vjp = f.vjp(&x, &g, ActivationRule::Gradient)?;
            check::finite_differences(&x, &g, |x| f.forward(x), &vjp);
            // candle's sigmoid is a custom op without a backward, so QuickGelu has only the first oracle.
            if f != QuickGelu {
                check::autograd(&x, &g, |x| f.forward(x), &vjp);
            }
        }
        Ok(())
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = Activation::from_name("mish").unwrap_err().to_string();
        assert!(error.contains("`mish`") && error.contains("quick_gelu"), "{error}");
    }
}
