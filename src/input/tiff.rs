//! TIFF beyond what the image library reads by itself: pages, BigTIFF, palettes, YCbCr, single-channel floats.

use crate::error::{Error, Result};
use image::{DynamicImage, ImageBuffer, Rgb, RgbImage};
use std::io::Cursor;
use tiff::decoder::{Decoder, DecodingResult, Limits};

/// More tags than the pages of any scanner have together: a chain this long is a loop.
const MAX_TAGS: usize = 1 << 20;

const SUBFILE: u16 = 254;
const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const SAMPLES: u16 = 277;
const COLOUR_MAP: u16 = 320;
const SAMPLE_FORMAT: u16 = 339;
const SUBSAMPLING: u16 = 530;
const DNG_VERSION: u16 = 50706;

/// A file's first directory of tags, and how many pages it has.
pub struct Tiff<'a> {
    file: File<'a>,
    first: Vec<Entry>,
    /// Pages, without thumbnails and reduced copies.
    pub pages: usize,
}

/// How a page's samples become colours.
enum Samples {
    /// As the image library reads them.
    Ordinary,
    /// Indices of up to 8 bits into a table of colours.
    Palette,
    /// Brightness and two colour differences, full range.
    YCbCr,
    /// One float a pixel.
    Floats,
}

#[derive(Clone, Copy)]
struct File<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    /// BigTIFF: offsets of 8 bytes.
    wide: bool,
}

struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    /// Where its values stand.
    at: usize,
}

impl File<'_> {
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let join = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    }

    /// The entries of a directory, and where the next one stands.
    fn directory(&self, at: usize) -> Option<(Vec<Entry>, usize)> {
        let (counter, entry, pointer) = if self.wide { (8, 20, 8) } else { (2, 12, 4) };
        let count = usize::try_from(self.number(at, counter)?).ok().filter(|n| *n <= 1 << 16)?;
        let start = at + counter;
        let read = |i: usize| {
            let at = start + i * entry;
            let count = usize::try_from(self.number(at + 4, pointer)?).ok()?;
            let kind = self.number(at + 2, 2)? as u16;
            let value = at + 4 + pointer;
            let inside = count.checked_mul(width(kind))? <= pointer;
            let at_values = if inside { value } else { usize::try_from(self.number(value, pointer)?).ok()? };
            Some(Entry { tag: self.number(at, 2)? as u16, kind, count, at: at_values })
        };
        let entries = (0..count).map(read).collect::<Option<Vec<_>>>()?;
        Some((entries, usize::try_from(self.number(start + count * entry, pointer)?).ok()?))
    }

    fn values(&self, entry: &Entry) -> Option<Vec<u64>> {
        let size = width(entry.kind);
        (0..entry.count.min(3 << 16)).map(|i| self.number(entry.at.checked_add(i * size)?, size)).collect()
    }
}

/// Bytes of one value of this type.
fn width(kind: u16) -> usize {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => 1,
    }
}

