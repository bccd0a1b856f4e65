//! Activations `x g(x)` and their reverse in one sweep over the numbers, parts of it side by side.
//!
//! candle evaluates them entry by entry on one thread, in several passes where it lacks the function; these are a quotient of
//! polynomials or an exponential, many entries at once.

use super::lanes::exp;
use super::memory::{by_rows, Floats, Row};
use crate::error::Result;
use crate::nn::Activation;
use candle_core::Tensor;

/// A loop for each curve: a choice within the loop would keep it from being vectorised.
macro_rules! with {
    ($curve:expr, $f:ident => $loop:expr) => {
        match $curve {
            Curve::Gelu => {
                type $f = Normal;
                $loop
            }
            Curve::GeluTanh => {
                type $f = Cubic;
                $loop
            }
            Curve::QuickGelu => {
                type $f = Quick;
                $loop
            }
            Curve::Silu => {
                type $f = Plain;
                $loop
            }
        }
    };
}

/// `f(x)`, same shape.
pub fn activate(x: &Tensor, f: Activation) -> Result<Tensor> {
    sweep(x, x, f, Kind::Forward)?.map_or_else(|| f.composed(x), Ok)
}

/// `grad * f'(x)`, same shape.
pub fn activate_vjp(x: &Tensor, grad: &Tensor, f: Activation) -> Result<Tensor> {
    sweep(x, grad, f, Kind::Vjp)?.map_or_else(|| Ok((f.derivative(x)? * grad)?), Ok)
}

/// `grad * f(x) / x`: the gate as a constant, same shape.
pub fn activate_gate(x: &Tensor, grad: &Tensor, f: Activation) -> Result<Tensor> {
    sweep(x, grad, f, Kind::Gate)?.map_or_else(|| Ok((f.gate(x)? * grad)?), Ok)
}

/// The activations that have a loop here.
#[derive(Clone, Copy)]
pub(super) enum Curve {
    Gelu,
    GeluTanh,
    QuickGelu,
    Silu,
}

impl Curve {
    pub fn of(f: Activation) -> Option<Self> {
        match f {
            Activation::Gelu => Some(Curve::Gelu),
            Activation::GeluTanh => Some(Curve::GeluTanh),
            Activation::QuickGelu => Some(Curve::QuickGelu),
            Activation::Silu => Some(Curve::Silu),
            _ => None,
        }
    }

    /// `f(x)` number by number.
    #[inline(always)]
    pub fn write(self, x: &[f32], out: &mut [f32]) {
        with!(self, F => x.iter().zip(out).for_each(|(x, out)| *out = x * F::gate(*x)));
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Forward,
    Vjp,
    Gate,
}

/// Entry by entry, of two tensors of one shape; none where the composed path must do it.
fn sweep(x: &Tensor, grad: &Tensor, f: Activation, kind: Kind) -> Result<Option<Tensor>> {
    let Some(curve) = Curve::of(f) else { return Ok(None) };
    let (x, grad) = (x.contiguous()?, grad.contiguous()?);
    let (Some(first), Some(second)) = (Floats::of(&x), Floats::of(&grad)) else { return Ok(None) };
    let (Some(xs), Some(grads), true) = (first.in_order(), second.in_order(), x.dims() == grad.dims()) else {
        return Ok(None);
    };
    let width = x.dims().last().copied().unwrap_or(1);
    by_rows(x.shape(), width, &Sweep { x: xs, grad: grads, curve, kind }).map(Some)
}

struct Sweep<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    curve: Curve,
    kind: Kind,
}

impl Row for Sweep<'_> {
    #[inline(always)]
    fn write(&self, number: usize, out: &mut [f32]) {
        let at = number * out.len()..(number + 1) * out.len();
        let (x, grad) = (&self.x[at.clone()], &self.grad[at]);
        match self.kind {
            Kind::Forward => self.curve.write(x, out),
            Kind::Vjp => with!(self.curve, F => {
                out.iter_mut().zip(x).zip(grad).for_each(|((out, x), grad)| *out = grad * F::slope(*x));
            }),
            Kind::Gate => with!(self.curve, F => {
                out.iter_mut().zip(x).zip(grad).for_each(|((out, x), grad)| *out = grad * F::gate(*x));
            }),
        }
    }
}

/// `f(x) = x g(x)`
trait Gated {
    /// `g(x)`
    fn gate(x: f32) -> f32;
    /// `f'(x)`
    fn slope(x: f32) -> f32;
}

/// GELU: the normal distribution's `Phi(x)`.
struct Normal;

impl Gated for Normal {
    #[inline(always)]
    fn gate(x: f32) -> f32 {
        0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let density = 0.398_942_3 * exp(-0.5 * x * x);
        x.mul_add(density, Self::gate(x))
    }
}

/// `sigmoid(u(x))`; with its `u` and `u'`.
trait Logistic {
    fn inner(x: f32) -> (f32, f32);
}

impl<L: Logistic> Gated for L {
    #[inline(always)]
    fn gate(x: f32) -> f32 {
        1.0 / (1.0 + exp((-L::inner(x).0).min(87.0)))
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let gate = L::gate(x);
        // s + x s (1 - s) u'
        (x * L::inner(x).1).mul_add(gate * (1.0 - gate), gate)
    }
}

/// GELU's tanh form: `(1 + tanh(v)) / 2 = sigmoid(2 v)`.
struct Cubic;

impl Logistic for Cubic {
    #[inline(always)]
    fn inner(x: f32) -> (f32, f32) {
        const TWICE: f32 = 1.595_769; // 2 sqrt(2 / pi)
        let square = 0.044_715 * x * x;
        (TWICE * x.mul_add(square, x), TWICE * 3f32.mul_add(square, 1.0))
    }
}

/// `sigmoid(1.702 x)`
struct Quick;

impl Logistic for Quick {
    #[inline(always)]
    fn inner(x: f32) -> (f32, f32) {
        (1.702 * x, 1.702)
    }
}

/// `sigmoid(x)`
struct Plain;

impl Logistic for Plain {
    #[inline(always)]
    fn inner(x: f32) -> (f32, f32) {
        (x, 1.0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::DType;

    #[test]
    fn kernels_equal_the_composed_path() -> Result<()> {
        let near = (check::random(&[3, 5001], 1) * 9.0)?;
        let g64 = check::random(&[3, 5001], 2);
        let g = g64.to_dtype(DType::F32)?;
        for f in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu] {
            for x64 in [&near, &(&near * 1e-6)?, &(&near * 1e2)?] {
                let x = x64.to_dtype(DType::F32)?;
                let wide = |x: Tensor| x.to_dtype(DType::F64);
                let bound = 2e-6 * x64.abs()?.max_all()?.to_scalar::<f64>()?.max(1.0);
                check::close(&wide(activate(&x, f)?)?, &activate(x64, f)?, bound);
                check::close(&wide(activate_vjp(&x, &g, f)?)?, &activate_vjp(x64, &g64, f)?, 3e-6);
                check::close(&wide(activate_gate(&x, &g, f)?)?, &activate_gate(x64, &g64, f)?, 2e-6);
            }
        }
        Ok(())
    }
}
