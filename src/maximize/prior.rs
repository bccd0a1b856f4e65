//! What keeps an image natural: shifts that forbid relying on single pixels, and total variation.

use crate::error::Result;
use candle_core::Tensor;

/// `[C,H,W]` moved down and to the right, around the edges.
pub fn rolled(image: &Tensor, (down, right): (usize, usize)) -> Result<Tensor> {
    let roll = |t: &Tensor, by: usize, dim: usize| -> Result<Tensor> {
        let n = t.dim(dim)?;
        if by.is_multiple_of(n) {
            return Ok(t.clone());
        }
        Ok(Tensor::cat(&[t.narrow(dim, n - by, by)?, t.narrow(dim, 0, n - by)?], dim)?)
    };
    roll(&roll(image, down, 1)?, right, 2)
}

/// Under the root, so that it has a derivative where nothing changes.
const SMOOTHING: f64 = 1e-6;

/// `sum sqrt(dx^2 + dy^2)` over all pixels and channels, with its derivative `[C,H,W]` (Mahendran & Vedaldi, CVPR 2015,
/// beta = 1). Differences to the next pixel; 0 at the far edges.
pub fn variation(image: &Tensor) -> Result<(f64, Tensor)> {
    let (_, h, w) = image.dims3()?;
    let next = |dim: usize, n: usize| -> Result<Tensor> {
        let difference = (image.narrow(dim, 1, n - 1)? - image.narrow(dim, 0, n - 1)?)?;
        Ok(difference.pad_with_zeros(dim, 0, 1)?)
    };
    let (dy, dx) = (next(1, h)?, next(2, w)?);
    let length = ((dy.sqr()? + dx.sqr()?)? + SMOOTHING)?.sqrt()?;
    let (sy, sx) = ((dy / &length)?, (dx / &length)?);
    // The derivative is minus the divergence: what flows in from the pixel before, less what flows out.
    let before = |t: &Tensor, dim: usize, n: usize| -> Result<Tensor> {
        Ok(t.narrow(dim, 0, n - 1)?.pad_with_zeros(dim, 1, 0)?)
    };
    let gradient = ((before(&sy, 1, h)? - sy)? + (before(&sx, 2, w)? - sx)?)?;
    let sum = crate::nn::numbers(&length)?.iter().sum();
    Ok((sum, gradient))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn the_variation_s_derivative_equals_finite_differences() -> Result<()> {
        let image = check::random(&[3, 4, 5], 1);
        let one = Tensor::ones(1, candle_core::DType::F64, image.device())?;
        let value = |i: &Tensor| -> Result<Tensor> { Ok(Tensor::new(&[variation(i)?.0], i.device())?) };
        check::finite_differences(&image, &one, value, &variation(&image)?.1);
        Ok(())
    }

    #[test]
    fn rolling_there_and_back_changes_nothing() -> Result<()> {
        let image = check::random(&[3, 4, 5], 1);
        check::close(&rolled(&rolled(&image, (1, 3))?, (3, 2))?, &image, 0.0);
        Ok(())
    }
}
