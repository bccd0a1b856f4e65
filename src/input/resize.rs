//! Resizing to the bit as Pillow does it, which HuggingFace's image processors use.
//!
//! Width and height one after the other, each rounded to 8 bits with weights of 22 binary places. Libraries for resizing round elsewhere
//! and are up to three levels off for filters that overshoot.

use crate::error::{Error, Result};
use image::{ImageBuffer, Rgb, Rgb32FImage, RgbImage};
use rayon::prelude::*;
use std::f64::consts::PI;

/// Pillow's resampling filters.
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
    /// 4
    Box,
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
            4 => Filter::Box,
            5 => Filter::Hamming,
            _ => return None,
        })
    }

    /// How far it reaches, in target pixels of the larger of both grids.
    fn reach(self) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// Its weight at a distance.
    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        let far = x.abs();
        match self {
            Filter::Nearest | Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Filter::Bilinear => (1.0 - far).max(0.0),
            Filter::Hamming if far >= 1.0 => 0.0,
            Filter::Hamming => sinc(far) * (0.54 + 0.46 * (far * PI).cos()),
            Filter::Bicubic if far < 1.0 => (1.5 * far - 2.5) * far * far + 1.0,
            Filter::Bicubic if far < 2.0 => (((far - 5.0) * far + 8.0) * far - 4.0) * -0.5,
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Bicubic | Filter::Lanczos => 0.0,
        }
    }
}

/// Pixels of a resized picture, and of the step between, beyond which it is almost always a mistake or an attack.
pub(super) const MAX_PIXELS: usize = 1 << 25;

/// Pillow's weights are whole multiples of 2^-22.
const UNIT: f64 = (1 << 22) as f64;

/// Resizes 8-bit RGB.
///
/// # Errors
/// As [`resize_levels`].
pub fn resize(picture: &RgbImage, height: usize, width: usize, filter: Filter) -> Result<RgbImage> {
    let levels = resize_levels(picture, height, width, filter, true)?;
    Ok(ImageBuffer::from_fn(levels.width(), levels.height(), |x, y| Rgb(levels.get_pixel(x, y).0.map(|v| v as u8))))
}

/// Resized levels of 0 to 255, `rounded` to 8 bits as Pillow's or left as they are.
///
/// # Errors
/// [`Error::Input`] for a size of no pixels or of far too many.
pub fn resize_levels(
    picture: &RgbImage,
    height: usize,
    width: usize,
    filter: Filter,
    rounded: bool,
) -> Result<Rgb32FImage> {
    let (from_height, from_width) = (picture.height() as usize, picture.width() as usize);
    let beyond = |h: usize, w: usize| h.checked_mul(w).is_none_or(|n| n > MAX_PIXELS);
    let kept = (from_height, from_width) == (height, width);
    let none = from_height == 0 || from_width == 0 || height == 0 || width == 0;
    if none || (!kept && (beyond(height, width) || beyond(from_height, width))) {
        return Err(Error::Input(format!(
            "a picture of {from_height}x{from_width} pixels (height first) cannot become {height}x{width}; crop it first, or set --size and --fit"
        )));
    }
    let raw = picture.as_raw();
    let across = |from, to| taps(from, to, filter, rounded);
    let levels = match (width == from_width, height == from_height) {
        (true, true) => raw.iter().map(|&p| f32::from(p)).collect(),
        (false, true) => columns(raw, from_width, &across(from_width, width), rounded),
        (true, false) => rows(raw, width, &across(from_height, height), rounded),
        (false, false) if rows_first((from_height, from_width), (height, width)) => {
            let low = rows(raw, from_width, &across(from_height, height), rounded);
            columns(&low, from_width, &across(from_width, width), rounded)
        }
        (false, false) => {
            let wide = columns(raw, from_width, &across(from_width, width), rounded);
            rows(&wide, width, &across(from_height, height), rounded)
        }
    };
    Rgb32FImage::from_raw(width as u32, height as u32, levels)
        .ok_or_else(|| Error::Input("resizing lost pixels".into()))
}

/// Whether the height is changed before the width: as Pillow 13 does it where that loses more than twice as many rows as
/// columns. Older ones always begin with the width; the two are up to two levels apart.
fn rows_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let lost = |n: usize, to: usize| n as i64 - to as i64;
    lost(from.0, to.0) > 0 && lost(from.0, to.0) > 2 * lost(from.1, to.1)
}

/// The source pixels that make a target pixel, and their weights.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

fn taps(from: usize, to: usize, filter: Filter, rounded: bool) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    if filter == Filter::Nearest {
        // Pillow adds the places up.
        let places = std::iter::successors(Some(scale * 0.5), |place| Some(place + scale));
        let one = if rounded { UNIT } else { 1.0 };
        return places.take(to).map(|p| Taps { first: (p as usize).min(from - 1), weights: vec![one] }).collect();
    }
    let wide = scale.max(1.0);
    let reach = filter.reach() * wide;
    let make = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let last = ((centre + reach + 0.5) as usize).min(from);
        let own: Vec<f64> = (first..last).map(|x| filter.weight((x as f64 - centre + 0.5) / wide)).collect();
        let sum: f64 = own.iter().sum();
        let weight = |w: f64| if rounded { (w / sum * UNIT).round() } else { w / sum };
        Taps { first, weights: own.into_iter().map(weight).collect() }
    };
    (0..to).map(make).collect()
}

/// A weighted sum as a level: sums of whole numbers below 2^53 are exact.
fn level(sum: f64, rounded: bool) -> f32 {
    match rounded {
        true => ((sum + UNIT / 2.0) / UNIT).floor().clamp(0.0, 255.0) as f32,
        false => sum as f32,
    }
}

/// One pass along the rows of interleaved RGB, `width` pixels each.
fn columns<T: Copy + Into<f64> + Sync>(pixels: &[T], width: usize, taps: &[Taps], rounded: bool) -> Vec<f32> {
    let line = |row: &[T]| {
        let mut out = Vec::with_capacity(taps.len() * 3);
        for tap in taps {
            let mut sums = [0.0; 3];
            for (pixel, weight) in row[3 * tap.first..].chunks_exact(3).zip(&tap.weights) {
                (0..3).for_each(|c| sums[c] += pixel[c].into() * weight);
            }
            out.extend(sums.map(|sum| level(sum, rounded)));
        }
        out
    };
    pixels.par_chunks_exact(width * 3).flat_map_iter(line).collect()
}

/// One pass along the columns.
fn rows<T: Copy + Into<f64> + Sync>(pixels: &[T], width: usize, taps: &[Taps], rounded: bool) -> Vec<f32> {
    let line = |tap: &Taps| {
        let mut sums = vec![0.0; width * 3];
        for (row, weight) in pixels[width * 3 * tap.first..].chunks_exact(width * 3).zip(&tap.weights) {
            sums.iter_mut().zip(row).for_each(|(sum, p)| *sum += (*p).into() * weight);
        }
        sums.into_iter().map(|sum| level(sum, rounded))
    };
    taps.par_iter().flat_map_iter(line).collect()
}
