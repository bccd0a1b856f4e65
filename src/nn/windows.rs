//! Windows of a grid, in which tokens see one another alone (Liu et al., ICCV 2021: Swin): tokens are sorted into windows, and back.

use crate::error::{Error, Result};
use crate::nn::around::{lowest, Places};
use candle_core::{DType, Device, Tensor};

/// Square windows side by side over a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Windowing {
    /// Tokens along a side.
    pub side: usize,
    /// Tokens by which the windows begin behind the grid's edge; what they lose there they gain at the other edge, where tokens of the
    /// two edges do not see one another.
    pub shift: usize,
    /// Whether it is shifted though one window covers the grid (Swin v2 decides that by the grid it was trained on).
    pub fixed: bool,
}

/// The windows of one grid.
#[derive(Debug, Clone)]
pub struct Windows {
    /// W, how many there are.
    count: usize,
    /// `[W*N]` the token at each place; of places behind the grid's edge the number behind the last token.
    places: Tensor,
    /// `[T]` the place of each token.
    tokens: Tensor,
    /// Whether there are places without a token.
    padded: bool,
    /// `[W,1,N,N]`: the lowest number where tokens of a window do not see one another, else 0.
    mask: Option<Tensor>,
}

impl Windows {
    /// Sorts a grid's tokens. Places behind its edge hold zeros, which are seen (as in the authors' code).
    ///
    /// # Errors
    /// [`Error::Model`] for tokens without a grid, [`Error::Input`] for a grid that is smaller than a window.
    pub fn new(of: Windowing, places: Places, (dtype, device): (DType, &Device)) -> Result<Self> {
        let Places::Grid { prefix: 0, rows, columns } = places else {
            return Err(Error::Model("windows need a grid of tokens, and nothing in front of it".into()));
        };
        let Windowing { side, mut shift, fixed } = of;
        let least = rows.min(columns);
        if !fixed && least <= side {
            shift = 0;
            if least < side {
                return Err(Error::Input(format!(
                    "an input of this size becomes a grid of {rows}x{columns} tokens in a layer whose windows are {side}x{side}; use a larger --size"
                )));
            }
        }
        let (down, across) = (rows.div_ceil(side), columns.div_ceil(side));
        let (tall, wide, area) = (down * side, across * side, side * side);
        let (mut at, mut back) = (vec![0u32; tall * wide], vec![0u32; rows * columns]);
        // What a place was before the shift, along one axis; and which of its parts see one another.
        let before = |place: usize, length: usize| (place + shift) % length;
        let region = |place: usize, length: usize| {
            usize::from(place + side >= length && shift > 0) + usize::from(place + shift >= length && shift > 0)
        };
        let mut regions = vec![0usize; tall * wide];
        for place in 0..tall * wide {
            let (window, within) = (place / area, place % area);
            let (y, x) = (window / across * side + within / side, window % across * side + within % side);
            let (row, column) = (before(y, tall), before(x, wide));
            regions[place] = 3 * region(y, tall) + region(x, wide);
            at[place] = (rows * columns) as u32;
            if row < rows && column < columns {
                at[place] = (row * columns + column) as u32;
                back[row * columns + column] = place as u32;
            }
        }
        let count = down * across;
        let mask = (shift > 0).then(|| -> Result<Tensor> {
            let apart = |i: usize| {
                let (query, key) = (i / area, i / (area * area) * area + i % area);
                f32::from(u8::from(regions[query] != regions[key]))
            };
            let apart: Vec<f32> = (0..count * area * area).map(apart).collect();
            let apart = Tensor::from_vec(apart, (count, 1, area, area), device)?;
            Ok((apart.to_dtype(dtype)? * lowest(dtype))?)
        });
        Ok(Windows {
            count,
            padded: tall * wide > rows * columns,
            places: Tensor::from_vec(at, tall * wide, device)?,
            tokens: Tensor::from_vec(back, rows * columns, device)?,
            mask: mask.transpose()?,
        })
    }

    /// `[B,T,D]` -> `[B*W,N,D]`
    pub fn cut(&self, x: &Tensor) -> Result<Tensor> {
        let (b, _, d) = x.dims3()?;
        let x = if self.padded { x.pad_with_zeros(1, 0, 1)? } else { x.clone() };
        let places = self.places.dim(0)?;
        Ok(x.contiguous()?.index_select(&self.places, 1)?.reshape((b * self.count, places / self.count, d))?)
    }

