//! Pictures as models read them: resized, cropped, normalised, as the image processors of transformers do.

pub use super::decode::{decode, decode_with, decode_within, Decoded, Remark, Window};
pub use super::geometry::{Fit, Pad, Resize};
pub use super::processor::Origin;

use super::geometry::{centred, centred_evenly, cropped, padded};
use super::resize::{resize_levels, Filter, MAX_PIXELS};
use crate::error::{Error, Result};
use image::{ImageBuffer, Rgb, Rgb32FImage, RgbImage};

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
    /// `[C,H,W]` normalised pixel values, channel by channel, row by row.
    pub pixels: Vec<f32>,
    /// H and W.
    pub size: (usize, usize),
    /// Where this lies in the picture.
    pub view: View,
}

/// A checkpoint's image preprocessing, in the order of its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// C of the model: 1 reads pictures in grey, 3 in colour; others read arrays alone.
    pub channels: usize,
    /// Height and width to cut out of the middle, as parts of the shorter side.
    pub cut: Option<(f64, f64)>,
    /// How to resize, if at all.
    pub resize: Option<Resize>,
    /// Pillow's filter.
    pub filter: Filter,
    /// Resized levels stay floats instead of being rounded to 8 bits.
    pub floats: bool,
    /// Centre crops (or black padding) to these heights and widths, one after the other.
    pub crops: Vec<(usize, usize)>,
    /// Crops begin where torchvision's do, and not where those of transformers do: a pixel apart for some odd differences.
    pub even: bool,
    /// Factor on 8-bit values.
    pub rescale: f32,
    /// Subtracted, per channel.
    pub mean: Vec<f32>,
    /// Then divided by, per channel.
    pub std: Vec<f32>,
    /// Blue, green, red.
    pub reversed: bool,
    /// Zeros around the normalised values.
    pub pad: Option<Pad>,
}

impl ImageProcessor {
    /// What stands in for a missing file: squashed to `size`, mean and deviation 0.5.
    pub fn plain(size: (usize, usize), channels: usize) -> Self {
        ImageProcessor {
            channels,
            cut: None,
            resize: Some(Resize::Exact(size.0, size.1)),
            filter: Filter::Bilinear,
            floats: false,
            crops: Vec::new(),
            even: false,
            rescale: 1.0 / 255.0,
            mean: vec![0.5; channels],
            std: vec![0.5; channels],
            reversed: false,
            pad: None,
        }
    }

    /// Height and width of the model's input, when they do not depend on the picture.
    pub fn input_size(&self) -> Option<(usize, usize)> {
        self.pad.map(|p| p.size).or(self.crops.last().copied()).or(match self.resize {
            Some(Resize::Exact(h, w)) => Some((h, w)),
            _ => None,
        })
    }

    /// A black pixel after normalisation, per channel.
    pub fn black(&self) -> Vec<f32> {
        self.mean.iter().zip(&self.std).map(|(mean, std)| -mean / std).collect()
    }

    /// A white pixel after normalisation, per channel.
    pub fn white(&self) -> Vec<f32> {
        self.mean.iter().zip(&self.std).map(|(mean, std)| (255.0 * self.rescale - mean) / std).collect()
    }

