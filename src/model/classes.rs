//! What the outputs of a checkpoint are: how many, what they are called, and what their numbers mean.

use super::config::Config;
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::scale::Scale;
use serde_json::Value;

/// Class names in class order, as transformers reads them: `id2label` has as many entries as there are classes (2 without
/// it), whatever their numbers; `num_labels` beside it wins, and its names are then `LABEL_0`, `LABEL_1`, ... The second part
/// says what is odd about them.
///
/// # Errors
/// [`Error::Model`] for an `id2label` that is no object of whole numbers.
pub(super) fn labels(config: &Config) -> Result<(Labels, Option<String>)> {
    let numbered = |n: usize| Labels::new((0..n).map(|i| format!("LABEL_{i}")).collect());
    let map = match config.get("id2label") {
        None => return Ok((numbered(config.classes_or(2)?), None)),
        Some(Value::Object(map)) if !map.is_empty() => map,
        Some(_) => {
            return Err(Error::Model("config.json: `id2label` is no object of class numbers and their names".into()));
        }
    };
    if config.classes_or(map.len())? != map.len() {
        let n = config.classes_or(map.len())?;
        let odd = format!("config.json: `num_labels` is {n} but id2label names {}; as in transformers the classes are LABEL_0 to LABEL_{}", map.len(), n - 1);
        return Ok((numbered(n), Some(odd)));
    }
    let mut names = vec![None; map.len()];
    let mut beyond = Vec::new();
    for (id, name) in map {
        let class: i64 = id.trim().parse().map_err(|_| {
            Error::Model(format!("config.json: id2label has an entry for `{id}`, which is no class number"))
        })?;
        let name = (!name.is_null()).then(|| name.as_str().map_or_else(|| name.to_string(), String::from));
        match usize::try_from(class).ok().and_then(|c| names.get_mut(c)) {
            Some(place) => *place = name,
            None => beyond.push((class, name.unwrap_or_default())),
        }
    }
    beyond.sort_unstable();
    Ok((Labels::with_gaps(names), beyond.first().map(|first| misnumbered(first, map.len()))))
}

fn misnumbered((class, name): &(i64, String), classes: usize) -> String {
    format!(
        "config.json: id2label names class {class} (`{name}`), but its {classes} entries make classes 0 to {}; as in \
         transformers a class without an entry has no name, and the names may be meant for other classes",
        classes - 1
    )
}

/// What the logits of `outputs` outputs are: `problem_type`, the activation that sentence-transformers keeps for its
/// cross-encoders, and the number of outputs decide. One output is a value unless a sigmoid is asked for: a softmax over it
/// is 1 whatever it is.
///
/// # Errors
/// [`Error::Model`] for a problem type or activation that is not known.
pub(super) fn scale(config: &Config, outputs: usize) -> Result<Scale> {
    let problem = match config.text("problem_type") {
        None => None,
        Some("single_label_classification") => Some(Scale::Softmax),
        Some("multi_label_classification") => return Ok(Scale::Sigmoid),
        Some("regression") => Some(Scale::Value),
        Some(other) => {
            return Err(Error::Model(format!(
                "config.json: problem_type `{other}` is not known (regression, single_label_classification, \
                 multi_label_classification); say what the outputs are with --head softmax, sigmoid or value"
            )));
        }
    };
    let usual = if outputs == 1 { Scale::Value } else { problem.unwrap_or(Scale::Softmax) };
    let Some(activation) = activation(config) else { return Ok(usual) };
    match activation.rsplit('.').next().unwrap_or(activation) {
        "Sigmoid" | "sigmoid" => Ok(Scale::Sigmoid),
        "Identity" | "Linear" | "none" => Ok(usual), // of several classes transformers' pipeline takes the softmax
        "Softmax" | "softmax" => Ok(usual),
        _ => Err(Error::Model(format!(
            "config.json: its scores go through `{activation}`, which is neither a sigmoid nor the identity; say what the \
             outputs are with --head sigmoid or --head value"
        ))),
    }
}

/// What a cross-encoder's scores go through.
fn activation(config: &Config) -> Option<&str> {
    let kept = config.get("sentence_transformers").and_then(|s| s.get("activation_fn")).and_then(Value::as_str);
    kept.or_else(|| config.text("sbert_ce_default_activation_function")).or_else(|| config.text("function_to_apply"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_those_of_transformers() {
        for (json, want, odd) in [
            ("{}", vec!["LABEL_0", "LABEL_1"], None),
            (r#"{"num_labels": 3}"#, vec!["LABEL_0", "LABEL_1", "LABEL_2"], None),
            (r#"{"id2label": {"1": "b", "0": "a"}}"#, vec!["a", "b"], None),
            (r#"{"id2label": {"1": "a", "2": "b"}}"#, vec!["class 0", "a"], Some("class 2 (`b`)")),
            (r#"{"id2label": {"0": "a", "2": "b"}}"#, vec!["a", "class 1"], Some("class 2 (`b`)")),
            (r#"{"id2label": {"-1": "x", "0": 7}}"#, vec!["7", "class 1"], Some("class -1 (`x`)")),
            (r#"{"id2label": {"0": "a"}, "num_labels": 2}"#, vec!["LABEL_0", "LABEL_1"], Some("names 1")),
            (r#"{"id2label": {"0": "a"}, "num_labels": 1}"#, vec!["a"], None),
        ] {
            let (labels, note) = labels(&config(json)).unwrap();
            let names: Vec<_> = (0..labels.len() as u32).map(|c| labels.name(c)).collect();
            assert_eq!(names, want, "{json}");
            assert!(odd.map_or(note.is_none(), |part| note.as_ref().unwrap().contains(part)), "{json}: {note:?}");
        }
        for json in [r#"{"id2label": {"x": "a"}}"#, r#"{"id2label": ["a"]}"#, r#"{"id2label": {}}"#] {
            assert!(labels(&config(json)).unwrap_err().to_string().contains("id2label"), "{json}");
        }
    }

    #[test]
    fn the_config_says_what_the_numbers_are() {
        let sigmoid = r#"{"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}"#;
        let identity = r#"{"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}"#;
        for (json, outputs, want) in [
            ("{}", 3, Scale::Softmax),
            ("{}", 1, Scale::Value),
            (r#"{"problem_type": "regression"}"#, 3, Scale::Value),
            (r#"{"problem_type": "single_label_classification"}"#, 1, Scale::Value),
            (r#"{"problem_type": "multi_label_classification"}"#, 1, Scale::Sigmoid),
            (r#"{"problem_type": null}"#, 2, Scale::Softmax),
            (sigmoid, 1, Scale::Sigmoid),
            (identity, 1, Scale::Value),
            (identity, 3, Scale::Softmax),
        ] {
            assert_eq!(scale(&config(json), outputs).unwrap(), want, "{json}");
        }
        for json in [r#"{"problem_type": "ranking"}"#, r#"{"function_to_apply": "tanh"}"#] {
            assert!(scale(&config(json), 1).unwrap_err().to_string().contains("--head"), "{json}");
        }
    }
}
