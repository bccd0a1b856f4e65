//! Rotary position embedding (Su et al. 2021): the vector of a head is E/2 points in the plane, and each turns by an angle of its own.

use crate::error::Result;
use crate::nn::around::{Around, Places};
use candle_core::{Device, Tensor};

/// How queries and keys turn by their token's place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// The base of the wave lengths.
    pub theta: f64,
    /// Which entries of a vector are a point.
    pub pairs: Pairs,
    /// What places on a grid are counted in.
    pub steps: Steps,
}

/// Which two entries of a vector are the coordinates of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// One of the first half and the same of the second.
    Halves,
    /// Neighbours.
    Neighbours,
}

/// What places on a grid are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// Centres of patches, between -1 and 1 on either axis, as turns (DINOv3).
    Centres,
    /// Rows and columns from 0, as if there were so many of each (EVA-02).
    Cells {
        /// As many as it was trained on.
        of: usize,
    },
}

impl Rotary {
    /// Along a line, halves of a vector being points.
    pub fn line(theta: f64) -> Self {
        Rotary { theta, pairs: Pairs::Halves, steps: Steps::Centres }
    }

    /// Each token's vector `[B,H,T,E]` turned by its place, backwards with `way` -1 (the transposed rotation).
    pub(super) fn turned(&self, x: &Tensor, around: &Around, way: f64) -> Result<Tensor> {
        let (b, h, tokens, e) = x.dims4()?;
        let angles = self.angles(around.places, tokens, e); // [T,E/2]
        let (axis, points) = match self.pairs {
            Pairs::Halves => (3, [b, h, tokens, 2, e / 2]),
            Pairs::Neighbours => (4, [b, h, tokens, e / 2, 2]),
        };
        let table = |f: fn(f64) -> f64| -> Result<Tensor> {
            let half = Tensor::from_vec(angles.iter().map(|a| f(*a)).collect(), (tokens, e / 2), &Device::Cpu)?;
            let own = half.unsqueeze(axis - 2)?.broadcast_as(&points[2..])?.contiguous()?;
            Ok(own.reshape((tokens, e))?.to_dtype(x.dtype())?.to_device(x.device())?)
            // [T,E]
        };
        let own = x.reshape(&points)?;
        let (first, second) = (own.narrow(axis, 0, 1)?, own.narrow(axis, 1, 1)?);
        let quarter = Tensor::cat(&[&second.neg()?, &first], axis)?.reshape(x.shape())?; // turned by a right angle
        let straight = x.broadcast_mul(&table(f64::cos)?)?;
        Ok((straight + quarter.broadcast_mul(&(table(f64::sin)? * way)?)?)?)
    }

    /// Angles `[T,E/2]`, row-major: along a line `place theta^(-2i/E)`; on a grid `y theta^(-4i/E)` in the first half and the same of x
    /// in the second, y and x in the steps' unit.
    fn angles(&self, places: Places, tokens: usize, e: usize) -> Vec<f64> {
        let half = e / 2;
        match places {
            Places::Line => {
                let turn = |place: usize, i: usize| place as f64 * self.theta.powf(-(2.0 * i as f64) / e as f64);
                (0..tokens * half).map(|n| turn(n / half, n % half)).collect()
            }
            Places::Grid { prefix, rows, columns } => {
                let quarter = (half / 2).max(1);
                let place = |at: usize, of: usize| match self.steps {
                    Steps::Centres => std::f64::consts::TAU * (2.0 * (at as f64 + 0.5) / of as f64 - 1.0),
                    Steps::Cells { of: trained } => at as f64 / of as f64 * trained as f64,
                };
                let turn = |patch: usize, i: usize| {
                    let at = match i / quarter {
                        0 => place(patch / columns, rows),
                        _ => place(patch % columns, columns),
                    };
                    at * self.theta.powf(-(4.0 * (i % quarter) as f64) / e as f64)
                };
                let angle = |n: usize| (n / half).checked_sub(prefix).map_or(0.0, |patch| turn(patch, n % half));
                (0..tokens * half).map(angle).collect()
            }
        }
    }
}
