//! From an explanation to bytes: one registry of output formats; only [`save`] touches the disk.
//!
//! # To add a format
//!
//! 1. A file here with `fn render(scene: &Scene<'_>, explanation: &Explanation) -> Result<Vec<u8>>`: bytes out, nothing
//!    written, nothing printed. What the picture or the text is comes with the scene, how it is drawn with its style.
//! 2. An entry in [`RENDERERS`]: name, sentence, what stands behind the stem in file names, whether it is for images or texts,
//!    and what of a style it shows ([`Draws`]): flags of the command line that would change nothing are refused by that.
//!    `--format`, its completions and help follow.
//! 3. Raw values are [`Explanation::relevance`]; what is drawn goes through [`scale`], so that every format normalises alike, and
//!    what users wrote goes through [`printable`], so that no text moves a terminal or a page.
//! 4. A test at the foot of the file that reads the bytes back; a run of the command line in `tests/all/cli.rs`.
//!    Look at it.

mod blend;
pub mod colormap;
pub mod columns;
pub mod day;
mod evidence;
pub mod figure;
pub mod grid;
mod heat;
pub mod json;
mod legend;
mod lettering;
pub mod lines;
pub mod names;
mod npy;
pub mod npz;
pub mod out;
pub mod page;
pub mod printable;
pub mod save;
pub mod scale;
pub mod sheet;
mod svg;
pub mod table;
mod tokens;

pub use blend::Blend;
pub use evidence::Evidence;
pub use figure::Print;
pub use heat::Upsample;
pub use legend::number;

use crate::error::{Error, Result};
use crate::explanation::{Explanation, Units, Words};
use crate::input::image::View;
use crate::input::Ready;
use colormap::{Colormap, COLORMAPS};
use image::{DynamicImage, ImageFormat, RgbImage};
use scale::{Range, Span};
use serde_json::{json, Value};
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
    /// One file holds everything that was found of an input.
    pub whole: bool,
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

/// The format of maps at pixel resolution.
const PIXELS: &str = "npy-pixels";

/// Every format.
pub const RENDERERS: &[Renderer] = &[
    Renderer {
        name: "overlay",
        about: "PNG: the heatmap over the picture, at the picture's own size",
        extension: "png",
        images: true,
        texts: false,
        draws: Draws::Overlay,
        whole: false,
        render: heat::overlay,
    },
    Renderer {
        name: "heatmap",
        about: "PNG: the heatmap alone, transparent where the model did not look",
        extension: "heatmap.png",
        images: true,
        texts: false,
        draws: Draws::Heat,
        whole: false,
        render: heat::heatmap,
    },
    Renderer {
        name: "npy",
        about: "raw relevance, f32: [gridH,gridW] for images, [T] for texts",
        extension: "npy",
        images: true,
        texts: true,
        draws: Draws::Numbers,
        whole: false,
        render: npy::render,
    },
    Renderer {
        name: PIXELS,
        about: "raw relevance at pixel resolution, f32 [H,W], of methods that have it (npy writes it too)",
        extension: "pixels.npy",
        images: true,
        texts: false,
        draws: Draws::Numbers,
        whole: false,
        render: npy::pixels,
    },
    Renderer {
        name: "ansi",
        about: "coloured tokens for the terminal; plain where colour is off",
        extension: "ansi",
        images: false,
        texts: true,
        draws: Draws::Tokens,
        whole: false,
        render: tokens::ansi,
    },
    Renderer {
        name: "json",
        about: "the record of the result",
        extension: "json",
        images: true,
        texts: true,
        draws: Draws::Numbers,
        whole: false,
        render: json::render,
    },
    Renderer {
        name: "svg",
        about: "a figure with real text: a picture under its map, or a text with words on their colours",
        extension: "svg",
        images: true,
        texts: true,
        draws: Draws::Overlay,
        whole: false,
        render: svg::svg,
    },
    Renderer {
        name: "pdf",
        about: "the same as PDF, fonts inside",
        extension: "pdf",
        images: true,
        texts: true,
        draws: Draws::Overlay,
        whole: false,
        render: svg::pdf,
    },
    Renderer {
        name: "png",
        about: "the same as PNG (of images: overlay)",
        extension: "png",
        images: false,
        texts: true,
        draws: Draws::Overlay,
        whole: false,
        render: svg::png,
    },
    Renderer {
        name: "fragment",
        about: "coloured words as a part of an HTML page, for notebooks and blogs",
        extension: "fragment.html",
        images: false,
        texts: true,
        draws: Draws::Tokens,
        whole: false,
        render: table::fragment,
    },
    Renderer {
        name: "html",
        about: "a page of one input, all methods and targets to choose from; of a folder with an index",
        extension: "html",
        images: true,
        texts: true,
        draws: Draws::Overlay,
        whole: true,
        render: page::one,
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
    /// The output token that is explained, where it is not the method's own choice: it is marked.
    pub row: Option<usize>,
    /// What is said of the explanation beside its numbers, for `json`.
    pub record: Option<&'a json::Record>,
    /// How to draw.
    pub style: &'a Style,
}

impl<'a> Scene<'a> {
    /// A prepared input, without a word.
    pub fn of(ready: &'a Ready, style: &'a Style) -> Self {
        let (picture, view, input) = match ready {
            Ready::Picture(p) => (Some(&p.upright), p.prepared.view, p.prepared.size),
            Ready::Text(_) => (None, View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 }, (0, 0)),
        };
        Scene { picture, view, input, caption: String::new(), shared: None, row: None, record: None, style }
    }
}

