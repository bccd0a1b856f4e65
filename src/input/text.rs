//! Texts: tokenised by the checkpoint's own tokenizer, with character offsets, words and special tokens kept.

use super::tokenizer::{guarded, make, Types};
use crate::error::{Error, Result};
use crate::explanation::{LeftOut, TextLayout, TextToken};
use std::sync::OnceLock;
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection, TruncationParams};

/// A checkpoint's tokenizer.
pub struct TextProcessor {
    tokenizer: Tokenizer,
    /// The same without truncation, made when a text is too long, to say how much of it was left out.
    unlimited: OnceLock<Tokenizer>,
    max_tokens: usize,
    side: TruncationDirection,
    types: Types,
    tables: Tables,
    pad_id: u32,
    mask_id: Option<u32>,
    /// Shorter texts are filled up with padding that the model reads.
    fills_up: bool,
}

/// What a model's embedding holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// Most tokens of a text.
    pub positions: usize,
    /// Rows of the table of words.
    pub vocabulary: usize,
    /// Rows of the table of token types; 0 without one.
    pub types: usize,
}

/// One text, or a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text {
    /// The text.
    pub first: String,
    /// The second of a pair.
    pub second: Option<String>,
}

/// A tokenised text.
#[derive(Debug, Clone)]
pub struct Tokenised {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Token types (0, and 1 for the second text of a pair where the model is given them).
    pub types: Vec<u32>,
    /// What each token is, and what did not fit.
    pub layout: TextLayout,
    /// A text that is too long for the model, in parts that it reads.
    pub windows: Vec<Window>,
}

/// A part of a text that a model reads at once.
#[derive(Debug, Clone)]
pub struct Window {
    /// Of each of its tokens the place in the whole text.
    pub places: Vec<usize>,
    /// What the model is given; the text itself is with the whole.
    pub part: Tokenised,
}

/// Windows of a text, at most: each is a pass of its own.
const MOST_WINDOWS: usize = 4096;

impl Text {
    /// Of one part or two; none of another number.
    pub fn of(parts: &[String]) -> Option<Self> {
        match parts {
            [first] => Some(Text { first: first.clone(), second: None }),
            [first, second] => Some(Text { first: first.clone(), second: Some(second.clone()) }),
            _ => None,
        }
    }
}

impl TextProcessor {
    /// Reads `tokenizer.json`, or `vocab.txt` (BERT, DistilBERT), or `vocab.json` and `merges.txt` (RoBERTa), with all that
    /// transformers lays over them: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`.
    ///
    /// # Errors
    /// [`Error::Model`] when none of them is there, one is damaged, or one says what vitx cannot honour.
    pub fn read(file: &dyn Fn(&str) -> Result<Option<Vec<u8>>>, family: &str, tables: Tables) -> Result<Self> {
        let made = make(file, family)?;
        let mut tokenizer = made.tokenizer;
        let max_tokens = made.limit.map_or(tables.positions, |n| n.min(tables.positions));
        let frame = added(&tokenizer, false);
        if max_tokens <= frame {
            return Err(Error::Model(format!(
                "a text may have {max_tokens} tokens (model_max_length in tokenizer_config.json, max_position_embeddings in config.json), of which its {frame} special tokens leave none"
            )));
        }
        let truncation = TruncationParams { max_length: max_tokens, direction: made.side, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| Error::Model(format!("tokenizer: {e}")))?;
        let known = |id: &u32| (*id as usize) < tables.vocabulary;
        Ok(TextProcessor {
            tokenizer,
            unlimited: OnceLock::new(),
            max_tokens,
            side: made.side,
            types: made.types,
            tables,
            pad_id: made.pad.filter(known).unwrap_or(0),
            mask_id: made.mask.filter(known),
            fills_up: false,
        })
    }

    /// The same for models that were trained on texts of one length: shorter ones are filled up with padding, which counts as read.
    pub fn filling_up(self) -> Self {
        TextProcessor { fills_up: true, ..self }
    }

    /// The id that fills up shorter texts of a batch.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The id that stands for a hidden token, if the tokenizer has one.
    pub fn mask_id(&self) -> Option<u32> {
        self.mask_id
    }

