//! Texts in figures: lines of words on their colours, in the order in which their scripts are read.

use super::super::lettering::{builtin, em, font, text_width};
use super::super::scale::Range;
use super::super::tokens::{is_light, spans, Span};
use super::super::Style;
use super::Figure;
use crate::error::Result;
use crate::explanation::{Explanation, TextLayout};
use ab_glyph::FontRef;
use std::borrow::Cow;
use unicode_bidi::{BidiInfo, Level};
use unicode_bidi_mirroring::get_mirrored;
use unicode_segmentation::UnicodeSegmentation;

/// From one line of a text to the next, in heights of its letters.
const LINE: f32 = 1.9;

/// Where a text is written, and how.
pub(in super::super) struct Column<'a> {
    /// Colours and units.
    pub style: &'a Style,
    /// Ends of the colours.
    pub range: Range,
    /// Left end and width in pixels.
    pub across: (f32, f32),
    /// Height of letters in pixels.
    pub size: f32,
}

/// One stretch of a line.
struct Atom {
    text: String,
    relevance: Option<f32>,
    marked: bool,
    width: f32,
    breaks: bool,
    /// Odd: it is read from the right.
    level: Level,
}

impl Atom {
    /// The text as it is drawn: a bracket that is read from the right and stands alone, without a letter that says so, is turned around.
    fn seen(&self) -> Cow<'_, str> {
        if self.level.is_ltr() || self.text.chars().any(char::is_alphanumeric) {
            return Cow::Borrowed(&self.text);
        }
        Cow::Owned(self.text.chars().rev().map(|c| get_mirrored(c).unwrap_or(c)).collect())
    }
}

impl Figure {
    /// Writes one text of a layout from `top` on, and answers where its lines end. The unit of the `marked` token has an edge.
    ///
    /// # Errors
    /// When the font cannot be read.
    pub fn paragraph(
        &mut self,
        column: &Column<'_>,
        (e, layout): (&Explanation, &TextLayout),
        (number, marked): (usize, Option<usize>),
        top: f32,
    ) -> Result<f32> {
        let font = font()?;
        let own = spans(e, layout, number, column.style.units);
        let here = |span: &Span| marked.is_some_and(|token| span.tokens.contains(&token));
        let mut atoms: Vec<Atom> = Vec::new();
        for span in own {
            let marked = here(&span);
            atoms.extend(cut(&font, column, span, marked));
        }
        let from_right = levelled(&mut atoms);
        let lines = wrapped(atoms, column.across.1);
        let height = column.size * LINE;
        for (number, line) in lines.iter().enumerate() {
            self.line(column, e, line, (top + number as f32 * height, from_right))?;
        }
        Ok(top + lines.len() as f32 * height)
    }

    fn line(
        &mut self,
        column: &Column<'_>,
        e: &Explanation,
        line: &[Atom],
        (y, from_right): (f32, bool),
    ) -> Result<()> {
        let colours = column.style.colormap_for(e).table();
        let ((left, room), size) = (column.across, column.size);
        let levels: Vec<Level> = line.iter().map(|atom| atom.level).collect();
        let wide: f32 = line.iter().map(|atom| atom.width).sum();
        let mut x = if from_right { left + room - wide } else { left };
        for atom in BidiInfo::reorder_visual(&levels).into_iter().filter_map(|place| line.get(place)) {
            let place = (x, y, atom.width, size * 1.4);
            let ink = match atom.relevance {
                Some(relevance) => {
                    let colour = colours[(column.range.place(relevance, e.signed) * 255.0).round() as usize];
                    self.patch(place, colour, &format!("{relevance:+.6}"));
                    if is_light(colour) {
                        "#000"
                    } else {
                        "#fff"
                    }
                }
                None => "#111",
            };
            if atom.marked {
                self.edge(place, size / 12.0);
            }
            if !atom.text.trim().is_empty() {
                let (middle, base) = (x + atom.width / 2.0, y + size * 1.02);
                self.spread((middle, base), (size, atom.width - 2.0 * pad(size)), ink, &atom.seen())?;
            }
            x += atom.width;
        }
        Ok(())
    }
}

/// Between a word's letters and the edge of its colour.
fn pad(size: f32) -> f32 {
    size / 9.0
}

/// Sets the level of each atom, as the Unicode bidirectional algorithm has it; whether the text as a whole is read from the right.
fn levelled(atoms: &mut [Atom]) -> bool {
    let mut text = String::new();
    let starts: Vec<usize> = atoms
        .iter()
        .map(|atom| {
            let start = text.len();
            text.push_str(if atom.breaks { "\n" } else { &atom.text });
            start
        })
        .collect();
    let bidi = BidiInfo::new(&text, None);
    for (atom, start) in atoms.iter_mut().zip(starts) {
        let letter = atom.text.char_indices().find(|(_, c)| c.is_alphanumeric()).map_or(0, |(at, _)| at);
        atom.level = bidi.levels.get(start + letter).copied().unwrap_or(Level::ltr());
    }
    bidi.paragraphs.first().is_some_and(|paragraph| paragraph.level.is_rtl())
}

