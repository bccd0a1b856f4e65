//! The result of a method: signed, unnormalised relevance over tokens, and what those tokens are.

use crate::error::{Error, Result};
use crate::target::Output;
use serde::Serialize;
use unicode_segmentation::UnicodeSegmentation;

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

/// The smallest stretch of whole letters (a character with its accents or joiners) that no word piece crosses, with the sum
/// over its pieces: of byte-level tokenizers several pieces may hold parts of one character.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// Which text of a pair.
    pub text: usize,
    /// First character in its text.
    pub start: usize,
    /// One past the last character.
    pub end: usize,
    /// Sum of the relevance of its pieces.
    pub relevance: f32,
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
    /// Which text of a pair, 0 or 1.
    pub side: usize,
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

    /// The values a picture shows: those of the pixels where they are drawn, of the patches, or of the stretches of a text.
    pub fn shown(&self) -> Vec<f32> {
        match (self.drawn_pixels(), &self.layout) {
            (Some(pixels), _) => pixels.values.clone(),
            (None, Layout::Text(_)) if !self.matrix => self.stretches().iter().map(|s| s.relevance).collect(),
            (None, Layout::Text(_) | Layout::Image(_)) => self.of_content().collect(),
        }
    }

    /// A text's word pieces as they can be shown, each character once; special tokens and pieces without a character of
    /// their own (a lone space) are not among them. Empty for images.
    pub fn stretches(&self) -> Vec<Stretch> {
        let Layout::Text(text) = &self.layout else { return Vec::new() };
        let letters: Vec<Vec<usize>> = text.texts.iter().map(|t| letters(t)).collect();
        let mut stretches: Vec<Stretch> = Vec::new();
        for (token, &relevance) in text.tokens.iter().zip(&self.relevance) {
            let own = letters.get(token.text).map_or(&[][..], Vec::as_slice);
            let (start, end) = whole(own, token.start, token.end);
            if token.special || start >= end {
                continue;
            }
            match stretches.last_mut() {
                Some(last) if last.text == token.text && start < last.end => {
                    (last.start, last.end) = (last.start.min(start), last.end.max(end));
                    last.relevance += relevance;
                }
                _ => stretches.push(Stretch { text: token.text, start, end, relevance }),
            }
        }
        stretches
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

    /// Relevance per word: pieces of one word, and pieces that share a character, are summed; special tokens and pieces that
    /// hold no more than white space are left out. Empty for images.
    pub fn words(&self) -> Vec<Word> {
        if self.matrix {
            return Vec::new();
        }
        let Layout::Text(text) = &self.layout else { return Vec::new() };
        let characters: Vec<Vec<char>> = text.texts.iter().map(|t| t.chars().collect()).collect();
        let letters: Vec<Vec<usize>> = text.texts.iter().map(|t| letters(t)).collect();
        let mut words: Vec<(Option<usize>, Word)> = Vec::new();
        for (token, &relevance) in text.tokens.iter().zip(&self.relevance) {
            let (Some(source), Some(own)) = (characters.get(token.text), letters.get(token.text)) else { continue };
            let (start, end) = trimmed(source, token.start, token.end);
            let (start, end) = whole(own, start, end);
            if token.special || start >= end {
                continue;
            }
            match words.last_mut() {
                Some((number, last))
                    if last.side == token.text
                        && (start < last.end || (token.word.is_some() && *number == token.word)) =>
                {
                    (last.start, last.end) = (last.start.min(start), last.end.max(end));
                    last.relevance += relevance;
                }
                _ => words.push((token.word, Word { text: String::new(), start, end, relevance, side: token.text })),
            }
        }
        let fill = |(_, mut word): (Option<usize>, Word)| {
            word.text = characters[word.side][word.start..word.end].iter().collect();
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

/// Where letters begin in a text, and its end, in characters. A letter is what readers take for one: a character with its
/// accents, an emoji with its joiners.
fn letters(text: &str) -> Vec<usize> {
    let mut at = 0;
    let begins = text.graphemes(true).map(|letter| {
        let begin = at;
        at += letter.chars().count();
        begin
    });
    let mut bounds: Vec<usize> = begins.collect();
    bounds.push(at);
    bounds
}

/// The stretch from `start` to `end`, widened to whole letters; empty stays empty.
fn whole(letters: &[usize], start: usize, end: usize) -> (usize, usize) {
    let Some(&length) = letters.last() else { return (0, 0) };
    let (start, end) = (start.min(length), end.min(length));
    if start >= end {
        return (start, start);
    }
    let before = letters.partition_point(|&begin| begin <= start);
    let after = letters.partition_point(|&begin| begin < end);
    (before.checked_sub(1).map_or(start, |i| letters[i]), letters.get(after).copied().unwrap_or(length))
}

/// A stretch of characters without the white space around it.
fn trimmed(characters: &[char], start: usize, end: usize) -> (usize, usize) {
    let (mut start, mut end) = (start.min(characters.len()), end.min(characters.len()));
    while start < end && characters[start].is_whitespace() {
        start += 1;
    }
    while start < end && characters[end - 1].is_whitespace() {
        end -= 1;
    }
    (start, end)
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
    fn characters_that_pieces_share_are_one_stretch_and_one_word() {
        let mut e = explanation();
        let tokens = vec![
            piece("x", 0, 1, Some(0)),
            piece("f\u{c3}", 1, 3, Some(0)), // "f" and half of "\u{e9}"
            piece("\u{a9}", 2, 3, Some(0)),
            piece("\u{120}", 4, 4, Some(1)), // a lone space
            piece("1", 5, 6, Some(2)),       // "\u{bd}" that a normaliser took apart
            piece("2", 5, 6, Some(3)),
            piece("\u{2581}a", 6, 8, Some(4)), // its space is not trimmed
        ];
        e.relevance = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        e.layout = Layout::Text(TextLayout { tokens, texts: vec!["xf\u{e9}  \u{bd} a".into()], ..Default::default() });
        let stretches: Vec<_> = e.stretches().iter().map(|s| (s.start, s.end, s.relevance)).collect();
        assert_eq!(stretches, [(0, 1, 1.0), (1, 3, 6.0), (5, 6, 48.0), (6, 8, 64.0)]);
        assert_eq!(e.shown(), [1.0, 6.0, 48.0, 64.0]);
        let words: Vec<_> = e.words().into_iter().map(|w| (w.text, w.start, w.relevance)).collect();
        assert_eq!(words, [("xf\u{e9}".into(), 0, 7.0), ("\u{bd}".into(), 5, 48.0), ("a".into(), 7, 64.0)]);
    }

    #[test]
    fn a_letter_with_its_accents_is_one() {
        let mut e = explanation();
        // "e" and its accent apart, three parts of an emoji
        let tokens = vec![
            piece("e", 0, 1, Some(0)),
            piece("x", 2, 3, Some(0)),
            piece("a", 4, 5, Some(1)),
            piece("b", 5, 6, Some(2)),
            piece("c", 6, 7, Some(2)),
        ];
        e.relevance = vec![1.0, 2.0, 4.0, 8.0, 16.0];
        let texts = vec!["e\u{301}x \u{1f469}\u{200d}\u{1f52c}".into()];
        e.layout = Layout::Text(TextLayout { tokens, texts, ..Default::default() });
        let stretches: Vec<_> = e.stretches().iter().map(|s| (s.start, s.end, s.relevance)).collect();
        assert_eq!(stretches, [(0, 2, 1.0), (2, 3, 2.0), (4, 7, 28.0)]);
        let words: Vec<_> = e.words().into_iter().map(|w| (w.text, w.relevance)).collect();
        assert_eq!(words, [("e\u{301}x".into(), 3.0), ("\u{1f469}\u{200d}\u{1f52c}".into(), 28.0)]);
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
