//! The result of a method: signed, unnormalised relevance over tokens, and what those tokens are.

mod row;
mod words;

pub use row::RowRequest;
pub use words::{Unit, Units, Word, Words};

use crate::error::{Error, Result};
use crate::target::Output;
use serde::Serialize;

/// What one method says of one output.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Registry name of the method.
    pub method: &'static str,
    /// Parameters in force, defaults included.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The explained output.
    pub output: Output,
    /// `[T]` relevance, special tokens included, padding not; row-major patches after the prefix tokens.
    pub relevance: Vec<f32>,
    /// The same at pixel resolution, for methods that attribute to pixels.
    pub pixels: Option<PixelMap>,
    /// What the method says of its own quality.
    pub checks: serde_json::Map<String, serde_json::Value>,
    /// What each entry of `relevance` stands for.
    pub layout: Layout,
    /// `relevance` is `[T,T]` row by row: entry (i, j) is the relevance of token j for output token i.
    pub matrix: bool,
    /// Whether values below zero carry meaning (evidence against).
    pub signed: bool,
}

/// Relevance of the pixels of a model's input.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelMap {
    /// `[H*W]`, row by row.
    pub values: Vec<f32>,
    /// H and W.
    pub size: (usize, usize),
    /// Pictures show this map and not the patch grid.
    pub drawn: bool,
}

/// The tokens of one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Layout {
    /// Prefix tokens, then patches in row-major order.
    Image(ImageLayout),
    /// Word pieces.
    Text(TextLayout),
}

/// The tokens of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageLayout {
    /// Tokens before the first patch.
    pub prefix: Vec<Prefix>,
    /// Patch rows and columns.
    pub grid: (usize, usize),
    /// Patch height and width in input pixels.
    pub patch: (usize, usize),
}

/// A token that is no patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefix {
    /// The class token, which the classifier reads.
    Class,
    /// DeiT's distillation token, read by its second head.
    Distillation,
    /// A register token (DINOv2 with registers).
    Register,
}

/// The tokens of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextLayout {
    /// One entry a word piece, special tokens included, padding not.
    pub tokens: Vec<TextToken>,
    /// The text, or the two texts of a pair.
    pub texts: Vec<String>,
    /// What did not fit into the model, at most one stretch a text.
    pub left_out: Vec<LeftOut>,
    /// Of a text that was read in several windows, the first character of each and one past its last.
    pub windows: Vec<(usize, usize)>,
}

/// The end (or the beginning) of a text that did not fit into the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Which text of a pair, 0 or 1.
    #[serde(rename = "side")]
    pub text: usize,
    /// Word pieces that were not read.
    pub tokens: usize,
    /// First character of which nothing was read.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

impl TextLayout {
    /// That it was read in windows, in a sentence; none where it was not.
    pub fn windowed(&self) -> Option<String> {
        let number = self.windows.len();
        (number > 0)
            .then(|| format!("it was read in {number} overlapping windows, over which relevance and logits are means"))
    }

    /// What was left out, in a sentence: `its last 40 tokens were left out (from character 31 on)`. None where the whole text
    /// was read.
    pub fn truncation(&self) -> Option<String> {
        let one = |l: &LeftOut| {
            let (which, place) = match l.start {
                0 => ("first", format!("up to character {}", l.end)),
                start => ("last", format!("from character {start} on")),
            };
            let tokens = if l.tokens == 1 { "token".to_string() } else { format!("{} tokens", l.tokens) };
            let were = if l.tokens == 1 { "was" } else { "were" };
            match (self.texts.len(), l.text) {
                (0 | 1, _) => format!("its {which} {tokens} {were} left out ({place})"),
                (_, 0) => format!("the {which} {tokens} of its first text {were} left out ({place})"),
                (_, _) => format!("the {which} {tokens} of its second text {were} left out ({place})"),
            }
        };
        let parts: Vec<String> = self.left_out.iter().map(one).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// One word piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextToken {
    /// As the tokenizer writes it (`##ly`, `Ġgood`, `[CLS]`).
    pub piece: String,
    /// First character in its text (characters, not bytes).
    pub start: usize,
    /// One past the last character.
    pub end: usize,
    /// Which text of a pair.
    pub text: usize,
    /// The word it belongs to (numbered through both texts), none for special tokens.
    pub word: Option<usize>,
    /// A token of the model's own, such as `[CLS]`.
    pub special: bool,
}

impl Layout {
    /// Number of tokens, T.
    pub fn len(&self) -> usize {
        match self {
            Layout::Image(i) => i.prefix.len() + i.grid.0 * i.grid.1,
            Layout::Text(t) => t.tokens.len(),
        }
    }

