//! A text's relevance by what readers see of it: letters, and words.

use super::{Explanation, Layout};
use serde::Serialize;
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// The smallest stretch of whole letters (a character with its accents or joiners) that no word piece crosses, with the sum
/// over its pieces: of byte-level tokenizers several pieces may hold parts of one character.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stretch {
    /// The last of its tokens.
    last: usize,
    /// Which text of a pair.
    text: usize,
    /// First character in its text.
    start: usize,
    /// One past the last character.
    end: usize,
    /// Sum of the relevance of its pieces.
    relevance: f32,
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
    /// A text's word pieces as they can be shown, each with its first token's number and each character once; special tokens and pieces without a character of
    /// their own (a lone space) are not among them. Empty for images.
    fn stretches(&self) -> Vec<(usize, Stretch)> {
        let Layout::Text(text) = &self.layout else { return Vec::new() };
        let letters: Vec<Vec<usize>> = text.texts.iter().map(|t| letters(t)).collect();
        let mut stretches: Vec<(usize, Stretch)> = Vec::new();
        for (first, (token, &relevance)) in text.tokens.iter().zip(&self.relevance).enumerate() {
            let own = letters.get(token.text).map_or(&[][..], Vec::as_slice);
            let (start, end) = whole(own, token.start, token.end);
            if token.special || start >= end {
                continue;
            }
            match stretches.last_mut() {
                Some((_, last)) if last.text == token.text && start < last.end => {
                    (last.start, last.end) = (last.start.min(start), last.end.max(end));
                    last.relevance += relevance;
                    last.last = first;
                }
                _ => stretches.push((first, Stretch { last: first, text: token.text, start, end, relevance })),
            }
        }
        stretches
    }

    /// Relevance per word: pieces of one word, and pieces that share a character, are summed; special tokens and pieces that
    /// hold no more than white space are left out. Empty for images.
    pub fn words(&self) -> Vec<Word> {
        let Layout::Text(text) = &self.layout else { return Vec::new() };
        let characters: Vec<Vec<char>> = text.texts.iter().map(|t| t.chars().collect()).collect();
        let word = |own: Gathered| Word {
            text: characters[own.side][own.start..own.end].iter().collect(),
            start: own.start,
            end: own.end,
            relevance: own.pieces.iter().sum(),
            side: own.side,
        };
        self.gathered().into_iter().map(word).collect()
    }

    /// The pieces of each word.
    fn gathered(&self) -> Vec<Gathered> {
        if self.matrix {
            return Vec::new();
        }
        let Layout::Text(text) = &self.layout else { return Vec::new() };
        let characters: Vec<Vec<char>> = text.texts.iter().map(|t| t.chars().collect()).collect();
        let letters: Vec<Vec<usize>> = text.texts.iter().map(|t| letters(t)).collect();
        let mut words: Vec<Gathered> = Vec::new();
        for (first, (token, &relevance)) in text.tokens.iter().zip(&self.relevance).enumerate() {
            let (Some(source), Some(own)) = (characters.get(token.text), letters.get(token.text)) else { continue };
            let (start, end) = trimmed(source, token.start, token.end);
            let (start, end) = whole(own, start, end);
            if token.special || start >= end {
                continue;
            }
            match words.last_mut() {
                Some(last)
                    if last.side == token.text
                        && (start < last.end || (token.word.is_some() && last.word == token.word)) =>
                {
                    (last.start, last.end) = (last.start.min(start), last.end.max(end));
                    last.pieces.push(relevance);
                    last.last = first;
                }
                _ => {
                    let (word, side, pieces) = (token.word, token.text, vec![relevance]);
                    words.push(Gathered { first, last: first, word, start, end, side, pieces });
                }
            }
        }
        words
    }

    /// A text as it is shown: word by word or piece by piece, in its order, with special tokens where they are asked for. Empty for
    /// images.
    pub fn units(&self, how: Units) -> Vec<Unit> {
        let Layout::Text(text) = &self.layout else { return Vec::new() };
        let unit = |first: usize, last: usize, text, (start, end), relevance| {
            (first, Unit { tokens: first..last + 1, text, start, end, relevance, special: None })
        };
        let mut units: Vec<(usize, Unit)> = match how.words {
            Words::Off => {
                let own = self.stretches().into_iter();
                own.map(|(first, s)| unit(first, s.last, s.text, (s.start, s.end), s.relevance)).collect()
            }
            Words::Sum | Words::Mean | Words::Max => {
                let own = |g: Gathered| unit(g.first, g.last, g.side, (g.start, g.end), how.words.of(&g.pieces));
                self.gathered().into_iter().map(own).collect()
            }
        };
        if how.special {
            let mut behind = (0, 0); // text and character
            for (number, (token, &relevance)) in text.tokens.iter().zip(&self.relevance).enumerate() {
                if token.special {
                    let special = Some(token.piece.clone());
                    let (tokens, (text, start)) = (number..number + 1, behind);
                    units.push((number, Unit { tokens, text, start, end: start, relevance, special }));
                } else {
                    behind = (token.text, token.end);
                }
            }
            units.sort_by_key(|(number, _)| *number);
        }
        units.into_iter().map(|(_, unit)| unit).collect()
    }
}

