//! A checkpoint's tokenizer, made of its files as transformers makes it.

mod agree;
mod build;
mod class;
mod growth;
mod settings;

pub use class::Types;

use crate::error::{Error, Result};
use build::Source;
use class::{Build, Class};
use serde_json::{json, Map, Value};
use settings::Settings;
use std::panic::{catch_unwind, AssertUnwindSafe};
use tokenizers::{PostProcessorWrapper, Tokenizer, TruncationDirection};

/// Reads a small file of a checkpoint, if it has it.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>;

/// A tokenizer with what belongs to it.
pub struct Made {
    /// Without truncation and padding.
    pub tokenizer: Tokenizer,
    /// The most tokens of a text, if the files say.
    pub limit: Option<usize>,
    /// The side on which long texts are cut.
    pub side: TruncationDirection,
    /// Whether token types are given to the model.
    pub types: Types,
    /// Fills up short texts.
    pub pad: Option<u32>,
    /// Hides a token.
    pub mask: Option<u32>,
}

/// Makes the tokenizer of a checkpoint.
///
/// # Errors
/// [`Error::Model`] when a file is missing or damaged, or says what vitx cannot honour.
pub fn make(file: ReadFile<'_>, family: &str) -> Result<Made> {
    let config = object(file, "tokenizer_config.json")?;
    let class = Class::of(file, &config, family)?;
    let bytes = file("tokenizer.json")?;
    let parse = |b: &Vec<u8>| serde_json::from_slice(b);
    let json: Option<Value> = bytes
        .as_ref()
        .map(parse)
        .transpose()
        .map_err(|e| Error::Model(format!("tokenizer.json: not valid JSON ({e}); is the file complete?")))?;
    let settings = Settings::read(file, config, json.as_ref())?;
    let types = settings.types(class)?;
    if let Some(json) = &json {
        growth::check(json)?;
        agree::check(json, class, settings.flag("add_prefix_space")?.unwrap_or(false))?;
    }
    let source = Source { file, json: json.as_ref() };
    let mut tokenizer = guarded(|| match class.build {
        Build::WordPiece => build::word_piece(&source, &settings, class),
        Build::ByteLevel => build::byte_level(&source, &settings, class),
        Build::Pieces | Build::AsItStands => as_it_stands(bytes.as_deref(), &settings, class),
    })
    .unwrap_or_else(damaged)?;
    if let (Some(json), Some(own)) = (&json, tokenizer.get_post_processor()) {
        match class.build {
            // Its template may name tokens that it does not have.
            Build::WordPiece | Build::ByteLevel => {
                guarded(|| agree::check_frame(json, own, class, types)).unwrap_or_else(damaged)?;
            }
            Build::Pieces | Build::AsItStands => {}
        }
    }
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(build::failed)?;
    tokenizer.set_encode_special_tokens(settings.flag("split_special_tokens")?.unwrap_or(false));
    let id = |key: &str, usual: [&str; 2]| -> Result<Option<u32>> {
        let stated = settings.special(key, class)?.and_then(|t| tokenizer.token_to_id(&t));
        Ok(stated.or_else(|| usual.iter().find_map(|t| tokenizer.token_to_id(t))))
    };
    let (pad, mask) = (id("pad_token", ["[PAD]", "<pad>"])?, id("mask_token", ["[MASK]", "<mask>"])?);
    Ok(Made { limit: settings.limit()?, side: settings.side(json.as_ref())?, types, pad, mask, tokenizer })
}

fn damaged<T>(why: String) -> Result<T> {
    Err(Error::Model(format!("the tokenizer's files are damaged: {why}")))
}

fn as_it_stands(bytes: Option<&[u8]>, settings: &Settings, class: &Class) -> Result<Tokenizer> {
    let name = class.names[0];
    let bytes = bytes.ok_or_else(|| {
        Error::Model(format!("there is no tokenizer.json, which {name} needs; transformers writes it: python -c \"from transformers import AutoTokenizer as A; A.from_pretrained('DIR').save_pretrained('DIR')\""))
    })?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| Error::Model(format!("tokenizer.json: {e}")))?;
    build::add(&mut tokenizer, settings, class)?;
    if tokenizer.get_post_processor().is_none() {
        let of = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
        let bare = json!({"type": "TemplateProcessing", "special_tokens": {}, "single": [of("A", 0)], "pair": [of("A", 0), of("B", 1)]});
        let bare: PostProcessorWrapper =
            serde_json::from_value(bare).map_err(|e| Error::Model(format!("tokenizer: {e}")))?;
        tokenizer.with_post_processor(Some(bare));
    }
    Ok(tokenizer)
}

/// Runs the tokenizers crate, which panics on files that do not fit together (it indexes what it reads from them); such a
/// panic is the checkpoint's or the text's error, and nothing is used afterwards that it left half done.
pub fn guarded<T>(run: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        format!("the tokenizer broke off ({text})")
    })
}

/// A file that holds a JSON object; empty when there is none.
fn object(file: ReadFile<'_>, name: &str) -> Result<Map<String, Value>> {
    let Some(bytes) = file(name)? else { return Ok(Map::new()) };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::Model(format!("{name}: expected a JSON object"))),
        Err(e) => Err(Error::Model(format!("{name}: not valid JSON ({e}); is the file complete?"))),
    }
}