    /// Longest text in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Tokenises one text or pair, cutting off what does not fit.
    ///
    /// # Errors
    /// [`Error::Input`] for a text without any token of its own, a pair that the model has no room or no token type for, and a
    /// token that its table does not hold.
    pub fn apply(&self, text: &Text) -> Result<Tokenised> {
        self.room(text)?;
        let encoding = encode(&self.tokenizer, text)?;
        let mut layout = layout(&encoding, text);
        if !encoding.get_overflowing().is_empty() {
            layout.left_out = left_out(&layout, &self::layout(&encode(self.unlimited(), text)?, text), self.side);
        }
        if layout.tokens.iter().all(|t| t.special) {
            return Err(Error::Input("the text is empty".into()));
        }
        self.whole_pair(&layout)?;
        self.framed(&encoding, layout)
    }

    /// The same; a text that does not fit is cut into windows, neighbours sharing so many tokens.
    ///
    /// # Errors
    /// As [`TextProcessor::apply`]; [`Error::Input`] for a pair that does not fit, and for windows that would not move on.
    pub fn in_windows(&self, text: &Text, shared: usize) -> Result<Tokenised> {
        let first = self.apply(text)?;
        if first.layout.left_out.is_empty() {
            return Ok(first);
        }
        if text.second.is_some() {
            return Err(Error::Input("a pair that is too long for the model: --stride is for single texts".into()));
        }
        let encoding = encode(self.unlimited(), text)?;
        let whole = layout(&encoding, text);
        self.known(&encoding)?;
        let own: Vec<usize> = (0..whole.tokens.len()).filter(|t| !whole.tokens[*t].special).collect();
        let (Some(&begin), Some(&last)) = (own.first(), own.last()) else { return Ok(first) };
        let room = self.max_tokens - (whole.tokens.len() - own.len()).min(self.max_tokens);
        let step = room.checked_sub(shared).filter(|step| *step > 0).ok_or_else(|| {
            Error::Input(format!(
                "--stride {shared}: a window holds {room} tokens of a text; neighbours must share fewer"
            ))
        })?;
        let types = self.token_types(&encoding)?;
        let cut = |from: usize| {
            let to = (from + room).min(last + 1);
            let places: Vec<usize> = (0..begin).chain(from..to).chain(last + 1..whole.tokens.len()).collect();
            let tokens = places.iter().map(|p| whole.tokens[*p].clone()).collect();
            let part = Tokenised {
                ids: places.iter().map(|p| encoding.get_ids()[*p]).collect(),
                types: places.iter().map(|p| types[*p]).collect(),
                layout: TextLayout { tokens, ..TextLayout::default() },
                windows: Vec::new(),
            };
            Window { places, part: self.filled(part) }
        };
        let windows = (own.len().saturating_sub(room)).div_ceil(step) + 1;
        if windows > MOST_WINDOWS {
            return Err(Error::Input(format!(
                "--stride {shared} makes {windows} windows of this text, more than {MOST_WINDOWS}; let neighbours share fewer tokens"
            )));
        }
        let windows: Vec<Window> = (0..windows).map(|number| cut(begin + number * step)).collect();
        let ends = |window: &Window| {
            let own = || window.part.layout.tokens.iter().filter(|t| !t.special);
            (own().map(|t| t.start).min().unwrap_or(0), own().map(|t| t.end).max().unwrap_or(0))
        };
        let layout = TextLayout { windows: windows.iter().map(ends).collect(), ..whole };
        Ok(Tokenised { ids: encoding.get_ids().to_vec(), types, layout, windows })
    }

    fn unlimited(&self) -> &Tokenizer {
        self.unlimited.get_or_init(|| {
            let mut tokenizer = self.tokenizer.clone();
            // Removing a limit cannot fail.
            let _ = tokenizer.with_truncation(None);
            tokenizer
        })
    }

    /// What an encoding is to the model.
    fn framed(&self, encoding: &Encoding, layout: TextLayout) -> Result<Tokenised> {
        self.known(encoding)?;
        let (ids, types) = (encoding.get_ids().to_vec(), self.token_types(encoding)?);
        Ok(self.filled(Tokenised { ids, types, layout, windows: Vec::new() }))
    }

    /// With padding, where the model reads it.
    fn filled(&self, own: Tokenised) -> Tokenised {
        let Tokenised { mut ids, mut types, mut layout, windows } = own;
        if self.fills_up {
            let piece = self.tokenizer.id_to_token(self.pad_id).unwrap_or_default();
            let padding = TextToken { piece, start: 0, end: 0, text: 0, word: None, special: true };
            layout.tokens.resize(self.max_tokens, padding);
            ids.resize(self.max_tokens, self.pad_id);
            types.resize(self.max_tokens, 0);
        }
        Tokenised { ids, types, layout, windows }
    }

