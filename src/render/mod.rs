//! From an explanation to bytes: one registry of output formats; only [`save`] touches the disk.

pub mod colormap;
pub mod grid;
mod heat;
mod legend;
mod lettering;
mod npy;
pub mod printable;
pub mod save;
pub mod scale;
pub mod sheet;
pub mod table;
mod tokens;

pub use heat::Upsample;

use crate::error::{Error, Result};
use crate::explanation::Explanation;
use crate::input::image::View;
use colormap::Colormap;
use image::{DynamicImage, ImageFormat, RgbImage};
use scale::{Range, Scale};
use std::io::Cursor;

/// An output format of `vitx explain`.
#[derive(Debug)]
pub struct Renderer {
    /// On the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Behind `<stem>.<method>[.<target>].` in file names.
    pub extension: &'static str,
    /// Whether it exists for images.
    pub images: bool,
    /// Whether it exists for texts.
    pub texts: bool,
    /// What of a [`Style`] it shows.
    pub draws: Draws,
    /// Draws it.
    pub render: fn(&Scene<'_>, &Explanation) -> Result<Vec<u8>>,
}

/// What a renderer draws, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Draws {
    /// Raw numbers: no style changes them.
    Numbers,
    /// Tokens in colour.
    Tokens,
    /// Heat, enlarged to pixels.
    Heat,
    /// Heat over the picture.
    Overlay,
}

/// Every format that shows relevance. (`json`, the record of a run, is written by the command line.)
pub const RENDERERS: &[Renderer] = &[
    Renderer {
        name: "overlay",
        about: "PNG: the heatmap over the picture, at the picture's own size",
        extension: "png",
        images: true,
        texts: false,
        draws: Draws::Overlay,
        render: heat::overlay,
    },
    Renderer {
        name: "heatmap",
        about: "PNG: the heatmap alone, transparent where the model did not look",
        extension: "heatmap.png",
        images: true,
        texts: false,
        draws: Draws::Heat,
        render: heat::heatmap,
    },
    Renderer {
        name: "npy",
        about: "raw relevance, f32: [gridH,gridW] for images, [T] for texts",
        extension: "npy",
        images: true,
        texts: true,
        draws: Draws::Numbers,
        render: npy::render,
    },
    Renderer {
        name: "npy-pixels",
        about: "raw relevance at pixel resolution, f32 [H,W], of methods that have it (npy writes it too)",
        extension: "pixels.npy",
        images: true,
        texts: false,
        draws: Draws::Numbers,
        render: npy::pixels,
    },
    Renderer {
        name: "ansi",
        about: "coloured tokens for the terminal; plain where colour is off",
        extension: "ansi",
        images: false,
        texts: true,
        draws: Draws::Tokens,
        render: tokens::ansi,
    },
];

/// What an explanation is drawn onto, and how.
#[derive(Debug, Clone)]
pub struct Scene<'a> {
    /// The upright picture; none for texts.
    pub picture: Option<&'a RgbImage>,
    /// Where the model's input lies in it.
    pub view: View,
    /// Height and width of the model's input in pixels.
    pub input: (usize, usize),
    /// One line for the legend.
    pub caption: String,
    /// A scale over several explanations instead of this one's own.
    pub shared: Option<Range>,
    /// How to draw.
    pub style: &'a Style,
}

/// The user's choices.
#[derive(Debug, Clone)]
pub struct Style {
    /// None: viridis for unsigned, coolwarm for signed relevance.
    pub colormap: Option<Colormap>,
    /// Opacity of the heat over the picture, 0 to 1.
    pub alpha: f32,
    /// How the grid becomes pixels.
    pub upsample: Upsample,
    /// How relevance becomes colour.
    pub scale: Scale,
    /// Draw a colour bar.
    pub legend: bool,
    /// Escape sequences in text output.
    pub colour: bool,
}

impl Default for Style {
    fn default() -> Self {
        Style {
            colormap: None,
            alpha: 0.55,
            upsample: Upsample::Bilinear,
            scale: Scale::Auto,
            legend: false,
            colour: false,
        }
    }
}

impl Style {
    /// The colour map this explanation is drawn in.
    pub fn colormap_for(&self, e: &Explanation) -> Colormap {
        self.colormap.unwrap_or(if e.signed { Colormap::Coolwarm } else { Colormap::Viridis })
    }
}

/// The renderer of this name.
///
/// # Errors
/// [`Error::Usage`] naming the nearest one.
pub fn find(name: &str) -> Result<&'static Renderer> {
    let names: Vec<&str> = RENDERERS.iter().map(|r| r.name).chain(["json"]).collect();
    let error = || {
        let hint = format!("formats are {}", names.join(", "));
        crate::error::unknown("format", name, names.iter().copied(), &hint)
    };
    RENDERERS.iter().find(|r| r.name == name).ok_or_else(error)
}

/// The bytes of a PNG with a text chunk (iTXt, so that any text may stand in it).
///
/// # Errors
/// [`Error::Input`] when the encoder refuses.
pub fn png_with_text(image: &RgbImage, keyword: &str, text: &str) -> Result<Vec<u8>> {
    let failed = |e: png::EncodingError| Error::Input(format!("cannot be encoded as PNG: {e}"));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.add_itxt_chunk(keyword.to_string(), text.to_string()).map_err(failed)?;
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(image.as_raw()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// The bytes of a PNG.
///
/// # Errors
/// [`Error::Input`] when the encoder refuses the size.
pub fn png(image: DynamicImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(|e| Error::Input(format!("cannot be encoded as PNG: {e}")))?;
    Ok(bytes.into_inner())
}
