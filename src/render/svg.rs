//! Figures with real text: a picture under its map, or a text with its words on their colours, and a legend.

use super::json::Record;
use super::legend::number;
use super::lettering::{font, text_width};
use super::printable::in_a_line;
use super::scale::Range;
use super::table::escaped;
use super::tokens::{is_light, spans, Span};
use super::{heat, png, Scene};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, TextLayout};
use ab_glyph::{Font, FontRef};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use image::DynamicImage;
use std::fmt::Write;
use unicode_segmentation::UnicodeSegmentation;

/// Pixels across a text's figure.
const WIDTH: f32 = 800.0;
const MARGIN: f32 = 16.0;
const SIZE: f32 = 18.0;
/// From one line of a text to the next.
const LINE: f32 = 34.0;
/// Behind letters that the built-in font has, those of the viewer's own.
const FONTS: &str = "DejaVu Sans, Verdana, Noto Sans, Noto Sans CJK SC, Noto Color Emoji, sans-serif";

/// The figure.
///
/// # Errors
/// [`Error::Usage`] for whole matrices, and whatever drawing reports.
pub fn render(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    if e.matrix {
        return Err(Error::Usage("a whole matrix has no figure; write it with --format npy".into()));
    }
    let svg = match &e.layout {
        Layout::Image(_) => picture(scene, e)?,
        Layout::Text(text) => written(scene, e, text)?,
    };
    Ok(svg.into_bytes())
}

fn picture(scene: &Scene<'_>, e: &Explanation) -> Result<String> {
    let blended = heat::composed(scene, e)?;
    let (width, height) = (blended.width() as f32, blended.height() as f32);
    let bytes = STANDARD.encode(png(DynamicImage::ImageRgb8(blended))?);
    let mut body = format!("<image width=\"{width}\" height=\"{height}\" href=\"data:image/png;base64,{bytes}\"/>\n");
    let mut below = height;
    if scene.style.legend {
        let size = (width / 26.0).clamp(9.0, 48.0);
        below += legend(&mut body, scene, e, (size / 2.0, height + size * 0.4), (width - size, size))?;
    }
    Ok(framed(&body, (width, below), &scene.caption))
}

/// One stretch of a line.
struct Atom {
    text: String,
    relevance: Option<f32>,
    width: f32,
    breaks: bool,
}

fn written(scene: &Scene<'_>, e: &Explanation, text: &TextLayout) -> Result<String> {
    let font = font()?;
    let range = scene.shared.unwrap_or_else(|| scene.style.range(e));
    let mut body = String::new();
    let mut top = MARGIN;
    for number in 0..text.texts.len() {
        let atoms = spans(e, text, number, scene.style.units).into_iter().flat_map(|span| atoms(&font, span));
        let from_right = text.texts[number].chars().find_map(leads_right).unwrap_or(false);
        top += paragraph(&mut body, scene, e, (range, from_right), top, atoms.collect());
        top += SIZE / 2.0;
    }
    top += legend(&mut body, scene, e, (MARGIN, top), (WIDTH - 2.0 * MARGIN, 13.0))?;
    Ok(framed(&body, (WIDTH, top + MARGIN / 2.0), &scene.caption))
}

