//! Patch merging (Liu et al., ICCV 2021): behind a stage's last layer each square of four tokens becomes one, of twice the width.

use crate::error::{Error, Result};
use crate::nn::{Linear, Norm, Places, Rules};
use crate::trace::Merged;
use candle_core::Tensor;

/// Four neighbours side by side, then a norm and a linear map.
#[derive(Debug, Clone)]
pub struct Merging {
    /// `[4D]` in front of the map (Swin), or `[2D]` behind it (Swin v2).
    pub norm: Norm,
    /// Which of the two.
    pub order: Order,
    /// `[2D,4D]`
    pub reduction: Linear,
}

/// Where the norm of a merging stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In front of the map.
    NormFirst,
    /// Behind it.
    MapFirst,
}

impl Merging {
    /// `[B,T,D]` -> `[B,T/4,2D]`
    pub(super) fn forward(&self, state: &Tensor, places: Places) -> Result<Tensor> {
        let squares = squares(state, places)?;
        match self.order {
            Order::NormFirst => self.reduction.forward(&self.norm.forward(&squares)?),
            Order::MapFirst => self.norm.forward(&self.reduction.forward(&squares)?),
        }
    }

    /// Reverse: from what arrives at the merged tokens `[B,T/4,2D]`.
    pub(super) fn reverse(&self, state: &Tensor, arriving: &Tensor, places: Places, rules: &Rules) -> Result<Merged> {
        let (own, rule) = (squares(state, places)?, rules.projection);
        let (normed, reduced, by_squares) = match self.order {
            Order::NormFirst => {
                let normed = self.reduction.reverse(|| self.norm.forward(&own), arriving, rule)?;
                let by_squares = self.norm.reverse(&own, &normed, rules.norm)?;
                (normed, arriving.clone(), by_squares)
            }
            Order::MapFirst => {
                let reduced = self.norm.reverse(&self.reduction.forward(&own)?, arriving, rules.norm)?;
                let by_squares = self.reduction.reverse(|| Ok(own.clone()), &reduced, rule)?;
                (arriving.clone(), reduced, by_squares)
            }
        };
        Ok(Merged { state: apart(&by_squares, places)?, normed, reduced })
    }
}

/// `[B,T,D]` -> `[B,T/4,4D]`: of each square its tokens one behind the other, column by column.
fn squares(state: &Tensor, places: Places) -> Result<Tensor> {
    let (b, t, d) = state.dims3()?;
    let (rows, columns) = even(places)?;
    let split = state.reshape(&[b, rows / 2, 2, columns / 2, 2, d])?;
    Ok(split.permute(vec![0, 1, 3, 4, 2, 5])?.contiguous()?.reshape((b, t / 4, 4 * d))?)
}

/// The reverse of [`squares`].
fn apart(squares: &Tensor, places: Places) -> Result<Tensor> {
    let (b, t, d) = squares.dims3()?;
    let (rows, columns) = even(places)?;
    let split = squares.reshape(&[b, rows / 2, columns / 2, 2, 2, d / 4])?;
    Ok(split.permute(vec![0, 1, 4, 2, 3, 5])?.contiguous()?.reshape((b, 4 * t, d / 4))?)
}

/// What merged tokens have `[B,T/4]`, to equal parts at the four they stand for, `[B,T]`.
pub(super) fn spread(amounts: &Tensor, places: Places) -> Result<Tensor> {
    let (b, t) = amounts.dims2()?;
    let quarters = (amounts.unsqueeze(2)? * 0.25)?.broadcast_as((b, t, 4))?.contiguous()?; // [B,T/4,4]
    Ok(apart(&quarters, places)?.squeeze(2)?)
}

fn even(places: Places) -> Result<(usize, usize)> {
    match places {
        Places::Grid { prefix: 0, rows, columns } if rows % 2 == 0 && columns % 2 == 0 => Ok((rows, columns)),
        other => Err(Error::Fault(format!("tokens in squares of four need a grid of even sides, not {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{check, Centre};

    #[test]
    fn both_orders_equal_finite_differences() -> Result<()> {
        let places = Places::Grid { prefix: 0, rows: 2, columns: 4 };
        let (x, g) = (check::random(&[2, 8, 3], 1), check::random(&[2, 2, 6], 2));
        for (order, width) in [(Order::NormFirst, 12), (Order::MapFirst, 6)] {
            let (weight, bias) = (check::random(&[width], 3), Some(check::random(&[width], 4)));
            let norm = Norm { weight, bias, eps: 1e-5, centre: Centre::Mean };
            let reduction = Linear { weight: check::random(&[6, 12], 5), bias: None };
            let own = Merging { norm, order, reduction };
            let by = own.reverse(&x, &g, places, &Rules::GRADIENT)?;
            check::finite_differences(&x, &g, |x| own.forward(x, places), &by.state);
        }
        assert!(squares(&x, Places::Grid { prefix: 0, rows: 1, columns: 8 }).is_err());
        Ok(())
    }

    #[test]
    fn squares_are_read_column_by_column() -> Result<()> {
        let places = Places::Grid { prefix: 0, rows: 2, columns: 4 };
        let x = Tensor::arange(0f64, 8.0, &candle_core::Device::Cpu)?.reshape((1, 8, 1))?;
        let own = squares(&x, places)?;
        assert_eq!(own.squeeze(0)?.to_vec2::<f64>()?, [[0., 4., 1., 5.], [2., 6., 3., 7.]]);
        check::close(&apart(&own, places)?, &x, 0.0);
        Ok(())
    }
}
