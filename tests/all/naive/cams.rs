//! Twins of class activation maps.

use super::ops::{mean, Rules};
use super::twin::{relu, Twin};
use super::Vector;
use crate::twins::{length, plus, Matrix};

impl Twin<'_> {
    /// Behind the first layer norm of a layer.
    pub fn behind_norm(&self, l: usize) -> (Matrix, Matrix) {
        let mut reversed = self.naive.model.backward(&self.trace, &self.seed(), Rules::Gradient);
        (self.trace.layers[l].read.clone(), reversed.layers.swap_remove(l).read)
    }

    /// The default point.
    pub fn point(&self) -> (Matrix, Matrix) {
        match self.text() {
            Some(_) => self.state(self.layers - 1, &self.seed(), Rules::Gradient),
            None => self.behind_norm(self.layers - 1),
        }
    }

    /// Of the tokens that take part, `weigh(channel d's activations, its gradients, place)` summed over channels.
    pub fn cam(&self, (a, g): (Matrix, Matrix), clamp: bool, weigh: impl Fn(&[f64], &[f64], usize) -> f64) -> Vector {
        let skip = if self.text().is_some() { 0 } else { self.image().0 };
        let channel = |m: &Matrix, d: usize| m[skip..].iter().map(|t| t[d]).collect::<Vector>();
        let channels: Vec<(Vector, Vector)> = (0..a[0].len()).map(|d| (channel(&a, d), channel(&g, d))).collect();
        let token = |j: usize| channels.iter().map(|(a, g)| weigh(a, g, j) * a[j]).sum::<f64>();
        let shown = (0..a.len() - skip).map(|j| if clamp { relu(token(j)) } else { token(j) });
        std::iter::repeat_n(0.0, skip).chain(shown).collect()
    }

    /// The projection on the first right singular vector, by power iteration.
    pub fn eigencam(&self, a: Matrix) -> Vector {
        let skip = if self.text().is_some() { 0 } else { self.image().0 };
        let middle = mean(&a[skip..]);
        let x: Matrix = a[skip..].iter().map(|t| t.iter().zip(&middle).map(|(t, m)| t - m).collect()).collect();
        let mut v: Vector = (0..x[0].len()).map(|d| 1.0 + (d as f64).sin()).collect();
        let project = |v: &Vector| -> Vector { x.iter().map(|t| t.iter().zip(v).map(|(t, v)| t * v).sum()).collect() };
        for _ in 0..5000 {
            let u = project(&v);
            v = (0..v.len()).map(|d| x.iter().zip(&u).map(|(t, u)| t[d] * u).sum()).collect();
            let size = length(&v);
            v.iter_mut().for_each(|v| *v /= size);
        }
        let u = project(&v);
        let largest = u.iter().copied().fold(0.0, |l: f64, u| if u.abs() > l.abs() { u } else { l });
        std::iter::repeat_n(0.0, skip).chain(u.iter().map(|u| relu(u * largest.signum()))).collect()
    }

    pub fn cam_plus(&self, r: Rules, weight: impl Fn(&[f64], &[f64]) -> f64) -> Vector {
        let layer = |l: usize| -> Vector {
            let (x, g) = self.state(l, &self.seed(), r);
            let channel = |m: &Matrix, d: usize| m.iter().map(|t| t[d]).collect::<Vector>();
            let weights: Vector = (0..x[0].len()).map(|d| weight(&channel(&x, d), &channel(&g, d))).collect();
            x.iter().map(|t| t.iter().zip(&weights).map(|(x, w)| x * w).sum()).collect()
        };
        (0..self.layers).map(layer).reduce(|a, b| plus(&a, &b)).unwrap()
    }

    /// D
    pub fn width(&self) -> usize {
        self.trace.layers[0].read[0].len()
    }

    /// A channel of the default point as a map.
    pub fn channel_map(&self, d: usize) -> Matrix {
        let (prefix, (rows, columns), _) = self.image();
        let a = &self.trace.layers[self.layers - 1].read;
        (0..rows).map(|r| (0..columns).map(|c| a[prefix + r * columns + c][d]).collect()).collect()
    }
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub fn sizes(x: &[f64]) -> Vector {
    x.iter().map(|x| x.abs()).collect()
}

/// Weight of a channel in X-Grad-CAM.
pub fn xgrad(a: &[f64], g: &[f64]) -> f64 {
    dot(g, a) / (a.iter().sum::<f64>() + 1e-7)
}

/// Weight of a channel in Grad-CAM++.
pub fn plusplus(a: &[f64], g: &[f64]) -> f64 {
    let total: f64 = a.iter().sum();
    let alpha = |g: f64| if g == 0.0 { 0.0 } else { g.powi(2) / (2.0 * g.powi(2) + total * g.powi(3) + 1e-6) };
    g.iter().map(|&g| alpha(g) * relu(g)).sum()
}
