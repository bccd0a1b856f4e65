//! `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, which transformers lays over
//! `tokenizer.json`.

use super::class::{Class, Types};
use super::{object, ReadFile};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use tokenizers::{AddedToken, TruncationDirection};

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

/// Keys of the special tokens that every tokenizer knows, in transformers' order.
const SPECIALS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A token of which a file says its id.
#[derive(Debug)]
pub struct Declared {
    /// What it is.
    pub token: AddedToken,
    /// The file that says so.
    pub place: &'static str,
}

/// What the small files say beside `tokenizer.json`.
#[derive(Debug)]
pub struct Settings {
    values: Map<String, Value>,
    /// Added tokens by id.
    pub declared: BTreeMap<u32, Declared>,
}

impl Settings {
    /// Merges the files as transformers does: with an `added_tokens_decoder` in `tokenizer_config.json` nothing else
    /// counts; without, `special_tokens_map.json` wins over it, and added tokens come from `added_tokens.json` and
    /// `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Model`] naming the file that is damaged.
    pub fn read(file: ReadFile<'_>, values: Map<String, Value>, json: Option<&Value>) -> Result<Self> {
        let mut settings = Settings { values, declared: BTreeMap::new() };
        if let Some(decoder) = settings.values.get("added_tokens_decoder") {
            let wrong = || Error::Model(format!("{CONFIG}: `added_tokens_decoder` is not a map of ids to tokens"));
            for (id, token) in decoder.as_object().ok_or_else(wrong)?.clone() {
                let id = id.parse().map_err(|_| wrong())?;
                let token = added_token(&token, CONFIG, "added_tokens_decoder", false)?;
                settings.declared.insert(id, Declared { token, place: CONFIG });
            }
            return Ok(settings);
        }
        settings.values.extend(object(file, MAP)?);
        let specials: HashSet<String> = settings.named_and_extra(None)?.into_iter().map(|t| t.content).collect();
        for (content, id) in object(file, "added_tokens.json")? {
            let wrong = || Error::Model(format!("added_tokens.json: `{content}` is {id}, expected an id"));
            let id = id.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?;
            let special = specials.contains(&content);
            let token = AddedToken::from(content, special);
            settings.declared.insert(id, Declared { token, place: "added_tokens.json" });
        }
        for entry in json.and_then(|j| j.get("added_tokens")).and_then(Value::as_array).into_iter().flatten() {
            let id = entry.get("id").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
            let id = id.ok_or_else(|| Error::Model(format!("tokenizer.json: the added token {entry} has no id")))?;
            let token = added_token(entry, "tokenizer.json", "added_tokens", false)?;
            settings.declared.insert(id, Declared { token, place: "tokenizer.json" });
        }
        Ok(settings)
    }

