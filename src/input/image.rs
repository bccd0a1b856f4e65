//! Pictures: decode, orient, resize, crop, normalise, as HuggingFace's ViT, DeiT and BiT image processors do.

use crate::error::{Error, Result};
use crate::input::resize::{resize, Filter};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use serde_json::Value;
use std::io::Cursor;

/// Longest side and decoded size that are accepted; a picture beyond them is almost always a mistake or an attack.
const MAX_SIDE: u32 = 40_000;
const MAX_BYTES: u64 = 2 << 30;

/// Decodes a picture of any colour type to 8-bit RGB, upright.
///
/// EXIF orientation is applied; grayscale is replicated; 16-bit is scaled down; alpha is dropped, as Pillow's
/// `convert("RGB")` does; of an animation the first frame is taken.
///
/// # Errors
/// [`Error::Input`] for bytes that are no picture, or a damaged, truncated or oversized one.
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    if bytes.is_empty() {
        return Err(Error::Input("the file is empty".into()));
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| Error::Input(e.to_string()))?;
    let Some(format) = reader.format() else {
        let start: String = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).escape_debug().collect();
        return Err(Error::Input(format!("not an image: unknown format (it starts with \"{start}\"); vitx reads JPEG, PNG, GIF, WebP, BMP, TIFF and PNM")));
    };
    let damaged = |e: image::ImageError| Error::Input(format!("damaged or unsupported {format:?} image: {e}"));
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = reader;
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MAX_BYTES {
        return Err(Error::Input(format!("too large: {width}x{height} pixels; scale it down first")));
    }
    if format == ImageFormat::Jpeg && !ends_properly(bytes) {
        return Err(Error::Input("truncated Jpeg image: its end is missing".into()));
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// Whether a JPEG's last scan is followed by an end marker; decoders fill what is missing with gray.
fn ends_properly(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|w| w == [0xff, marker]);
    last(0xd9) > last(0xda)
}

/// Where the model's input lies in the upright picture, in picture pixels; may reach outside it (padding).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// A picture as the model reads it.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// `[3,H,W]` normalised pixel values, channel by channel, row by row.
    pub pixels: Vec<f32>,
    /// H and W.
    pub size: (usize, usize),
    /// Where this lies in the picture.
    pub view: View,
}

/// How a picture is brought to the input size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// To exactly this height and width, whatever the picture's shape.
    Exact(usize, usize),
    /// So that the shorter side has this length, keeping the shape.
    ShortestEdge(usize),
    /// So that it covers this height and width, keeping the shape.
    Cover(usize, usize),
    /// So that it fits into this height and width, keeping the shape.
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

/// A checkpoint's image preprocessing.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// How to resize, if at all.
    pub resize: Option<Resize>,
    /// Centre crop (or pad) to this height and width.
    pub crop: Option<(usize, usize)>,
    /// Pillow's filter.
    pub filter: Filter,
    /// Factor on 8-bit values.
    pub rescale: f32,
    /// Subtracted, then divided by, per channel.
    pub normalise: Option<([f32; 3], [f32; 3])>,
    /// True when the checkpoint had no preprocessor_config.json and defaults stand in.
    pub assumed: bool,
}