/// Writes the lines of one text, and answers how high they are together.
fn paragraph(
    body: &mut String,
    scene: &Scene<'_>,
    e: &Explanation,
    (range, from_right): (Range, bool),
    top: f32,
    atoms: Vec<Atom>,
) -> f32 {
    let colours = scene.style.colormap_for(e).table();
    let (mut x, mut y) = (MARGIN, top);
    for atom in atoms {
        if atom.breaks || (x + atom.width > WIDTH - MARGIN && x > MARGIN) {
            (x, y) = (MARGIN, y + LINE);
        }
        if atom.breaks || (x == MARGIN && atom.text.trim().is_empty()) {
            continue; // no blanks at the beginning of a line
        }
        let left = if from_right { WIDTH - x - atom.width } else { x };
        let ink = match atom.relevance {
            Some(relevance) => {
                let [r, g, b] = colours[(range.place(relevance, e.signed) * 255.0).round() as usize];
                let (width, height) = (atom.width, SIZE * 1.4);
                // writing to a String cannot fail
                let _ = writeln!(
                    body,
                    "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"3\" fill=\"rgb({r},{g},{b})\"><title>{relevance:+.6}</title></rect>"
                );
                if is_light([r, g, b]) {
                    "#000"
                } else {
                    "#fff"
                }
            }
            None => "#111",
        };
        if !atom.text.trim().is_empty() {
            let (middle, base) = (left + atom.width / 2.0, y + SIZE * 1.02);
            let (length, text) = (atom.width - 2.0 * PAD, escaped(&in_a_line(&atom.text)));
            let _ = writeln!(
                body,
                "<text x=\"{middle:.1}\" y=\"{base:.1}\" font-size=\"{SIZE}\" fill=\"{ink}\" text-anchor=\"middle\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>"
            );
        }
        x += atom.width;
    }
    y + LINE - top
}

/// Between a word's letters and the edge of its colour.
const PAD: f32 = 2.0;

/// What a line can be broken between.
fn atoms(font: &FontRef<'_>, span: Span) -> Vec<Atom> {
    let atom = |text: &str| Atom {
        width: measured(font, text) + 2.0 * PAD,
        text: text.to_string(),
        relevance: span.relevance,
        breaks: false,
    };
    let mut all = Vec::new();
    for (number, line) in span.text.split('\n').enumerate() {
        if number > 0 {
            all.push(Atom { text: String::new(), relevance: None, width: 0.0, breaks: true });
        }
        match span.relevance {
            // A word stays together while a line holds it.
            Some(_) if measured(font, line) < WIDTH - 4.0 * MARGIN => {
                all.extend((!line.is_empty()).then(|| atom(line)))
            }
            Some(_) => all.extend(line.graphemes(true).map(atom)),
            None => all.extend(line.split_word_bounds().map(|part| match part.trim().is_empty() {
                true => Atom { width: measured(font, part), ..atom(part) },
                false => atom(part),
            })),
        }
    }
    all
}

/// About how wide a text is: letters that the built-in font lacks are taken for as wide as their kind is.
fn measured(font: &FontRef<'_>, text: &str) -> f32 {
    let of = |letter: &str| match letter.chars().next() {
        Some(first) if font.glyph_id(first).0 == 0 => {
            let broad = matches!(u32::from(first), 0x1100..=0x11ff | 0x2e80..=0xa4cf | 0xac00..=0xd7ff | 0xf900..=0xfaff | 0xff00..=0xff60 | 0x1f000..);
            SIZE * if broad { 1.05 } else { 0.6 }
        }
        _ => text_width(font, SIZE, letter),
    };
    text.graphemes(true).map(of).sum()
}

/// Whether a character's script runs from right to left; none of characters that say nothing of it.
fn leads_right(c: char) -> Option<bool> {
    match u32::from(c) {
        0x0590..=0x08ff | 0xfb1d..=0xfdff | 0xfe70..=0xfeff => Some(true),
        _ if c.is_alphabetic() => Some(false),
        _ => None,
    }
}

