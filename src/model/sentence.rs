//! Folders of sentence-transformers: what `modules.json` puts behind a text model.

use super::checkpoint::Files;
use super::spec::Pooling;
use crate::error::{Error, Result};
use serde_json::Value;

/// How a text becomes one vector.
pub(super) struct Sentence {
    /// What of the tokens is read.
    pub pooling: Pooling,
    /// Vectors are made ones of length 1.
    pub unit: bool,
    /// Most tokens of a text, where the folder says it.
    pub limit: Option<usize>,
}

impl Sentence {
    /// What the folder says; none for other folders.
    ///
    /// # Errors
    /// [`Error::Model`] for modules that are not honoured.
    pub fn read(files: &Files) -> Result<Option<Self>> {
        let Some(modules) = files.json("modules.json")? else { return Ok(None) };
        let bad = |what: String| Error::Model(format!("modules.json: {what}"));
        let modules = modules.as_array().ok_or_else(|| bad("expected a list of modules".into()))?.clone();
        let mut own = Sentence { pooling: Pooling::First, unit: false, limit: None };
        for module in &modules {
            let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
            match (text("type").rsplit('.').next().unwrap_or_default(), text("path")) {
                ("Transformer", "") => {}
                ("Transformer", path) => {
                    return Err(bad(format!(
                        "the transformer is in the folder `{path}`; pass that folder, which is read as a model without classes"
                    )))
                }
                ("Pooling", path) => own.pooling = pooling(files, path)?,
                ("Normalize", _) => own.unit = true,
                (other, _) => return Err(bad(format!("the module `{other}` is not supported, Transformer, Pooling and Normalize are"))),
            }
        }
        let stated = files.json("sentence_bert_config.json")?.unwrap_or_default();
        own.limit = stated.get("max_seq_length").and_then(Value::as_u64).map(|n| n as usize);
        match stated.get("do_lower_case") {
            Some(Value::Bool(true)) => Err(Error::Model(
                "sentence_bert_config.json: `do_lower_case` is true: texts would be made lower case before their tokens, which is not supported".into(),
            )),
            _ => Ok(Some(own)),
        }
    }
}

fn pooling(files: &Files, path: &str) -> Result<Pooling> {
    let file = format!("{path}/config.json");
    let json =
        files.json(&file)?.ok_or_else(|| Error::Model(format!("{file} is missing, which modules.json names")))?;
    let flags = json.as_object().cloned().unwrap_or_default();
    let on = |(key, value): (&String, &Value)| {
        (value == &Value::Bool(true)).then(|| key.strip_prefix("pooling_mode_"))?.map(String::from)
    };
    let mut modes: Vec<String> = flags.iter().filter_map(on).collect();
    // Newer folders name the mode.
    modes.extend(flags.get("pooling_mode").and_then(Value::as_str).map(String::from));
    match &modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cls_token" | "cls"] => Ok(Pooling::First),
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["lasttoken"] => Ok(Pooling::Last),
        ["max_tokens" | "max"] => Ok(Pooling::Max),
        other => Err(Error::Model(format!(
            "{file}: pooling by {} is not supported, by cls_token, mean_tokens, max_tokens and lasttoken alone it is",
            if other.is_empty() { "nothing".to_string() } else { other.join(" and ") }
        ))),
    }
}