impl ImageProcessor {
    /// Reads `preprocessor_config.json`. Without one: squashed to the model's `image` size, mean and deviation 0.5.
    ///
    /// # Errors
    /// [`Error::Model`] naming a key with an unusable value.
    pub fn from_json(json: Option<&Value>, image: (usize, usize)) -> Result<Self> {
        let Some(json) = json else {
            let half = ([0.5; 3], [0.5; 3]);
            let resize = Some(Resize::Exact(image.0, image.1));
            return Ok(ImageProcessor {
                resize,
                crop: None,
                filter: Filter::Bilinear,
                rescale: 1.0 / 255.0,
                normalise: Some(half),
                assumed: true,
            });
        };
        let read = ReadJson { json };
        let kind = read.text("image_processor_type").or(read.text("feature_extractor_type")).unwrap_or_default();
        let (bit, deit) = (kind.starts_with("Bit"), kind.starts_with("DeiT"));
        let default_size = match (bit, deit) {
            (true, _) => Resize::ShortestEdge(224),
            (_, true) => Resize::Exact(256, 256),
            _ => Resize::Exact(224, 224),
        };
        let crops = read.flag("do_center_crop", bit || deit)?;
        let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let (mean, std) = if bit || deit { imagenet } else { ([0.5; 3], [0.5; 3]) };
        let number = json.get("resample").map(|v| {
            v.as_u64()
                .and_then(Filter::from_pillow)
                .ok_or_else(|| read.wrong("resample", "a Pillow filter: 0, 1, 2, 3 or 5"))
        });
        let filter = number.transpose()?.unwrap_or(if bit || deit { Filter::Bicubic } else { Filter::Bilinear });
        let (mean, std) = (read.triple("image_mean", mean)?, read.triple("image_std", std)?);
        Ok(ImageProcessor {
            resize: if read.flag("do_resize", true)? { Some(read.size("size", default_size)?) } else { None },
            crop: if crops {
                match read.size("crop_size", Resize::Exact(224, 224))? {
                    Resize::Exact(h, w) => Some((h, w)),
                    _ => return Err(read.wrong("crop_size", "a height and a width")),
                }
            } else {
                None
            },
            filter,
            rescale: if read.flag("do_rescale", true)? { read.float("rescale_factor", 1.0 / 255.0)? } else { 1.0 },
            normalise: read.flag("do_normalize", true)?.then_some((mean, std)),
            assumed: false,
        })
    }

    /// Height and width of the model's input, when they do not depend on the picture.
    pub fn input_size(&self) -> Option<(usize, usize)> {
        self.crop.or(match self.resize {
            Some(Resize::Exact(h, w) | Resize::Cover(h, w)) => Some((h, w)),
            _ => None,
        })
    }

    /// A black pixel after normalisation, per channel.
    pub fn black(&self) -> [f32; 3] {
        let (mean, std) = self.normalise.unwrap_or(([0.0; 3], [1.0; 3]));
        std::array::from_fn(|c| -mean[c] / std[c])
    }

    /// A white pixel after normalisation, per channel.
    pub fn white(&self) -> [f32; 3] {
        let (mean, std) = self.normalise.unwrap_or(([0.0; 3], [1.0; 3]));
        std::array::from_fn(|c| (255.0 * self.rescale - mean[c]) / std[c])
    }