/// Atoms in lines of so many pixels; none begins with a blank.
fn wrapped(atoms: Vec<Atom>, room: f32) -> Vec<Vec<Atom>> {
    let (mut lines, mut used) = (vec![Vec::new()], 0.0);
    for atom in atoms {
        if atom.breaks || (used > 0.0 && used + atom.width > room) {
            (lines, used) = (
                {
                    lines.push(Vec::new());
                    lines
                },
                0.0,
            );
        }
        if atom.breaks || (used == 0.0 && atom.text.trim().is_empty()) {
            continue;
        }
        used += atom.width;
        if let Some(line) = lines.last_mut() {
            line.push(atom);
        }
    }
    lines
}

/// What a line can be broken between.
fn cut(font: &FontRef<'_>, column: &Column<'_>, span: Span, marked: bool) -> Vec<Atom> {
    let size = column.size;
    let atom = |text: &str| Atom {
        width: measured(font, size, text) + 2.0 * pad(size),
        text: text.to_string(),
        relevance: span.relevance,
        marked,
        breaks: false,
        level: Level::ltr(),
    };
    let mut all = Vec::new();
    for (number, line) in span.text.split('\n').enumerate() {
        if number > 0 {
            all.push(Atom {
                text: String::new(),
                relevance: None,
                marked: false,
                width: 0.0,
                breaks: true,
                level: Level::ltr(),
            });
        }
        match span.relevance {
            // A word stays together while a line holds it.
            Some(_) if measured(font, size, line) + 2.0 * pad(size) <= column.across.1 => {
                all.extend((!line.is_empty()).then(|| atom(line)));
            }
            Some(_) => all.extend(line.graphemes(true).map(atom)),
            None => all.extend(line.split_word_bounds().map(|part| match part.trim().is_empty() {
                true => Atom { width: measured(font, size, part), ..atom(part) },
                false => atom(part),
            })),
        }
    }
    all
}

/// About how wide a text is: letters that the built-in font lacks are taken for as wide as their kind is.
fn measured(font: &FontRef<'_>, size: f32, text: &str) -> f32 {
    let of = |letter: &str| match letter.chars().next() {
        Some(first) if builtin(font, first).is_none() => {
            let broad = matches!(u32::from(first), 0x1100..=0x11ff | 0x2e80..=0xa4cf | 0xac00..=0xd7ff | 0xf900..=0xfaff | 0xff00..=0xff60 | 0x1f000..);
            size * if broad { 1.05 } else { 0.6 }
        }
        _ => text_width(font, em(font, size), letter),
    };
    text.graphemes(true).map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atoms(text: &str) -> Vec<Atom> {
        let style = Style::default();
        let column = Column { style: &style, range: Range { low: 0.0, high: 1.0 }, across: (0.0, 200.0), size: 18.0 };
        let span =
            |word: &str| Span { text: word.into(), relevance: (!word.trim().is_empty()).then_some(0.5), tokens: 0..1 };
        let font = font().unwrap();
        text.split_word_bounds().flat_map(|word| cut(&font, &column, span(word), false)).collect()
    }

    #[test]
    fn lines_hold_what_fits_and_begin_with_no_blank() {
        let lines = wrapped(atoms("a charming little film but far too long\nand dull"), 200.0);
        assert!(lines.len() > 2);
        for line in &lines {
            assert!(line.iter().map(|a| a.width).sum::<f32>() <= 200.0);
            assert!(line.first().is_none_or(|a| !a.text.trim().is_empty()));
        }
        assert!(wrapped(atoms(&"w".repeat(80)), 200.0).len() > 3, "a word that no line holds is broken");
    }

    #[test]
    fn words_of_both_directions_stand_as_they_are_read() {
        let order = |text: &str| {
            let mut own = atoms(text);
            let from_right = levelled(&mut own);
            let levels: Vec<Level> = own.iter().map(|a| a.level).collect();
            let seen: Vec<String> =
                BidiInfo::reorder_visual(&levels).into_iter().map(|i| own[i].seen().into_owned()).collect();
            (seen.concat(), from_right)
        };
        assert_eq!(order("the film"), ("the film".into(), false));
        assert_eq!(order("סרט שקט"), ("שקט סרט".into(), true));
        assert_eq!(order("סרט (שקט)"), (")שקט( סרט".replace(')', "<").replace('(', ")").replace('<', "("), true));
        assert_eq!(order("a סרט שקט b"), ("a שקט סרט b".into(), false), "Hebrew words in an English line");
    }
}
