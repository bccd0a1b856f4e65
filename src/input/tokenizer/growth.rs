//! Steps of `tokenizer.json` that make a text longer, and again longer: a few hundred bytes of them fill any memory. No tokenizer
//! that a model was trained with has them.

use crate::error::{Error, Result};
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use serde_json::Value;

/// What all steps together may make of a character. Those that exist make 18 of one (the longest of Unicode's), and write each as two.
const MOST: u64 = 256;

/// Refuses steps that make a text too long, and frames that repeat it.
///
/// # Errors
/// [`Error::Model`] naming the key of `tokenizer.json`.
pub fn check(json: &Value) -> Result<()> {
    for (key, inner) in [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")] {
        let own = json.get(key).map_or(1, |step| grown(step, inner));
        if own > MOST {
            return Err(Error::Model(format!(
                "tokenizer.json: `{key}` may make {own} characters of one, and at most {MOST} are accepted; no text would fit into memory"
            )));
        }
    }
    match json.get("post_processor").is_some_and(repeats) {
        true => Err(Error::Model(
            "tokenizer.json: `post_processor` repeats the text; a template names each text once".into(),
        )),
        false => Ok(()),
    }
}

/// Characters that a step makes of one, at most.
fn grown(step: &Value, inner: &str) -> u64 {
    let letters = |key: &str| step.get(key).and_then(Value::as_str).map_or(0, |text| text.chars().count() as u64);
    match step.get("type").and_then(Value::as_str) {
        Some("Sequence") => {
            let steps = step.get(inner).and_then(Value::as_array).into_iter().flatten();
            steps.map(|step| grown(step, inner)).fold(1, u64::saturating_mul)
        }
        Some("Replace") => match step.pointer("/pattern/String").and_then(Value::as_str) {
            Some(pattern) if !pattern.is_empty() => letters("content").div_ceil(pattern.chars().count() as u64).max(1),
            // An expression may find nothing in front of every character, and put its content there.
            _ => letters("content").saturating_add(1),
        },
        Some("ByteLevel") => 2,
        Some("Precompiled") => longest(step.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default()),
        _ => 1,
    }
}

/// The longest text of SentencePiece's map of characters: behind a tree, whose size stands first, each with a NUL behind it. A map
/// that is damaged is its reader's business.
fn longest(base64: &str) -> u64 {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    let size = bytes.first_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let texts = bytes.get(size.saturating_add(4)..).unwrap_or_default();
    texts.split(|byte| *byte == 0).map(|text| text.len() as u64).max().unwrap_or(1).max(1)
}

/// Whether a template, or one within, names a text more than once.
fn repeats(step: &Value) -> bool {
    let within = step.get("processors").and_then(Value::as_array).into_iter().flatten();
    let twice = |template: &str| {
        let pieces = step.get(template).and_then(Value::as_array).into_iter().flatten();
        let mut named: Vec<&Value> = pieces.filter_map(|piece| piece.pointer("/Sequence/id")).collect();
        let all = named.len();
        named.sort_by_key(|id| id.as_str());
        named.dedup();
        named.len() < all
    };
    twice("single") || twice("pair") || within.into_iter().any(repeats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_makes_texts_longer_and_longer_is_refused() {
        let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let regex = |to: &str| json!({"type": "Replace", "pattern": {"Regex": "\\s*"}, "content": to});
        let many = |step: &Value, n: usize| json!({"type": "Sequence", "normalizers": vec![step.clone(); n]});
        let texts = [&8u32.to_le_bytes()[..], &[0; 8], b"ab\0abcd\0"].concat();
        let map = |texts: &[u8]| json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(texts)});
        for (step, want) in [
            (replace(" ", "\u{2581}"), 1),
            (replace("``", "\""), 1),
            (replace("a", "aa"), 2),
            (replace("", "ab"), 3),
            (regex(" "), 2),
            (regex(""), 1),
            (many(&replace("a", "aa"), 10), 1024),
            (many(&many(&regex("ab"), 3), 2), 729),
            (many(&many(&json!({"type": "ByteLevel"}), 70), 1), u64::MAX),
            (json!({"type": "NFKC"}), 1),
            (map(&texts), 4),
            (map(b""), 1),
            (json!(null), 1),
        ] {
            assert_eq!(grown(&step, "normalizers"), want, "{step}");
            let said = check(&json!({"normalizer": step}));
            assert_eq!(said.is_err(), want > MOST, "{step}");
        }
    }

    #[test]
    fn a_text_stands_once_in_its_frame() {
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let frame = |single: Vec<Value>, pair: Vec<Value>| json!({"type": "TemplateProcessing", "single": single, "pair": pair});
        let usual = frame(vec![text("A")], vec![text("A"), json!({"SpecialToken": {"id": "x"}}), text("B")]);
        let twice = frame(vec![text("A")], vec![text("A"), text("B"), text("A")]);
        for (frame, fine) in [
            (usual.clone(), true),
            (twice.clone(), false),
            (frame(vec![text("A"), text("A")], Vec::new()), false),
            (json!({"type": "Sequence", "processors": [usual.clone(), usual]}), true),
            (json!({"type": "Sequence", "processors": [twice]}), false),
        ] {
            assert_eq!(check(&json!({"post_processor": frame})).is_ok(), fine, "{frame}");
        }
    }
}
