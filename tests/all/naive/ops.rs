//! Operations of the naive model and their reverse, output by output, under rules written from their definitions.

use super::Vector;
use crate::twins::Matrix;
use std::f64::consts::PI;
use vitx::nn::{Activation, Linear};

/// Rule sets of the reverse pass. All but the gradient carry relevance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rules {
    Gradient,
    CpLrp,
    Libra,
    AttnLrp,
    /// CP-LRP with the gamma rule: in feed-forwards and classifiers, and in the patch convolution.
    Gamma(f64, f64),
    ResLrp(f64),
    ResLrpCp(f64),
    /// Transformer Attribution (Chefer et al. 2021), and the baseline its authors compare with.
    Attribution,
    Baseline,
}

/// Which linear map it is, as far as rules differ.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    /// Query, key, value and output projections.
    Heads,
    /// Feed-forwards and classifiers.
    Mixing,
    Patches,
}

/// `a / (b + 1e-9)` of Chefer et al., 0 where b is.
fn q(a: f64, b: f64) -> f64 {
    match (b == 0.0, b + 1e-9 == 0.0) {
        (true, _) => 0.0,
        (_, true) => a / 1e-9,
        _ => a / (b + 1e-9),
    }
}

impl Rules {
    pub fn chefer(self) -> bool {
        matches!(self, Rules::Attribution | Rules::Baseline)
    }

    /// Relevance starts as the logit, not as 1.
    pub fn relative(self) -> bool {
        self != Rules::Gradient && !self.chefer()
    }

    pub fn attention_constant(self) -> bool {
        matches!(self, Rules::CpLrp | Rules::Libra | Rules::Gamma(..) | Rules::ResLrpCp(_))
    }

    /// Each factor of a product gets half.
    pub fn shares_products(self) -> bool {
        self != Rules::Gradient && !self.attention_constant()
    }

    /// What an output y hands on per unit of what made it.
    pub fn per_unit(self, arriving: f64, y: f64) -> f64 {
        match self {
            Rules::Gradient => arriving,
            _ if self.chefer() => q(arriving, y),
            _ if y == 0.0 => 0.0,
            _ => arriving / y,
        }
    }

    /// The factor by which an input's relevance exceeds its derivative.
    pub fn own(self, x: f64) -> f64 {
        if self == Rules::Gradient {
            1.0
        } else {
            x
        }
    }
}

pub struct Dense {
    pub w: Matrix,
    pub b: Vector,
}

impl Dense {
    pub fn of(linear: &Linear) -> Dense {
        let w: Matrix = linear.weight.to_vec2().unwrap();
        let b = linear.bias.as_ref().map_or(vec![0.0; w.len()], |b| b.to_vec1().unwrap());
        Dense { w, b }
    }

    pub fn run(&self, x: &[f64]) -> Vector {
        self.w.iter().zip(&self.b).map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b).collect()
    }
}

pub struct Norm {
    w: Vector,
    b: Vector,
    eps: f64,
}

impl Norm {
    pub fn of(norm: &vitx::nn::Norm) -> Norm {
        Norm { w: norm.weight.to_vec1().unwrap(), b: norm.bias.as_ref().unwrap().to_vec1().unwrap(), eps: norm.eps }
    }

    /// Mean and deviation.
    fn statistics(&self, x: &[f64]) -> (f64, f64) {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        (mean, (variance + self.eps).sqrt())
    }

    pub fn run(&self, x: &[f64]) -> Vector {
        let (mean, deviation) = self.statistics(x);
        (0..x.len()).map(|i| (x[i] - mean) / deviation * self.w[i] + self.b[i]).collect()
    }
}

/// The mean of vectors.
pub fn mean(rows: &[Vector]) -> Vector {
    (0..rows[0].len()).map(|k| rows.iter().map(|r| r[k]).sum::<f64>() / rows.len() as f64).collect()
}

/// The series of all-positive terms `2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (2n+1)!!`.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// An activation's value and derivative.
pub fn activate(f: Activation, x: f64) -> (f64, f64) {
    match f {
        Activation::Gelu => {
            let below = 0.5 * (1.0 + erf(x / 2f64.sqrt()));
            (x * below, below + x * (-x * x / 2.0).exp() / (2.0 * PI).sqrt())
        }
        Activation::Tanh => (x.tanh(), 1.0 - x.tanh().powi(2)),
        Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
        _ => panic!("no fixture has {f:?}"),
    }
}

pub fn act_back(f: Activation, x: &[f64], arriving: &[f64], r: Rules) -> Vector {
    let back = |(x, c): (&f64, &f64)| {
        let (y, slope) = activate(f, *x);
        match r {
            Rules::Gradient | Rules::CpLrp => r.own(*x) * slope * r.per_unit(*c, y),
            _ => *c,
        }
    };
    x.iter().zip(arriving).map(back).collect()
}