    /// True when there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that belong to the input itself: patches, or words; not `[CLS]`, registers and their like.
    pub fn is_content(&self, token: usize) -> bool {
        match self {
            Layout::Image(i) => token >= i.prefix.len(),
            Layout::Text(t) => t.tokens.get(token).is_some_and(|t| !t.special),
        }
    }

    /// Number of tokens before an image's first patch; all tokens of a text take part.
    pub fn prefix(&self) -> usize {
        match self {
            Layout::Image(i) => i.prefix.len(),
            Layout::Text(_) => 0,
        }
    }

    /// The class token's index: the row that classifiers with a class token read.
    pub fn class_token(&self) -> Option<usize> {
        match self {
            Layout::Image(i) => i.prefix.iter().position(|p| *p == Prefix::Class),
            // BERT, RoBERTa and DistilBERT all classify from their first token.
            Layout::Text(t) => (!t.tokens.is_empty()).then_some(0),
        }
    }

    /// DeiT's distillation token.
    pub fn distillation_token(&self) -> Option<usize> {
        match self {
            Layout::Image(i) => i.prefix.iter().position(|p| *p == Prefix::Distillation),
            Layout::Text(_) => None,
        }
    }
}

impl Explanation {
    /// Relevance of the patches only, `[gridH*gridW]` row-major; all tokens for text.
    pub fn content(&self) -> &[f32] {
        match &self.layout {
            Layout::Image(i) if !self.matrix => &self.relevance[i.prefix.len()..],
            _ => &self.relevance,
        }
    }

    /// The shape of [`Explanation::content`]: `[gridH,gridW]` of images, `[T]` of texts, `[T,T]` of a matrix.
    pub fn shape(&self) -> Vec<usize> {
        let tokens = self.layout.len();
        match &self.layout {
            _ if self.matrix => vec![tokens, tokens],
            Layout::Image(image) => vec![image.grid.0, image.grid.1],
            Layout::Text(_) => vec![tokens],
        }
    }

    /// Relevance of the content tokens; every entry of a matrix.
    pub fn of_content(&self) -> impl Iterator<Item = f32> + '_ {
        let wanted = |(t, _): &(usize, &f32)| self.matrix || self.layout.is_content(*t);
        self.relevance.iter().enumerate().filter(wanted).map(|(_, r)| *r)
    }

    /// The pixel map, where pictures show it.
    pub fn drawn_pixels(&self) -> Option<&PixelMap> {
        self.pixels.as_ref().filter(|p| p.drawn)
    }

    /// The values a picture shows: those of the pixels where they are drawn, of the patches, or of the units of a text.
    pub fn shown(&self, units: Units) -> Vec<f32> {
        match (self.drawn_pixels(), &self.layout) {
            (Some(pixels), _) => pixels.values.clone(),
            (None, Layout::Text(_)) if !self.matrix => self.units(units).iter().map(|unit| unit.relevance).collect(),
            (None, Layout::Text(_) | Layout::Image(_)) => self.of_content().collect(),
        }
    }

