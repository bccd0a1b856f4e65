//! Resampling as a matrix along an axis; for position embeddings PyTorch's two bicubic kernels.

use crate::error::Result;
use candle_core::{DType, Device, Tensor};

/// How a model resamples its position embeddings to another patch grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bicubic {
    /// Four taps with a = -0.75 and clamped edges, at any scale (`F.interpolate(mode="bicubic")`).
    Plain,
    /// a = -0.5, support widened by the downscaling factor, weights outside dropped (`antialias=True`).
    Antialiased,
}

impl Bicubic {
    /// Weights `[to, from]` of one axis, half-pixel centres (`align_corners=False`), row-major.
    pub fn matrix(self, from: usize, to: usize) -> Vec<f64> {
        let scale = from as f64 / to as f64;
        let mut matrix = vec![0.0; to * from];
        for (i, row) in matrix.chunks_mut(from.max(1)).enumerate() {
            let centre = (i as f64 + 0.5) * scale;
            match self {
                Bicubic::Plain => plain_row(row, centre - 0.5),
                Bicubic::Antialiased => antialiased_row(row, centre, scale.max(1.0)),
            }
        }
        matrix
    }

    /// Resamples a grid `[rows, columns, D]` to another size.
    pub fn resize(self, grid: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
        let (r, c, _) = grid.dims3()?;
        let tall = along(grid, 0, self.matrix(r, rows))?; // [rows, c, D]
        along(&tall, 1, self.matrix(c, columns))
    }
}

/// Bilinear weights `[to, from]` of one axis, half-pixel centres and clamped edges, at any scale (`F.interpolate(mode="bilinear")`),
/// row-major.
pub fn bilinear(from: usize, to: usize) -> Vec<f64> {
    let last = from.saturating_sub(1);
    let mut matrix = vec![0.0; to * from];
    for (i, row) in matrix.chunks_mut(from.max(1)).enumerate() {
        let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let (below, share) = ((at.floor() as usize).min(last), at.fract());
        row[below] += 1.0 - share;
        row[(below + 1).min(last)] += share;
    }
    matrix
}

/// Applies weights `[to, from]`, row-major, along an axis of `from` entries: `[..,from,..]` -> `[..,to,..]`.
pub fn along(x: &Tensor, axis: usize, weights: Vec<f64>) -> Result<Tensor> {
    let from = x.dim(axis)?;
    let to = weights.len() / from.max(1);
    // Converted on the CPU, since not every device has f64.
    let matrix = Tensor::from_vec(weights, (to, from), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
    if axis + 1 == x.rank() {
        let mut dims = x.dims().to_vec();
        dims[axis] = to;
        return Ok(x.contiguous()?.reshape(((), from))?.matmul(&matrix.t()?)?.reshape(dims)?);
    }
    let front = x.transpose(0, axis)?.contiguous()?;
    let mut dims = front.dims().to_vec();
    dims[0] = to;
    Ok(matrix.matmul(&front.reshape((from, ()))?)?.reshape(dims)?.transpose(0, axis)?.contiguous()?)
}

/// Resamples maps `[N,h,w]` along both axes, the columns first, with weights `[H,h]` and `[W,w]`: `[N,H,W]`.
pub fn separable(maps: &Tensor, rows: Vec<f64>, columns: Vec<f64>) -> Result<Tensor> {
    along(&along(maps, 2, columns)?, 1, rows)
}

fn plain_row(row: &mut [f64], x: f64) {
    let last = row.len() as i64 - 1;
    let floor = x.floor();
    for tap in -1..=2i64 {
        let at = (floor as i64 + tap).clamp(0, last) as usize;
        row[at] += cubic(x - floor - tap as f64, -0.75);
    }
}

fn antialiased_row(row: &mut [f64], centre: f64, scale: f64) {
    let support = 2.0 * scale;
    let from = ((centre - support + 0.5).floor().max(0.0)) as usize;
    let to = ((centre + support + 0.5).floor().max(0.0) as usize).min(row.len());
    for (at, weight) in row.iter_mut().enumerate().take(to).skip(from) {
        *weight = cubic((at as f64 - centre + 0.5) / scale, -0.5);
    }
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|w| *w /= sum);
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// Resamples position embeddings `[prefix + rows*columns, D]`, leaving the first `prefix` alone.
pub fn resize_positions(
    positions: &Tensor,
    prefix: usize,
    from: (usize, usize),
    to: (usize, usize),
    kernel: Bicubic,
) -> Result<Tensor> {
    if from == to {
        return Ok(positions.clone());
    }
    let d = positions.dim(1)?;
    // In f32 at least: half-precision weights are resampled in full precision by transformers too.
    let wide = if positions.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let grid = positions.narrow(0, prefix, from.0 * from.1)?.to_dtype(wide)?.reshape((from.0, from.1, d))?;
    let patches = kernel.resize(&grid, to)?.reshape((to.0 * to.1, d))?.to_dtype(positions.dtype())?;
    Ok(Tensor::cat(&[&positions.narrow(0, 0, prefix)?, &patches], 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_to_one_and_the_identity_stays() {
        for kernel in [Bicubic::Plain, Bicubic::Antialiased] {
            for (from, to) in [(4, 6), (6, 4), (16, 37), (37, 16), (5, 5), (1, 3)] {
                let m = kernel.matrix(from, to);
                for (i, row) in m.chunks(from).enumerate() {
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{kernel:?} {from}->{to} row {i}");
                    if from == to {
                        assert!((row[i] - 1.0).abs() < 1e-12);
                    }
                }
            }
        }
    }

    #[test]
    fn kernels_follow_pytorch() {
        // torch.nn.functional.interpolate of [0,1,2,3] to 2, bicubic: a = -0.75 against antialias=True.
        let apply = |k: Bicubic| -> Vec<f64> {
            k.matrix(4, 2).chunks(4).map(|r| r.iter().zip([0.0, 1.0, 2.0, 3.0]).map(|(w, x)| w * x).sum()).collect()
        };
        let plain = apply(Bicubic::Plain);
        assert!((plain[0] - 0.40625).abs() < 1e-12, "{plain:?}");
        let smooth = apply(Bicubic::Antialiased);
        assert!((smooth[0] + smooth[1] - 3.0).abs() < 1e-12 && smooth[0] > plain[0], "{smooth:?}");
    }

    #[test]
    fn an_axis_is_resampled_as_its_own_products_would() -> Result<()> {
        let x = Tensor::arange(0f64, 24.0, &Device::Cpu)?.reshape((2, 3, 4))?;
        let weights = |from: usize| -> Vec<f64> { (0..2 * from).map(|i| (i % 5) as f64 - 1.0).collect() };
        for axis in 0..3 {
            let from = x.dim(axis)?;
            let out = along(&x, axis, weights(from))?;
            let mut dims = [2, 3, 4];
            dims[axis] = 2;
            assert_eq!(out.dims(), dims);
            for (i, row) in weights(from).chunks(from).enumerate() {
                let mut want = x.narrow(axis, 0, 1)?.zeros_like()?;
                for (k, weight) in row.iter().enumerate() {
                    want = (want + (x.narrow(axis, k, 1)? * *weight)?)?;
                }
                let own = out.narrow(axis, i, 1)?.contiguous()?;
                crate::nn::check::close(&own, &want.contiguous()?, 1e-12);
            }
        }
        Ok(())
    }
}