/// From a linear map's output `y` to its input `x`, and the share of its bias.
pub fn linear_back(l: &Dense, x: &[f64], y: &[f64], arriving: &[f64], r: Rules, place: Place) -> (Vector, f64) {
    let (mut sent, mut kept) = (vec![0.0; x.len()], 0.0);
    let mut send = |unit: f64, term: &dyn Fn(usize) -> f64| {
        sent.iter_mut().enumerate().for_each(|(i, s)| *s += unit * term(i));
    };
    let gamma = match (r, place) {
        (Rules::Gamma(own, _), Place::Mixing) | (Rules::Gamma(_, own), Place::Patches) => Some(own),
        _ => None,
    };
    for (j, w) in l.w.iter().enumerate() {
        let positive = |i: usize| x[i].max(0.0) * w[i].max(0.0);
        let negative = |i: usize| x[i].min(0.0) * w[i].min(0.0);
        let total = |term: &dyn Fn(usize) -> f64| (0..x.len()).map(term).sum::<f64>();
        match (r, gamma) {
            (Rules::Attribution, _) => {
                let both = |i: usize| positive(i) + negative(i);
                send(q(arriving[j], total(&both)), &both);
            }
            (Rules::Baseline, _) => {
                send(q(arriving[j], total(&positive)), &positive);
                send(q(arriving[j], total(&negative)), &negative);
            }
            (_, Some(gamma)) if y[j] != 0.0 => {
                let up = |t: f64| t + gamma * t.max(0.0);
                let down = |t: f64| t + gamma * t.min(0.0);
                let term = |i: usize| match (y[j] > 0.0, x[i] > 0.0) {
                    (true, true) | (false, false) => up(w[i]) * x[i],
                    _ => down(w[i]) * x[i],
                };
                let z = total(&term) + if y[j] > 0.0 { up(l.b[j]) } else { down(l.b[j]) };
                send(arriving[j] / (z + if z < 0.0 { -1e-6 } else { 1e-6 }), &term);
            }
            (_, Some(_)) => {}
            _ => {
                let unit = r.per_unit(arriving[j], y[j]);
                kept += l.b[j] * unit;
                send(unit, &|i| r.own(x[i]) * w[i]);
            }
        }
    }
    (sent, kept)
}

/// From a layer norm's output `y` to its input `x`, and the share of its shift.
pub fn norm_back(norm: &Norm, x: &[f64], y: &[f64], arriving: &[f64], r: Rules) -> (Vector, f64) {
    if r.chefer() {
        return (arriving.to_vec(), 0.0);
    }
    let (mean, deviation) = norm.statistics(x);
    let n = x.len() as f64;
    let slope = |j: usize, i: usize| {
        let through_mean = f64::from(u8::from(i == j)) - 1.0 / n;
        let through_deviation = (x[i] - mean) * (x[j] - mean) / (deviation * deviation) / n;
        let kept = if r == Rules::Gradient { through_mean - through_deviation } else { through_mean };
        norm.w[j] / deviation * kept
    };
    let unit: Vector = (0..x.len()).map(|j| r.per_unit(arriving[j], y[j])).collect();
    let sent = |i: usize| r.own(x[i]) * (0..x.len()).map(|j| slope(j, i) * unit[j]).sum::<f64>();
    ((0..x.len()).map(sent).collect(), unit.iter().zip(&norm.b).map(|(u, b)| u * b).sum())
}

/// From what a layer scale made: relevance stays.
pub fn scale_back(arriving: &Matrix, scale: &[f64], r: Rules) -> Matrix {
    let factor = |s: f64| if r == Rules::Gradient { s } else { 1.0 };
    arriving.iter().map(|c| c.iter().zip(scale).map(|(c, s)| c * factor(*s)).collect()).collect()
}

fn entries(a: &Matrix, f: impl Fn(usize, usize) -> f64) -> Matrix {
    (0..a.len()).map(|i| (0..a[i].len()).map(|k| f(i, k)).collect()).collect()
}

fn total(a: &Matrix) -> f64 {
    a.iter().flatten().sum()
}

/// The addition of a skip connection: ResLRP's place.
pub fn skip_back(a: &Matrix, b: &Matrix, arriving: &Matrix, r: Rules) -> (Matrix, Matrix) {
    let (Rules::ResLrp(gamma) | Rules::ResLrpCp(gamma)) = r else { return add_back(a, b, arriving, r) };
    let share = |of: &Matrix| {
        entries(a, |i, k| {
            let y = a[i][k] + b[i][k];
            let weighted = |z: f64| if z * y > 0.0 { (1.0 + gamma) * z } else { z };
            if y == 0.0 {
                0.0
            } else {
                arriving[i][k] * weighted(of[i][k]) / (weighted(a[i][k]) + weighted(b[i][k]))
            }
        })
    };
    (share(a), share(b))
}

/// Any addition.
pub fn add_back(a: &Matrix, b: &Matrix, arriving: &Matrix, r: Rules) -> (Matrix, Matrix) {
    let share = |of: &Matrix| entries(a, |i, k| r.own(of[i][k]) * r.per_unit(arriving[i][k], a[i][k] + b[i][k]));
    let (ra, rb) = (share(a), share(b));
    if r != Rules::Attribution {
        return (ra, rb);
    }
    let (ta, tb) = (total(&ra), total(&rb));
    let rescaled = |x: Matrix, t: f64| {
        let wanted = q(t.abs(), ta.abs() + tb.abs()) * total(arriving);
        entries(&x, |i, k| x[i][k] * q(wanted, t))
    };
    (rescaled(ra, ta), rescaled(rb, tb))
}

/// A tensor used several times.
pub fn join(x: &Matrix, parts: &[&Matrix], r: Rules) -> Matrix {
    entries(x, |i, k| match r.chefer() {
        true => x[i][k] * parts.iter().map(|p| q(p[i][k], x[i][k])).sum::<f64>(),
        false => parts.iter().map(|p| p[i][k]).sum(),
    })
}

/// z^B between the bounds `low` and `high`: a patch's share of what arrives at its projection.
pub fn box_back(l: &Dense, x: &[f64], arriving: &[f64], (low, high): (f64, f64)) -> Vector {
    let mut sent = vec![0.0; x.len()];
    for (w, c) in l.w.iter().zip(arriving) {
        let term = |i: usize| x[i] * w[i] - low * w[i].max(0.0) - high * w[i].min(0.0);
        let z: f64 = (0..x.len()).map(term).sum::<f64>() + 1e-9;
        sent.iter_mut().enumerate().for_each(|(i, s)| *s += term(i) * c / z);
    }
    sent
}
