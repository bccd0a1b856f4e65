//! Pointwise nonlinearities, by HuggingFace's `hidden_act` names.

use crate::error::{Error, Result};
use crate::nn::kernels;
use crate::nn::rules::ActivationRule;
use candle_core::Tensor;
use candle_nn::ops::sigmoid;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// A pointwise nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, the erf form: what HuggingFace calls `gelu`.
    Gelu,
    /// The same, at most 10: `gelu_10` (never below -10 anyway).
    Gelu10,
    /// The tanh approximation: `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`.
    GeluTanh,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)` squared
    Relu2,
    /// `max(x, 0)`, at most 6
    Relu6,
    /// `x`, a hundredth of it below 0
    LeakyRelu,
    /// `x sigmoid(x)`: `silu`, `swish`.
    Silu,
    /// `x min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// `x tanh(softplus(x))`
    Mish,
    /// `tanh(x)`
    Tanh,
    /// `x`
    Linear,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `Phi((x - 0.707107) / 0.282095)`
    Laplace,
    /// The square root of `softplus(x)`
    SqrtSoftplus,
}

use Activation::*;

/// HuggingFace's names (`ACT2FN`). `prelu` and `xielu` have weights of their own and are not here.
const NAMES: &[(&str, Activation)] = &[
    ("gelu", Gelu),
    ("gelu_python", Gelu),
    ("gelu_10", Gelu10),
    ("gelu_new", GeluTanh),
    ("gelu_fast", GeluTanh),
    ("gelu_accurate", GeluTanh),
    ("gelu_pytorch_tanh", GeluTanh),
    ("gelu_python_tanh", GeluTanh),
    ("quick_gelu", QuickGelu),
    ("relu", Relu),
    ("relu2", Relu2),
    ("relu6", Relu6),
    ("leaky_relu", LeakyRelu),
    ("silu", Silu),
    ("swish", Silu),
    ("hardswish", HardSwish),
    ("mish", Mish),
    ("tanh", Tanh),
    ("linear", Linear),
    ("sigmoid", Sigmoid),
    ("laplace", Laplace),
    ("sqrtsoftplus", SqrtSoftplus),
];

const LEAK: f64 = 0.01;
/// As transformers has it, to six digits.
#[allow(clippy::approx_constant)]
const LAPLACE: (f64, f64) = (0.707107, 0.282095);

impl Activation {
    /// Reads `hidden_act`.
    ///
    /// # Errors
    /// [`Error::Model`] for an activation we lack, naming those we have.
    pub fn from_name(name: &str) -> Result<Self> {
        if let Some((_, activation)) = NAMES.iter().find(|(n, _)| *n == name) {
            return Ok(*activation);
        }
        let why = match name {
            "prelu" | "xielu" => ": it has weights of its own, which no family here stores",
            _ => "",
        };
        let known: Vec<_> = NAMES.iter().map(|(n, _)| *n).collect();
        let known = known.join(", ");
        Err(Error::Model(format!("config.json: activation `{name}` is not supported{why}; supported are {known}")))
    }

