//! The algebra attention methods share: weigh heads, add the residual, normalise rows, chain layers.

use super::contract::Relevance;
use crate::error::{Error, Result};
use crate::nn::attention::mean_products;
use crate::nn::numbers;
use crate::run::{Params, Pick};
use candle_core::{DType, Device, Tensor, D};
use std::ops::Range;

/// How rows are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalise {
    /// Each row by its sum; a zero row stays zero.
    Rows,
    /// Entry (i, j) by the sum of row j: what `a / a.sum(dim=-1)` does in widely copied scripts.
    Literal,
}

impl Normalise {
    const NAMES: &'static [(&'static str, Self)] = &[("rows", Normalise::Rows), ("literal", Normalise::Literal)];

    /// The parameter `normalisation`.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        let about = "rows: each row by its sum; literal: as the original script divides";
        params.one_of("normalisation", Self::NAMES, about)
    }
}

/// Attention weighted by its gradient, clamped head by head, then averaged: `[H,T,T]` -> `[T,T]` (GAE's `Ā`).
pub fn clamp_then_mean(attention: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    mean_products(attention, gradient, true)
}

/// Attention weighted by its gradient, averaged over heads: `[H,T,T]` -> `[T,T]`, signed.
pub fn mean_weighted(attention: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    mean_products(attention, gradient, false)
}

/// `M + I`, `[T,T]`
pub fn add_identity(m: &Tensor) -> Result<Tensor> {
    Ok((m + Tensor::eye(m.dim(0)?, m.dtype(), m.device())?)?)
}

/// Divides by row sums, `[T,T]`.
pub fn normalise(m: &Tensor, how: Normalise) -> Result<Tensor> {
    let sums = m.sum_keepdim(D::Minus1)?; // [T,1]
    let empty = sums.eq(0.0)?;
    let sums = (sums + empty.to_dtype(m.dtype())?)?; // a zero row is divided by 1
    Ok(match how {
        Normalise::Rows => m.broadcast_div(&sums)?,
        Normalise::Literal => m.broadcast_div(&sums.t()?)?,
    })
}

/// Sets the `floor(ratio * T * T)` smallest entries to 0, sparing entry (0, 0) when `protect_first`; it counts all the
/// same. Ties are broken by position.
pub fn discard(m: &Tensor, ratio: f64, protect_first: bool) -> Result<Tensor> {
    if ratio == 0.0 {
        return Ok(m.clone());
    }
    let mut values = numbers(m)?;
    let count = (ratio * values.len() as f64).floor() as usize;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    for &at in &order[..count] {
        if at != 0 || !protect_first {
            values[at] = 0.0;
        }
    }
    Ok(Tensor::from_vec(values, m.shape(), &Device::Cpu)?.to_dtype(m.dtype())?.to_device(m.device())?)
}

/// Rows of `M^{L-1} ... M^{s}`, highest layer leftmost, `[R,T]`. `layer` gives rows of M of a layer number: the picked
/// ones of the top layer, all of those below. One row costs O(L T^2). Pooled rows are pooled here.
pub fn chain(pick: Pick, layers: Range<usize>, layer: impl Fn(usize, Pick) -> Result<Tensor>) -> Result<Tensor> {
    let (top, below) = split(layers)?;
    let first = pick.pool(layer(top, pick.unpooled())?)?;
    below.rev().try_fold(first, |r, l| Ok(r.matmul(&layer(l, Pick::All)?)?))
}

/// Rows of `(I + M^{L-1}) ... (I + M^{s})`, `[R,T]`: the update `R <- R + M R` from R = I.
pub fn accumulate(pick: Pick, layers: Range<usize>, layer: impl Fn(usize, Pick) -> Result<Tensor>) -> Result<Tensor> {
    let (top, below) = split(layers)?;
    let first = pick.pool(layer(top, pick.unpooled())?)?;
    let first = (&first + pick.identity(&first)?)?;
    below.rev().try_fold(first, |r, l| Ok((&r + r.matmul(&layer(l, Pick::All)?)?)?))
}

fn split(layers: Range<usize>) -> Result<(usize, Range<usize>)> {
    if layers.is_empty() {
        return Err(Error::Usage("no layer takes part; start_layer must be below the number of layers".into()));
    }
    Ok((layers.end - 1, layers.start..layers.end - 1))
}

/// One tensor a layer, stacked in front: L of `[T]` -> `[L,T]`
pub fn stacked(layers: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    Ok(Tensor::stack(&layers.collect::<Result<Vec<_>>>()?, 0)?)
}

/// A relevance tensor as numbers, `[T]`.
pub fn values(relevance: &Tensor) -> Result<Relevance> {
    Ok(relevance.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: &[[f64; 3]; 3]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn rows_are_normalised_and_a_zero_row_stays_zero() {
        let m = matrix(&[[1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]);
        let rows = normalise(&m, Normalise::Rows).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(rows, [[0.25, 0.75, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]);
        let literal = normalise(&m, Normalise::Literal).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(literal, [[0.25, 3.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]);
    }

    #[test]
    fn discarding_counts_the_protected_entry() {
        let m = matrix(&[[0.1, 0.2, 0.9], [0.3, 0.8, 0.7], [0.4, 0.5, 0.6]]);
        let kept = |protect| discard(&m, 0.34, protect).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(kept(true), [0.1, 0.0, 0.9, 0.0, 0.8, 0.7, 0.4, 0.5, 0.6]);
        assert_eq!(kept(false)[0], 0.0);
    }

    #[test]
    fn a_row_of_the_chain_is_the_row_of_the_product() {
        let layers = [
            matrix(&[[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]),
            matrix(&[[0.2, 0.8, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]),
        ];
        let layer = |l: usize, pick: Pick| pick.read(&layers[l]);
        let product = layers[1].matmul(&layers[0]).unwrap();
        let sum = add_identity(&layers[1]).unwrap().matmul(&add_identity(&layers[0]).unwrap()).unwrap();
        for pick in [Pick::One(0), Pick::One(2), Pick::All] {
            crate::nn::check::close(&chain(pick, 0..2, layer).unwrap(), &pick.read(&product).unwrap(), 1e-15);
            crate::nn::check::close(&accumulate(pick, 0..2, layer).unwrap(), &pick.read(&sum).unwrap(), 1e-15);
        }
        assert!(chain(Pick::All, 2..2, layer).is_err());
    }
}
