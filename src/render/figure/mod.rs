//! Figures with real text, for papers: drawn once, as SVG, and written as that, as PDF or as PNG.

mod export;
mod legend;
mod words;

pub(super) use words::Column;

use super::colormap::Colormap;
use super::lettering::{builtin, em, fitted, font, text_width, FONT};
use super::png;
use super::printable::in_a_line;
use super::table::escaped;
use crate::error::{Error, Result};
use ab_glyph::FontRef;
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use image::{DynamicImage, RgbImage};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

/// Pixels an inch of SVG, whose pixels are those of CSS.
const CSS: f32 = 96.0;
/// Points an inch.
const POINTS: f32 = 72.0;
/// Behind letters that the built-in font has, those of the viewer's own.
const FONTS: &str = "DejaVu Sans, Verdana, Noto Sans, Noto Sans CJK SC, Noto Color Emoji, sans-serif";
/// How much of its height a line may lose to fit.
const LEAST: f32 = 0.65;
/// Text on white.
pub(super) const INK: &str = "#1e1e1e";

/// What a figure is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Real text; letters that the font in it lacks come from the viewer's.
    Svg,
    /// Real text, all fonts inside.
    Pdf,
    /// Pixels.
    Png,
}

impl Kind {
    /// What a file's ending says.
    pub fn of(ending: &str) -> Option<Self> {
        Some(match ending {
            "svg" => Kind::Svg,
            "pdf" => Kind::Pdf,
            "png" => Kind::Png,
            _ => return None,
        })
    }
}

/// The user's choices for figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Print {
    /// Pixels across; none: as usual for what is shown.
    pub width: Option<u32>,
    /// Height of letters in points; none: as usual for the figure's width.
    pub letters: Option<f32>,
    /// Pixels an inch of PDF and PNG.
    pub dpi: u32,
    /// Above everything; none: as usual.
    pub title: Option<String>,
    /// No ground: what lies beneath shows through.
    pub clear: bool,
    /// Maps in a line of a sheet; none: all of them.
    pub columns: Option<usize>,
    /// A font for letters that the built-in one lacks, before those of the system.
    pub font: Option<PathBuf>,
}

impl Default for Print {
    fn default() -> Self {
        Print { width: None, letters: None, dpi: 300, title: None, clear: false, columns: None, font: None }
    }
}

impl Print {
    /// Pixels an inch of such a figure.
    pub(super) fn density(&self, kind: Kind) -> f32 {
        match kind {
            Kind::Svg => CSS,
            Kind::Pdf | Kind::Png => self.dpi as f32,
        }
    }

    /// The title, where one was asked for.
    pub(super) fn title(&self) -> Option<&str> {
        self.title.as_deref().filter(|title| !title.trim().is_empty())
    }

    /// Refuses letters that leave no room for what they say: `room` holds fewer than `least` of them.
    ///
    /// # Errors
    /// [`Error::Usage`] naming what would help.
    pub(super) fn readable(&self, size: f32, room: f32, least: f32, more: &str) -> Result<()> {
        if size * least <= room {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "letters of {size:.0} pixels leave no room on {room:.0}; pass a smaller --font-size or a larger {more}"
        )))
    }

    /// Height of letters in pixels; `usual` where none was asked for.
    pub(super) fn letters(&self, kind: Kind, usual: f32) -> f32 {
        self.letters.map_or(usual, |points| points * self.density(kind) / POINTS)
    }
}

/// Where a text's place lies in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    End,
}

/// A figure that is being drawn, in pixels from its upper left corner.
#[derive(Debug)]
pub(super) struct Figure {
    body: String,
    /// What a screen reader says.
    title: String,
    bars: usize,
    /// Letters that the built-in font lacks.
    foreign: BTreeSet<char>,
    lettered: bool,
}

impl Figure {
    pub fn new(title: &str) -> Self {
        Figure { body: String::new(), title: line_of_xml(title), bars: 0, foreign: BTreeSet::new(), lettered: false }
    }

    fn add(&mut self, part: std::fmt::Arguments<'_>) {
        let _ = self.body.write_fmt(part); // a String takes it all
        self.body.push('\n');
    }

    fn letters(&mut self, text: &str) -> Result<String> {
        let font = font()?;
        let own = line_of_xml(text);
        self.foreign.extend(foreign(&font, &own));
        self.lettered = true;
        Ok(escaped(&own))
    }