    /// `f(x)`, same shape.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        kernels::activate(x, self)
    }

    /// The same by candle's operations.
    pub(super) fn composed(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Gelu => x.gelu_erf()?,
            Gelu10 => Gelu.forward(x)?.minimum(10.0)?,
            GeluTanh => x.gelu()?,
            QuickGelu => (x * sigmoid(&(x * 1.702)?)?)?,
            Relu => x.relu()?,
            Relu2 => x.relu()?.sqr()?,
            Relu6 => x.clamp(0.0, 6.0)?,
            LeakyRelu | HardSwish | Mish => (x * self.gate(x)?)?,
            Silu => x.silu()?,
            Tanh => x.tanh()?,
            Linear => x.clone(),
            Sigmoid => sigmoid(x)?,
            Laplace => cdf(&standard(x)?)?,
            SqrtSoftplus => softplus(x)?.sqrt()?,
        })
    }

    /// Reverse pass at the input `x`, same shape.
    ///
    /// # Errors
    /// As [`Activation::gate`] under the gate rule.
    pub fn reverse(self, x: &Tensor, grad: &Tensor, rule: ActivationRule) -> Result<Tensor> {
        match (rule, self) {
            (ActivationRule::Identity, _) => Ok(grad.clone()),
            (ActivationRule::Gradient, _) => kernels::activate_vjp(x, grad, self),
            (ActivationRule::Gate, _) => kernels::activate_gate(x, grad, self),
        }
    }

    /// `f(x) / x` in closed form, continued to x = 0, same shape.
    ///
    /// # Errors
    /// [`Error::Refused`] for functions that are not 0 at 0: they are no gate times their input.
    pub fn gate(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Gelu => cdf(x)?,
            // Where gelu(x) is above 10, 10 / x.
            Gelu10 => ((cdf(x)? * 10.0)? / Gelu.forward(x)?.maximum(10.0)?)?,
            GeluTanh => {
                let cube = (x.sqr()? * x)?;
                ((x + (cube * 0.044715)?)? * (2.0 / PI).sqrt())?.tanh()?.affine(0.5, 0.5)?
            }
            QuickGelu => sigmoid(&(x * 1.702)?)?,
            Silu => sigmoid(x)?,
            Relu => above(x, 0.0)?,
            Relu2 => x.relu()?,
            // 6/6 below 6, 6/x above.
            Relu6 => (above(x, 0.0)? * (x.maximum(6.0)?.recip()? * 6.0)?)?,
            LeakyRelu => above(x, 0.0)?.affine(1.0 - LEAK, LEAK)?,
            HardSwish => ((x + 3.0)?.clamp(0.0, 6.0)? / 6.0)?,
            Mish => softplus(x)?.tanh()?,
            Linear => x.ones_like()?,
            Tanh => {
                let near = x.abs()?.lt(1e-4)?.to_dtype(x.dtype())?;
                let far = near.affine(-1.0, 1.0)?;
                let quotient = ((x.tanh()? * &far)? / ((x * &far)? + &near)?)?;
                (quotient + (near * x.sqr()?.affine(-1.0 / 3.0, 1.0)?)?)?
            }
            Sigmoid | Laplace | SqrtSoftplus => {
                let name = NAMES.iter().find(|(_, a)| *a == self).map_or("", |(n, _)| n);
                return Err(Error::Refused(format!(
                    "the model's activation `{name}` is not 0 at 0, so it is no gate times its input, which this method's rules need; use a method of gradients or attention"
                )));
            }
        })
    }

    /// `f'(x)`, same shape.
    pub fn derivative(self, x: &Tensor) -> Result<Tensor> {
        let logistic = |scale: f64| -> Result<Tensor> {
            let s = sigmoid(&(x * scale)?)?;
            // d/dx x s(kx) = s + k x s (1 - s)
            Ok((&s + ((x * scale)? * (&s * s.affine(-1.0, 1.0)?)?)?)?)
        };
        Ok(match self {
            Gelu => (cdf(x)? + (x * density(x)?)?)?,
            Gelu10 => (Gelu.forward(x)?.lt(10.0)?.to_dtype(x.dtype())? * Gelu.derivative(x)?)?,
            GeluTanh => {
                let k = (2.0 / PI).sqrt();
                let cube = (x.sqr()? * x)?;
                let t = ((x + (cube * 0.044715)?)? * k)?.tanh()?;
                let inner = (x.sqr()? * (3.0 * 0.044715))?.affine(k, k)?;
                let slope = (t.sqr()?.affine(-1.0, 1.0)? * inner)?;
                (t.affine(0.5, 0.5)? + ((x * 0.5)? * slope)?)?
            }
            QuickGelu => logistic(1.702)?,
            Relu => above(x, 0.0)?,
            Relu2 => (x.relu()? * 2.0)?,
            Relu6 => (above(x, 0.0)? - above(x, 6.0)?)?,
            LeakyRelu => self.gate(x)?,
            Silu => logistic(1.0)?,
            // (2x + 3) / 6 between -3 and 3.
            HardSwish => {
                let (low, high) = (above(x, -3.0)?, above(x, 3.0)?);
                ((((&low - &high)? * x.affine(1.0 / 3.0, 0.5)?)?) + high)?
            }
            // tanh(p) + x (1 - tanh(p)^2) sigmoid(x), p the softplus.
            Mish => {
                let t = softplus(x)?.tanh()?;
                let slope = (t.sqr()?.affine(-1.0, 1.0)? * sigmoid(x)?)?;
                (t + (x * slope)?)?
            }
            Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0)?,
            Linear => x.ones_like()?,
            Sigmoid => {
                let s = sigmoid(x)?;
                (&s * s.affine(-1.0, 1.0)?)?
            }
            Laplace => (density(&standard(x)?)? / LAPLACE.1)?,
            SqrtSoftplus => (sigmoid(x)? / (softplus(x)?.sqrt()? * 2.0)?)?,
        })
    }
}

