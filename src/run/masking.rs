//! Masks `[N,H,W]` over an image: what Score-CAM, RISE and ViT-CX multiply the input by.

use crate::error::Result;
use crate::nn::resample::separable;
use crate::run::{Score, Subject};
use candle_core::{Device, Tensor};

/// How a small map becomes a large one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corners {
    /// Half-pixel centres, clamped edges (PyTorch's `align_corners=False`).
    Free,
    /// Corner samples coincide (`align_corners=True`).
    Aligned,
}

/// Bilinear resizing of maps `[N,h,w]` to `[N,H,W]`.
pub fn enlarged(maps: &Tensor, (height, width): (usize, usize), corners: Corners) -> Result<Tensor> {
    let (_, h, w) = maps.dims3()?;
    separable(maps, weights(h, height, corners), weights(w, width, corners))
}

/// Weights `[to,from]` of one axis, row-major.
fn weights(from: usize, to: usize, corners: Corners) -> Vec<f64> {
    let mut matrix = vec![0.0; to * from];
    for (i, row) in matrix.chunks_mut(from).enumerate() {
        let at = match corners {
            Corners::Free => ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0),
            Corners::Aligned if to == 1 => 0.0,
            Corners::Aligned => i as f64 * (from - 1) as f64 / (to - 1) as f64,
        };
        let low = (at as usize).min(from - 1);
        let part = (at - low as f64).min(1.0);
        row[low] += 1.0 - part;
        row[(low + 1).min(from - 1)] += part;
    }
    matrix
}

/// Each map `[N,H,W]` between its own least and greatest value: `(m - min) / (max - min + epsilon)`; a constant map is 0.
pub fn unit_range(maps: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (n, h, w) = maps.dims3()?;
    let flat = maps.reshape((n, h * w))?;
    let (low, high) = (flat.min_keepdim(1)?, flat.max_keepdim(1)?);
    let range = (&high - &low)?;
    let constant = range.eq(0.0)?.to_dtype(maps.dtype())?;
    let scaled = flat.broadcast_sub(&low)?.broadcast_div(&((range + epsilon)? + constant)?)?;
    Ok(scaled.reshape((n, h, w))?)
}

/// Scores of an image under each mask: `x * mask`, in normalised values, so that what is hidden fades to the mean colour.
pub fn masked_scores(subject: &Subject<'_>, score: Score, masks: &Tensor) -> Result<Vec<f64>> {
    let pixels = subject.values()?.unsqueeze(0)?; // [1,3,H,W]
    subject.scores(score, masks.dim(0)?, |range| {
        let masks = masks.narrow(0, range.start, range.len())?.unsqueeze(1)?;
        subject.with(&pixels.broadcast_mul(&masks)?)
    })
}

/// `sum_n w_n mask_n`: `[N]`, `[N,H,W]` -> `[H,W]`
pub fn weighted_sum(weights: &[f64], masks: &Tensor) -> Result<Tensor> {
    let (n, h, w) = masks.dims3()?;
    let weights =
        Tensor::from_slice(weights, (1, n), &Device::Cpu)?.to_dtype(masks.dtype())?.to_device(masks.device())?;
    Ok(weights.matmul(&masks.reshape((n, h * w))?)?.reshape((h, w))?)
}

/// What to say before hundreds of forward passes of a model of ViT-B's size or more.
pub fn patience(method: &str, passes: &str, tokens: usize, layers: usize) -> Option<String> {
    let large = tokens * layers > 180 * 12;
    large.then(|| format!("{method} makes {passes} for each input and target; on a CPU that can take minutes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn long_runs_are_announced() {
        let said = |spec: &str, tokens: usize, layers: usize| {
            crate::method::parse(spec).unwrap().method.patience(tokens, layers).is_some()
        };
        for spec in ["rise", "occlusion", "scorecam", "vit-cx"] {
            assert!(said(spec, 197, 12) && !said(spec, 145, 9), "{spec}");
        }
        assert!(!said("rise:n=8", 197, 12));
    }

    #[test]
    fn enlarging_follows_pytorch() -> Result<()> {
        let maps = Tensor::new(&[[[0.0f64, 1.0], [2.0, 3.0]]], &Device::Cpu)?;
        let row = |corners| -> Vec<f64> {
            enlarged(&maps, (4, 4), corners).unwrap().get(0).unwrap().get(0).unwrap().to_vec1().unwrap()
        };
        assert_eq!(row(Corners::Free), [0.0, 0.25, 0.75, 1.0]);
        let aligned = row(Corners::Aligned);
        assert!((aligned[1] - 1.0 / 3.0).abs() < 1e-12 && aligned[3] == 1.0);
        Ok(())
    }

    #[test]
    fn constant_maps_become_zero() -> Result<()> {
        let maps = Tensor::new(&[[[2.0f64, 2.0]], [[1.0, 3.0]]], &Device::Cpu)?;
        let want = Tensor::new(&[[[0.0f64, 0.0]], [[0.0, 1.0]]], &Device::Cpu)?;
        check::close(&unit_range(&maps, 0.0)?, &want, 0.0);
        Ok(())
    }
}