    /// The 8-bit picture that these normalised values `[3,H,W]` came from, out-of-range values cut off.
    pub fn picture(&self, pixels: &[f32], height: usize, width: usize) -> RgbImage {
        let (mean, std) = self.normalise.unwrap_or(([0.0; 3], [1.0; 3]));
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = |c: usize| pixels[(c * height + y as usize) * width + x as usize];
            let level = |c: usize| ((at(c) * std[c] + mean[c]) / self.rescale).round().clamp(0.0, 255.0) as u8;
            Rgb([level(0), level(1), level(2)])
        })
    }

    /// Normalised values `[3,H,W]` of a picture that already has the input's size.
    pub fn pixels(&self, picture: &RgbImage) -> Vec<f32> {
        self.normalised(picture, (0, 0), (picture.height() as usize, picture.width() as usize))
    }

    /// The same preprocessing for another input size and, if asked, another fit.
    ///
    /// A processor that resizes larger than it crops (256, then 224) keeps that proportion.
    pub fn adapted(mut self, size: Option<(usize, usize)>, fit: Option<Fit>) -> Self {
        let Some((h, w)) = size.or_else(|| self.input_size()) else { return self };
        match fit {
            Some(Fit::Resize) => (self.resize, self.crop) = (Some(Resize::Exact(h, w)), None),
            Some(Fit::Crop) => (self.resize, self.crop) = (Some(Resize::Cover(h, w)), Some((h, w))),
            Some(Fit::Pad) => (self.resize, self.crop) = (Some(Resize::Contain(h, w)), Some((h, w))),
            None if size.is_none() => {}
            None => match (self.resize, self.crop) {
                (Some(Resize::Exact(rh, rw)), Some((ch, cw))) => {
                    self.resize = Some(Resize::Exact((h * rh).div_ceil(ch), (w * rw).div_ceil(cw)));
                    self.crop = Some((h, w));
                }
                (Some(Resize::ShortestEdge(edge)), Some((ch, cw))) => {
                    let grown = |n: usize| (n * edge).div_ceil(ch.min(cw));
                    self.resize = Some(Resize::Cover(grown(h), grown(w)));
                    self.crop = Some((h, w));
                }
                _ => (self.resize, self.crop) = (Some(Resize::Exact(h, w)), None),
            },
        }
        self
    }

    /// Prepares one upright picture.
    ///
    /// # Errors
    /// [`Error::Input`] when resizing fails.
    pub fn apply(&self, picture: &RgbImage) -> Result<Prepared> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (rh, rw) = self.resize.map_or((height, width), |r| r.target(height, width));
        let resized = resize(picture, rh, rw, self.filter)?;
        let (ch, cw) = self.crop.unwrap_or((rh, rw));
        // transformers' center_crop: the window starts at (size - crop) / 2 rounded down; a smaller picture is
        // padded with zeros before rescaling, the odd pixel going first.
        let offset = |size: usize, crop: usize| {
            if size >= crop {
                ((size - crop) / 2) as i64
            } else {
                -((crop - size).div_ceil(2) as i64)
            }
        };
        let (top, left) = (offset(rh, ch), offset(rw, cw));
        let pixels = self.normalised(&resized, (top, left), (ch, cw));
        let (sx, sy) = (width as f64 / rw as f64, height as f64 / rh as f64);
        let view = View { x: left as f64 * sx, y: top as f64 * sy, width: cw as f64 * sx, height: ch as f64 * sy };
        Ok(Prepared { pixels, size: (ch, cw), view })
    }

    fn normalised(&self, picture: &RgbImage, (top, left): (i64, i64), (height, width): (usize, usize)) -> Vec<f32> {
        let (mean, std) = self.normalise.unwrap_or(([0.0; 3], [1.0; 3]));
        let pads_with_mean = matches!(self.resize, Some(Resize::Contain(..)));
        let mut pixels = vec![0f32; 3 * height * width];
        for (c, plane) in pixels.chunks_mut(height * width).enumerate() {
            for (i, value) in plane.iter_mut().enumerate() {
                let (y, x) = ((i / width) as i64 + top, (i % width) as i64 + left);
                let inside = x >= 0 && y >= 0 && x < i64::from(picture.width()) && y < i64::from(picture.height());
                *value = match inside {
                    true => (f32::from(picture.get_pixel(x as u32, y as u32)[c]) * self.rescale - mean[c]) / std[c],
                    false if pads_with_mean => 0.0,
                    false => -mean[c] / std[c],
                };
            }
        }
        pixels
    }
}

