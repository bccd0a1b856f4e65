//! The result of a method: signed, unnormalised relevance over tokens, and what those tokens are.

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
#[derive(Debug, Clone, PartialEq)]
pub struct TextLayout {
    /// One entry a word piece, special tokens included, padding not.
    pub tokens: Vec<TextToken>,
    /// The text, or the two texts of a pair.
    pub texts: Vec<String>,
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

/// A word and its relevance: the sum over its pieces.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// The characters of the text.
    pub text: String,
    /// First character in its text.
    pub start: usize,
    /// One past the last character.
    pub end: usize,
    /// Sum of the relevance of its pieces.
    pub relevance: f32,
}

impl Explanation {
    /// Relevance of the patches only, `[gridH*gridW]` row-major; all tokens for text.
    pub fn content(&self) -> &[f32] {
        match &self.layout {
            Layout::Image(i) if !self.matrix => &self.relevance[i.prefix.len()..],
            _ => &self.relevance,
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

    /// The values a picture shows: those of the pixels where they are drawn, else of the content tokens.
    pub fn shown(&self) -> Vec<f32> {
        self.drawn_pixels().map_or_else(|| self.of_content().collect(), |p| p.values.clone())
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

    /// Relevance per word: pieces of one word are summed, special tokens left out. Empty for images.
    pub fn words(&self) -> Vec<Word> {
        if self.matrix {
            return Vec::new();
        }
        let Layout::Text(text) = &self.layout else { return Vec::new() };
        let mut words: Vec<(usize, usize, Word)> = Vec::new();
        for (token, &relevance) in text.tokens.iter().zip(&self.relevance) {
            let Some(number) = token.word else { continue };
            match words.last_mut() {
                Some((n, _, word)) if *n == number => {
                    word.end = word.end.max(token.end);
                    word.relevance += relevance;
                }
                _ => {
                    let word = Word { text: String::new(), start: token.start, end: token.end, relevance };
                    words.push((number, token.text, word));
                }
            }
        }
        let fill = |(_, text_index, mut word): (usize, usize, Word)| {
            let source = text.texts.get(text_index).map_or("", String::as_str);
            word.text = source.chars().skip(word.start).take(word.end - word.start).collect();
            word
        };
        words.into_iter().map(fill).collect()
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

    fn piece(piece: &str, start: usize, end: usize, word: Option<usize>) -> TextToken {
        TextToken { piece: piece.into(), start, end, text: 0, word, special: word.is_none() }
    }

    fn explanation() -> Explanation {
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
            layout: Layout::Text(TextLayout { tokens, texts: vec!["fragra soup".into()] }),
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
    fn nan_and_wrong_lengths_are_refused() {
        let mut e = explanation();
        e.relevance[2] = f32::NAN;
        assert!(e.clone().checked().unwrap_err().to_string().contains("token 2"));
        e.relevance.pop();
        assert!(e.checked().unwrap_err().to_string().contains("4 relevance values for 5 tokens"));
    }
}
