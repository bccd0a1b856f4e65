//! Resizing as Pillow does it, which HuggingFace's image processors use.

use crate::error::{Error, Result};
use fast_image_resize::images::Image as ResizeImage;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

/// Pillow's resampling filters. Its box (4) is left out: the resampler rounds pixels on the box's edge differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 0
    Nearest,
    /// 1
    Lanczos,
    /// 2
    Bilinear,
    /// 3: a = -0.5
    Bicubic,
    /// 5
    Hamming,
}

impl Filter {
    /// By Pillow's number, as `resample` has it.
    pub fn from_pillow(number: u64) -> Option<Self> {
        Some(match number {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            5 => Filter::Hamming,
            _ => return None,
        })
    }

    fn algorithm(self) -> ResizeAlg {
        match self {
            Filter::Nearest => ResizeAlg::Nearest,
            Filter::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Hamming => ResizeAlg::Convolution(FilterType::Hamming),
        }
    }
}

/// Rows that are widened to floats together: bounds the memory a large photograph takes.
const BAND: usize = 256;

/// Resizes 8-bit RGB as Pillow does, within one level.
///
/// Columns first, then rows, each in floats and rounded to 8 bits: Pillow's order. The resampler's own 8-bit path
/// takes rows first and has coarser weights, which is up to three levels off for filters that overshoot.
///
/// # Errors
/// [`Error::Input`] when the resampler refuses the sizes.
pub fn resize(picture: &RgbImage, height: usize, width: usize, filter: Filter) -> Result<RgbImage> {
    let (from_height, from_width) = (picture.height() as usize, picture.width() as usize);
    let bands = picture.as_raw().chunks(BAND * from_width * 3);
    let mut wide = Vec::with_capacity(from_height * width * 3);
    for band in bands {
        let rows = band.len() / (from_width * 3);
        wide.extend(resample(band, (rows, from_width), (rows, width), filter)?);
    }
    let pixels = resample(&wide, (from_height, width), (height, width), filter)?;
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| Error::Input("resizing lost pixels".into()))
}

/// One pass over interleaved RGB, in floats, rounded to 8 bits.
fn resample(pixels: &[u8], from: (usize, usize), to: (usize, usize), filter: Filter) -> Result<Vec<u8>> {
    if from == to {
        return Ok(pixels.to_vec());
    }
    let failed = |e: &dyn std::fmt::Display| Error::Input(format!("cannot be resized to {}x{}: {e}", to.0, to.1));
    let floats = pixels.iter().flat_map(|&p| f32::from(p).to_ne_bytes()).collect();
    let source =
        ResizeImage::from_vec_u8(from.1 as u32, from.0 as u32, floats, PixelType::F32x3).map_err(|e| failed(&e))?;
    let mut target = ResizeImage::new(to.1 as u32, to.0 as u32, PixelType::F32x3);
    let options = ResizeOptions::new().resize_alg(filter.algorithm());
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(&e))?;
    let level = |b: &[u8]| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]).round().clamp(0.0, 255.0) as u8;
    Ok(target.buffer().chunks_exact(4).map(level).collect())
}