impl Resize {
    /// Height and width a picture of this height and width becomes.
    fn target(self, height: usize, width: usize) -> (usize, usize) {
        let scaled = |factor: f64| {
            let side = |n: usize| ((n as f64 * factor).round() as usize).max(1);
            (side(height), side(width))
        };
        let factors = |h: usize, w: usize| (h as f64 / height as f64, w as f64 / width as f64);
        match self {
            Resize::Exact(h, w) => (h, w),
            // transformers: int(size * long / short)
            Resize::ShortestEdge(edge) if width <= height => (edge * height / width, edge),
            Resize::ShortestEdge(edge) => (edge, edge * width / height),
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

struct ReadJson<'a> {
    json: &'a Value,
}

impl<'a> ReadJson<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let value = self.json.get(key).cloned().unwrap_or_default();
        Error::Model(format!("preprocessor_config.json: `{key}` is {value}, expected {expected}"))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |v| v.as_bool().ok_or_else(|| self.wrong(key, "true or false")))
    }

    fn float(&self, key: &str, default: f32) -> Result<f32> {
        self.get(key).map_or(Ok(default), |v| v.as_f64().map(|f| f as f32).ok_or_else(|| self.wrong(key, "a number")))
    }

    fn triple(&self, key: &str, default: [f32; 3]) -> Result<[f32; 3]> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let floats: Option<Vec<f32>> =
            value.as_array().map(|a| a.iter().filter_map(|v| v.as_f64().map(|f| f as f32)).collect());
        floats.and_then(|f| f.try_into().ok()).ok_or_else(|| self.wrong(key, "three numbers"))
    }

    /// `224`, `{"height", "width"}` or `{"shortest_edge"}`. A bare number is a square, but BiT's shortest edge.
    fn size(&self, key: &str, default: Resize) -> Result<Resize> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = |v: Option<&Value>| v.and_then(Value::as_u64).filter(|n| *n > 0).map(|n| n as usize);
        let edge = number(value.get("shortest_edge")).map(Resize::ShortestEdge);
        let exact = number(value.get("height")).zip(number(value.get("width"))).map(|(h, w)| Resize::Exact(h, w));
        let bare = number(Some(value)).map(|n| match (key, default) {
            ("size", Resize::ShortestEdge(_)) => Resize::ShortestEdge(n),
            _ => Resize::Exact(n, n),
        });
        edge.or(exact).or(bare).ok_or_else(|| self.wrong(key, "a number, {height, width} or {shortest_edge}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * 7 % 256) as u8, (y * 5 % 256) as u8, ((x + y) % 256) as u8])
        })
    }

    #[test]
    fn processors_are_read_as_transformers_reads_them() {
        let read = |j: Value| ImageProcessor::from_json(Some(&j), (224, 224)).unwrap();
        let vit = read(
            json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 32}, "resample": 2}),
        );
        assert_eq!((vit.resize, vit.crop, vit.filter), (Some(Resize::Exact(48, 32)), None, Filter::Bilinear));
        let old =
            read(json!({"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "image_mean": [0.5, 0.5, 0.5]}));
        assert_eq!(old.resize, Some(Resize::Exact(224, 224)));
        let deit = read(
            json!({"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224, "resample": 3}),
        );
        assert_eq!(
            (deit.resize, deit.crop, deit.filter),
            (Some(Resize::Exact(256, 256)), Some((224, 224)), Filter::Bicubic)
        );
        let bit = read(
            json!({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}),
        );
        assert_eq!((bit.resize, bit.crop), (Some(Resize::ShortestEdge(256)), Some((224, 224))));
        let error = ImageProcessor::from_json(Some(&json!({"image_mean": [1]})), (8, 8)).unwrap_err().to_string();
        assert!(error.contains("image_mean"), "{error}");
    }

    #[test]
    fn the_view_is_where_the_model_looks() {
        let bit = ImageProcessor::from_json(
            Some(&json!({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 50}, "crop_size": 40})),
            (40, 40),
        )
        .unwrap();
        let p = bit.apply(&gradient(200, 100)).unwrap(); // becomes 100x50, of which the middle 40x40 is read
        assert_eq!((p.size, p.pixels.len()), ((40, 40), 3 * 40 * 40));
        assert_eq!(p.view, View { x: 60.0, y: 10.0, width: 80.0, height: 80.0 });
        let pad = bit.clone().adapted(Some((40, 40)), Some(Fit::Pad)).apply(&gradient(200, 100)).unwrap();
        assert_eq!(pad.view, View { x: 0.0, y: -50.0, width: 200.0, height: 200.0 });
        assert_eq!(pad.pixels[0], 0.0, "padding is the mean colour");
        let crop = bit.clone().adapted(Some((20, 40)), Some(Fit::Crop)).apply(&gradient(100, 100)).unwrap();
        assert_eq!((crop.size, crop.view), ((20, 40), View { x: 0.0, y: 25.0, width: 100.0, height: 50.0 }));
        let grown = bit.adapted(Some((80, 80)), None);
        assert_eq!((grown.resize, grown.crop), (Some(Resize::Cover(100, 100)), Some((80, 80))));
    }

    #[test]
    fn a_picture_smaller_than_the_crop_is_padded_with_black() {
        let processor = ImageProcessor {
            resize: None,
            crop: Some((4, 5)),
            filter: Filter::Bilinear,
            rescale: 1.0,
            normalise: None,
            assumed: false,
        };
        let white = RgbImage::from_pixel(2, 3, image::Rgb([255; 3]));
        let p = processor.apply(&white).unwrap();
        assert_eq!(&p.pixels[..10], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 255.0, 255.0, 0.0]);
    }

    #[test]
    fn what_is_no_picture_says_why() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (&b"hello world, I am a text file"[..], "not an image"),
            (&b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01"[..], "Jpeg"),
            (&b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"[..], "Png"),
        ] {
            let error = decode(bytes).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
