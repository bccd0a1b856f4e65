//! Tokenizers made from a vocabulary, as the classes of transformers make them.

use super::class::Class;
use super::settings::Settings;
use super::ReadFile;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::HashSet;
use tokenizers::models::bpe::{Merges, Vocab, BPE};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{PostProcessorWrapper, Tokenizer};

/// Where vocabulary and merges come from.
pub struct Source<'a> {
    /// Reads a file of the checkpoint.
    pub file: ReadFile<'a>,
    /// `tokenizer.json`, if there is one.
    pub json: Option<&'a Value>,
}

impl Source<'_> {
    fn need(&self, name: &str) -> Result<Vec<u8>> {
        (self.file)(name)?.ok_or_else(|| Error::Model(format!("there is no tokenizer.json and no {name}")))
    }

    fn text(&self, name: &str) -> Result<String> {
        String::from_utf8(self.need(name)?).map_err(|_| Error::Model(format!("{name}: is not UTF-8 text")))
    }

    fn word_pieces(&self) -> Result<Vocab> {
        if let Some(json) = self.json {
            return vocabulary(json.pointer("/model/vocab"), "tokenizer.json");
        }
        // White space behind a token does not belong to it, and of two equal lines the last counts.
        Ok(self.text("vocab.txt")?.lines().enumerate().map(|(i, l)| (l.trim_end().to_string(), i as u32)).collect())
    }

    fn byte_pairs(&self) -> Result<(Vocab, Merges)> {
        if let Some(json) = self.json {
            let vocab = vocabulary(json.pointer("/model/vocab"), "tokenizer.json")?;
            let merges = json.pointer("/model/merges").and_then(Value::as_array);
            let merges = merges.ok_or_else(|| Error::Model("tokenizer.json: the model has no `merges`".into()))?;
            let pair = |m: &Value| {
                let of_text = || m.as_str().and_then(two_words);
                let of_list = || Some((m.get(0)?.as_str()?.to_string(), m.get(1)?.as_str()?.to_string()));
                let pair = of_text().or_else(of_list);
                pair.ok_or_else(|| Error::Model(format!("tokenizer.json: the merge {m} is not of two tokens")))
            };
            return Ok((vocab, merges.iter().map(pair).collect::<Result<_>>()?));
        }
        let json: Value = serde_json::from_slice(&self.need("vocab.json")?)
            .map_err(|e| Error::Model(format!("vocab.json: not valid JSON ({e})")))?;
        let merges = self.text("merges.txt")?;
        let lines = merges.lines().enumerate().filter(|(_, l)| !l.starts_with("#version") && !l.is_empty());
        let pair = |(i, line): (usize, &str)| {
            two_words(line).ok_or_else(|| {
                Error::Model(format!("merges.txt: line {} is not two tokens; is the file complete?", i + 1))
            })
        };
        Ok((vocabulary(Some(&json), "vocab.json")?, lines.map(pair).collect::<Result<_>>()?))
    }
}

fn two_words(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    (!b.contains(' ')).then(|| (a.to_string(), b.to_string()))
}

fn vocabulary(value: Option<&Value>, place: &str) -> Result<Vocab> {
    let map = value.and_then(Value::as_object);
    let map = map.ok_or_else(|| Error::Model(format!("{place}: the vocabulary is not a map of tokens to ids")))?;
    let entry = |(token, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|n| u32::try_from(n).ok());
        id.map(|id| (token.clone(), id))
            .ok_or_else(|| Error::Model(format!("{place}: `{token}` has no id that is a whole number")))
    };
    map.iter().map(entry).collect()
}

/// `BertTokenizer`: its flags come from `tokenizer_config.json` and have defaults of their own, whatever
/// `tokenizer.json` says.
pub fn word_piece(source: &Source<'_>, settings: &Settings, class: &Class) -> Result<Tokenizer> {
    let unknown = settings.needed("unk_token", class)?;
    let model = WordPiece::builder().vocab(source.word_pieces()?).unk_token(unknown).build();
    let mut tokenizer = Tokenizer::new(model.map_err(failed)?);
    let lowercase = settings.flag("do_lower_case")?.unwrap_or(true);
    let chinese = settings.flag("tokenize_chinese_chars")?.unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, settings.flag("strip_accents")?, lowercase);
    tokenizer.with_normalizer(Some(normalizer)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    add(&mut tokenizer, settings, class)?;
    let frame = |key| framing(&tokenizer, settings, class, key);
    let post: PostProcessorWrapper = BertProcessing::new(frame("sep_token")?, frame("cls_token")?).into();
    tokenizer.with_post_processor(Some(post));
    Ok(tokenizer)
}

/// `RobertaTokenizer`: `add_prefix_space` is `tokenizer_config.json`'s (false when absent), whatever `tokenizer.json` says.
pub fn byte_level(source: &Source<'_>, settings: &Settings, class: &Class) -> Result<Tokenizer> {
    let (vocab, merges) = source.byte_pairs()?;
    let model = BPE::builder().vocab_and_merges(vocab, merges).build();
    let mut tokenizer = Tokenizer::new(model.map_err(failed)?);
    let prefix = settings.flag("add_prefix_space")?.unwrap_or(false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix, true, true)));
    add(&mut tokenizer, settings, class)?;
    let frame = |key| framing(&tokenizer, settings, class, key);
    let post = RobertaProcessing::new(frame("sep_token")?, frame("cls_token")?);
    tokenizer.with_post_processor(Some(post.trim_offsets(true).add_prefix_space(prefix)));
    Ok(tokenizer)
}

/// Adds what the files add, each token under the id they give it.
pub fn add(tokenizer: &mut Tokenizer, settings: &Settings, class: &Class) -> Result<()> {
    let present: HashSet<String> = tokenizer.get_added_tokens_decoder().into_values().map(|t| t.content).collect();
    tokenizer.add_tokens(settings.to_add(class, &present)?).map_err(failed)?;
    for (id, declared) in &settings.declared {
        let content = &declared.token.content;
        match tokenizer.token_to_id(content) {
            Some(got) if got != *id => {
                return Err(Error::Model(format!(
                    "{}: `{content}` is said to be token {id}, but behind this vocabulary it is token {got}; the files do not belong together",
                    declared.place
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A special token of the frame around a text, with its id.
fn framing(tokenizer: &Tokenizer, settings: &Settings, class: &Class, key: &str) -> Result<(String, u32)> {
    let token = settings.needed(key, class)?;
    let id = tokenizer.token_to_id(&token);
    let id = id.ok_or_else(|| Error::Model(format!("the vocabulary has no `{token}` ({key})")))?;
    Ok((token, id))
}

pub(super) fn failed(e: tokenizers::Error) -> Error {
    Error::Model(format!("tokenizer: {e}"))
}