    /// The 8-bit picture that these normalised values `[C,H,W]` came from, out-of-range values cut off. Of one channel or
    /// two the first is shown in grey, of more the first three in colour.
    pub fn picture(&self, pixels: &[f32], height: usize, width: usize) -> RgbImage {
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            Rgb(std::array::from_fn(|colour| {
                let c = self.channel(colour);
                let value = pixels[(c * height + y as usize) * width + x as usize];
                ((value * self.std[c] + self.mean[c]) / self.rescale).round().clamp(0.0, 255.0) as u8
            }))
        })
    }

    /// The channel that shows a colour of a picture: 0 red, 1 green, 2 blue.
    fn channel(&self, colour: usize) -> usize {
        match self.channels {
            0..=2 => 0,
            _ if self.reversed => 2 - colour,
            _ => colour,
        }
    }

    /// Normalised values `[C,H,W]` of a picture that already has the input's size.
    pub fn pixels(&self, picture: &RgbImage) -> Vec<f32> {
        self.normalised(&ImageBuffer::from_fn(picture.width(), picture.height(), |x, y| {
            Rgb(picture.get_pixel(x, y).0.map(f32::from))
        }))
    }

    /// The same preprocessing for another input size and, if asked, another fit.
    ///
    /// A processor that resizes larger than it crops (256, then 224) keeps that proportion.
    pub fn adapted(mut self, size: Option<(usize, usize)>, fit: Option<Fit>) -> Self {
        let own = self.input_size();
        let Some((h, w)) = size.or(own) else { return self };
        if let Some(fit) = fit {
            let pad = Pad { size: (h, w), centred: true };
            (self.cut, self.pad) = (None, Some(pad).filter(|_| fit == Fit::Pad));
            (self.resize, self.crops) = match fit {
                Fit::Resize => (Some(Resize::Exact(h, w)), Vec::new()),
                Fit::Crop => (Some(Resize::Cover(h, w)), vec![(h, w)]),
                Fit::Pad => (Some(Resize::Contain(h, w)), Vec::new()),
            };
            return self;
        }
        if size.is_none() {
            return self;
        }
        let scaled = |(a, b): (usize, usize), (oh, ow): (usize, usize)| ((h * a).div_ceil(oh), (w * b).div_ceil(ow));
        match (own, self.resize) {
            (Some(own), Some(Resize::Exact(rh, rw))) => {
                let (rh, rw) = scaled((rh, rw), own);
                self.resize = Some(Resize::Exact(rh, rw));
            }
            (Some(own), Some(Resize::ShortestEdge(edge))) if self.pad.is_none() => {
                let least = own.0.min(own.1);
                let (rh, rw) = scaled((edge, edge), (least, least));
                self.resize = Some(Resize::Cover(rh, rw));
            }
            _ => {
                (self.resize, self.pad) = (Some(Resize::Exact(h, w)), None);
                self.crops.clear();
            }
        }
        if let Some(own) = own {
            self.crops.iter_mut().for_each(|crop| *crop = scaled(*crop, own));
            self.pad = self.pad.map(|p| Pad { size: (h, w), ..p });
        }
        self
    }

    /// Prepares one upright picture.
    ///
    /// # Errors
    /// [`Error::Input`] when it cannot be resized or padded as asked, and where the model's channels are not a picture's.
    pub fn apply(&self, picture: &RgbImage) -> Result<Prepared> {
        let grey;
        let picture = match self.channels {
            3 => picture,
            1 => {
                grey = greyed(picture);
                &grey
            }
            n => return Err(Error::Input(format!("is a picture, but the model reads {n} channels (num_channels): pass prepared values as a .npy array [{n},H,W]"))),
        };
        let (mut top, mut left) = (0.0, 0.0);
        let cut = match self.cut {
            Some(share) => {
                let part;
                (part, (top, left)) = cut_out(picture, share)?;
                Some(part)
            }
            None => None,
        };
        let source = cut.as_ref().unwrap_or(picture);
        let (height, width) = (source.height() as usize, source.width() as usize);
        let (rh, rw) = self.resize.map_or((height, width), |r| r.target(height, width));
        for (h, w) in self.crops.iter().copied().chain(self.pad.map(|pad| pad.size)) {
            within((h, w))?;
        }
        let mut levels = resize_levels(source, rh, rw, self.filter, !self.floats)?;
        let (sy, sx) = (height as f64 / rh as f64, width as f64 / rw as f64); // picture pixels an input pixel
        for &(h, w) in &self.crops {
            let whole = (levels.height() as usize, levels.width() as usize);
            let window = if self.even { centred_evenly(whole, (h, w)) } else { centred(whole, (h, w), !self.floats) };
            (top, left) = (top + window.0 as f64 * sy, left + window.1 as f64 * sx);
            levels = cropped(&levels, window, (h, w));
        }
        let mut size = (levels.height() as usize, levels.width() as usize);
        let mut pixels = self.normalised(&levels);
        if let Some(pad) = self.pad {
            let (above, before) = pad.before(size)?;
            pixels = padded(&pixels, size, pad.size, (above, before));
            (top, left) = (top - above as f64 * sy, left - before as f64 * sx);
            size = pad.size;
        }
        let view = View { x: left, y: top, width: size.1 as f64 * sx, height: size.0 as f64 * sy };
        Ok(Prepared { pixels, size, view })
    }

    /// Levels of 0 to 255 as `[C,H,W]` values.
    fn normalised(&self, levels: &Rgb32FImage) -> Vec<f32> {
        let mut pixels = Vec::with_capacity(self.channels * levels.width() as usize * levels.height() as usize);
        for c in 0..self.channels {
            let (mean, std, colour) = (self.mean[c], self.std[c], self.channel(c.min(2)));
            pixels.extend(levels.pixels().map(|p| (p.0[colour] * self.rescale - mean) / std));
        }
        pixels
    }
}