    /// A pair has more special tokens than a text alone.
    fn room(&self, text: &Text) -> Result<()> {
        let frame = added(&self.tokenizer, text.second.is_some());
        if self.max_tokens > frame {
            return Ok(());
        }
        Err(Error::Input(format!(
            "{} positions hold no pair: its {frame} special tokens fill them; the model reads single texts only",
            self.max_tokens
        )))
    }

    /// Neither text of a pair may be cut off altogether.
    fn whole_pair(&self, layout: &TextLayout) -> Result<()> {
        let gone = layout.left_out.iter().find(|l| !layout.tokens.iter().any(|t| !t.special && t.text == l.text));
        let Some(gone) = gone else { return Ok(()) };
        let which = if gone.text == 0 { "first" } else { "second" };
        Err(Error::Input(format!(
            "{} positions hold no pair: nothing would be left of the {which} text",
            self.max_tokens
        )))
    }

    /// Every id must have a row in the model's table.
    fn known(&self, encoding: &Encoding) -> Result<()> {
        let rows = self.tables.vocabulary;
        let Some(i) = encoding.get_ids().iter().position(|id| *id as usize >= rows) else { return Ok(()) };
        let (id, token) = (encoding.get_ids()[i], &encoding.get_tokens()[i]);
        Err(Error::Input(format!(
            "token `{token}` has id {id}, but the model knows ids 0 to {} (vocab_size {rows}): the tokenizer has tokens that this model was not made for",
            rows.saturating_sub(1)
        )))
    }

    fn token_types(&self, encoding: &Encoding) -> Result<Vec<u32>> {
        let (stated, table) = (encoding.get_type_ids(), self.tables.types);
        let most = stated.iter().max().map_or(0, |n| *n as usize);
        match self.types {
            Types::None => Ok(vec![0; stated.len()]),
            Types::Fed | Types::Unsaid if most == 0 => Ok(stated.to_vec()),
            Types::Unsaid if table < 2 => Ok(vec![0; stated.len()]),
            Types::Unsaid => Err(Error::Input(
                "a pair, but tokenizer_config.json does not say whether the model is given token types: transformers 4 feeds them with this tokenizer_class, transformers 5 does not; write `model_input_names` into it, with or without \"token_type_ids\"".into(),
            )),
            Types::Fed if table == 1 => {
                Err(Error::Input("a pair, but the model knows one token type (type_vocab_size 1): it reads single texts only".into()))
            }
            Types::Fed if table > 0 && most >= table => Err(Error::Input(format!(
                "its template has token type {most}, but the model knows types 0 to {} (type_vocab_size)",
                table - 1
            ))),
            Types::Fed => Ok(stated.to_vec()),
        }
    }
}

/// Special tokens around a text or pair.
fn added(tokenizer: &Tokenizer, pair: bool) -> usize {
    tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(pair))
}

fn encode(tokenizer: &Tokenizer, text: &Text) -> Result<Encoding> {
    let encoded = guarded(|| match &text.second {
        None => tokenizer.encode_char_offsets(text.first.as_str(), true),
        Some(second) => tokenizer.encode_char_offsets((text.first.as_str(), second.as_str()), true),
    });
    let encoded = encoded.map_err(|why| Error::Input(format!("cannot be tokenised: {why}")))?;
    encoded.map_err(|e| Error::Input(format!("cannot be tokenised: {e}")))
}

/// What the whole layout has and the cut one has not, a stretch a text.
fn left_out(cut: &TextLayout, whole: &TextLayout, side: TruncationDirection) -> Vec<LeftOut> {
    let own = |layout: &TextLayout, number: usize| -> Vec<TextToken> {
        layout.tokens.iter().filter(|t| !t.special && t.text == number).cloned().collect()
    };
    let of = |number: usize| {
        let (kept, all) = (own(cut, number), own(whole, number));
        let tokens = all.len() - kept.len().min(all.len());
        let characters = whole.texts[number].chars().count();
        // A character of which a token was read counts as read.
        let (start, end) = match side {
            TruncationDirection::Right => {
                let read = kept.iter().map(|t| t.end).max().unwrap_or(0);
                (all.get(kept.len())?.start.max(read), characters)
            }
            TruncationDirection::Left => {
                let read = kept.iter().map(|t| t.start).min().unwrap_or(characters);
                (0, all.get(tokens.checked_sub(1)?)?.end.min(read))
            }
        };
        (tokens > 0).then_some(LeftOut { text: number, tokens, start, end })
    };
    (0..whole.texts.len()).filter_map(of).collect()
}

