//! Decoding pictures to upright 8-bit RGB, and what has to be said of one.

use super::formats::format_of;
use super::tiff::Tiff;
use crate::error::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Pixel, RgbImage};
use std::fmt;
use std::io::Cursor;

/// Longest side and, where nobody asks for more, pixels that are accepted; a picture beyond them is almost always a mistake or an attack.
const MAX_SIDE: u32 = 40_000;
const MAX_PIXELS: u64 = 100_000_000;
/// Bytes of a decoded pixel, at most: four channels of 32 bits.
const PIXEL_BYTES: u64 = 16;

/// A decoded picture.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// 8-bit RGB, upright.
    pub picture: RgbImage,
    /// What its owner should know.
    pub remarks: Vec<Remark>,
}

/// `--window`: the values, in the file's own units, that become black and white.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Becomes 0.
    pub low: f32,
    /// Becomes 255.
    pub high: f32,
}

/// What is to be said of a picture that is not what it seems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// The file holds several pages; the first is read.
    Pages(usize),
    /// The file is an animation; its first frame is read.
    Frames(usize),
    /// 16-bit grey, which other programs cut off instead of scaling it down.
    Sixteen,
    /// 16-bit values that end far below white: 10, 12 or 14 bits of data.
    Faint(u16),
    /// Colours under transparent pixels, which the model sees and a viewer does not.
    Hidden,
}

impl Remark {
    /// Whether it is said of every picture it is true of, or of a run's first only.
    pub fn always(self) -> bool {
        matches!(self, Remark::Pages(_))
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remark::Pages(n) => write!(f, "page 1 of {n} is read; split the file to have the others"),
            Remark::Frames(n) => write!(f, "frame 1 of {n} is read"),
            Remark::Sixteen => write!(f, "16-bit grey values are scaled by 1/257; Pillow's convert(\"RGB\"), which training code often calls, would clip all above 255 to white"),
            Remark::Faint(max) => {
                let white = (u32::from(*max) + 1).next_power_of_two() - 1;
                write!(f, "its 16-bit values end at {max} of 65535, so that the picture is nearly black; --window 0,{white} spreads them from black to white")
            }
            Remark::Hidden => write!(f, "its transparent pixels have colours, which the model sees (as after Pillow's convert(\"RGB\")); flatten the picture where a background is meant"),
        }
    }
}

/// Decodes a picture of any colour type to 8-bit RGB, upright.
///
/// EXIF orientation is applied; grayscale is replicated; 16-bit is scaled down; alpha is dropped, as Pillow's
/// `convert("RGB")` does; of an animation the first frame is taken, of several pages the first.
///
/// # Errors
/// [`Error::Input`] for bytes that are no picture, or a damaged, truncated, empty or oversized one.
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    Ok(decode_with(bytes, None)?.picture)
}

/// The same under a window, with what is to be said of the picture.
///
/// # Errors
/// As [`decode`], and for floats without a window: they have no white of their own.
pub fn decode_with(bytes: &[u8], window: Option<Window>) -> Result<Decoded> {
    decode_within(bytes, window, None)
}

/// The same for pictures of so many pixels at most, which is said before anything is made room for; none: 100 million.
///
/// # Errors
/// As [`decode_with`].
pub fn decode_within(bytes: &[u8], window: Option<Window>, most: Option<u64>) -> Result<Decoded> {
    let most = most.unwrap_or(MAX_PIXELS);
    let format = format_of(bytes)?;
    let mut remarks = Vec::new();
    let raw = match format {
        ImageFormat::Tiff => {
            let tiff = Tiff::open(bytes)?;
            if let Some((width, height)) = tiff.dimensions() {
                check_size(width, height, most)?;
            }
            remarks.extend((tiff.pages > 1).then_some(Remark::Pages(tiff.pages)));
            match tiff.special(most.saturating_mul(PIXEL_BYTES) as usize)? {
                Some(picture) => picture,
                None => plain(bytes, format, most)?,
            }
        }
        ImageFormat::Jpeg => {
            let end = jpeg_end(bytes).ok_or_else(|| Error::Input("truncated Jpeg image: its end is missing".into()))?;
            plain(&bytes[..end], format, most)?
        }
        _ => plain(bytes, format, most)?,
    };
    let frames = match format {
        ImageFormat::Gif => gif_frames(bytes),
        ImageFormat::Png => png_frames(bytes),
        ImageFormat::WebP => webp_frames(bytes),
        _ => 1,
    };
    remarks.extend((frames > 1).then_some(Remark::Frames(frames)));
    remarks.extend(depth(&raw).filter(|_| window.is_none()));
    remarks.extend(hides_colours(&raw).then_some(Remark::Hidden));
    Ok(Decoded { picture: to_levels(raw, window)?, remarks })
}

