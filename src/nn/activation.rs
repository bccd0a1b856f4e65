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
    pub fn reverse(self, x: &Tensor, grad: &Tensor, rule: ActivationRule) -> Result<Tensor> {
        match (rule, self) {
            (ActivationRule::Identity, _) => Ok(grad.clone()),
            (ActivationRule::Gradient, Activation::Gelu) => kernels::gelu_vjp(x, grad),
            (ActivationRule::Gradient, _) => Ok((self.derivative(x)? * grad)?),
            (ActivationRule::Gate, Activation::Gelu) => kernels::gelu_gate(x, grad),
            (ActivationRule::Gate, _) => Ok((self.gate(x)? * grad)?),
        }
    }

    /// `f(x) / x` in closed form, continued to x = 0, same shape.
    pub fn gate(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Gelu => (x * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?,
            Activation::GeluTanh => {
                let cube = (x.sqr()? * x)?;
                ((x + (cube * 0.044715)?)? * (2.0 / PI).sqrt())?.tanh()?.affine(0.5, 0.5)?
            }
            Activation::QuickGelu => candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            Activation::Silu => candle_nn::ops::sigmoid(x)?,
            Activation::Relu => x.gt(0.0)?.to_dtype(x.dtype())?,
            Activation::Tanh => {
                let near = x.abs()?.lt(1e-4)?.to_dtype(x.dtype())?;
                let far = near.affine(-1.0, 1.0)?;
                let quotient = ((x.tanh()? * &far)? / ((x * &far)? + &near)?)?;
                (quotient + (near * x.sqr()?.affine(-1.0 / 3.0, 1.0)?)?)?
            }
        })
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
            let vjp = f.reverse(&x, &g, ActivationRule::Gradient)?;
            check::finite_differences(&x, &g, |x| f.forward(x), &vjp);
            // candle's sigmoid is a custom op without a backward, so QuickGelu has only the first oracle.
            if f != QuickGelu {
                check::autograd(&x, &g, |x| f.forward(x), &vjp);
            }
        }
        Ok(())
    }

    #[test]
    fn gates_times_input_are_the_activation() -> Result<()> {
        let x = (check::random(&[3, 7], 5) * 4.0)?;
        use Activation::*;
        for f in [Gelu, GeluTanh, QuickGelu, Relu, Silu, Tanh] {
            check::close(&(&x * f.gate(&x)?)?, &f.forward(&x)?, 1e-6);
            check::close(&f.reverse(&x, &x, ActivationRule::Gate)?, &f.forward(&x)?, 1e-6);
        }
        let zero = x.zeros_like()?;
        check::close(&Tanh.gate(&zero)?, &zero.ones_like()?, 0.0);
        Ok(())
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = Activation::from_name("mish").unwrap_err().to_string();
        assert!(error.contains("`mish`") && error.contains("quick_gelu"), "{error}");
    }
}
