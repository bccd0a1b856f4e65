//! Rows that neighbours in a batch have in common, computed once: variants of a picture differ in a few of its patches.

use super::memory::Floats;
use crate::error::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// `map` over the rows of `x` `[B,N,C]`, `[B,N,D]`, which must treat each by itself. A row that is to the last bit that of the example
/// before goes through it once, among other rows `[1,M,C]`.
pub fn once(x: &Tensor, map: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (b, n, c) = x.dims3()?;
    let Some(firsts) = firsts(x, n)?.filter(|firsts| firsts.len() > n) else { return map(x) };
    let own: Vec<u32> = (0u32..).zip(&firsts).filter(|(row, first)| row == *first).map(|(row, _)| row).collect();
    if own.len() == b * n {
        return map(x);
    }
    let mut places = vec![0; b * n];
    (0u32..).zip(&own).for_each(|(place, row)| places[*row as usize] = place);
    let places: Vec<u32> = firsts.iter().map(|first| places[*first as usize]).collect();
    let (own, places) = (Tensor::new(own, &Device::Cpu)?, Tensor::new(places, &Device::Cpu)?);
    let mapped = map(&x.reshape((b * n, c))?.index_select(&own, 0)?.unsqueeze(0)?)?.squeeze(0)?;
    Ok(mapped.index_select(&places, 0)?.reshape((b, n, mapped.dim(1)?))?)
}

/// For each row the first that is like it, up the examples without a gap; none where rows are not at hand.
fn firsts(x: &Tensor, n: usize) -> Result<Option<Vec<u32>>> {
    let own = Floats::of(x);
    let Some(rows) = own.as_ref().and_then(Floats::in_order) else { return Ok(None) };
    let c = x.dim(2)?;
    let like = |row: usize| row >= n && same(&rows[row * c..(row + 1) * c], &rows[(row - n) * c..(row - n + 1) * c]);
    let like: Vec<bool> = (0..rows.len() / c.max(1)).into_par_iter().map(like).collect();
    let mut firsts: Vec<u32> = Vec::with_capacity(like.len());
    for (row, like) in like.into_iter().enumerate() {
        firsts.push(if like { firsts[row - n] } else { row as u32 });
    }
    Ok(Some(firsts))
}

fn same(a: &[f32], b: &[f32]) -> bool {
    let equal = |(a, b): (&[f32], &[f32])| a.iter().zip(b).fold(0, |d, (a, b)| d | (a.to_bits() ^ b.to_bits())) == 0;
    a.chunks(64).zip(b.chunks(64)).all(equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::DType;
    use std::cell::Cell;

    #[test]
    fn rows_in_common_go_through_once_and_come_out_everywhere() -> Result<()> {
        let base = check::random(&[1, 5, 70], 1).to_dtype(DType::F32)?;
        let other = check::random(&[1, 2, 70], 2).to_dtype(DType::F32)?;
        let changed = Tensor::cat(&[base.narrow(1, 0, 3)?, other], 1)?;
        let x = Tensor::cat(&[&base, &base, &changed, &changed, &base], 0)?;
        let seen = Cell::new(0);
        let map = |x: &Tensor| {
            seen.set(x.dim(0)? * x.dim(1)?);
            Ok((x.narrow(2, 0, 8)? * 2.0)?)
        };
        check::close(&once(&x, map)?, &(x.narrow(2, 0, 8)? * 2.0)?, 0.0);
        assert_eq!(seen.get(), 5 + 2 + 2);
        check::close(&once(&base, map)?, &(base.narrow(2, 0, 8)? * 2.0)?, 0.0);
        let odd = Tensor::new(&[[[0f32]], [[-0f32]], [[f32::NAN]], [[f32::NAN]]], x.device())?;
        let back = once(&odd, |x| Ok(x.clone()))?.flatten_all()?.to_vec1::<f32>()?;
        assert!(back[1].is_sign_negative() && back[3].is_nan());
        Ok(())
    }
}