/// 1 where `x` is above `bound`, else 0.
fn above(x: &Tensor, bound: f64) -> Result<Tensor> {
    Ok(x.gt(bound)?.to_dtype(x.dtype())?)
}

/// The normal distribution's `Phi(x)`.
fn cdf(x: &Tensor) -> Result<Tensor> {
    Ok((x * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?)
}

/// `Phi'(x)`
fn density(x: &Tensor) -> Result<Tensor> {
    Ok(((x.sqr()? * -0.5)?.exp()? * (1.0 / (2.0 * PI).sqrt()))?)
}

fn standard(x: &Tensor) -> Result<Tensor> {
    Ok(((x - LAPLACE.0)? / LAPLACE.1)?)
}

/// `log(1 + exp(x))`, without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::Device;

    fn all() -> Vec<Activation> {
        let mut all: Vec<Activation> = Vec::new();
        for (_, a) in NAMES {
            if !all.contains(a) {
                all.push(*a);
            }
        }
        all
    }

    #[test]
    fn vjps_equal_finite_differences_and_autograd() -> Result<()> {
        let (near, g) = (check::random(&[3, 7], 5), check::random(&[3, 7], 6));
        for f in all() {
            for x in [near.clone(), (&near * 7.0)?] {
                let vjp = f.reverse(&x, &g, ActivationRule::Gradient)?;
                check::finite_differences(&x, &g, |x| f.forward(x), &vjp);
            }
            // candle's sigmoid and comparisons have no backward, so the others have only the first oracle.
            if [Gelu, GeluTanh, Relu, Relu2, Silu, Tanh].contains(&f) {
                let vjp = f.reverse(&near, &g, ActivationRule::Gradient)?;
                check::autograd(&near, &g, |x| f.forward(x), &vjp);
            }
        }
        Ok(())
    }

    #[test]
    fn gates_times_input_are_the_activation() -> Result<()> {
        let x = (check::random(&[3, 7], 5) * 8.0)?;
        let zero = x.zeros_like()?;
        for f in all() {
            if [Sigmoid, Laplace, SqrtSoftplus].contains(&f) {
                let error = f.reverse(&x, &x, ActivationRule::Gate).unwrap_err();
                assert!(matches!(&error, Error::Refused(m) if m.contains("not 0 at 0")), "{error}");
                continue;
            }
            check::close(&(&x * f.gate(&x)?)?, &f.forward(&x)?, 1e-6);
            check::close(&f.reverse(&x, &x, ActivationRule::Gate)?, &f.forward(&x)?, 1e-6);
            check::close(&f.forward(&zero)?, &zero, 0.0);
        }
        check::close(&Tanh.gate(&zero)?, &zero.ones_like()?, 0.0);
        Ok(())
    }

    /// Values of transformers 5.24's `ACT2FN` in f64.
    #[test]
    #[rustfmt::skip]
    fn values_are_those_of_transformers() -> Result<()> {
        let x = [-12.0, -3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.5, 6.5, 12.0];
        let x = Tensor::from_slice(&x, 10, &Device::Cpu)?;
        let table: &[(&str, [f64; 10])] = &[
            ("gelu", [-0.0, -0.004049694, -0.158655254, -0.154268769, 0.0, 0.149676581, 0.841344746, 2.484475837, 6.5, 12.0]),
            ("gelu_10", [-0.0, -0.004049694, -0.158655254, -0.154268769, 0.0, 0.149676581, 0.841344746, 2.484475837, 6.5, 10.0]),
            ("gelu_fast", [-0.0, -0.003637392, -0.158808009, -0.15428599, 0.0, 0.149675351, 0.841191991, 2.484915734, 6.5, 12.0]),
            ("gelu_new", [-0.0, -0.003637392, -0.158808009, -0.15428599, 0.0, 0.149675351, 0.841191991, 2.484915734, 6.5, 12.0]),
            ("gelu_python", [-0.0, -0.004049694, -0.158655254, -0.154268769, 0.0, 0.149676581, 0.841344746, 2.484475837, 6.5, 12.0]),
            ("gelu_pytorch_tanh", [-0.0, -0.003637392, -0.158808009, -0.15428599, 0.0, 0.149675351, 0.841191991, 2.484915734, 6.5, 12.0]),
            ("gelu_python_tanh", [-0.0, -0.003637392, -0.158808009, -0.15428599, 0.0, 0.149675351, 0.841191991, 2.484915734, 6.5, 12.0]),
            ("gelu_accurate", [-0.0, -0.003637392, -0.158808009, -0.15428599, 0.0, 0.149675351, 0.841191991, 2.484915734, 6.5, 12.0]),
            ("hardswish", [-0.0, -0.0, -0.333333333, -0.208333333, 0.0, 0.135416667, 0.666666667, 2.291666667, 6.5, 12.0]),
            ("laplace", [0.0, 0.0, 1e-09, 9.383e-06, 0.00609446, 0.05257309, 0.850429649, 1.0, 1.0, 1.0]),
            ("leaky_relu", [-0.12, -0.03, -0.01, -0.005, 0.0, 0.25, 1.0, 2.5, 6.5, 12.0]),
            ("linear", [-12.0, -3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.5, 6.5, 12.0]),
            ("mish", [-7.373e-05, -0.145647461, -0.303401461, -0.220743775, 0.0, 0.16957241, 0.865098388, 2.471392305, 6.499970704, 11.999999999]),
            ("quick_gelu", [-1.6e-08, -0.01807131, -0.154204234, -0.149611563, 0.0, 0.15119965, 0.845795766, 2.465013835, 6.499898069, 11.999999984]),
            ("relu", [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 1.0, 2.5, 6.5, 12.0]),
            ("relu2", [0.0, 0.0, 0.0, 0.0, 0.0, 0.0625, 1.0, 6.25, 42.25, 144.0]),
            ("relu6", [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 1.0, 2.5, 6.0, 6.0]),
            ("sigmoid", [6.144e-06, 0.047425873, 0.268941421, 0.377540669, 0.5, 0.562176501, 0.731058579, 0.92414182, 0.998498818, 0.999993856]),
            ("silu", [-7.373e-05, -0.14227762, -0.268941421, -0.188770334, 0.0, 0.140544125, 0.731058579, 2.31035455, 6.490242315, 11.99992627]),
            ("sqrtsoftplus", [0.002478748, 0.220425388, 0.559697854, 0.688532486, 0.832554611, 0.908812093, 1.145976303, 1.605892193, 2.549804367, 3.464102502]),
            ("swish", [-7.373e-05, -0.14227762, -0.268941421, -0.188770334, 0.0, 0.140544125, 0.731058579, 2.31035455, 6.490242315, 11.99992627]),
            ("tanh", [-1.0, -0.995054754, -0.761594156, -0.462117157, 0.0, 0.244918662, 0.761594156, 0.986614298, 0.999995479, 1.0]),
        ];
        for (name, want) in table {
            let want = Tensor::from_slice(want, 10, &Device::Cpu)?;
            check::close(&Activation::from_name(name)?.forward(&x)?, &want, 1e-7);
        }
        assert_eq!(table.len(), NAMES.len());
        Ok(())
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = Activation::from_name("softmish").unwrap_err().to_string();
        assert!(error.contains("`softmish`") && error.contains("quick_gelu"), "{error}");
        assert!(Activation::from_name("prelu").unwrap_err().to_string().contains("weights of its own"));
    }
}
