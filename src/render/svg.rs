//! Figures of one explanation: a picture under its map, or a text with its words on their colours, and a legend.

use super::figure::{no_matrix, Column, Figure, Kind};
use super::scale::SharedRanges;
use super::{heat, sheet, Scene};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, TextLayout};

/// Inches across a text where no width was asked for; of SVG as many pixels as a page of the web likes.
const PAPER: f32 = 6.5;
const WEB: f32 = 800.0;
/// Inches across a picture of a PDF: a column of a paper; and at most from top to bottom.
const COLUMN: f32 = 3.25;
const PAGE: f32 = 9.0;

/// As SVG.
///
/// # Errors
/// [`Error::Usage`] for whole matrices, and whatever drawing reports.
pub fn svg(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    drawn(scene, e, Kind::Svg)
}

/// As PDF.
///
/// # Errors
/// As [`svg`], and for letters that no font has.
pub fn pdf(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    drawn(scene, e, Kind::Pdf)
}

/// As PNG.
///
/// # Errors
/// As [`pdf`].
pub fn png(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    drawn(scene, e, Kind::Png)
}

fn drawn(scene: &Scene<'_>, e: &Explanation, kind: Kind) -> Result<Vec<u8>> {
    if e.matrix {
        return Err(no_matrix());
    }
    match &e.layout {
        Layout::Image(_) => picture(scene, e, kind),
        Layout::Text(text) => written(scene, e, text, kind),
    }
}

fn picture(scene: &Scene<'_>, e: &Explanation, kind: Kind) -> Result<Vec<u8>> {
    let print = &scene.style.print;
    let upright = scene.picture.ok_or_else(|| Error::Usage("a figure needs a picture".into()))?;
    let (own, high) = (upright.width(), upright.height());
    // A column wide, unless that makes it higher than a page.
    let page = PAGE * print.density(kind) * own as f32 / high.max(1) as f32;
    let usual = if kind == Kind::Svg { own } else { (COLUMN * print.density(kind)).min(page).max(1.0) as u32 };
    let wide = print.width.unwrap_or(usual);
    let becomes = u64::from(wide) * u64::from(high) / u64::from(own.max(1));
    if becomes > 20_000 {
        return Err(Error::Usage(format!(
            "--width {wide} makes the picture of {own}x{high} pixels {becomes} high; pass a smaller one"
        )));
    }
    let enlarged = if wide > upright.width() { Some(sheet::scaled(upright, scene.view, wide)?) } else { None };
    let scene = match &enlarged {
        Some((picture, view)) => Scene { picture: Some(picture), view: *view, ..scene.clone() },
        None => scene.clone(),
    };
    let heated = heat::composed(&scene, e)?;
    let width = wide as f32;
    let height = width * heated.height() as f32 / heated.width() as f32;
    let size = print.letters(kind, (width / 26.0).clamp(9.0, 48.0));
    if print.letters.is_some() && (scene.style.legend || print.title().is_some()) {
        print.readable(size, width, 6.0, "--width")?;
    }
    let mut figure = Figure::new(&scene.caption);
    let mut top = 0.0;
    if let Some(title) = print.title() {
        figure.fitted((size / 2.0, size * 1.2), size, width - size, title)?;
        top = size * 1.7;
    }
    figure.picture((0.0, top), (width, height), heated)?;
    top += height;
    if scene.style.legend {
        top = figure.legend(&scene, e, (size / 2.0, top + size * 0.4), (width - size, size))?;
    }
    figure.written((width, top), print, kind)
}

/// What a text's figure is laid out by, in pixels.
struct Frame {
    width: f32,
    margin: f32,
    /// Height of letters.
    size: f32,
    /// Across the lines.
    room: f32,
}

impl Frame {
    fn of(scene: &Scene<'_>, kind: Kind) -> Result<Self> {
        let print = &scene.style.print;
        let usual = if kind == Kind::Svg { WEB } else { PAPER * print.density(kind) };
        let width = print.width.map_or(usual, |width| width as f32);
        let unit = width / WEB;
        let (margin, size) = (16.0 * unit, print.letters(kind, 18.0 * unit));
        let room = width - 2.0 * margin;
        print.readable(size, room, 3.0, "--width")?;
        Ok(Frame { width, margin, size, room })
    }
}

fn written(scene: &Scene<'_>, e: &Explanation, text: &TextLayout, kind: Kind) -> Result<Vec<u8>> {
    let print = &scene.style.print;
    let Frame { width, margin, size, room } = Frame::of(scene, kind)?;
    let mut figure = Figure::new(&scene.caption);
    let mut top = margin;
    if let Some(title) = print.title() {
        figure.fitted((margin, top + size), size, room, title)?;
        top += size * 1.9;
    }
    let range = scene.shared.unwrap_or_else(|| scene.style.range(e));
    let column = Column { style: scene.style, range, across: (margin, room), size };
    for number in 0..text.texts.len() {
        top = figure.paragraph(&column, (e, text), (number, scene.row), top)? + size / 2.0;
    }
    top = figure.legend(scene, e, (margin, top), (room, size * 0.72))?;
    figure.written((width, top + margin / 2.0), print, kind)
}

/// Explanations of a text under one label: a scale that they share, and each with its name.
type Named<'e> = (String, SharedRanges, Vec<(&'e str, &'e Explanation)>);