fn check_size(width: u32, height: u32, most: u64) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::Input(format!("holds no pixels ({width}x{height})")));
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Error::Input(format!(
            "too large: {width}x{height} pixels, and a side may have {MAX_SIDE}; scale it down first"
        )));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > most {
        return Err(Error::Input(format!(
            "too large: {width}x{height} are {pixels} pixels, and {most} may be read; scale it down first, or pass more --max-pixels"
        )));
    }
    Ok(())
}

/// What the image library makes of the bytes, upright.
fn plain(bytes: &[u8], format: ImageFormat, most: u64) -> Result<DynamicImage> {
    let damaged = |e: image::ImageError| match e {
        image::ImageError::Unsupported(e) => {
            Error::Input(format!("unsupported {format:?} image: {e}; convert it to 8-bit RGB (magick IN OUT.png)"))
        }
        e => Error::Input(format!("damaged or unsupported {format:?} image: {e}")),
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    let bytes_of_all = most.saturating_mul(PIXEL_BYTES);
    limits.max_alloc = Some(bytes_of_all);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, most)?;
    if decoder.total_bytes() > bytes_of_all {
        return Err(Error::Input(format!("too large: {width}x{height} pixels; scale it down first")));
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// What is to be said of a picture's 16 bits, if it has them.
fn depth(raw: &DynamicImage) -> Option<Remark> {
    let (values, channels, grey): (&[u16], usize, bool) = match raw {
        DynamicImage::ImageLuma16(p) => (p.as_raw(), 1, true),
        DynamicImage::ImageLumaA16(p) => (p.as_raw(), 2, true),
        DynamicImage::ImageRgb16(p) => (p.as_raw(), 3, false),
        DynamicImage::ImageRgba16(p) => (p.as_raw(), 4, false),
        _ => return None,
    };
    let colours = if channels % 2 == 0 { channels - 1 } else { channels }; // without alpha
    let max = values.chunks_exact(channels).flat_map(|p| &p[..colours]).copied().max().unwrap_or(0);
    match max {
        1..=16383 => Some(Remark::Faint(max)),
        _ => grey.then_some(Remark::Sixteen),
    }
}

/// Whether a pixel that is not opaque has another colour than white, which most viewers show through it.
fn hides_colours(raw: &DynamicImage) -> bool {
    fn hides<P: Pixel>(mut pixels: impl Iterator<Item = P>, full: P::Subpixel) -> bool
    where
        P::Subpixel: PartialEq,
    {
        pixels.any(|p| {
            let (colours, alpha) = p.channels().split_at(P::CHANNEL_COUNT as usize - 1);
            alpha[0] != full && colours.iter().any(|c| *c != full)
        })
    }
    match raw {
        DynamicImage::ImageLumaA8(p) => hides(p.pixels().copied(), u8::MAX),
        DynamicImage::ImageRgba8(p) => hides(p.pixels().copied(), u8::MAX),
        DynamicImage::ImageLumaA16(p) => hides(p.pixels().copied(), u16::MAX),
        DynamicImage::ImageRgba16(p) => hides(p.pixels().copied(), u16::MAX),
        _ => false,
    }
}

fn to_levels(raw: DynamicImage, window: Option<Window>) -> Result<RgbImage> {
    let floats = matches!(raw, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_));
    let Some(window) = window else {
        if floats {
            let values = raw.to_rgb32f();
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            return Err(Error::Input(format!("holds floats from {low} to {high}; say which are black and white, such as --window 0,1 or --window 0,255")));
        }
        return Ok(raw.into_rgb8());
    };
    // The library's conversion to floats divides whole numbers by their greatest.
    let unit = match raw.color().bytes_per_pixel() / raw.color().channel_count() {
        _ if floats => 1.0,
        2 => 65535.0,
        _ => 255.0,
    };
    let values = raw.into_rgb32f();
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::Input("holds NaN or infinite values".into()));
    }
    let level = |v: f32| ((v * unit - window.low) / (window.high - window.low) * 255.0).round().clamp(0.0, 255.0) as u8;
    let (width, height) = values.dimensions();
    let levels = values.into_raw().into_iter().map(level).collect();
    RgbImage::from_raw(width, height, levels).ok_or_else(|| Error::Input("the window lost pixels".into()))
}

