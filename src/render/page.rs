//! A page of everything that was found of one input: methods, targets and colours to choose from, values to point at. One file, which asks
//! for nothing outside of itself.
//!
//! Values, names and texts are in it as escaped JSON, and its script puts them in place as text: none of them is ever read as markup.

mod index;

pub use index::{index, thumbnail, Entry, THUMBNAIL};

use super::colormap::COLORMAPS;
use super::json::Record;
use super::scale::Range;
use super::tokens::{spans, Span};
use super::{png, Blend, Scene};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, Units, Words};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, RgbImage};
use minijinja::{context, AutoEscape, Environment};
use serde::Serialize;
use serde_json::{Map, Value};

const TEMPLATE: &str = include_str!("page/page.html");
/// Of every page, a report of `evaluate` among them.
pub(crate) const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Pixels along the longer side of the picture in a page.
const LARGEST: u32 = 1024;
/// Characters of a text above its page.
const LONGEST: usize = 80;
/// Of JPEG, from 1 to 100.
const QUALITY: u8 = 85;

/// One explanation of a page.
pub struct Panel<'a> {
    /// The explanation, and a scale over several.
    pub explanation: &'a Explanation,
    /// A scale over several explanations instead of its own.
    pub shared: Option<Range>,
    /// The method as it was asked for.
    pub method: &'a str,
    /// It in a line.
    pub headline: &'a str,
    /// What is noted of it.
    pub record: &'a Record,
    /// What to beware of.
    pub warnings: &'a [String],
}

/// Attention between the tokens of an input.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Links {
    /// Which layers, counted from 0.
    pub layers: Vec<usize>,
    /// Heads of each; 1 where they are averaged.
    pub heads: usize,
    /// Whether heads are averaged.
    pub averaged: bool,
    /// Tokens, T.
    pub tokens: usize,
    /// Tokens before an image's first patch.
    pub prefix: usize,
    /// The greatest value of each matrix.
    pub greatest: Vec<f32>,
    /// `[layers,heads,T,T]` row by row, the square root of each value's share of the greatest in 255 steps.
    #[serde(skip)]
    pub values: Vec<u8>,
}

/// What the script reads.
#[derive(Serialize)]
struct Data<'a> {
    maps: Vec<Drawn<'a>>,
    links: Option<&'a Links>,
    /// The values of the links, in base64.
    attention: String,
    /// Row and column of the patch whose row is explained.
    row: Option<(usize, usize)>,
    /// The token of a text whose row is explained.
    token: Option<usize>,
    picture: Option<Picture>,
    alpha: f32,
    blend: String,
    /// What texts are shown in first: `words` or `pieces`.
    units: &'static str,
    /// 256 colours each, in base64.
    colormaps: Map<String, Value>,
}

/// One explanation as the script reads it.
#[derive(Serialize)]
struct Drawn<'a> {
    method: &'a str,
    target: String,
    headline: &'a str,
    signed: bool,
    low: f32,
    high: f32,
    /// The same of word pieces.
    of_pieces: (f32, f32),
    colormap: &'static str,
    notes: Vec<String>,
    record: Value,
    /// Rows and columns of `values`.
    grid: Option<(usize, usize)>,
    values: Vec<f32>,
    /// Places on the scale of single pixels, as a grey PNG.
    fine: Option<String>,
    /// Texts in pieces, what is between them without a value.
    words: Vec<Vec<Word>>,
    pieces: Vec<Vec<Word>>,
}

/// A part of a text: what is written, its value, its first token and one past its last.
type Word = (String, Option<f32>, usize, usize);

/// A picture as the script reads it.
#[derive(Serialize)]
struct Picture {
    src: String,
    width: u32,
    height: u32,
    /// Left, top, width and height of the map in it.
    view: [f64; 4],
}

/// The page of one explanation.
///
/// # Errors
/// As [`html`], and [`Error::Usage`] when the scene holds no record.
pub(super) fn one(scene: &Scene<'_>, explanation: &Explanation) -> Result<Vec<u8>> {
    let record = scene.record.ok_or_else(|| Error::Usage("a page shows a record, and the scene holds none".into()))?;
    let (headline, shared) = (scene.caption.as_str(), scene.shared);
    html(scene, &[Panel { explanation, shared, method: explanation.method, headline, record, warnings: &[] }], None)
}