/// A text as several explanations have it, one below the other.
///
/// # Errors
/// [`Error::Usage`] for pictures, and whatever drawing reports.
pub(super) fn texts(scene: &Scene<'_>, title: &str, lines: Vec<Named<'_>>, kind: Kind) -> Result<Vec<u8>> {
    let print = &scene.style.print;
    let Frame { width, margin, size, room } = Frame::of(scene, kind)?;
    let title = print.title().unwrap_or(title);
    let mut figure = Figure::new(title);
    figure.fitted((margin, margin + size), size, room, title)?;
    let mut top = margin + size * 1.9;
    let small = size * 0.72;
    for (label, ranges, maps) in lines {
        figure.fitted((margin, top + size), size, room, &label)?;
        top += size * 1.7;
        for (name, e) in maps {
            let Layout::Text(text) = &e.layout else { return Err(no_words()) };
            let range = ranges.of(e).unwrap_or_else(|| scene.style.range(e));
            let column = Column { style: scene.style, range, across: (margin, room), size };
            for number in 0..text.texts.len() {
                top = figure.paragraph(&column, (e, text), (number, scene.row), top)?;
            }
            let caption = name.to_string();
            let scene = Scene { caption, shared: Some(range), record: None, ..scene.clone() };
            top = figure.legend(&scene, e, (margin, top), (room, small))? + small;
        }
    }
    figure.written((width, top + margin / 2.0), print, kind)
}

fn no_words() -> Error {
    Error::Usage("figures of words are for texts; images get a contact sheet".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;
    use crate::input::image::View;
    use crate::render::{Print, Style};
    use crate::target::Output;
    use unicode_segmentation::UnicodeSegmentation;

    fn explained(text: &str) -> Explanation {
        let words = text.split_word_bound_indices().filter(|(_, w)| !w.trim().is_empty());
        let token = |(number, (at, word)): (usize, (usize, &str))| {
            let start = text[..at].chars().count();
            let end = start + word.chars().count();
            TextToken { piece: word.to_string(), start, end, text: 0, word: Some(number), special: false }
        };
        let tokens: Vec<TextToken> = words.enumerate().map(token).collect();
        Explanation {
            method: "test",
            params: Default::default(),
            pixels: None,
            checks: Default::default(),
            output: Output::of(0),
            relevance: (0..tokens.len()).map(|i| i as f32).collect(),
            layout: Layout::Text(TextLayout { tokens, texts: vec![text.into()], ..Default::default() }),
            matrix: false,
            signed: false,
        }
    }

    fn figure(text: &str, style: &Style, kind: Kind) -> Vec<u8> {
        let view = View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 };
        let caption = "a & b".into();
        let scene =
            Scene { picture: None, view, input: (0, 0), caption, shared: None, row: Some(0), record: None, style };
        drawn(&scene, &explained(text), kind).unwrap()
    }

    #[test]
    fn texts_of_any_script_are_wrapped_and_no_markup() {
        let style = Style::default();
        let long = "plot ".repeat(400);
        for text in ["<script>alert(1)</script> & so", "静かな映画 👩‍🔬 é", "סרט שקט מאוד", &long]
        {
            let svg = String::from_utf8(figure(text, &style, Kind::Svg)).unwrap();
            assert!(!svg.contains("<script>") && svg.contains("a &amp; b") && svg.contains("@font-face"), "{svg}");
            let places = svg.split("<rect x=\"").skip(1).map(|rest| {
                let numbers: Vec<f32> = rest.split('"').step_by(2).take(3).filter_map(|n| n.parse().ok()).collect();
                (numbers[0], numbers[2])
            });
            for (left, width) in places {
                assert!(left >= 0.0 && left + width <= WEB, "{left} {width} of {text}");
            }
        }
        let lengths = [&long, "plot"].map(|text| figure(text, &style, Kind::Svg).len());
        assert!(lengths[0] > lengths[1]);
    }

    #[test]
    fn figures_have_the_size_the_ground_and_the_fonts_that_were_asked_for() {
        let print = Print { width: Some(640), dpi: 200, title: Some("T".into()), clear: true, ..Print::default() };
        let style = Style { print, ..Style::default() };
        let bytes = figure("so good", &style, Kind::Png);
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let info = reader.info().clone();
        assert_eq!((info.width, info.color_type), (640, ::png::ColorType::Rgba));
        assert_eq!(info.pixel_dims.unwrap().xppu, 7874); // 200 an inch
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels[3], 0, "nothing lies in the corner");
        let pdf = figure("so good", &style, Kind::Pdf);
        let text = String::from_utf8_lossy(&pdf);
        assert!(text.starts_with("%PDF") && text.contains("DejaVuSans"), "the font is inside");
        assert!(text.contains("230.4"), "640 pixels are 3.2 inches");
        assert_eq!(pdf, figure("so good", &style, Kind::Pdf), "the same bytes each time");
        let plain = figure("so good", &Style::default(), Kind::Png);
        let info = ::png::Decoder::new(std::io::Cursor::new(&plain)).read_info().unwrap().info().clone();
        assert_eq!((info.width, info.color_type), (1950, ::png::ColorType::Rgb));
    }
}
