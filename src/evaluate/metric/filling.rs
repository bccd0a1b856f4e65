//! Holes of a picture filled in from around: each hidden pixel is the weighted mean of its eight neighbours.
//!
//! Rong et al., ICML 2022, of ROAD: weights 1/6 straight, 1/12 diagonal; at the picture's border the weights of the neighbours
//! there are. `sum_j w_ij (x_i - x_j) = 0` is a symmetric positive definite system in the hidden pixels, the same for all
//! channels. It is factored (sparse Cholesky, as the authors' `spsolve` does) rather than iterated: conjugate gradients need
//! hundreds of steps where holes are wide, and a residual that is small there says little about the error.

use crate::error::{Error, Result};
use rsparse::data::Sprs;

/// Sets the hidden pixels of the planes `[C,H,W]`; `hidden` is `[H*W]`. Everything hidden leaves them as they are.
///
/// # Errors
/// [`Error::Numeric`] when the system cannot be factored (values are finite: it always can).
pub(super) fn fill(planes: &mut [f64], hidden: &[bool], size: (usize, usize)) -> Result<()> {
    let unknown: Vec<usize> = (0..hidden.len()).filter(|&i| hidden[i]).collect();
    if unknown.is_empty() || unknown.len() == hidden.len() {
        return Ok(());
    }
    let matrix = system(&unknown, hidden, size);
    let mut symbolic = rsparse::schol(&matrix, 0); // 0: ordered to keep the factor sparse
    let factor = rsparse::chol(&matrix, &mut symbolic)
        .map_err(|e| Error::Numeric(format!("the holes cannot be filled in: {e:?}")))?;
    let place = |k: usize| symbolic.pinv.as_ref().map_or(k, |p| p[k] as usize);
    for plane in planes.chunks_mut(hidden.len()) {
        let mut x = vec![0.0; unknown.len()];
        for (k, &i) in unknown.iter().enumerate() {
            x[place(k)] = neighbours(i, size).filter(|(j, _)| !hidden[*j]).map(|(j, w)| w * plane[j]).sum();
        }
        rsparse::lsolve(&factor.l, &mut x);
        rsparse::ltsolve(&factor.l, &mut x);
        unknown.iter().enumerate().for_each(|(k, &i)| plane[i] = x[place(k)]);
    }
    Ok(())
}

/// The equations of the hidden pixels, `[n,n]`, symmetric: a column each.
fn system(unknown: &[usize], hidden: &[bool], size: (usize, usize)) -> Sprs<f64> {
    let mut number = vec![0; hidden.len()];
    unknown.iter().enumerate().for_each(|(k, &i)| number[i] = k);
    let mut matrix = Sprs::<f64>::new();
    (matrix.m, matrix.n, matrix.p) = (unknown.len(), unknown.len(), vec![0]);
    (matrix.i, matrix.x) = (Vec::with_capacity(9 * unknown.len()), Vec::with_capacity(9 * unknown.len()));
    for (k, &i) in unknown.iter().enumerate() {
        let mut sum = 0.0;
        for (j, weight) in neighbours(i, size) {
            sum += weight;
            if hidden[j] {
                matrix.i.push(number[j]);
                matrix.x.push(-weight);
            }
        }
        matrix.i.push(k);
        matrix.x.push(sum);
        matrix.p.push(matrix.i.len() as isize);
    }
    matrix.nzmax = matrix.i.len();
    matrix
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_become_the_mean_of_what_is_around() {
        let size = (8, 9);
        let ramp = |i: usize| (i % 9) as f64; // harmonic: its own interpolation
        let whole: Vec<f64> = (0..72).map(ramp).chain((0..72).map(|i| 5.0 - ramp(i))).collect();
        let hidden: Vec<bool> = (0..72).map(|i| (2..6).contains(&(i / 9)) && (2..7).contains(&(i % 9))).collect();
        let mut planes = whole.clone();
        (0..144).filter(|i| hidden[i % 72]).for_each(|i| planes[i] = 99.0);
        fill(&mut planes, &hidden, size).unwrap();
        for (i, (got, want)) in planes.iter().zip(&whole).enumerate() {
            assert!((got - want).abs() < 1e-9, "value {i}: {got} instead of {want}");
        }
        let all = vec![true; 72];
        fill(&mut planes, &all, size).unwrap();
        assert!(planes.iter().all(|v| v.is_finite()));
    }

    /// Gauss with pivots on the dense system.
    fn dense(plane: &[f64], hidden: &[bool], size: (usize, usize)) -> Vec<f64> {
        let unknown: Vec<usize> = (0..plane.len()).filter(|&i| hidden[i]).collect();
        let n = unknown.len();
        let mut rows: Vec<Vec<f64>> = vec![vec![0.0; n + 1]; n];
        for (k, &i) in unknown.iter().enumerate() {
            for (j, w) in neighbours(i, size) {
                rows[k][k] += w;
                match unknown.binary_search(&j) {
                    Ok(other) => rows[k][other] -= w,
                    Err(_) => rows[k][n] += w * plane[j],
                }
            }
        }
        for k in 0..n {
            let pivot = (k..n).max_by(|&a, &b| rows[a][k].abs().total_cmp(&rows[b][k].abs())).unwrap();
            rows.swap(k, pivot);
            let (head, tail) = rows.split_at_mut(k + 1);
            for row in tail {
                let factor = row[k] / head[k][k];
                row.iter_mut().zip(&head[k]).skip(k).for_each(|(r, h)| *r -= factor * h);
            }
        }
        let mut x = vec![0.0; n];
        for k in (0..n).rev() {
            x[k] = (rows[k][n] - (k + 1..n).map(|j| rows[k][j] * x[j]).sum::<f64>()) / rows[k][k];
        }
        x
    }

    #[test]
    fn the_filling_is_that_of_a_dense_solve() {
        let noise = |i: usize| (i as f64 * 12.9898).sin() * 4.0;
        // Scattered patches; a hole that reaches three borders, of which a residual says least; one pixel that is known.
        type Hidden = fn(usize) -> bool;
        let kinds: [(&str, (usize, usize), Hidden); 3] = [
            ("patches", (24, 28), |i| (i / 28 / 4 * 7 + i % 28 / 4) % 5 != 0),
            ("strip", (6, 100), |i| i % 100 >= 3),
            ("corner", (20, 20), |i| i != 0),
        ];
        for (name, size, is_hidden) in kinds {
            let hidden: Vec<bool> = (0..size.0 * size.1).map(is_hidden).collect();
            let plane: Vec<f64> = (0..hidden.len()).map(noise).collect();
            let mut filled = plane.clone();
            fill(&mut filled, &hidden, size).unwrap();
            let want = dense(&plane, &hidden, size);
            let got = filled.iter().zip(&hidden).filter(|(_, h)| **h).map(|(v, _)| v);
            for (got, want) in got.zip(&want) {
                assert!((got - want).abs() < 1e-8, "{name}: {got} instead of {want}");
            }
        }
    }
}
