//! ROAD: remove and debias. Hidden patches are filled in from what surrounds them, so that the hole's shape tells nothing.
//!
//! Rong et al., ICML 2022. At 20, 40, 60 and 80 % of the patches, each hidden pixel becomes the weighted mean of its eight
//! neighbours (1/6 straight, 1/12 diagonal; a linear system, solved by conjugate gradients) plus Gaussian noise of
//! deviation `noise` (0.01). `order=combined` (default): half the class's probability with the least relevant hidden less
//! half that with the most relevant hidden, mean over the four shares; higher is better. `most` and `least` give one side
//! alone (of `most` the negative is taken, so that higher is better throughout).

use super::curves::{image_layout, patches, pixels_of, ranked};
use super::{mean, Case, Direction, Entry, Metric, Needs, Score};
use crate::error::Result;
use crate::method::{combine::numbers, Params, Score as Value};
use candle_core::{Device, Tensor};

pub(super) const ENTRY: Entry = Entry {
    name: "road",
    title: "does the class depend on the relevant patches when holes are filled in?",
    paper: "Rong et al., ICML 2022",
    direction: Direction::Higher,
    images: true,
    texts: false,
    needs: Needs::Nothing,
    default: false,
    build,
    pool: mean,
};

/// Shares that are hidden, in percent.
const SHARES: [usize; 4] = [20, 40, 60, 80];
const TOLERANCE: f64 = 1e-4;

struct Road {
    order: &'static str,
    noise: f64,
}

fn build(params: &mut Params) -> Result<Box<dyn Metric>> {
    params.measures(Value::Probability);
    let about = "combined: least minus most relevant hidden, halved; or one of the two";
    let order = params.choice("order", &["combined", "most", "least"], about)?;
    Ok(Box::new(Road { order, noise: params.number("noise", 0.01, "deviation of the filling's noise", 0.0..=10.0)? }))
}

impl Road {
    fn probabilities(&self, case: &Case<'_, '_>, most: bool) -> Result<Vec<f64>> {
        let (subject, layout) = (case.run.subject()?, image_layout(case.explanation)?);
        let order = ranked(&patches(case.explanation), most);
        let image = subject.values()?;
        let (c, h, w) = image.dims3()?;
        let values = numbers(&image)?;
        let noise = numbers(&case.run.noise().normal("road", &[c, h, w])?)?;
        let filled = |share: usize| {
            let mut hidden = vec![false; h * w];
            for &patch in &order[..order.len() * share / 100] {
                pixels_of(layout, w, patch).for_each(|p| hidden[p] = true);
            }
            let mut out = values.clone();
            for (channel, plane) in out.chunks_mut(h * w).enumerate() {
                fill(plane, &hidden, (h, w));
                let own = hidden.iter().zip(&noise[channel * h * w..]);
                plane
                    .iter_mut()
                    .zip(own)
                    .filter(|(_, (hidden, _))| **hidden)
                    .for_each(|(v, (_, e))| *v += e * self.noise);
            }
            out
        };
        subject.scores(Value::Probability, SHARES.len(), |range| {
            let n = range.len();
            let images: Vec<f64> = SHARES[range].iter().flat_map(|&s| filled(s)).collect();
            let images = Tensor::from_vec(images, (n, c, h, w), &Device::Cpu)?;
            subject.with(&images.to_dtype(image.dtype())?.to_device(image.device())?)
        })
    }
}

/// Neighbours of a pixel with their weights.
fn neighbours(i: usize, (h, w): (usize, usize)) -> impl Iterator<Item = (usize, f64)> {
    let (y, x) = ((i / w) as i64, (i % w) as i64);
    let around = (-1..=1i64).flat_map(|dy| (-1..=1i64).map(move |dx| (dy, dx))).filter(|d| *d != (0, 0));
    around.filter_map(move |(dy, dx)| {
        let (ny, nx) = (y + dy, x + dx);
        let inside = ny >= 0 && nx >= 0 && ny < h as i64 && nx < w as i64;
        inside.then(|| (ny as usize * w + nx as usize, if dy == 0 || dx == 0 { 1.0 / 6.0 } else { 1.0 / 12.0 }))
    })
}

