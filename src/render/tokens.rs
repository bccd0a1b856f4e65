//! A text with its words coloured by relevance, for the terminal; plain numbers where colour is off.

use super::Scene;
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, TextLayout};
use std::fmt::Write;

/// With colour: the text, each word piece on its colour, everything between as it stands. Without: one line a token,
/// relevance and piece separated by a tab.
pub fn ansi(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    let Layout::Text(text) = &e.layout else {
        return Err(Error::Usage("ansi is for texts; use overlay or heatmap for images".into()));
    };
    let out = if scene.style.colour { coloured(scene, e, text) } else { plain(e, text) };
    Ok(out.into_bytes())
}

fn plain(e: &Explanation, text: &TextLayout) -> String {
    let mut out = String::new();
    for (token, relevance) in text.tokens.iter().zip(&e.relevance) {
        let _ = writeln!(out, "{relevance:+.6}\t{}", token.piece); // writing to a String cannot fail
    }
    out
}

fn coloured(scene: &Scene<'_>, e: &Explanation, text: &TextLayout) -> String {
    let range = scene.shared.unwrap_or_else(|| scene.style.scale.range(e));
    let colours = scene.style.colormap_for(e).table();
    let mut out = String::new();
    for (number, source) in text.texts.iter().enumerate() {
        let characters: Vec<char> = source.chars().collect();
        let mut at = 0;
        let own = text.tokens.iter().zip(&e.relevance).filter(|(t, _)| t.text == number && !t.special);
        for (token, relevance) in own {
            out.extend(&characters[at.min(characters.len())..token.start.min(characters.len())]);
            let [r, g, b] = colours[(range.place(*relevance) * 255.0).round() as usize];
            // Dark letters on light colours and the reverse, by Rec. 601 luma.
            let light = 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) > 140_000;
            let ink = if light { "30" } else { "97" };
            let piece: String =
                characters[token.start.min(characters.len())..token.end.min(characters.len())].iter().collect();
            let _ = write!(out, "\x1b[{ink};48;2;{r};{g};{b}m{piece}\x1b[0m");
            at = at.max(token.end);
        }
        out.extend(&characters[at.min(characters.len())..]);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;
    use crate::input::image::View;
    use crate::render::Style;
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
            output: Output { class: 0, against: None },
            relevance: vec![5.0, 0.0, 1.0],
            layout: Layout::Text(TextLayout { tokens, texts: vec!["So good!".into()] }),
            matrix: false,
            signed: false,
        }
    }

    fn rendered(colour: bool) -> String {
        let style = Style { colour, ..Style::default() };
        let view = View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 };
        let scene = Scene { picture: None, view, input: (0, 0), caption: String::new(), shared: None, style: &style };
        String::from_utf8(ansi(&scene, &explained()).unwrap()).unwrap()
    }

    #[test]
    fn plain_tokens_are_tab_separated() {
        assert_eq!(rendered(false), "+5.000000\t[CLS]\n+0.000000\tso\n+1.000000\tgood\n");
    }

    #[test]
    fn coloured_text_keeps_its_characters_and_leaves_special_tokens_out() {
        let text = rendered(true);
        assert_eq!(text, "\x1b[97;48;2;68;1;84mSo\x1b[0m \x1b[30;48;2;254;232;37mgood\x1b[0m!\n");
    }
}
