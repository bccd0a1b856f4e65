//! Sizes and places: how a picture becomes one of another size.

use crate::error::{Error, Result};
use image::{ImageBuffer, Pixel};

/// How a picture is brought to the input size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// To exactly this height and width, whatever the picture's shape.
    Exact(usize, usize),
    /// So that the shorter side has this length, keeping the shape.
    ShortestEdge(usize),
    /// So that the shorter side has the first length, unless the longer one then exceeds the second.
    Between(usize, usize),
    /// The largest size within this height and width, keeping the shape.
    Within(usize, usize),
    /// So that it covers this height and width, keeping the shape.
    Cover(usize, usize),
    /// So that it fits into this height and width, keeping the shape; sides are rounded, not cut off.
    Contain(usize, usize),
}

/// `--fit`: how pictures of another shape meet the input size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Stretched to it.
    Resize,
    /// Scaled to cover it, the rest cut off.
    Crop,
    /// Scaled to fit into it, the rest filled with the processor's mean colour.
    Pad,
}

impl Fit {
    /// Names on the command line, and what they mean.
    pub const NAMES: &'static [(&'static str, &'static str, Fit)] = &[
        ("resize", "Stretch", Fit::Resize),
        ("crop", "Scale to cover, cut the rest off", Fit::Crop),
        ("pad", "Scale to fit in, fill the rest with the mean colour", Fit::Pad),
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, _, fit)| *fit == self).map_or("", |(name, ..)| name)
        // every value has one
    }
}

/// Zeros around normalised values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pad {
    /// Height and width with them.
    pub size: (usize, usize),
    /// On all sides, or only below and to the right.
    pub centred: bool,
}

/// Top and left of a window centred in a picture that is larger, as torchvision's `CenterCrop`: half the difference, rounded to the
/// even number.
pub(super) fn centred_evenly((height, width): (usize, usize), window: (usize, usize)) -> (i64, i64) {
    let offset = |size: usize, crop: usize| (size.saturating_sub(crop) as f64 / 2.0).round_ties_even() as i64;
    (offset(height, window.0), offset(width, window.1))
}

/// Top and left of a centred window. As transformers' `center_crop`: half the difference rounded down; of a smaller
/// picture the odd pixel of padding goes first with Pillow's processors, last with those that work on tensors.
pub(super) fn centred((height, width): (usize, usize), window: (usize, usize), odd_first: bool) -> (i64, i64) {
    let offset = |size: usize, crop: usize| match size >= crop {
        true => ((size - crop) / 2) as i64,
        false => -(((crop - size + usize::from(odd_first)) / 2) as i64),
    };
    (offset(height, window.0), offset(width, window.1))
}

/// The window of this size at top and left; 0 outside of the picture.
pub(super) fn cropped<P: Pixel>(
    picture: &ImageBuffer<P, Vec<P::Subpixel>>,
    (top, left): (i64, i64),
    (height, width): (usize, usize),
) -> ImageBuffer<P, Vec<P::Subpixel>> {
    let mut window = ImageBuffer::new(width as u32, height as u32);
    for (x, y, pixel) in window.enumerate_pixels_mut() {
        let place = |at: u32, from: i64| u32::try_from(i64::from(at) + from).ok();
        if let (Some(x), Some(y)) = (place(x, left), place(y, top)) {
            if let Some(own) = picture.get_pixel_checked(x, y) {
                *pixel = *own;
            }
        }
    }
    window
}

impl Pad {
    /// Rows above and columns before a picture of this size.
    pub(super) fn before(self, (h, w): (usize, usize)) -> Result<(usize, usize)> {
        let (height, width) = self.size;
        if h > height || w > width {
            return Err(Error::Input(format!(
                "becomes {h}x{w} pixels, more than the {height}x{width} the processor pads to (pad_size); use --fit pad"
            )));
        }
        let before = |own: usize, whole: usize| if self.centred { (whole - own).div_ceil(2) } else { 0 };
        Ok((before(h, height), before(w, width)))
    }
}

/// `[C,h,w]` values within `[C,H,W]` zeros.
pub(super) fn padded(
    pixels: &[f32],
    (h, w): (usize, usize),
    (height, width): (usize, usize),
    (y, x): (usize, usize),
) -> Vec<f32> {
    let channels = pixels.len() / (h * w).max(1);
    let mut whole = vec![0.0; channels * height * width];
    for (row, values) in pixels.chunks_exact(w.max(1)).enumerate() {
        let at = (row / h * height + y + row % h) * width + x;
        whole[at..at + w].copy_from_slice(values);
    }
    whole
}

impl Resize {
    /// Height and width a picture of this height and width becomes.
    pub(super) fn target(self, height: usize, width: usize) -> (usize, usize) {
        let scaled = |factor: f64| {
            let side = |n: usize| ((n as f64 * factor).round() as usize).max(1);
            (side(height), side(width))
        };
        let factors = |h: usize, w: usize| (h as f64 / height as f64, w as f64 / width as f64);
        // transformers: int(size * long / short)
        let shortest = |edge: usize| match width <= height {
            true => (edge * height / width, edge),
            false => (edge, edge * width / height),
        };
        match self {
            Resize::Exact(h, w) => (h, w),
            Resize::ShortestEdge(edge) => shortest(edge),
            Resize::Between(edge, longest) => {
                let (short, long) = (height.min(width) as f64, height.max(width) as f64);
                if long / short * edge as f64 <= longest as f64 {
                    return shortest(edge);
                }
                let side = longest as f64 * short / long; // before rounding, from which the other side is made
                let (near, far) = (side.round_ties_even() as usize, (side * long / short) as usize);
                match (width < height, width.min(height) == near) {
                    (_, true) => (height, width),
                    (true, _) => (far, near),
                    (false, _) => (near, far),
                }
            }
            Resize::Within(h, w) => {
                let (fh, fw) = factors(h, w);
                let factor = fh.min(fw);
                ((height as f64 * factor) as usize, (width as f64 * factor) as usize)
            }
            Resize::Cover(h, w) => {
                let (fh, fw) = factors(h, w);
                let (rh, rw) = scaled(fh.max(fw));
                (rh.max(h), rw.max(w))
            }
            Resize::Contain(h, w) => {
                let (fh, fw) = factors(h, w);
                let (rh, rw) = scaled(fh.min(fw));
                (rh.min(h), rw.min(w))
            }
        }
    }
}