/// The pieces of one word.
struct Gathered {
    /// Its first token, and its last.
    first: usize,
    last: usize,
    /// Its number, where the tokenizer knows it.
    word: Option<usize>,
    start: usize,
    end: usize,
    side: usize,
    pieces: Vec<f32>,
}

/// How a text's tokens are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Units {
    /// What becomes of the pieces of a word.
    pub words: Words,
    /// Special tokens are shown too.
    pub special: bool,
}

/// What becomes of the pieces of a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Words {
    /// One value, their sum.
    #[default]
    Sum,
    /// One value, their mean.
    Mean,
    /// One value, that of the piece whose value is greatest by size.
    Max,
    /// They are shown one by one.
    Off,
}

impl Words {
    /// Names on the command line, and what they mean.
    pub const NAMES: &'static [(&'static str, &'static str, Words)] = &[
        ("sum", "Words, the sum of their pieces", Words::Sum),
        ("mean", "Words, the mean of their pieces", Words::Mean),
        ("max", "Words, the greatest of their pieces by size", Words::Max),
        ("off", "Word pieces", Words::Off),
    ];

    fn of(self, pieces: &[f32]) -> f32 {
        match self {
            Words::Sum | Words::Off => pieces.iter().sum(),
            Words::Mean => pieces.iter().sum::<f32>() / pieces.len().max(1) as f32,
            Words::Max => pieces.iter().copied().fold(0.0, |most: f32, p| if p.abs() > most.abs() { p } else { most }),
        }
    }
}

/// A part of a text that is shown with one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Its tokens; those between that show nothing of their own are among them.
    pub tokens: Range<usize>,
    /// Which text of a pair.
    pub text: usize,
    /// First character in its text.
    pub start: usize,
    /// One past the last character.
    pub end: usize,
    /// What it is coloured by.
    pub relevance: f32,
    /// A special token's piece, which stands before this place and is no part of the text.
    pub special: Option<String>,
}

impl Explanation {
    /// How much of a text's relevance its special tokens hold, by size; none of images, matrices, and where all is 0.
    pub fn special_share(&self) -> Option<f32> {
        let Layout::Text(text) = &self.layout else { return None };
        let size = |special: bool| -> f32 {
            let own = text.tokens.iter().zip(&self.relevance).filter(|(token, _)| !special || token.special);
            own.map(|(_, relevance)| relevance.abs()).sum()
        };
        let all = size(false);
        (!self.matrix && all > 0.0).then(|| size(true) / all)
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
    use super::super::tests::{explanation, piece};
    use super::super::{Layout, TextLayout};
    use super::{Units, Words};

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
        let stretches: Vec<_> = e.stretches().iter().map(|(_, s)| (s.start, s.end, s.relevance)).collect();
        assert_eq!(stretches, [(0, 1, 1.0), (1, 3, 6.0), (5, 6, 48.0), (6, 8, 64.0)]);
        assert_eq!(e.shown(Units { words: Words::Off, special: false }), [1.0, 6.0, 48.0, 64.0]);
        assert_eq!(e.shown(Units::default()), [7.0, 48.0, 64.0]);
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
        let stretches: Vec<_> = e.stretches().iter().map(|(_, s)| (s.start, s.end, s.relevance)).collect();
        assert_eq!(stretches, [(0, 2, 1.0), (2, 3, 2.0), (4, 7, 28.0)]);
        let words: Vec<_> = e.words().into_iter().map(|w| (w.text, w.relevance)).collect();
        assert_eq!(words, [("e\u{301}x".into(), 3.0), ("\u{1f469}\u{200d}\u{1f52c}".into(), 28.0)]);
    }

    #[test]
    fn pieces_become_words_in_four_ways_and_special_tokens_stand_where_they_are() {
        let e = explanation(); // [CLS] fra ##gra soup [SEP]
        let shown = |words, special| e.shown(Units { words, special });
        assert_eq!(shown(Words::Sum, false), [0.75, -1.0]);
        assert_eq!(shown(Words::Mean, false), [0.375, -1.0]);
        assert_eq!(shown(Words::Max, false), [0.5, -1.0]);
        assert_eq!(shown(Words::Off, false), [0.5, 0.25, -1.0]);
        assert_eq!(shown(Words::Sum, true), [9.0, 0.75, -1.0, 3.0]);
        let special: Vec<_> =
            e.units(Units { words: Words::Sum, special: true }).into_iter().map(|u| u.special).collect();
        assert_eq!(special, [Some("[CLS]".to_string()), None, None, Some("[SEP]".to_string())]);
        assert_eq!(e.special_share(), Some(12.0 / 13.75));
    }
}