/// Sets hidden pixels to the weighted mean of their neighbours: `sum_j w_ij (x_i - x_j) = 0`, a symmetric positive
/// definite system in the hidden pixels. Everything hidden leaves the image as it is.
fn fill(plane: &mut [f64], hidden: &[bool], size: (usize, usize)) {
    let unknown: Vec<usize> = (0..plane.len()).filter(|&i| hidden[i]).collect();
    if unknown.is_empty() || unknown.len() == plane.len() {
        return;
    }
    // Residual of the equations at x: minus the weighted differences to all neighbours.
    let applied = |x: &[f64]| -> Vec<f64> {
        unknown.iter().map(|&i| neighbours(i, size).map(|(j, w)| w * (x[i] - x[j])).sum()).collect()
    };
    let known = plane.iter().zip(hidden).filter(|(_, h)| !**h).map(|(v, _)| *v);
    let mean = known.clone().sum::<f64>() / known.count() as f64;
    unknown.iter().for_each(|&i| plane[i] = mean);
    let mut residual: Vec<f64> = applied(plane).iter().map(|r| -r).collect();
    let mut direction = residual.clone();
    let mut size_now: f64 = residual.iter().map(|r| r * r).sum();
    let goal = TOLERANCE * TOLERANCE * unknown.len() as f64;
    let mut sparse = vec![0.0; plane.len()];
    for _ in 0..unknown.len() {
        if size_now <= goal {
            break;
        }
        unknown.iter().zip(&direction).for_each(|(&i, d)| sparse[i] = *d);
        let image = applied(&sparse); // known pixels are 0 here, so this is the matrix times the direction
        let step = size_now / direction.iter().zip(&image).map(|(d, a)| d * a).sum::<f64>();
        unknown.iter().zip(&direction).for_each(|(&i, d)| plane[i] += step * d);
        residual.iter_mut().zip(&image).for_each(|(r, a)| *r -= step * a);
        let next: f64 = residual.iter().map(|r| r * r).sum();
        direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + next / size_now * *d);
        size_now = next;
    }
}

impl Metric for Road {
    fn score(&self, case: &Case<'_, '_>) -> Result<Option<Score>> {
        let curve: Vec<f64> = match self.order {
            "most" => self.probabilities(case, true)?.iter().map(|p| -p).collect(),
            "least" => self.probabilities(case, false)?,
            _ => {
                let (most, least) = (self.probabilities(case, true)?, self.probabilities(case, false)?);
                least.iter().zip(most).map(|(l, m)| (l - m) / 2.0).collect()
            }
        };
        Ok(Some(Score { value: curve.iter().sum::<f64>() / curve.len() as f64, curve, counts: Vec::new() }))
    }

    fn convention(&self) -> String {
        let what = match self.order {
            "most" => "minus the probability with the most relevant",
            "least" => "the probability with the least relevant",
            _ => "half the probability's difference, least minus most relevant",
        };
        format!("{what} 20, 40, 60, 80 % of patches filled in from around, mean")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_become_the_mean_of_what_is_around() {
        let size = (8, 9);
        let ramp = |i: usize| (i % 9) as f64; // harmonic: its own interpolation
        let mut plane: Vec<f64> = (0..72).map(ramp).collect();
        let hidden: Vec<bool> = (0..72).map(|i| (2..6).contains(&(i / 9)) && (2..7).contains(&(i % 9))).collect();
        let whole = plane.clone();
        plane.iter_mut().zip(&hidden).filter(|(_, h)| **h).for_each(|(v, _)| *v = 99.0);
        fill(&mut plane, &hidden, size);
        for (i, (got, want)) in plane.iter().zip(&whole).enumerate() {
            assert!((got - want).abs() < 1e-3, "pixel {i}: {got} instead of {want}");
        }
    }
}