/// The user's choices.
#[derive(Debug, Clone)]
pub struct Style {
    /// None: inferno for unsigned, coolwarm for signed relevance.
    pub colormap: Option<Colormap>,
    /// How heat lies over the picture.
    pub blend: Blend,
    /// Which part of a map is drawn.
    pub evidence: Evidence,
    /// The bare picture beside it.
    pub panel: bool,
    /// Its greatest opacity, 0 to 1; none: as usual for the blend.
    pub alpha: Option<f32>,
    /// How the grid becomes pixels.
    pub upsample: Upsample,
    /// How relevance becomes colour.
    pub scale: Span,
    /// Draw a colour bar.
    pub legend: bool,
    /// How a text's tokens are shown.
    pub units: Units,
    /// How figures are laid out.
    pub print: Print,
    /// Escape sequences in text output.
    pub colour: bool,
}

impl Default for Style {
    fn default() -> Self {
        Style {
            colormap: None,
            blend: Blend::default(),
            evidence: Evidence::default(),
            panel: false,
            alpha: None,
            upsample: Upsample::Bicubic,
            scale: Span::Auto,
            legend: false,
            units: Units::default(),
            print: Print::default(),
            colour: false,
        }
    }
}

impl Style {
    /// As records state it. No colours: those of the method.
    pub fn stated(&self) -> Value {
        let colormap = COLORMAPS.iter().find(|(_, map)| Some(*map) == self.colormap).map(|(name, _)| *name);
        let upsample = Upsample::NAMES.iter().find(|(.., way)| *way == self.upsample).map(|(name, ..)| *name);
        let words = Words::NAMES.iter().find(|(.., own)| *own == self.units.words).map(|(name, ..)| *name);
        let alpha = self.alpha().to_string().parse::<f64>().ok(); // the digits that tell an `f32`
        let print = &self.print;
        let font = print.font.as_ref().map(|font| font.display().to_string());
        json!({
            "print": [json!(print.width), json!(print.letters), json!(print.dpi), json!(print.title), json!(print.clear), json!(print.columns), json!(font)],
            "colormap": colormap, "blend": self.blend.to_string(), "alpha": alpha, "evidence": self.evidence.to_string(), "panel": self.panel, "upsample": upsample, "normalize": self.scale.to_string(),
            "legend": self.legend, "words": words, "special": self.units.special,
        })
    }

    /// The greatest opacity of heat.
    pub fn alpha(&self) -> f32 {
        self.alpha.unwrap_or(self.blend.usual_alpha())
    }

    /// The values that become the ends of an explanation's colours.
    pub fn range(&self, e: &Explanation) -> Range {
        self.scale.range(e, self.units)
    }

    /// The colour map this explanation is drawn in.
    pub fn colormap_for(&self, e: &Explanation) -> Colormap {
        self.colormap.unwrap_or(if e.signed { Colormap::Coolwarm } else { Colormap::Inferno })
    }
}

/// The renderer of this name.
///
/// # Errors
/// [`Error::Usage`] naming the nearest one.
pub fn find(name: &str) -> Result<&'static Renderer> {
    let names: Vec<&str> = RENDERERS.iter().map(|r| r.name).collect();
    let error = || {
        let hint = format!("formats are {}", names.join(", "));
        crate::error::unknown("format", name, names.iter().copied(), &hint)
    };
    RENDERERS.iter().find(|r| r.name == name).ok_or_else(error)
}

impl Renderer {
    /// Whether it is written of a method: a map at pixel resolution is where the method has one.
    pub fn suits(&self, pixels: bool) -> bool {
        pixels || self.name != PIXELS
    }
}

/// The formats of these names, or the usual one; in a fixed order, each once.
///
/// # Errors
/// As [`find`], and [`Error::Usage`] for a format that is not for such inputs.
pub fn chosen(names: &[String], texts: bool) -> Result<Vec<&'static Renderer>> {
    if names.is_empty() {
        return Ok(vec![find(if texts { "ansi" } else { "overlay" })?]);
    }
    let read = |name: &str| -> Result<&'static Renderer> {
        let renderer = find(name)?;
        if (texts && !renderer.texts) || (!texts && !renderer.images) {
            let what = if texts { "texts" } else { "images" };
            let instead =
                if name == "png" { "pass overlay or heatmap, which are PNG" } else { "see `vitx explain --help`" };
            return Err(Error::Usage(format!("--format {name} is not for {what}; {instead}")));
        }
        Ok(renderer)
    };
    let mut seen: Vec<&str> = names.iter().map(String::as_str).collect();
    if !texts && seen.contains(&"npy") {
        seen.push(PIXELS); // pixel methods also at [H,W]
    }
    seen.sort_unstable();
    seen.dedup();
    seen.into_iter().map(read).collect()
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
/// Endings by which people mean a file; a folder may have any other.
pub const FILES: &[&str] = &[
    "ansi", "avif", "bmp", "csv", "eps", "gif", "htm", "html", "jpeg", "jpg", "json", "jsonl", "jxl", "md", "npy",
    "npz", "parquet", "pdf", "png", "ps", "svg", "tex", "tif", "tiff", "tsv", "txt", "webp",
];

/// Why a file of this ending cannot be written.
pub fn foreign(ending: &str, formats: &[&'static Renderer]) -> String {
    let ends = |r: &&Renderer| r.extension.rsplit('.').next() == Some(ending);
    let whole = RENDERERS.iter().find(|r| r.extension == ending);
    let other = whole.or(RENDERERS.iter().find(ends)).map(|r| r.name);
    let now: Vec<_> = formats.iter().map(|f| format!(".{}", f.extension)).collect();
    let now = now.join(", ");
    match other {
        Some(format) => format!("this run writes {now}; pass --format {format} for .{ending}, or end a folder with /"),
        None => format!("no format writes .{ending}; this run writes {now}; end a folder with /"),
    }
}