/// Where a JPEG ends: behind the end marker of its own scans. What follows, such as a phone's motion picture, is not part
/// of it; decoders fill what is missing with gray, so a file without the marker is truncated.
fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 2; // behind the start marker
    loop {
        while bytes.get(at)? != &0xff {
            at += 1; // padding between segments
        }
        while bytes.get(at)? == &0xff {
            at += 1;
        }
        let marker = *bytes.get(at)?;
        at += 1;
        match marker {
            0xd9 => return Some(at),
            0x00 | 0x01 | 0xd0..=0xd8 => {} // without a body
            _ => {
                let length = usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?);
                at += length.max(2);
                if marker == 0xda {
                    // Compressed data up to the next marker; a 0xff among them is followed by 0 or is a restart.
                    while !matches!((bytes.get(at)?, bytes.get(at + 1)?), (0xff, m) if !matches!(m, 0 | 0xd0..=0xd7 | 0xff))
                    {
                        at += 1;
                    }
                }
            }
        }
    }
}

/// Pictures in a GIF.
fn gif_frames(bytes: &[u8]) -> usize {
    fn table(flags: u8) -> usize {
        if flags & 0x80 == 0 {
            0
        } else {
            3 << ((flags & 7) + 1)
        }
    }
    let blocks = |mut at: usize| -> Option<usize> {
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                return Some(at);
            }
        }
    };
    let Some(flags) = bytes.get(10) else { return 0 };
    let (mut at, mut frames) = (13 + table(*flags), 0);
    loop {
        let next = match bytes.get(at) {
            Some(0x2c) => {
                frames += 1;
                bytes.get(at + 9).and_then(|flags| blocks(at + 11 + table(*flags)))
            }
            Some(0x21) => blocks(at + 2),
            _ => None,
        };
        match next {
            Some(n) => at = n,
            None => return frames,
        }
    }
}

/// Frames that an animated PNG announces.
fn png_frames(bytes: &[u8]) -> usize {
    let number = |at: usize| bytes.get(at..at + 4).map(|b| b.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)));
    let mut at = 8;
    while let (Some(length), Some(name)) = (number(at), bytes.get(at + 4..at + 8)) {
        match name {
            b"acTL" => return number(at + 8).unwrap_or(1),
            b"IDAT" => return 1,
            _ => at = at.saturating_add(length).saturating_add(12),
        }
    }
    1
}

/// Frames of an animated WebP.
fn webp_frames(bytes: &[u8]) -> usize {
    let (mut at, mut frames) = (12usize, 0);
    while let (Some(name), Some(length)) = (bytes.get(at..at + 4), bytes.get(at + 4..at + 8)) {
        frames += usize::from(name == b"ANMF");
        let length = length.iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b));
        at = at.saturating_add(8).saturating_add(length).saturating_add(length % 2);
    }
    frames.max(1)
}
