//! The direction of most variance, by squaring.

use crate::error::Result;
use candle_core::Tensor;

/// The first eigenvector of a symmetric matrix `[N,N]` without negative eigenvalues, of length 1 and with its entry of largest
/// magnitude positive, `[N]`, and its eigenvalue; none where the matrix is 0. In f64 on the CPU.
///
/// The matrix is squared again and again, its size kept at 1, until it is u u^T: the largest eigenvalue outgrows the others twice
/// as fast each time.
pub fn principal(matrix: &Tensor) -> Result<Option<(Tensor, f64)>> {
    let diagonal = |k: &Tensor| -> Result<Vec<f64>> {
        Ok(k.flatten_all()?.to_vec1::<f64>()?.into_iter().step_by(k.dim(0)? + 1).collect())
    };
    let mut k = matrix.clone();
    for _ in 0..64 {
        let size: f64 = diagonal(&k)?.iter().sum();
        if size <= 0.0 {
            return Ok(None);
        }
        let next = (&k / size)?;
        k = next.matmul(&next)?;
        if (diagonal(&k)?.iter().sum::<f64>() - 1.0).abs() < 1e-14 {
            break; // rank 1: the trace of u u^T
        }
    }
    let diagonal = diagonal(&k)?;
    let column = (0..diagonal.len()).max_by(|&i, &j| diagonal[i].total_cmp(&diagonal[j])).unwrap_or(0);
    let u = k.get(column)?; // proportional to u, its entry of largest magnitude positive
    let u = (&u / u.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())?;
    let value = u.unsqueeze(0)?.matmul(matrix)?.squeeze(0)?.mul(&u)?.sum_all()?.to_scalar::<f64>()?;
    Ok(Some((u, value)))
}