impl<'a> Tiff<'a> {
    /// Reads the directories.
    ///
    /// # Errors
    /// [`Error::Input`] where even the first cannot be read.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let damaged = || Error::Input("damaged Tiff image: its directory of tags cannot be read".into());
        let big_endian = bytes.starts_with(b"MM");
        let wide = bytes.get(2) == Some(&43) || bytes.get(3) == Some(&43);
        let file = File { bytes, big_endian, wide };
        let start = if wide { file.number(8, 8) } else { file.number(4, 4) };
        let mut next = start.and_then(|n| usize::try_from(n).ok()).ok_or_else(damaged)?;
        let (mut first, mut pages, mut seen) = (None, 0, 0);
        while next != 0 && seen < MAX_TAGS {
            let Some((entries, after)) = file.directory(next) else { break };
            seen += entries.len() + 1;
            let reduced = entries.iter().find(|e| e.tag == SUBFILE).and_then(|e| file.values(e)?.first().copied());
            pages += usize::from(reduced.unwrap_or(0) & 1 == 0);
            first.get_or_insert(entries);
            next = after;
        }
        let first = first.ok_or_else(damaged)?;
        // The decoder makes room for all of them before it reads the first.
        if let Some(entry) = first.iter().find(|entry| entry.count.saturating_mul(width(entry.kind)) > bytes.len()) {
            let (tag, count) = (entry.tag, entry.count);
            return Err(Error::Input(format!(
                "damaged Tiff image: {count} values of tag {tag} in a file of {} bytes",
                bytes.len()
            )));
        }
        Ok(Tiff { file, first, pages })
    }

    fn values(&self, tag: u16) -> Vec<u64> {
        self.first.iter().find(|e| e.tag == tag).and_then(|e| self.file.values(e)).unwrap_or_default()
    }

    fn value(&self, tag: u16) -> Option<u64> {
        self.values(tag).first().copied()
    }

    /// Width and height of the first page.
    pub fn dimensions(&self) -> Option<(u32, u32)> {
        let side = |tag| self.value(tag).and_then(|n| u32::try_from(n).ok());
        Some((side(WIDTH)?, side(HEIGHT)?))
    }

    /// The first page, where the image library does not read it by itself; none where it does.
    ///
    /// # Errors
    /// [`Error::Input`] for damaged data and kinds that are not read, saying what to convert to.
    pub fn special(&self, max_bytes: usize) -> Result<Option<DynamicImage>> {
        if self.first.iter().any(|e| e.tag == DNG_VERSION) {
            return Err(Error::Input("is camera raw (DNG), which is not read; develop it to JPEG or TIFF".into()));
        }
        Ok(match self.samples()? {
            Samples::Ordinary => None,
            Samples::Palette => Some(self.palette(max_bytes)?),
            Samples::YCbCr => Some(self.ycbcr(max_bytes)?),
            Samples::Floats => Some(self.floats(max_bytes)?),
        })
    }

    fn samples(&self) -> Result<Samples> {
        let bits = self.value(BITS).unwrap_or(1);
        let unread = |what: &str| {
            Err(Error::Input(format!(
                "is a TIFF of {what}, which is not read; convert it to 8-bit RGB (magick IN OUT.png)"
            )))
        };
        match self.value(PHOTOMETRIC) {
            Some(3) if [1, 2, 4, 8].contains(&bits) => Ok(Samples::Palette),
            Some(3) => unread("palette colours of other than 1, 2, 4 or 8 bits"),
            Some(6) if bits != 8 || self.value(SAMPLES) != Some(3) => unread("YCbCr colours of other than 3 x 8 bits"),
            // JPEG data inside carry their own subsampling, which is undone with them.
            Some(6) if self.value(COMPRESSION) != Some(7) && self.values(SUBSAMPLING) != [1, 1] => {
                unread("YCbCr colours with subsampled differences")
            }
            Some(6) => Ok(Samples::YCbCr),
            Some(8..=10) => unread("Lab colours"),
            Some(0 | 1) if self.value(SAMPLE_FORMAT) == Some(3) && self.value(SAMPLES).unwrap_or(1) == 1 => {
                Ok(Samples::Floats)
            }
            _ => Ok(Samples::Ordinary),
        }
    }

    /// The page's samples as if they were of another photometric interpretation, 1 grey or 2 RGB: the decoder then
    /// unpacks them and leaves their meaning to us.
    fn raw(&self, photometric: u16, max_bytes: usize) -> Result<(u32, u32, DecodingResult)> {
        let damaged =
            |e: tiff::TiffError| Error::Input(format!("damaged or unsupported Tiff image: {e}; convert it to PNG"));
        let mut bytes = self.file.bytes.to_vec();
        if let Some(at) = self.first.iter().find(|e| e.tag == PHOTOMETRIC).map(|e| e.at) {
            let value = if self.file.big_endian { photometric.to_be_bytes() } else { photometric.to_le_bytes() };
            if let Some(field) = bytes.get_mut(at..at.saturating_add(2)) {
                field.copy_from_slice(&value);
            }
        }
        let mut limits = Limits::default();
        limits.decoding_buffer_size = max_bytes;
        let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(damaged)?.with_limits(limits);
        let (width, height) = decoder.dimensions().map_err(damaged)?;
        // Of a tag that stands there twice, readers take the one or the other.
        if self.dimensions() != Some((width, height)) {
            return Err(Error::Input("damaged Tiff image: it gives its size twice".into()));
        }
        Ok((width, height, decoder.read_image().map_err(damaged)?))
    }

    fn palette(&self, max_bytes: usize) -> Result<DynamicImage> {
        let wrong = || Error::Input("damaged Tiff image: its palette does not fit its pixels".into());
        let map = self.values(COLOUR_MAP);
        let bits = self.value(BITS).unwrap_or(1) as usize;
        let colours = map.len() / 3;
        let (width, height, DecodingResult::U8(packed)) = self.raw(1, max_bytes)? else { return Err(wrong()) };
        let line = (width as usize * bits).div_ceil(8); // lines begin at whole bytes
        let index = |x: u32, y: u32| -> Option<usize> {
            let bit = x as usize * bits;
            let byte = *packed.get(y as usize * line + bit / 8)?;
            Some(usize::from(byte >> (8 - bits - bit % 8)) & ((1 << bits) - 1))
        };
        // Pillow takes the high byte of the table's 16 bits.
        let level = |i: usize, c: usize| map.get(c * colours + i).map(|v| (v >> 8) as u8);
        let mut picture = RgbImage::new(width, height);
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            let i = index(x, y).filter(|i| *i < colours).ok_or_else(wrong)?;
            for c in 0..3 {
                pixel.0[c] = level(i, c).ok_or_else(wrong)?;
            }
        }
        Ok(DynamicImage::ImageRgb8(picture))
    }

    fn ycbcr(&self, max_bytes: usize) -> Result<DynamicImage> {
        let wrong = || Error::Input("damaged Tiff image: YCbCr samples of another size than the picture".into());
        let (width, height, DecodingResult::U8(samples)) = self.raw(2, max_bytes)? else { return Err(wrong()) };
        let mut picture = RgbImage::from_raw(width, height, samples).ok_or_else(wrong)?;
        for pixel in picture.pixels_mut() {
            let [y, cb, cr] = pixel.0.map(f32::from);
            let (cb, cr) = (cb - 128.0, cr - 128.0);
            let level = |v: f32| v.round().clamp(0.0, 255.0) as u8;
            pixel.0 = [level(y + 1.402 * cr), level(y - 0.344_14 * cb - 0.714_14 * cr), level(y + 1.772 * cb)];
        }
        Ok(DynamicImage::ImageRgb8(picture))
    }

    fn floats(&self, max_bytes: usize) -> Result<DynamicImage> {
        let wrong =
            || Error::Input("is a TIFF of floats of a kind that is not read; convert it to 8 or 16 bits".into());
        let (width, height, samples) = self.raw(1, max_bytes)?;
        let values = match samples {
            DecodingResult::F32(values) => values,
            DecodingResult::F64(values) => values.into_iter().map(|v| v as f32).collect(),
            _ => return Err(wrong()),
        };
        let grey = ImageBuffer::<image::Luma<f32>, _>::from_raw(width, height, values).ok_or_else(wrong)?;
        Ok(DynamicImage::ImageRgb32F(ImageBuffer::from_fn(width, height, |x, y| Rgb([grey.get_pixel(x, y).0[0]; 3]))))
    }
}