    /// The reverse of [`Windows::cut`]: `[B*W,N,D]` -> `[B,T,D]`
    pub fn join(&self, x: &Tensor) -> Result<Tensor> {
        let (all, n, d) = x.dims3()?;
        let rows = x.contiguous()?.reshape((all / self.count, self.count * n, d))?;
        Ok(rows.index_select(&self.tokens, 1)?)
    }

    /// What each place has `[B*W,N]`, by token `[B,T]`; that of places without a token goes to equal parts to the tokens of their window.
    pub fn booked(&self, amounts: &Tensor) -> Result<Tensor> {
        let (all, n) = amounts.dims2()?;
        let joined = |amounts: &Tensor| Ok(self.join(&amounts.contiguous()?.unsqueeze(2)?)?.squeeze(2)?);
        if !self.padded {
            return joined(amounts);
        }
        let last = self.tokens.dim(0)? as u32;
        let empty = self.places.eq(last)?.to_dtype(amounts.dtype())?.reshape((self.count, n))?; // 1 where there is no token
        let empty = empty.repeat((all / self.count, 1))?;
        let tokens = (empty.sum_keepdim(1)?.neg()? + n as f64)?; // [B*W,1]
        let beside = ((amounts * &empty)?.sum_keepdim(1)? / tokens)?;
        joined(&amounts.broadcast_add(&beside)?)
    }

    /// What is added to the scores of `all` windows, `[all,1,N,N]`.
    pub fn mask(&self, all: usize) -> Result<Option<Tensor>> {
        let of_all = |mask: &Tensor| mask.repeat((all / self.count, 1, 1, 1));
        Ok(self.mask.as_ref().map(of_all).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    fn windows(side: usize, shift: usize, grid: (usize, usize)) -> Result<Windows> {
        let places = Places::Grid { prefix: 0, rows: grid.0, columns: grid.1 };
        Windows::new(Windowing { side, shift, fixed: false }, places, (DType::F64, &Device::Cpu))
    }

    #[test]
    fn joining_undoes_cutting_and_is_its_transpose() -> Result<()> {
        for (side, shift, grid) in [(2, 0, (4, 6)), (2, 1, (4, 6)), (4, 2, (10, 7)), (3, 1, (3, 3)), (3, 0, (5, 4))] {
            let own = windows(side, shift, grid)?;
            let x = check::random(&[2, grid.0 * grid.1, 3], 1);
            let cut = own.cut(&x)?;
            check::close(&own.join(&cut)?, &x, 0.0);
            // <cut x, y> = <x, join y>
            let y = check::random(cut.dims(), 2);
            let (left, right) = ((&cut * &y)?.sum_all()?, (&x * own.join(&y)?)?.sum_all()?);
            check::close(&left, &right, 1e-12);
            let amounts = y.sum(2)?;
            check::close(&own.booked(&amounts)?.sum_all()?, &amounts.sum_all()?, 1e-12);
        }
        Ok(())
    }

    #[test]
    fn a_shift_keeps_the_edges_apart() -> Result<()> {
        // A row of windows of 2 over 4 columns, shifted by 1: tokens 1 2 | 3 0 of each line.
        let own = windows(2, 1, (4, 4))?;
        let x = Tensor::from_iter((0..16).map(f64::from), &Device::Cpu)?.reshape((1, 16, 1))?;
        let cut = own.cut(&x)?.squeeze(2)?.to_vec2::<f64>()?;
        assert_eq!(cut, [[5., 6., 9., 10.], [7., 4., 11., 8.], [13., 14., 1., 2.], [15., 12., 3., 0.]]);
        let mask = own.mask(4)?.expect("a mask").squeeze(1)?;
        let seen = |window: usize| -> Vec<Vec<bool>> {
            let rows = mask.get(window).and_then(|m| m.to_vec2::<f64>()).expect("numbers");
            rows.into_iter().map(|row| row.into_iter().map(|m| m == 0.0).collect()).collect()
        };
        assert!(seen(0).iter().flatten().all(|s| *s));
        assert_eq!(seen(1)[0], [true, false, true, false]);
        assert_eq!(seen(3)[0], [true, false, false, false]);
        assert!(windows(5, 2, (4, 4)).is_err());
        assert!(windows(4, 2, (4, 4))?.mask(1)?.is_none()); // one window covers the grid
        Ok(())
    }
}
