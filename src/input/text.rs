//! Texts: tokenised by the checkpoint's own tokenizer, with character offsets, words and special tokens kept.

use crate::error::{Error, Result};
use crate::explanation::{TextLayout, TextToken};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::OnceLock;
use tokenizers::models::bpe::{Vocab, BPE};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{Encoding, Tokenizer, TruncationParams};

/// A checkpoint's tokenizer.
pub struct TextProcessor {
    tokenizer: Tokenizer,
    /// The same without truncation, made when a text is too long, to say how much of it was left out.
    unlimited: OnceLock<Tokenizer>,
    max_tokens: usize,
    pad_id: u32,
    mask_id: Option<u32>,
}

/// One text, or a pair of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Token types (0, and 1 for the second text of a pair).
    pub types: Vec<u32>,
    /// What each token is.
    pub layout: TextLayout,
    /// Word pieces that did not fit and were left out.
    pub truncated: usize,
}

impl TextProcessor {
    /// Reads `tokenizer.json`, or builds the tokenizer of older checkpoints from `vocab.txt` (BERT, DistilBERT) or
    /// `vocab.json` and `merges.txt` (RoBERTa).
    ///
    /// # Errors
    /// [`Error::Model`] when none of them is there or one is damaged.
    pub fn read(file: &dyn Fn(&str) -> Result<Option<Vec<u8>>>, family: &str, positions: usize) -> Result<Self> {
        let settings: Value = match file("tokenizer_config.json")? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::Model(format!("tokenizer_config.json: not valid JSON ({e})")))?,
            None => Value::Null,
        };
        let mut tokenizer = match file("tokenizer.json")? {
            Some(bytes) => Tokenizer::from_bytes(bytes).map_err(|e| Error::Model(format!("tokenizer.json: {e}")))?,
            None if family == "roberta" => byte_level_bpe(file)?,
            None => wordpiece(file, &settings)?,
        };
        let stated = settings.get("model_max_length").and_then(Value::as_f64).filter(|n| *n < 1e9).map(|n| n as usize);
        let max_tokens = stated.map_or(positions, |n| n.min(positions)).max(3);
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| Error::Model(format!("tokenizer: {e}")))?;
        tokenizer.with_padding(None);
        let special = |key: &str, usual: [&str; 2]| {
            let stated = settings.get(key);
            let stated = stated.and_then(|t| t.as_str().or_else(|| t.get("content").and_then(Value::as_str)));
            stated.into_iter().chain(usual).find_map(|t| tokenizer.token_to_id(t))
        };
        let pad_id = special("pad_token", ["[PAD]", "<pad>"]).unwrap_or(0);
        let mask_id = special("mask_token", ["[MASK]", "<mask>"]);
        Ok(TextProcessor { tokenizer, unlimited: OnceLock::new(), max_tokens, pad_id, mask_id })
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
    /// [`Error::Input`] for a text without any token of its own.
    pub fn apply(&self, text: &Text) -> Result<Tokenised> {
        let encode = |tokenizer: &Tokenizer| {
            let encoding = match &text.second {
                None => tokenizer.encode_char_offsets(text.first.as_str(), true),
                Some(second) => tokenizer.encode_char_offsets((text.first.as_str(), second.as_str()), true),
            };
            encoding.map_err(|e| Error::Input(format!("cannot be tokenised: {e}")))
        };
        let encoding = encode(&self.tokenizer)?;
        let layout = layout(&encoding, text);
        if layout.tokens.iter().all(|t| t.special) {
            return Err(Error::Input("the text is empty".into()));
        }
        let mut truncated = 0;
        if !encoding.get_overflowing().is_empty() {
            let unlimited = self.unlimited.get_or_init(|| {
                let mut tokenizer = self.tokenizer.clone();
                // Removing a limit cannot fail.
                let _ = tokenizer.with_truncation(None);
                tokenizer
            });
            truncated = encode(unlimited)?.len() - encoding.len();
        }
        Ok(Tokenised { ids: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec(), layout, truncated })
    }
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
    TextLayout { tokens, texts }
}

fn wordpiece(file: &dyn Fn(&str) -> Result<Option<Vec<u8>>>, settings: &Value) -> Result<Tokenizer> {
    let bytes = file("vocab.txt")?.ok_or_else(|| Error::Model("there is no tokenizer.json and no vocab.txt".into()))?;
    let text = String::from_utf8_lossy(&bytes);
    let vocab: Vocab = text.lines().enumerate().map(|(i, l)| (l.to_string(), i as u32)).collect();
    let id = |token: &str| vocab.get(token).copied().ok_or_else(|| Error::Model(format!("vocab.txt has no {token}")));
    let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
    let specials: Vec<_> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .iter()
        .filter(|t| vocab.contains_key(**t))
        .map(|t| tokenizers::AddedToken::from(*t, true))
        .collect();
    let model = WordPiece::builder().vocab(vocab).unk_token("[UNK]".into()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(|e| Error::Model(format!("vocab.txt: {e}")))?);
    let flag = |key: &str| settings.get(key).and_then(Value::as_bool);
    let lowercase = flag("do_lower_case").unwrap_or(true);
    let chinese = flag("tokenize_chinese_chars").unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, flag("strip_accents"), lowercase);
    tokenizer.with_normalizer(Some(normalizer)).map_err(|e| Error::Model(format!("tokenizer: {e}")))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), sep), ("[CLS]".into(), cls))));
    tokenizer.add_special_tokens(specials).map_err(|e| Error::Model(format!("vocab.txt: {e}")))?;
    Ok(tokenizer)
}

fn byte_level_bpe(file: &dyn Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<Tokenizer> {
    let need =
        |name: &str| file(name)?.ok_or_else(|| Error::Model(format!("there is no tokenizer.json and no {name}")));
    let vocab: HashMap<String, u32> =
        serde_json::from_slice(&need("vocab.json")?).map_err(|e| Error::Model(format!("vocab.json: {e}")))?;
    let merges = String::from_utf8_lossy(&need("merges.txt")?).into_owned();
    let pairs = merges.lines().filter(|l| !l.starts_with("#version") && !l.is_empty());
    let pairs: Vec<(String, String)> =
        pairs.filter_map(|l| l.split_once(' ')).map(|(a, b)| (a.into(), b.into())).collect();
    let id = |token: &str| vocab.get(token).copied().ok_or_else(|| Error::Model(format!("vocab.json has no {token}")));
    let (cls, sep) = (id("<s>")?, id("</s>")?);
    let specials: Vec<_> =
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"].iter().map(|t| tokenizers::AddedToken::from(*t, true)).collect();
    let model = BPE::builder().vocab_and_merges(vocab.into_iter().collect::<Vocab>(), pairs).build();
    let mut tokenizer = Tokenizer::new(model.map_err(|e| Error::Model(format!("vocab.json and merges.txt: {e}")))?);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_post_processor(Some(
        RobertaProcessing::new(("</s>".into(), sep), ("<s>".into(), cls)).trim_offsets(true).add_prefix_space(false),
    ));
    tokenizer.add_special_tokens(specials).map_err(|e| Error::Model(format!("vocab.json: {e}")))?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(positions: usize) -> TextProcessor {
        let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncaf\n##e\ngood\nthe\n!\n";
        let file = |name: &str| Ok((name == "vocab.txt").then(|| vocab.as_bytes().to_vec()));
        TextProcessor::read(&file, "bert", positions).unwrap()
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
        assert_eq!((t.ids.len(), t.truncated), (5, 2));
        assert!(processor(5).apply(&one("  ")).unwrap_err().to_string().contains("empty"));
    }
}
