//! Everything a result depends on, in one type.

use super::of_bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Everything a result depends on: a record states it, a resumed run compares it, a journal is named by it. Files and texts
/// stand in it by their contents, settings as they are in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// What was done, as the command line calls it.
    pub command: String,
    /// The contents of the model's files, and what its logits are taken for.
    pub model: String,
    /// Precision of weights and activations.
    pub dtype: String,
    /// Devices whose numbers are the same: `cpu`, `cuda`, `metal`.
    pub device: String,
    /// Methods with all their parameters, in the order that was asked for.
    pub method: Vec<Parametrised>,
    /// Targets, as they were written.
    pub target: Vec<String>,
    /// The output token that is explained, as it was written; none: what the classifier reads.
    pub row: Option<String>,
    /// The contents of the input, and of what is known of it.
    pub input: String,
    /// Height and width that were asked for; none: the processor's own.
    pub size: Option<(usize, usize)>,
    /// How a picture meets that size; none: as the processor does it.
    pub fit: Option<String>,
    /// Values that become black and white; none: the picture's own.
    pub window: Option<(f32, f32)>,
    /// How it is drawn; null for numbers.
    pub style: Value,
    /// Of all random numbers.
    pub seed: u64,
    /// Of vitx.
    pub version: String,
    /// What else the command's results depend on.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A method with all its parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parametrised {
    /// In the registry.
    pub name: String,
    /// In force, defaults included.
    pub params: Map<String, Value>,
}

impl Identity {
    /// Of a command of this version.
    pub fn of(command: &str) -> Self {
        Identity { command: command.into(), version: env!("CARGO_PKG_VERSION").into(), ..Identity::default() }
    }

    /// With one more part.
    pub fn with(mut self, part: &str, value: impl Into<Value>) -> Self {
        self.more.insert(part.into(), value.into());
        self
    }

    /// By one more method.
    pub fn by(mut self, name: &str, params: &Map<String, Value>) -> Self {
        self.method.push(Parametrised { name: name.into(), params: params.clone() });
        self
    }

    /// As JSON, a key a part.
    ///
    /// # Errors
    /// None that these types have.
    pub fn value(&self) -> serde_json::Result<Value> {
        // Through text: an `f32` keeps the digits that tell it.
        serde_json::from_str(&serde_json::to_string(self)?)
    }

    /// What tells it from others, in hexadecimal digits.
    pub fn digest(&self) -> String {
        of_bytes(self.value().map(|v| v.to_string()).unwrap_or_default().as_bytes())
        // see `value`
    }

    /// The same before anything was read: what was asked for, whatever files and texts hold, by whatever version.
    pub fn asked(&self) -> Self {
        Identity { model: String::new(), input: String::new(), version: String::new(), ..self.clone() }
    }
}

/// The parts in which two identities differ, as JSON has them.
pub fn differing(now: &Value, then: &Value) -> Vec<String> {
    let parts = now.as_object().into_iter().flatten();
    parts.filter(|(part, value)| then.get(part.as_str()) != Some(value)).map(|(part, _)| part.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_by_parts_and_are_read_back() {
        let one =
            Identity { seed: 3, window: Some((0.1, 1.0)), ..Identity::of("explain") }.with("formats", vec!["npy"]);
        let text = one.value().unwrap().to_string();
        assert!(text.contains("\"formats\":[\"npy\"]") && text.contains("0.1,"), "{text}");
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), one);
        let other = Identity { model: "sha256:1".into(), seed: 4, ..one.clone() };
        assert_eq!(differing(&other.value().unwrap(), &one.value().unwrap()), ["model", "seed"]);
        assert_ne!(one.digest(), other.digest());
        let changed = Identity { model: "sha256:2".into(), version: "9".into(), ..other.clone() };
        assert_eq!(changed.asked().digest(), other.asked().digest());
    }
}
