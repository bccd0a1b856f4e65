//! The values that the file of a mask holds: indices of a palette rather than its colours, grays of any depth as they are
//! stored, transparency where there is any.

use crate::error::{Error, Result};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Luma};
use std::io::Cursor;

/// What the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Grays as stored, of so many bits; `lossy`: near what was meant.
    Gray {
        /// 1, 2, 4, 8 or 16.
        bits: u8,
        /// From a JPEG.
        lossy: bool,
    },
    /// Indices of a palette that shows colours.
    Indices,
    /// 0 is transparent, `opaque` opaque.
    Alpha {
        /// 255 or 65535.
        opaque: u32,
    },
    /// 0xrrggbb.
    Colours {
        /// From a JPEG.
        lossy: bool,
    },
}

impl Source {
    /// The value that says "nobody knows", beside others.
    pub fn void(self) -> Option<u32> {
        match self {
            Source::Indices | Source::Gray { bits: 8, .. } => Some(255),
            Source::Gray { bits: 16, .. } => Some(65535),
            Source::Gray { .. } | Source::Alpha { .. } | Source::Colours { .. } => None,
        }
    }
}

/// The values of a mask's file, upright.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// `[height*width]`
    pub values: Vec<u32>,
    /// What they are.
    pub source: Source,
}

/// Longest side and bytes of a mask; beyond them it is a mistake or an attack.
const MAX_SIDE: u32 = 40_000;
const MAX_BYTES: u64 = 1 << 30;
/// How far the channels of a gray pixel may lie apart in a JPEG.
const GRAY_OF_JPEG: u8 = 24;