    /// A line of text; its baseline is at the place.
    pub fn text(&mut self, (x, y): (f32, f32), size: f32, anchor: Anchor, text: &str) -> Result<()> {
        let text = self.letters(text)?;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::End => "end",
        };
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size:.1}\" fill=\"{INK}\" text-anchor=\"{anchor}\">{text}</text>"));
        Ok(())
    }

    /// The same at its start, made somewhat smaller and then cut until it fits into so many pixels.
    pub fn fitted(&mut self, place: (f32, f32), size: f32, room: f32, text: &str) -> Result<()> {
        let (font, text) = (font()?, in_a_line(text));
        let size = (room / text_width(&font, em(&font, size), &text)).clamp(LEAST, 1.0) * size;
        self.text(place, size, Anchor::Start, &fitted(&font, em(&font, size), &text, room))
    }

    /// A text around a middle that is exactly so wide.
    pub fn spread(
        &mut self,
        (middle, base): (f32, f32),
        (size, width): (f32, f32),
        ink: &str,
        text: &str,
    ) -> Result<()> {
        let text = self.letters(text)?;
        self.add(format_args!("<text x=\"{middle:.1}\" y=\"{base:.1}\" font-size=\"{size:.1}\" fill=\"{ink}\" text-anchor=\"middle\" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>"));
        Ok(())
    }

    /// A rectangle with round corners and something to read when pointed at.
    pub fn patch(&mut self, (x, y, width, height): (f32, f32, f32, f32), [r, g, b]: [u8; 3], said: &str) {
        let (round, said) = (height / 8.0, escaped(said));
        self.add(format_args!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{round:.1}\" fill=\"rgb({r},{g},{b})\"><title>{said}</title></rect>"));
    }

    /// The edge of a rectangle, dark on light: seen on any ground.
    pub fn edge(&mut self, (x, y, width, height): (f32, f32, f32, f32), thick: f32) {
        for (colour, thick) in [("#000", 2.0 * thick), ("#fff", thick)] {
            self.add(format_args!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{thick:.1}\"/>"));
        }
    }

    /// A picture, stretched to a size.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn picture(&mut self, (x, y): (f32, f32), (width, height): (f32, f32), picture: RgbImage) -> Result<()> {
        let bytes = STANDARD.encode(png(DynamicImage::ImageRgb8(picture))?);
        self.add(format_args!("<image x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" preserveAspectRatio=\"none\" href=\"data:image/png;base64,{bytes}\"/>"));
        Ok(())
    }

    /// The colours of a map, least first: from left to right, or upwards where it is higher than wide.
    pub fn bar(&mut self, (x, y, width, height): (f32, f32, f32, f32), colours: Colormap) {
        let table = colours.table();
        let way = if height > width { "x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\"" } else { "" };
        let (number, mut stops) = (self.bars, String::new());
        for stop in 0..=32 {
            let [r, g, b] = table[(stop * 255 / 32).min(255)];
            let _ = write!(stops, "<stop offset=\"{}\" stop-color=\"rgb({r},{g},{b})\"/>", stop as f32 / 32.0);
        }
        self.add(format_args!("<linearGradient id=\"scale{number}\" {way}>{stops}</linearGradient><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"url(#scale{number})\"/>"));
        self.bars += 1;
    }

    /// As a file of a kind, so many pixels wide and high.
    ///
    /// # Errors
    /// [`Error::Usage`] for a font that cannot be read and a figure that is too large, and whatever the encoders report.
    pub fn written(&self, size: (f32, f32), print: &Print, kind: Kind) -> Result<Vec<u8>> {
        match kind {
            Kind::Svg => Ok(self.svg(size, print, true).into_bytes()),
            Kind::Pdf | Kind::Png => export::export(self, size, print, kind),
        }
    }

    /// `whole`: with the font in it.
    fn svg(&self, (width, height): (f32, f32), print: &Print, whole: bool) -> String {
        let (title, width, height) = (escaped(&self.title), width.ceil(), height.ceil());
        let ground = if print.clear { "" } else { "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n" };
        let font = match whole && self.lettered {
            true => format!(
                "<style>@font-face{{font-family:\"DejaVu Sans\";src:url(data:font/ttf;base64,{})}}</style>\n",
                STANDARD.encode(FONT)
            ),
            false => String::new(),
        };
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"{FONTS}\" role=\"img\">\n<title>{title}</title>\n{font}{ground}{}</svg>\n", self.body)
    }
}

/// A line that may stand in XML, once it is escaped: that has no place for the two code points that are no characters.
fn line_of_xml(text: &str) -> String {
    in_a_line(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// Letters of a text that the built-in font lacks.
fn foreign<'t>(font: &'t FontRef<'_>, text: &'t str) -> impl Iterator<Item = char> + 't {
    text.chars().filter(|c| builtin(font, *c).is_none() && !is_silent(*c))
}

/// Letters of texts that neither the built-in font nor any other here has: PDF and PNG leave their places empty.
///
/// # Errors
/// [`Error::Usage`] for a font of the user's that cannot be read.
pub fn lacking(texts: &[String], print: &Print) -> Result<Vec<char>> {
    let font = font()?;
    let all: BTreeSet<char> = texts.iter().flat_map(|text| foreign(&font, text).collect::<Vec<_>>()).collect();
    export::lacking(&all, print.font.as_deref())
}

/// What is said of them.
pub fn unseen(letters: &[char]) -> Option<String> {
    let some: Vec<String> = letters.iter().take(12).map(char::to_string).collect();
    (!some.is_empty()).then(|| {
        format!("no font here has the letters {}: pdf and png leave their places empty; install one or pass --font FILE (svg and html are drawn with the viewer's fonts)", some.join(" "))
    })
}

/// A character that no font draws: white space, joiners, marks of direction, the choice of a variant.
fn is_silent(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(u32::from(c), 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfe00..=0xfe0f | 0xfeff | 0xe0000..=0xe01ef)
}

/// Why a whole matrix has no figure.
pub(super) fn no_matrix() -> Error {
    Error::Usage("a whole matrix has no figure; write it with --format npy".into())
}
