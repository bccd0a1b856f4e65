//! `tokenizer.json` against the class that `tokenizer_config.json` names. transformers 5 builds these classes from the
//! vocabulary alone, transformers 4 took the rest of `tokenizer.json` as it stood. Where the two give other tokens,
//! nobody can tell which the model was trained with.

use super::class::{Build, Class, Types};
use crate::error::{Error, Result};
use serde_json::{json, Value};
use tokenizers::{Encoding, PostProcessor, PostProcessorWrapper, Token};

/// Refuses what versions of transformers read differently.
///
/// # Errors
/// [`Error::Model`] naming the key of `tokenizer.json`.
pub fn check(json: &Value, class: &Class, prefix_space: bool) -> Result<()> {
    let wanted: Vec<(&str, Vec<Value>)> = match class.build {
        Build::WordPiece => vec![
            ("/normalizer/type", vec![json!("BertNormalizer")]),
            ("/normalizer/clean_text", vec![json!(true)]),
            ("/pre_tokenizer/type", vec![json!("BertPreTokenizer")]),
            ("/model/continuing_subword_prefix", vec![json!("##")]),
            ("/model/max_input_chars_per_word", vec![json!(100)]),
        ],
        Build::ByteLevel => vec![
            ("/normalizer", vec![]),
            ("/pre_tokenizer/type", vec![json!("ByteLevel")]),
            ("/pre_tokenizer/use_regex", vec![json!(true)]),
            ("/model/dropout", vec![json!(0.0), json!(0)]),
            ("/model/continuing_subword_prefix", vec![json!("")]),
            ("/model/end_of_word_suffix", vec![json!("")]),
            ("/model/ignore_merges", vec![json!(false)]),
        ],
        Build::Pieces => vec![
            ("/pre_tokenizer/type", vec![json!("Sequence")]),
            ("/pre_tokenizer/pretokenizers/0/type", vec![json!("WhitespaceSplit")]),
            ("/pre_tokenizer/pretokenizers/1/type", vec![json!("Metaspace")]),
            ("/pre_tokenizer/pretokenizers/1/replacement", vec![json!("\u{2581}")]),
            ("/pre_tokenizer/pretokenizers/1/prepend_scheme", vec![json!("always")]),
            ("/pre_tokenizer/pretokenizers/1/add_prefix_space", vec![json!(true)]),
            ("/pre_tokenizer/pretokenizers/2", vec![]),
            ("/model/unk_id", vec![json!(3)]),
        ],
        // dropout would make every run another one
        Build::AsItStands => vec![("/model/dropout", vec![json!(0.0), json!(0)])],
    };
    let model = match class.build {
        Build::WordPiece => Some("WordPiece"),
        Build::ByteLevel => Some("BPE"),
        Build::Pieces => Some("Unigram"),
        Build::AsItStands => None,
    };
    if let Some(model) = model.filter(|m| *m != kind(json)) {
        return Err(Error::Model(format!(
            "tokenizer.json holds a {} model, but {} (tokenizer_class) is made of {model}",
            kind(json),
            class.names[0]
        )));
    }
    for (pointer, values) in wanted {
        let Some(value) = json.pointer(pointer).filter(|v| !v.is_null()) else { continue };
        if !values.contains(value) {
            return Err(differs(&pointer[1..].replace('/', "."), value, class));
        }
    }
    let own = json.pointer("/pre_tokenizer/add_prefix_space").and_then(Value::as_bool);
    match own {
        Some(own) if class.build == Build::AsItStands && own != prefix_space => Err(Error::Model(format!(
            "tokenizer.json: `pre_tokenizer.add_prefix_space` is {own}, but tokenizer_config.json says {prefix_space} (or nothing, which is false): transformers 5 follows the first, transformers 4 the second; make them agree"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a frame of special tokens that is another than the class's own.
///
/// # Errors
/// [`Error::Model`] naming `post_processor`.
pub fn check_frame(json: &Value, own: &PostProcessorWrapper, class: &Class, types: Types) -> Result<()> {
    let Some(value) = json.get("post_processor").filter(|v| !v.is_null()) else { return Ok(()) };
    let theirs: PostProcessorWrapper = serde_json::from_value(value.clone())
        .map_err(|e| Error::Model(format!("tokenizer.json: `post_processor`: {e}")))?;
    for pair in [false, true] {
        let (mine, other) = (frame(own, pair)?, frame(&theirs, pair)?);
        if mine.0 != other.0 || (types == Types::Fed && mine.1 != other.1) {
            return Err(differs("post_processor", &value["type"], class));
        }
    }
    Ok(())
}

/// Ids and token types around one piece, or a pair of pieces.
fn frame(processor: &PostProcessorWrapper, pair: bool) -> Result<(Vec<u32>, Vec<u32>)> {
    let piece = || Encoding::from_tokens(vec![Token::new(u32::MAX, "x".into(), (0, 1))], 0);
    let framed = processor.process(piece(), pair.then(piece), true);
    let framed = framed.map_err(|e| Error::Model(format!("tokenizer.json: `post_processor`: {e}")))?;
    Ok((framed.get_ids().to_vec(), framed.get_type_ids().to_vec()))
}

fn differs(key: &str, value: &Value, class: &Class) -> Error {
    Error::Model(format!(
        "tokenizer.json: `{key}` ({value}) is not what {} (tokenizer_class) has: transformers 4 and 5 make other tokens of it; if tokenizer.json is right, set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json",
        class.names[0]
    ))
}

/// The kind of the model; older files do not write it.
fn kind(json: &Value) -> &str {
    let model = json.get("model").unwrap_or(&Value::Null);
    match model.get("type").and_then(Value::as_str) {
        Some(kind) => kind,
        None if model.get("merges").is_some() => "BPE",
        None if model.get("vocab").is_some_and(Value::is_array) => "Unigram",
        None if model.get("continuing_subword_prefix").is_some() => "WordPiece",
        None => "WordLevel",
    }
}