fn layout(encoding: &Encoding, text: &Text) -> TextLayout {
    let words_of_first = encoding.get_word_ids().iter().zip(encoding.get_sequence_ids());
    let words_of_first =
        words_of_first.filter(|(_, s)| *s == Some(0)).filter_map(|(w, _)| *w).max().map_or(0, |w| w as usize + 1);
    let tokens = (0..encoding.len())
        .map(|i| {
            let special = encoding.get_special_tokens_mask()[i] == 1;
            let (start, end) = encoding.get_offsets()[i];
            let sequence = encoding.get_sequence_ids()[i].unwrap_or(0);
            let word = encoding.get_word_ids()[i].filter(|_| !special);
            TextToken {
                piece: encoding.get_tokens()[i].clone(),
                start,
                end,
                text: sequence,
                word: word.map(|w| w as usize + if sequence == 0 { 0 } else { words_of_first }),
                special,
            }
        })
        .collect();
    let texts = std::iter::once(text.first.clone()).chain(text.second.clone()).collect();
    TextLayout { tokens, texts, ..TextLayout::default() }
}

/// The lines of a file, without the mark that some editors begin it with.
pub fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    whole.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l).to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(positions: usize) -> TextProcessor {
        let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncaf\n##e\ngood\nthe\n!\n";
        let file = |name: &str| Ok((name == "vocab.txt").then(|| vocab.as_bytes().to_vec()));
        TextProcessor::read(&file, "bert", Tables { positions, vocabulary: 10, types: 2 }).unwrap()
    }

    fn one(text: &str) -> Text {
        Text { first: text.into(), second: None }
    }

    #[test]
    fn offsets_count_characters_and_pieces_know_their_word() {
        let t = processor(20).apply(&one("Thé Café good!")).unwrap();
        let seen: Vec<_> =
            t.layout.tokens.iter().map(|t| (t.piece.as_str(), t.start, t.end, t.word, t.special)).collect();
        let want = [
            ("[CLS]", 0, 0, None, true),
            ("the", 0, 3, Some(0), false),
            ("caf", 4, 7, Some(1), false),
            ("##e", 7, 8, Some(1), false),
            ("good", 9, 13, Some(2), false),
            ("!", 13, 14, Some(3), false),
            ("[SEP]", 0, 0, None, true),
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn pairs_have_types_and_words_of_their_own() {
        let t = processor(20).apply(&Text { first: "good".into(), second: Some("the good".into()) }).unwrap();
        assert_eq!(t.types, [0, 0, 0, 1, 1, 1]);
        let words: Vec<_> = t.layout.tokens.iter().map(|t| (t.word, t.text)).collect();
        assert_eq!(words[1], (Some(0), 0));
        assert_eq!(&words[3..5], [(Some(1), 1), (Some(2), 1)]);
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        let t = processor(5).apply(&one("good good good good good")).unwrap();
        assert_eq!((t.ids.len(), t.layout.left_out), (5, vec![LeftOut { text: 0, tokens: 2, start: 15, end: 24 }]));
        let t = processor(5).in_windows(&one("good good good good good"), 1).unwrap();
        assert_eq!((t.ids.len(), &t.layout.windows[..]), (7, &[(0, 14), (10, 24)][..]));
        assert!(t.windows.iter().all(|w| w.part.ids.len() == 5) && t.layout.left_out.is_empty());
        assert!(processor(5).in_windows(&one("good the"), 1).unwrap().windows.is_empty());
        assert!(processor(5).in_windows(&one("good good good good"), 3).is_err());
        assert!(processor(5).apply(&one("  ")).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn lists_are_split_as_they_were_written() {
        let split = |bytes: &[u8]| lines(bytes).iter().map(|l| l.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(split(b"\xef\xbb\xbfa\r\nb\n"), ["a", "b"]);
        assert_eq!(split(b"a\n\n\xff\n"), ["a", "", "\\xff"]);
        assert_eq!(split(b""), [""]);
    }
}
