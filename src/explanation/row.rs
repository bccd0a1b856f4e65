//! Which output token is explained, as users name it.

use super::{Layout, TextLayout, TextToken};
use crate::error::{Error, Result};

/// An output token as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowRequest {
    /// By number, special tokens counted.
    Number(usize),
    /// A patch by row and column.
    Patch(usize, usize),
    /// A word piece by its text.
    Piece(String),
}

impl RowRequest {
    /// Reads a token's number; for images also `r,c`; for texts also a word piece.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is neither.
    pub fn parse(text: &str, of_texts: bool) -> Result<Self> {
        let number = |s: &str| s.trim().parse::<usize>().ok();
        if let Some(n) = number(text) {
            return Ok(RowRequest::Number(n));
        }
        if of_texts {
            return Ok(RowRequest::Piece(text.to_string()));
        }
        let patch = text.split_once(',').and_then(|(r, c)| Some(RowRequest::Patch(number(r)?, number(c)?)));
        patch.ok_or_else(|| {
            Error::Usage(format!("--row {text}: expected a patch as row,column (from 0,0), or a token's number"))
        })
    }

    /// Its token number in one input.
    ///
    /// # Errors
    /// [`Error::Input`] when this input has no such token, or several.
    pub fn token(&self, layout: &Layout) -> Result<usize> {
        match (self, layout) {
            (RowRequest::Number(n), _) if *n < layout.len() => Ok(*n),
            (RowRequest::Number(n), _) => {
                Err(Error::Input(format!("--row {n}: it has tokens 0 to {}", layout.len() - 1)))
            }
            (RowRequest::Patch(r, c), Layout::Image(image)) if *r < image.grid.0 && *c < image.grid.1 => {
                Ok(image.prefix.len() + r * image.grid.1 + c)
            }
            (RowRequest::Patch(r, c), Layout::Image(image)) => {
                Err(Error::Input(format!("--row {r},{c}: the patch grid is {}x{}", image.grid.0, image.grid.1)))
            }
            (RowRequest::Piece(piece), Layout::Text(text)) => {
                let is = |t: &TextToken| {
                    let bare = t.piece.trim_start_matches("##").trim_start_matches(['Ġ', '▁']);
                    bare.eq_ignore_ascii_case(piece) || t.piece == *piece || reads(text, t, piece)
                };
                let found: Vec<usize> = (0..text.tokens.len()).filter(|&t| is(&text.tokens[t])).collect();
                match found[..] {
                    [one] => Ok(one),
                    [] => {
                        let pieces: Vec<_> = text.tokens.iter().map(|t| t.piece.as_str()).collect();
                        Err(Error::Input(format!("--row {piece}: no such token; it has {}", pieces.join(" "))))
                    }
                    _ => Err(Error::Input(format!(
                        "--row {piece}: tokens {found:?} all read so; pass one of the numbers"
                    ))),
                }
            }
            _ => Err(Error::Input("--row does not fit this kind of input".into())),
        }
    }
}

impl std::fmt::Display for RowRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RowRequest::Number(n) => write!(f, "{n}"),
            RowRequest::Patch(r, c) => write!(f, "{r},{c}"),
            RowRequest::Piece(piece) => f.write_str(piece),
        }
    }
}

/// Whether these are the characters of a token: byte-level pieces do not look like them.
fn reads(text: &TextLayout, token: &TextToken, piece: &str) -> bool {
    let Some(source) = text.texts.get(token.text).filter(|_| !token.special) else { return false };
    let own: String = source.chars().skip(token.start).take(token.end.saturating_sub(token.start)).collect();
    own.trim() == piece
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::{ImageLayout, Prefix};

    #[test]
    fn patches_and_pieces_are_found() {
        let image = Layout::Image(ImageLayout { prefix: vec![Prefix::Class; 2], grid: (3, 4), patch: (8, 8) });
        let parse = |s, texts| RowRequest::parse(s, texts).unwrap();
        assert_eq!(parse("2,1", false).token(&image).unwrap(), 2 + 9);
        assert!(parse("3,0", false).token(&image).unwrap_err().to_string().contains("3x4"));
        assert!(RowRequest::parse("x", false).is_err());
        let token = |p: &str| TextToken { piece: p.into(), start: 0, end: 0, text: 0, word: None, special: false };
        let text = Layout::Text(TextLayout {
            tokens: ["[CLS]", "good", "##ly", "good"].map(token).to_vec(),
            texts: vec![],
            ..Default::default()
        });
        assert_eq!(parse("LY", true).token(&text).unwrap(), 2);
        assert_eq!(parse("3", true).token(&text).unwrap(), 3);
        assert!(parse("good", true).token(&text).unwrap_err().to_string().contains("[1, 3]"));
        assert!(parse("bad", true).token(&text).unwrap_err().to_string().contains("[CLS] good"));
    }
}