    /// Least and greatest relevance over the content tokens, or `(0, 0)` without any.
    pub fn range(&self) -> (f32, f32) {
        let range = self.of_content().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), r| (lo.min(r), hi.max(r)));
        if range.0.is_finite() {
            range
        } else {
            (0.0, 0.0)
        }
    }

    /// Sum over the content tokens.
    pub fn sum(&self) -> f32 {
        self.of_content().map(f64::from).sum::<f64>() as f32
    }

    /// Refuses a result that must not be shown.
    ///
    /// # Errors
    /// [`Error::Numeric`] when a value is NaN or infinite, or when there is not one value a token.
    pub fn checked(self) -> Result<Self> {
        let (got, tokens) = (self.relevance.len(), self.layout.len());
        if got != if self.matrix { tokens * tokens } else { tokens } {
            return Err(Error::Numeric(format!("{}: {got} relevance values for {tokens} tokens", self.method)));
        }
        let pixels = self.pixels.iter().flat_map(|p| &p.values);
        if pixels.into_iter().any(|p| !p.is_finite()) {
            return Err(Error::Numeric(format!("{}: the relevance of a pixel is not finite", self.method)));
        }
        if let Some(token) = self.relevance.iter().position(|r| !r.is_finite()) {
            return Err(Error::Numeric(format!(
                "{}: the relevance of token {token} is {}; the model's activations overflow (try --dtype f32), or its weights are damaged",
                self.method, self.relevance[token]
            )));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn piece(piece: &str, start: usize, end: usize, word: Option<usize>) -> TextToken {
        TextToken { piece: piece.into(), start, end, text: 0, word, special: word.is_none() }
    }

    pub(super) fn explanation() -> Explanation {
        let tokens = vec![
            piece("[CLS]", 0, 0, None),
            piece("fra", 0, 3, Some(0)),
            piece("##gra", 3, 6, Some(0)),
            piece("soup", 7, 11, Some(1)),
            piece("[SEP]", 0, 0, None),
        ];
        Explanation {
            method: "test",
            params: Default::default(),
            output: Output::of(0),
            relevance: vec![9.0, 0.5, 0.25, -1.0, 3.0],
            pixels: None,
            checks: Default::default(),
            layout: Layout::Text(TextLayout { tokens, texts: vec!["fragra soup".into()], ..Default::default() }),
            matrix: false,
            signed: true,
        }
    }

    #[test]
    fn pieces_merge_into_words_and_special_tokens_stay_out() {
        let e = explanation();
        let words = e.words();
        assert_eq!(
            words.iter().map(|w| (w.text.as_str(), w.relevance)).collect::<Vec<_>>(),
            [("fragra", 0.75), ("soup", -1.0)]
        );
        assert_eq!(e.range(), (-1.0, 0.5));
        assert_eq!(e.sum(), -0.25);
    }

    #[test]
    fn what_was_left_out_is_said() {
        let out = |text, tokens, start, end| LeftOut { text, tokens, start, end };
        let say = |texts: usize, left_out| {
            TextLayout { texts: vec![String::new(); texts], left_out, ..Default::default() }.truncation()
        };
        assert_eq!(say(1, vec![]), None);
        assert_eq!(
            say(1, vec![out(0, 40, 31, 90)]).unwrap(),
            "its last 40 tokens were left out (from character 31 on)"
        );
        assert_eq!(say(1, vec![out(0, 1, 0, 4)]).unwrap(), "its first token was left out (up to character 4)");
        let two = say(2, vec![out(0, 2, 5, 9), out(1, 1, 7, 8)]).unwrap();
        assert_eq!(two, "the last 2 tokens of its first text were left out (from character 5 on), the last token of its second text was left out (from character 7 on)");
    }

    #[test]
    fn nan_and_wrong_lengths_are_refused() {
        let mut e = explanation();
        e.relevance[2] = f32::NAN;
        assert!(e.clone().checked().unwrap_err().to_string().contains("token 2"));
        e.relevance.pop();
        assert!(e.checked().unwrap_err().to_string().contains("4 relevance values for 5 tokens"));
    }
}
