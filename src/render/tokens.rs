//! A text with its words coloured by relevance, for the terminal; plain numbers where colour is off.

use super::printable::{in_a_line, printable};
use super::scale::Range;
use super::{Scene, Style};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, TextLayout, Units};
use std::fmt::Write;

/// With colour: the text, each word (or piece) on its colour, everything between as it stands. Without: one line a token,
/// relevance and piece separated by a tab.
pub fn ansi(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    let Layout::Text(text) = &e.layout else {
        return Err(Error::Usage("ansi is for texts; use overlay or heatmap for images".into()));
    };
    if e.matrix {
        return Err(Error::Usage("a whole matrix has no tokens to colour; write it with --format npy".into()));
    }
    let range = scene.shared.unwrap_or_else(|| scene.style.range(e));
    let out = if scene.style.colour { coloured(scene.style, range, e, text) } else { plain(e, text) };
    Ok(out.into_bytes())
}

fn plain(e: &Explanation, text: &TextLayout) -> String {
    let mut out = String::new();
    for (token, relevance) in text.tokens.iter().zip(&e.relevance) {
        let _ = writeln!(out, "{relevance:+.6}\t{}", in_a_line(&token.piece)); // writing to a String cannot fail
    }
    out
}

/// The texts, every word piece on its colour, one line each.
pub(super) fn coloured(style: &Style, range: Range, e: &Explanation, text: &TextLayout) -> String {
    let mut out = String::new();
    let colours = style.colormap_for(e).table();
    for number in 0..text.texts.len() {
        for span in spans(e, text, number, style.units) {
            let Some(relevance) = span.relevance else {
                out.push_str(&printable(&span.text));
                continue;
            };
            let [r, g, b] = colours[(range.place(relevance, e.signed) * 255.0).round() as usize];
            let ink = if is_light([r, g, b]) { "30" } else { "97" };
            let _ = write!(out, "\x1b[{ink};48;2;{r};{g};{b}m{}\x1b[0m", printable(&span.text));
        }
        out.push('\n');
    }
    out
}

/// A part of a text with its relevance, or what stands between.
pub(super) struct Span {
    pub text: String,
    pub relevance: Option<f32>,
    /// Its tokens; none of what stands between.
    pub tokens: std::ops::Range<usize>,
}

/// One text of a layout, cut into what is shown with one value and what stands between, every character once. Special tokens are no part
/// of it and stand, where they are shown, with blanks around them.
pub(super) fn spans(e: &Explanation, text: &TextLayout, number: usize, units: Units) -> Vec<Span> {
    let characters: Vec<char> = text.texts.get(number).map_or_else(Vec::new, |t| t.chars().collect());
    let part = |from: usize, to: usize| {
        let (from, to) = (from.min(characters.len()), to.min(characters.len()));
        characters[from..to.max(from)].iter().collect::<String>()
    };
    let between = |text: String| Span { text, relevance: None, tokens: 0..0 };
    let (mut spans, mut at) = (Vec::new(), 0);
    for unit in e.units(units).into_iter().filter(|unit| unit.text == number) {
        spans.push(between(part(at.min(unit.start), unit.start)));
        let (relevance, tokens) = (Some(unit.relevance), unit.tokens);
        match unit.special {
            Some(piece) => {
                let blank = |missing: bool| Span {
                    text: if missing { " ".into() } else { String::new() },
                    relevance: None,
                    tokens: 0..0,
                };
                spans.push(blank(unit.start > 0));
                spans.push(Span { text: piece, relevance, tokens });
                spans.push(blank(unit.start == 0));
            }
            None => spans.push(Span { text: part(unit.start, unit.end), relevance, tokens }),
        }
        at = at.max(unit.end);
    }
    spans.push(between(part(at.min(characters.len()), characters.len())));
    spans.retain(|s| !s.text.is_empty());
    spans
}

/// Whether black letters have more contrast on this colour than white ones, by the relative luminance of WCAG.
pub(super) fn is_light(colour: [u8; 3]) -> bool {
    let [r, g, b] = colour.map(|c| match f64::from(c) / 255.0 {
        dim if dim <= 0.04045 => dim / 12.92,
        bright => ((bright + 0.055) / 1.055).powf(2.4),
    });
    0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;
    use crate::input::image::View;
    use crate::target::Output;

    fn explained() -> Explanation {
        let token = |piece: &str, start, end, special| TextToken {
            piece: piece.into(),
            start,
            end,
            text: 0,
            word: None,
            special,
        };
        let tokens = vec![token("[CLS]", 0, 0, true), token("so", 0, 2, false), token("good", 3, 7, false)];
        Explanation {
            method: "test",
            params: Default::default(),
            pixels: None,
            checks: Default::default(),
            output: Output::of(0),
            relevance: vec![5.0, 0.0, 1.0],
            layout: Layout::Text(TextLayout { tokens, texts: vec!["So good!".into()], ..Default::default() }),
            matrix: false,
            signed: false,
        }
    }

    fn rendered(colour: bool) -> String {
        let style = Style { colour, ..Style::default() };
        let view = View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 };
        let scene = Scene {
            picture: None,
            view,
            input: (0, 0),
            caption: String::new(),
            shared: None,
            record: None,
            row: None,
            style: &style,
        };
        String::from_utf8(ansi(&scene, &explained()).unwrap()).unwrap()
    }

    #[test]
    fn plain_tokens_are_tab_separated() {
        assert_eq!(rendered(false), "+5.000000\t[CLS]\n+0.000000\tso\n+1.000000\tgood\n");
    }

    #[test]
    fn coloured_text_keeps_its_characters_and_leaves_special_tokens_out() {
        let text = rendered(true);
        assert_eq!(text, "\x1b[97;48;2;0;0;4mSo\x1b[0m \x1b[30;48;2;252;255;164mgood\x1b[0m!\n");
    }
}