impl Samples {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Input`] for what is no picture.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |e: &dyn std::fmt::Display| Error::Input(format!("damaged or unsupported picture: {e}"));
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| damaged(&e))?;
        let Some(format) = reader.format() else {
            return Err(Error::Input("not an image: unknown format; PNG is the usual one for masks".into()));
        };
        let mut limits = Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
        limits.max_alloc = Some(MAX_BYTES);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|e| damaged(&e))?;
        if decoder.total_bytes() > MAX_BYTES {
            return Err(Error::Input(format!("too large: {:?} pixels", decoder.dimensions())));
        }
        let orientation = decoder.orientation().map_err(|e| damaged(&e))?;
        let stored = if format == ImageFormat::Png { stored(bytes)? } else { None };
        let samples = match stored {
            Some(stored) => stored,
            None => shown(DynamicImage::from_decoder(decoder).map_err(|e| damaged(&e))?, format),
        };
        Ok(samples.upright(orientation))
    }

    fn upright(self, orientation: image::metadata::Orientation) -> Self {
        if orientation == image::metadata::Orientation::NoTransforms {
            return self;
        }
        let (mut places, source) = (self.values.clone(), self.source);
        places.sort_unstable();
        places.dedup();
        let turn = |values: Vec<u16>| -> Option<(u32, u32, Vec<u16>)> {
            let own = ImageBuffer::<Luma<u16>, _>::from_raw(self.width, self.height, values)?;
            let mut picture = DynamicImage::ImageLuma16(own);
            picture.apply_orientation(orientation);
            Some((picture.width(), picture.height(), picture.into_luma16().into_raw()))
        };
        // Colours have more than 16 bits: both halves are turned alike.
        let half = |shift: u32| turn(self.values.iter().map(|v| (v >> shift) as u16).collect());
        match (half(0), half(16)) {
            (Some((width, height, low)), Some((_, _, high))) => {
                let both = low.iter().zip(high).map(|(l, h)| u32::from(*l) | u32::from(h) << 16);
                Samples { width, height, values: both.collect(), source }
            }
            _ => self, // a buffer of width times height values always is a picture
        }
    }

    /// Whether grays of `distinct` values fade into each other, rather than lie side by side as class ids do: of the pixels
    /// between 0 and the highest value hardly any has its right and its lower neighbour's value.
    pub fn fades(&self, distinct: usize, highest: u32) -> bool {
        let many = match self.source {
            Source::Gray { bits: 16, .. } => 1024,
            _ => 64,
        };
        let (w, h) = (self.width as usize, self.height as usize);
        let (mut between, mut inside) = (0usize, 0usize);
        for (i, &v) in self.values.iter().enumerate() {
            if v == 0 || v == highest {
                continue;
            }
            between += 1;
            let right = i % w + 1 == w || self.values[i + 1] == v;
            let below = i / w + 1 == h || self.values[i + w] == v;
            inside += usize::from(right && below);
        }
        distinct > many || 4 * inside < between
    }
}

/// Grays and palette indices of a PNG as they are stored; none for other kinds of PNG.
fn stored(bytes: &[u8]) -> Result<Option<Samples>> {
    let damaged = |e: png::DecodingError| Error::Input(format!("damaged PNG: {e}"));
    let limits = png::Limits { bytes: MAX_BYTES as usize };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    let (colour, depth, palette) = (info.color_type, info.bit_depth as u8, info.palette.clone());
    let transparent = info.trns.is_some();
    if transparent || !matches!(colour, png::ColorType::Grayscale | png::ColorType::Indexed) {
        return Ok(None);
    }
    let size = reader.output_buffer_size().ok_or_else(|| Error::Input("damaged PNG: too large".into()))?;
    let mut buffer = vec![0; size];
    let frame = reader.next_frame(&mut buffer).map_err(damaged)?;
    let (width, height) = (frame.width, frame.height);
    let row = |line: &[u8]| -> Vec<u32> {
        match depth {
            16 => line.chunks_exact(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).collect(),
            8 => line.iter().map(|b| u32::from(*b)).collect(),
            bits => {
                let per_byte = 8 / bits;
                let part = move |b: &u8, k: u8| u32::from(b >> (8 - bits * (k + 1))) & ((1 << bits) - 1);
                line.iter().flat_map(|b| (0..per_byte).map(move |k| part(b, k))).collect()
            }
        }
    };
    let lines = buffer.chunks_exact(frame.line_size).take(height as usize);
    let mut values: Vec<u32> = lines.flat_map(|line| row(line).into_iter().take(width as usize)).collect();
    let mut source = Source::Gray { bits: depth, lossy: false };
    if colour == png::ColorType::Indexed {
        let palette = palette.unwrap_or_default();
        let colour = |v: u32| palette.get(v as usize * 3..v as usize * 3 + 3);
        let gray = |v: &u32| colour(*v).filter(|c| c[0] == c[1] && c[1] == c[2]).map(|c| u32::from(c[0]));
        source = match values.iter().map(gray).collect::<Option<Vec<_>>>() {
            Some(grays) => {
                values = grays;
                Source::Gray { bits: 8, lossy: false }
            }
            None => Source::Indices,
        };
    }
    Ok(Some(Samples { width, height, values, source }))
}

/// What a decoded picture shows: its transparency, its grays, or its colours.
fn shown(picture: DynamicImage, format: ImageFormat) -> Samples {
    let (width, height) = (picture.width(), picture.height());
    let lossy = format == ImageFormat::Jpeg;
    let wide = picture.color().bytes_per_pixel() / picture.color().channel_count() > 1;
    let samples = |values: Vec<u32>, source| Samples { width, height, values, source };
    if picture.color().has_alpha() {
        let (alpha, opaque): (Vec<u32>, u32) = if wide {
            (picture.to_rgba16().pixels().map(|p| u32::from(p.0[3])).collect(), 65535)
        } else {
            (picture.to_rgba8().pixels().map(|p| u32::from(p.0[3])).collect(), 255)
        };
        if alpha.iter().any(|a| *a != opaque) {
            return samples(alpha, Source::Alpha { opaque });
        }
    }
    if wide {
        let rgb = picture.into_rgb16();
        if rgb.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]) {
            return samples(rgb.pixels().map(|p| u32::from(p.0[0])).collect(), Source::Gray { bits: 16, lossy });
        }
        return colours(&DynamicImage::ImageRgb16(rgb).into_rgb8(), lossy);
    }
    let rgb = picture.into_rgb8();
    let apart = if lossy { GRAY_OF_JPEG } else { 0 };
    let gray = |p: &image::Rgb<u8>| {
        let [r, g, b] = p.0;
        r.max(g).max(b) - r.min(g).min(b) <= apart
    };
    if rgb.pixels().all(gray) {
        return samples(rgb.pixels().map(|p| u32::from(p.0[1])).collect(), Source::Gray { bits: 8, lossy });
    }
    colours(&rgb, lossy)
}

fn colours(rgb: &image::RgbImage, lossy: bool) -> Samples {
    let packed = |p: &image::Rgb<u8>| u32::from_be_bytes([0, p.0[0], p.0[1], p.0[2]]);
    let values = rgb.pixels().map(packed).collect();
    Samples { width: rgb.width(), height: rgb.height(), values, source: Source::Colours { lossy } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(colour: png::ColorType, depth: png::BitDepth, palette: Option<&[u8]>, width: u32, rows: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let line = (width as usize * depth as usize * colour.samples()).div_ceil(8);
        let mut encoder = png::Encoder::new(&mut bytes, width, (rows.len() / line) as u32);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette.to_vec());
        }
        encoder.write_header().unwrap().write_image_data(rows).unwrap();
        bytes
    }

    #[test]
    fn pngs_are_read_as_they_are_stored() {
        use png::{BitDepth, ColorType};
        let voc = [0u8, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0];
        let grays = [255u8, 255, 255, 0, 0, 0];
        let gray = |bits| Source::Gray { bits, lossy: false };
        for (colour, depth, palette, rows, values, source) in [
            (ColorType::Grayscale, BitDepth::Eight, None, &[0u8, 1, 255][..], [0, 1, 255], gray(8)),
            (ColorType::Grayscale, BitDepth::Sixteen, None, &[0, 0, 0, 1, 255, 255], [0, 1, 65535], gray(16)),
            (ColorType::Grayscale, BitDepth::Two, None, &[0b0001_1000], [0, 1, 2], gray(2)),
            (ColorType::Grayscale, BitDepth::One, None, &[0b0110_0000], [0, 1, 1], gray(1)),
            (ColorType::Indexed, BitDepth::Two, Some(&voc[..]), &[0b0001_1000], [0, 1, 2], Source::Indices),
            (ColorType::Indexed, BitDepth::One, Some(&grays[..]), &[0b0110_0000], [255, 0, 0], gray(8)),
            (
                ColorType::Rgb,
                BitDepth::Eight,
                None,
                &[0, 0, 0, 128, 0, 0, 224, 224, 192],
                [0, 0x80_0000, 0xe0_e0c0],
                Source::Colours { lossy: false },
            ),
            (
                ColorType::GrayscaleAlpha,
                BitDepth::Eight,
                None,
                &[9, 0, 9, 255, 9, 255],
                [0, 255, 255],
                Source::Alpha { opaque: 255 },
            ),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, None, &[0, 255, 1, 255, 1, 255], [0, 1, 1], gray(8)),
        ] {
            let samples = Samples::decode(&png(colour, depth, palette, 3, rows)).unwrap();
            assert_eq!((samples.values, samples.source), (values.to_vec(), source), "{colour:?} {depth:?}");
            assert_eq!((samples.width, samples.height), (3, 1));
        }
        assert!(Samples::decode(b"hello").unwrap_err().to_string().contains("not an image"));
    }

    #[test]
    fn turned_files_stand_upright() {
        let samples =
            Samples { width: 2, height: 1, values: vec![0x80_0000, 7], source: Source::Colours { lossy: false } };
        let turned = samples.upright(image::metadata::Orientation::Rotate90);
        assert_eq!((turned.width, turned.height, turned.values), (1, 2, vec![0x80_0000, 7]));
    }
}