/// The page of one input, whose explanations are the panels, and what its tokens attend to.
///
/// # Errors
/// [`Error::Usage`] for no panel and for whole matrices, [`Error::Input`] for a picture that cannot be encoded.
pub fn html(scene: &Scene<'_>, panels: &[Panel<'_>], links: Option<&Links>) -> Result<Vec<u8>> {
    let Some(first) = panels.first() else { return Err(Error::Usage("a page needs an explanation".into())) };
    if panels.iter().any(|panel| panel.explanation.matrix) {
        return Err(Error::Usage("a whole matrix has no picture; write it with --format npy".into()));
    }
    let mut maps = panels.iter().map(|panel| drawn(scene, panel)).collect::<Result<Vec<_>>>()?;
    for (panel, map) in panels.iter().zip(&mut maps) {
        let (own, label) = (panel.explanation.output.class, &map.target);
        let same = |other: &Panel<'_>| other.explanation.output.class != own && label_of(other.record) == *label;
        if panels.iter().any(same) {
            map.target = format!("{label} (class {own})"); // labels of several classes
        }
    }
    let picture = scene.picture.map(|picture| embedded(scene, picture, &first.explanation.layout)).transpose()?;
    let (title, about) = match first.record {
        Record::Ok(done) => {
            (heading(&done.input, scene.picture.is_some()), format!("{} ({})", done.model.id, done.model.family))
        }
        Record::Error { input, .. } | Record::Nothing { input, .. } => (input.clone(), String::new()),
    };
    let tables = COLORMAPS.iter().map(|(name, map)| (name.to_string(), STANDARD.encode(map.table().concat()).into()));
    let colormaps = tables.collect();
    let units = if scene.style.units.words == Words::Off { "pieces" } else { "words" };
    // Lines and masks are pictures; a page has what fades.
    let blend = match scene.style.blend {
        Blend::Contour | Blend::Mask(_) => Blend::default().to_string(),
        own => own.to_string(),
    };
    let attention = links.map_or_else(String::new, |links| STANDARD.encode(&links.values));
    let row = match (&first.explanation.layout, scene.row) {
        (Layout::Image(image), Some(token)) => token
            .checked_sub(image.prefix.len())
            .map(|patch| (patch / image.grid.1.max(1), patch % image.grid.1.max(1))),
        _ => None,
    };
    let token = scene.row.filter(|_| scene.picture.is_none());
    let data = written(&Data {
        maps,
        links,
        attention,
        row,
        token,
        picture,
        alpha: scene.style.alpha(),
        blend,
        units,
        colormaps,
    })?;
    let predictions = predictions(first.record);
    let version = env!("CARGO_PKG_VERSION");
    filled(TEMPLATE, context! { title, about, data, predictions, version, style => STYLE, script => SCRIPT })
}

/// What stands above a page: the name of a picture's file, the beginning of a text. The record has all of it.
fn heading(input: &str, picture: bool) -> String {
    if picture {
        return input.rsplit(['/', '\\']).next().unwrap_or(input).to_string();
    }
    let mut letters = input.chars();
    let beginning: String = letters.by_ref().take(LONGEST).collect();
    match letters.next() {
        Some(_) => format!("{beginning}…"),
        None => beginning,
    }
}

