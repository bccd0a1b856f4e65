//! What an input is compared with: images and texts in which nothing is to be seen.

use super::Subject;
use crate::encoder::{Encoder, Facts};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::resample::separable;
use candle_core::Tensor;

/// A baseline of images, in normalised pixel values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageBaseline {
    /// Pixel value 0 before normalisation.
    Black,
    /// 0 after normalisation: the processor's mean colour.
    Zero,
    /// The image's own mean colour.
    Mean,
    /// The image under a Gaussian of half a patch.
    Blur,
}

impl ImageBaseline {
    /// By name.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("zero", ImageBaseline::Zero),
        ("black", ImageBaseline::Black),
        ("mean", ImageBaseline::Mean),
        ("blur", ImageBaseline::Blur),
    ];

    /// `[C,H,W]`, for pixels `[C,H,W]`.
    pub fn of(self, pixels: &Tensor, encoder: &Encoder) -> Result<Tensor> {
        let (c, h, w) = pixels.dims3()?;
        let colour = |colour: Tensor| -> Result<Tensor> { Ok(colour.broadcast_as((c, h, w))?.contiguous()?) };
        match self {
            ImageBaseline::Zero => Ok(pixels.zeros_like()?),
            ImageBaseline::Mean => colour(pixels.mean_keepdim((1, 2))?),
            ImageBaseline::Black => {
                let black = Tensor::new(&encoder.neutral.black[..], pixels.device())?.to_dtype(pixels.dtype())?;
                colour(black.reshape((c, 1, 1))?)
            }
            ImageBaseline::Blur => {
                let patch = encoder.patches()?.patch;
                blurred(pixels, (patch.0 as f64 / 2.0, patch.1 as f64 / 2.0))
            }
        }
    }
}

/// A Gaussian blur of `[C,H,W]` with deviations in pixels (rows, columns), borders reflected, cut off at 4 deviations,
/// as `scipy.ndimage.gaussian_filter` does.
pub fn blurred(pixels: &Tensor, sigma: (f64, f64)) -> Result<Tensor> {
    let (_, h, w) = pixels.dims3()?;
    separable(pixels, gaussian(h, sigma.0), gaussian(w, sigma.1))
}

/// The blur of one axis as a matrix `[n,n]`, row-major.
fn gaussian(n: usize, sigma: f64) -> Vec<f64> {
    let reach = (4.0 * sigma + 0.5) as i64;
    let kernel: Vec<f64> = (-reach..=reach).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let sum: f64 = kernel.iter().sum();
    let mut matrix = vec![0.0; n * n];
    for (row, line) in matrix.chunks_mut(n).enumerate() {
        for (k, weight) in kernel.iter().enumerate() {
            // Reflected about the edge of the last pixel: d c b a | a b c d | d c b a
            let at = (row as i64 + k as i64 - reach).rem_euclid(2 * n as i64) as usize;
            line[if at < n { at } else { 2 * n - 1 - at }] += weight / sum;
        }
    }
    matrix
}

/// A baseline of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextBaseline {
    /// The padding token's vector in place of every ordinary token; special tokens stay.
    Pad,
    /// The mask token's vector in place of every ordinary token; special tokens stay.
    Mask,
    /// Zero vectors, special tokens included.
    Zero,
}

impl TextBaseline {
    /// Rows of the word table `[T,D]` for a text.
    pub fn of(self, subject: &Subject<'_>, layout: &Layout, encoder: &Encoder) -> Result<Tensor> {
        let values = subject.values()?;
        let filler = match self {
            TextBaseline::Zero => return Ok(values.zeros_like()?),
            TextBaseline::Pad => encoder.neutral.pad_id,
            TextBaseline::Mask => mask_id(encoder)?,
        };
        let own = subject.ids()?.iter().enumerate();
        let ids: Vec<u32> = own.map(|(t, &id)| if layout.is_content(t) { filler } else { id }).collect();
        let n = ids.len();
        let rows = encoder.words()?.rows(&Tensor::from_vec(ids, (1, n), encoder.device())?)?;
        Ok(rows.get(0)?.to_dtype(values.dtype())?)
    }
}

/// The mask token's id.
///
/// # Errors
/// [`Error::Refused`] when the tokenizer has none.
pub fn mask_id(encoder: &Encoder) -> Result<u32> {
    encoder.neutral.mask_id.ok_or_else(no_mask)
}

/// Refuses the mask token for models without one.
pub fn check_mask(model: &Facts) -> Result<()> {
    if model.text && !model.mask_token {
        return Err(no_mask());
    }
    Ok(())
}

fn no_mask() -> Error {
    Error::Refused("this model's tokenizer has no mask token; use the padding token instead (pad)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blurring_keeps_sums_and_reflects() {
        let m = gaussian(4, 1.5); // reach 6: past the border and back
        for row in m.chunks(4) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        let column: f64 = (0..4).map(|r| m[r * 4]).sum();
        assert!((column - 1.0).abs() < 1e-12, "reflection keeps the total");
    }
}