/// Refuses to cut out or to pad to far too many pixels.
fn within((height, width): (usize, usize)) -> Result<()> {
    match height.checked_mul(width) {
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => Err(Error::Input(format!("would become {height}x{width} pixels, more than {MAX_PIXELS}; set --size"))),
    }
}

/// Grey as Pillow's `convert("L")`, in all three channels.
fn greyed(picture: &RgbImage) -> RgbImage {
    let grey =
        |[r, g, b]: [u8; 3]| ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8;
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| Rgb([grey(picture.get_pixel(x, y).0); 3]))
}

/// The middle of a picture, its sides these shares of the shorter one, and where it begins.
fn cut_out(picture: &RgbImage, share: (f64, f64)) -> Result<(RgbImage, (f64, f64))> {
    let least = f64::from(picture.height().min(picture.width()));
    let size = ((share.0 * least) as usize, (share.1 * least) as usize);
    if size.0 == 0 || size.1 == 0 {
        return Err(Error::Input("is too narrow: nothing is left of it between size and crop_size".into()));
    }
    let window = centred((picture.height() as usize, picture.width() as usize), size, true);
    Ok((cropped(picture, window, size), (window.0 as f64, window.1 as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    const ORIGIN: Origin<'_> = Origin { file: "preprocessor_config.json", family: "vit", channels: 3 };

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x * 7 % 256) as u8, (y * 5 % 256) as u8, ((x + y) % 256) as u8])
        })
    }

    #[test]
    fn processors_are_read_as_transformers_reads_them() {
        let read = |j: Value| ImageProcessor::from_json(&j, ORIGIN).unwrap().0;
        let vit = read(
            json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 32}, "resample": 2}),
        );
        assert_eq!((vit.resize, vit.crops.len(), vit.filter), (Some(Resize::Exact(48, 32)), 0, Filter::Bilinear));
        let old =
            read(json!({"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "image_mean": [0.5, 0.5, 0.5]}));
        assert_eq!(old.resize, Some(Resize::Exact(224, 224)));
        let deit = read(
            json!({"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224, "resample": 3}),
        );
        assert_eq!(
            (deit.resize, &deit.crops[..], deit.filter),
            (Some(Resize::Exact(256, 256)), &[(224, 224)][..], Filter::Bicubic)
        );
        let bit = read(
            json!({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}),
        );
        assert_eq!((bit.resize, &bit.crops[..]), (Some(Resize::ShortestEdge(256)), &[(224, 224)][..]));
        let error = ImageProcessor::from_json(&json!({"image_mean": [1]}), ORIGIN).unwrap_err().to_string();
        assert!(error.contains("image_mean"), "{error}");
    }

    #[test]
    fn the_view_is_where_the_model_looks() {
        let bit = ImageProcessor::from_json(
            &json!({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 50}, "crop_size": 40}),
            ORIGIN,
        )
        .unwrap()
        .0;
        let p = bit.apply(&gradient(200, 100)).unwrap(); // becomes 100x50, of which the middle 40x40 is read
        assert_eq!((p.size, p.pixels.len()), ((40, 40), 3 * 40 * 40));
        assert_eq!(p.view, View { x: 60.0, y: 10.0, width: 80.0, height: 80.0 });
        let pad = bit.clone().adapted(Some((40, 40)), Some(Fit::Pad)).apply(&gradient(200, 100)).unwrap();
        assert_eq!(pad.view, View { x: 0.0, y: -50.0, width: 200.0, height: 200.0 });
        assert_eq!(pad.pixels[0], 0.0, "padding is the mean colour");
        let crop = bit.clone().adapted(Some((20, 40)), Some(Fit::Crop)).apply(&gradient(100, 100)).unwrap();
        assert_eq!((crop.size, crop.view), ((20, 40), View { x: 0.0, y: 25.0, width: 100.0, height: 50.0 }));
        let grown = bit.adapted(Some((80, 80)), None);
        assert_eq!((grown.resize, &grown.crops[..]), (Some(Resize::Cover(100, 100)), &[(80, 80)][..]));
    }

    #[test]
    fn a_picture_smaller_than_the_crop_is_padded_with_black() {
        let processor = ImageProcessor {
            resize: None,
            crops: vec![(4, 5)],
            rescale: 1.0,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
            ..ImageProcessor::plain((4, 5), 3)
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