/// Values as JSON that may stand in a page: no markup begins in it.
fn written(data: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(data).map_err(|e| Error::Fault(format!("a page's data: {e}")))?;
    Ok(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// A template with values, all escaped but for our own style and script, and data as [`written`].
pub(crate) fn filled(template: &str, values: minijinja::Value) -> Result<Vec<u8>> {
    let failed = |e: minijinja::Error| Error::Fault(format!("a page's template: {e}"));
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let page = environment.render_named_str("page.html", template, values).map_err(failed)?;
    Ok(page.into_bytes())
}

/// What the model says, with the length of each bar.
fn predictions(record: &Record) -> Vec<minijinja::Value> {
    let Record::Ok(done) = record else { return Vec::new() };
    let greatest = done.predictions.iter().map(|p| p.figure().abs()).fold(f32::MIN_POSITIVE, f32::max);
    let line = |p: &super::json::Prediction| {
        let share = if p.probability.is_some() { p.figure() } else { p.figure().abs() / greatest };
        context! { label => p.label.clone(), share => f64::from(share), figure => format!("{:.3}", p.figure()) }
    };
    done.predictions.iter().map(line).collect()
}

/// A record without the time it took: a page made again is the same page.
fn lasting(record: &Record) -> Result<Value> {
    let mut value = record.value()?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("ms");
    }
    Ok(value)
}

/// What a page calls the output of a record.
fn label_of(record: &Record) -> String {
    match record {
        Record::Ok(done) => done.target.as_ref().map_or_else(|| "the tokens themselves".into(), |t| t.label.clone()),
        Record::Error { .. } | Record::Nothing { .. } => String::new(),
    }
}

fn drawn<'a>(scene: &Scene<'_>, panel: &'a Panel<'_>) -> Result<Drawn<'a>> {
    let e = panel.explanation;
    let Range { mut low, mut high } = panel.shared.unwrap_or_else(|| scene.style.range(e));
    let (own, target) = (scene.style.colormap_for(e), label_of(panel.record));
    let fine = e.drawn_pixels().map(|map| {
        let place = |v: &f32| (Range { low, high }.place(*v, e.signed) * 255.0).round() as u8;
        // Of whole patches alone, as the map is laid over the picture.
        let (height, width) = match &e.layout {
            Layout::Image(own) => (own.grid.0 * own.patch.0, own.grid.1 * own.patch.1),
            Layout::Text(_) => map.size,
        };
        let rows = map.values.chunks(map.size.1.max(1)).take(height);
        let places = rows.flat_map(|row| row.iter().take(width).map(place)).collect();
        let grey = GrayImage::from_raw(width as u32, height as u32, places);
        let grey = grey.ok_or_else(|| Error::Fault("a map of pixels without its size".into()))?;
        Ok::<_, Error>(source("image/png", &png(DynamicImage::ImageLuma8(grey))?))
    });
    let (grid, mut notes) = match &e.layout {
        Layout::Image(image) => (Some(image.grid), panel.warnings.to_vec()),
        Layout::Text(_) => (None, panel.warnings.to_vec()),
    };
    let (mut words, mut pieces, mut of_pieces) = (Vec::new(), Vec::new(), (low, high));
    if let Layout::Text(text) = &e.layout {
        let special = scene.style.units.special;
        let cut = |words: Words| {
            let piece = |span: Span| (span.text, span.relevance, span.tokens.start, span.tokens.end);
            let own = |number| spans(e, text, number, Units { words, special }).into_iter().map(piece).collect();
            (0..text.texts.len()).map(own).collect()
        };
        let usual = scene.style.units.words;
        let joined = if usual == Words::Off { Words::Sum } else { usual };
        (words, pieces) = (cut(joined), cut(Words::Off));
        // A scale over several is of the units that were asked for.
        let ends = |words: Words| match panel.shared.filter(|_| words == usual) {
            Some(shared) => shared,
            None => scene.style.scale.range(e, Units { words, special }),
        };
        Range { low, high } = ends(joined);
        let own = ends(Words::Off);
        of_pieces = (own.low, own.high);
        let share = match panel.record {
            Record::Ok(done) => done.relevance.special,
            Record::Error { .. } | Record::Nothing { .. } => None,
        };
        notes.extend(share.map(|share| format!("Special tokens hold {:.0} % of the relevance.", 100.0 * share)));
        notes.extend(text.truncation().or(text.windowed()).map(|cut| format!("Of the text, {cut}.")));
    }
    Ok(Drawn {
        method: panel.method,
        target,
        headline: panel.headline,
        signed: e.signed,
        low,
        high,
        of_pieces,
        colormap: COLORMAPS.iter().find(|(_, map)| *map == own).map_or("inferno", |(name, _)| name),
        notes,
        record: lasting(panel.record)?,
        grid,
        values: if grid.is_some() { e.content().to_vec() } else { Vec::new() },
        fine: fine.transpose()?,
        words,
        pieces,
    })
}

/// The picture as a page holds it, and where the map lies in it.
fn embedded(scene: &Scene<'_>, picture: &RgbImage, layout: &Layout) -> Result<Picture> {
    let small = shrunk(picture, LARGEST);
    let (width, height) = small.dimensions();
    let (fx, fy) = (f64::from(width) / f64::from(picture.width()), f64::from(height) / f64::from(picture.height()));
    // The grid covers whole patches only.
    let covered = |grid: usize, patch: usize, input: usize| (grid * patch) as f64 / input.max(1) as f64;
    let (down, across) = match layout {
        Layout::Image(own) => {
            (covered(own.grid.0, own.patch.0, scene.input.0), covered(own.grid.1, own.patch.1, scene.input.1))
        }
        Layout::Text(_) => (1.0, 1.0),
    };
    let view = &scene.view;
    Ok(Picture {
        src: source("image/jpeg", &jpeg(&small)?),
        width,
        height,
        view: [view.x * fx, view.y * fy, view.width * across * fx, view.height * down * fy],
    })
}

/// A picture no longer than so many pixels on either side.
fn shrunk(picture: &RgbImage, longest: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    if width.max(height) <= longest {
        return picture.clone();
    }
    DynamicImage::ImageRgb8(picture.clone()).resize(longest, longest, FilterType::CatmullRom).into_rgb8()
}

fn jpeg(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let written = JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(picture);
    written.map_err(|e| Error::Input(format!("cannot be encoded as JPEG: {e}")))?;
    Ok(bytes)
}

/// Bytes as the address of a picture that is in the page itself.
pub(crate) fn source(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}