/// Writes caption, colour bar and the numbers at its ends, and answers how high they are together.
fn legend(
    body: &mut String,
    scene: &Scene<'_>,
    e: &Explanation,
    (left, top): (f32, f32),
    (width, size): (f32, f32),
) -> Result<f32> {
    let font = font()?;
    let Range { low, high } = scene.shared.unwrap_or_else(|| scene.style.range(e));
    let colours = scene.style.colormap_for(e).table();
    let caption = in_a_line(&scene.caption);
    let fitting = (width / text_width(&font, size, &caption)).clamp(0.35, 1.0) * size;
    let line = |body: &mut String, (x, y): (f32, f32), size: f32, anchor: &str, text: &str| {
        let text = escaped(text);
        let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size:.1}\" fill=\"#1e1e1e\" text-anchor=\"{anchor}\">{text}</text>");
    };
    line(body, (left, top + size), fitting, "start", &caption);
    body.push_str("<linearGradient id=\"scale\">");
    for stop in 0..=32 {
        let [r, g, b] = colours[(stop * 255 / 32).min(255)];
        let _ = write!(body, "<stop offset=\"{}\" stop-color=\"rgb({r},{g},{b})\"/>", stop as f32 / 32.0);
    }
    let (bar, height) = (top + 1.45 * size, 0.75 * size);
    let _ = writeln!(
        body,
        "</linearGradient><rect x=\"{left:.1}\" y=\"{bar:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"url(#scale)\"/>"
    );
    let under = bar + height + 1.15 * size;
    line(body, (left, under), size, "start", &number(low));
    line(body, (left + width, under), size, "end", &number(high));
    let mut used = under + 0.5 * size - top;
    let share = match scene.record {
        Some(Record::Ok(done)) => done.relevance.special, // of all that was found, whatever part of it is drawn
        _ => e.special_share(),
    };
    if let Some(share) = share.filter(|_| !scene.style.units.special) {
        let said = format!("special tokens, not shown, hold {:.0} % of the relevance", 100.0 * share);
        line(body, (left + width / 2.0, under), size * 0.85, "middle", &said);
        used += 0.1 * size;
    }
    Ok(used)
}

fn framed(body: &str, (width, height): (f32, f32), title: &str) -> String {
    let title = escaped(&in_a_line(title));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.1} {height:.1}\" font-family=\"{FONTS}\" role=\"img\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;
    use crate::input::image::View;
    use crate::render::Style;
    use crate::target::Output;

    fn figure(text: &str, style: &Style) -> String {
        let words: Vec<(usize, &str)> = text.split_word_bound_indices().filter(|(_, w)| !w.trim().is_empty()).collect();
        let token = |(number, (at, word)): (usize, &(usize, &str))| {
            let start = text[..*at].chars().count();
            let end = start + word.chars().count();
            TextToken { piece: word.to_string(), start, end, text: 0, word: Some(number), special: false }
        };
        let tokens: Vec<TextToken> = words.iter().enumerate().map(token).collect();
        let e = Explanation {
            method: "test",
            params: Default::default(),
            pixels: None,
            checks: Default::default(),
            output: Output::of(0),
            relevance: (0..tokens.len()).map(|i| i as f32).collect(),
            layout: Layout::Text(TextLayout { tokens, texts: vec![text.into()], ..Default::default() }),
            matrix: false,
            signed: false,
        };
        let view = View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 };
        let caption = "a & b".into();
        let scene = Scene { picture: None, view, input: (0, 0), caption, shared: None, record: None, style };
        String::from_utf8(render(&scene, &e).unwrap()).unwrap()
    }

    #[test]
    fn texts_of_any_script_are_wrapped_and_no_markup() {
        let style = Style::default();
        let long = "plot ".repeat(400);
        for text in ["<script>alert(1)</script> & so", "静かな映画 👩‍🔬 é", "סרט שקט מאוד", &long]
        {
            let svg = figure(text, &style);
            assert!(!svg.contains("<script>") && svg.contains("a &amp; b"), "{svg}");
            let places = svg.split("<rect x=\"").skip(1).map(|rest| {
                let numbers: Vec<f32> = rest.split('"').step_by(2).take(3).filter_map(|n| n.parse().ok()).collect();
                (numbers[0], numbers[2])
            });
            for (left, width) in places {
                assert!(left >= 0.0 && left + width <= WIDTH, "{left} {width} of {text}");
            }
        }
        assert!(figure(&long, &style).len() > figure("plot", &style).len());
        assert_eq!(leads_right('ס'), Some(true));
    }
}