    /// A value, null and absent alike.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let value = self.values.get(key).unwrap_or(&Value::Null);
        Error::Model(format!("{CONFIG}: `{key}` is {value}, expected {expected}"))
    }

    /// A flag, if there is one.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|v| v.as_bool().ok_or_else(|| self.wrong(key, "true or false"))).transpose()
    }

    /// The most tokens a text may have. 0, negative numbers and transformers' huge number say nothing.
    pub fn limit(&self) -> Result<Option<usize>> {
        let key = if self.values.contains_key("model_max_length") { "model_max_length" } else { "max_len" };
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| self.wrong(key, "a number"))?;
        Ok(Some(number).filter(|n| *n >= 1.0 && *n < 1e9).map(|n| n as usize))
    }

    /// The side on which long texts are cut.
    pub fn side(&self, json: Option<&Value>) -> Result<TruncationDirection> {
        let of_json = json.and_then(|j| j.pointer("/truncation/direction"));
        let side = self.get("truncation_side").or(of_json).map(|v| v.as_str().map(str::to_lowercase));
        match side {
            None => Ok(TruncationDirection::Right),
            Some(Some(side)) if side == "right" => Ok(TruncationDirection::Right),
            Some(Some(side)) if side == "left" => Ok(TruncationDirection::Left),
            Some(_) => Err(self.wrong("truncation_side", "`left` or `right`")),
        }
    }

    /// Whether the model is given token types.
    pub fn types(&self, class: &Class) -> Result<Types> {
        let Some(names) = self.get("model_input_names") else { return Ok(class.types) };
        let names = names.as_array().ok_or_else(|| self.wrong("model_input_names", "a list of names"))?;
        Ok(if names.iter().any(|n| n == "token_type_ids") { Types::Fed } else { Types::None })
    }

    /// The special token of this kind, if the files or the class name one.
    pub fn special(&self, key: &str, class: &Class) -> Result<Option<String>> {
        match self.get(key) {
            Some(value) => Ok(Some(added_token(value, CONFIG, key, true)?.content)),
            None => Ok(class.default_special(key).map(String::from)),
        }
    }

    /// The same where the class cannot do without.
    pub fn needed(&self, key: &str, class: &Class) -> Result<String> {
        let missing = || Error::Model(format!("{CONFIG}: `{key}` is missing, and {} needs one", class.names[0]));
        self.special(key, class)?.ok_or_else(missing)
    }

    /// Special tokens of every kind that the files state or the class has.
    fn named_and_extra(&self, class: Option<&Class>) -> Result<Vec<AddedToken>> {
        let mut tokens = Vec::new();
        for key in SPECIALS {
            match (self.get(key), class.and_then(|c| c.default_special(key))) {
                (Some(value), _) => tokens.push(added_token(value, CONFIG, key, true)?),
                (None, Some(usual)) => tokens.push(AddedToken::from(usual, true)),
                (None, None) => {}
            }
        }
        let of_model = self.values.iter().filter(|(k, v)| {
            k.ends_with("_token") && !SPECIALS.contains(&k.as_str()) && (v.is_string() || v.get("content").is_some())
        });
        for (key, value) in of_model {
            tokens.push(added_token(value, CONFIG, key, true)?);
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let values: Vec<&Value> = match self.get(key) {
                None => continue,
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(map)) => map.values().collect(),
                Some(_) => return Err(self.wrong(key, "a list of tokens")),
            };
            for value in values {
                tokens.push(added_token(value, CONFIG, key, true)?);
            }
        }
        Ok(tokens)
    }

    /// Tokens to add to a tokenizer that has `present` already: those with a declared id, in the order of their ids,
    /// then special tokens that are not among them.
    pub fn to_add(&self, class: &Class, present: &HashSet<String>) -> Result<Vec<AddedToken>> {
        let specials = self.named_and_extra(Some(class))?;
        let names: HashSet<String> = specials.iter().map(|t| t.content.clone()).collect();
        let mut tokens: Vec<AddedToken> = self.declared.values().map(|d| d.token.clone()).collect();
        tokens.iter_mut().for_each(|t| t.special |= names.contains(&t.content));
        for special in specials {
            if !present.contains(&special.content) && tokens.iter().all(|t| t.content != special.content) {
                tokens.push(special);
            }
        }
        Ok(tokens)
    }
}

/// A token as the files write it: its text alone, or with how it is matched.
fn added_token(value: &Value, place: &str, key: &str, special: bool) -> Result<AddedToken> {
    if let (Value::String(content), true) = (value, special) {
        return Ok(AddedToken::from(content.as_str(), true));
    }
    let content = value.get("content").and_then(Value::as_str);
    let content = content.ok_or_else(|| Error::Model(format!("{place}: `{key}` holds {value}, expected a token")))?;
    let flag = |name: &str, usual: bool| value.get(name).and_then(Value::as_bool).unwrap_or(usual);
    let special = special || flag("special", false);
    Ok(AddedToken::from(content, special)
        .single_word(flag("single_word", false))
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false))
        .normalized(flag("normalized", !special)))
}
