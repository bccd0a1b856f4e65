//! Reading HuggingFace's `config.json` with errors that name the key and what was expected.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// No size of a model is larger; products of two are numbers still.
const LARGEST: u64 = 1 << 24;

/// Of each layer there is a list of names, before any weight is read; no model has as many layers.
pub(super) const MOST_LAYERS: usize = 1 << 10;

/// Labels of so many classes still fit in memory with ease.
const MOST_CLASSES: usize = 1 << 20;

/// A parsed `config.json`.
#[derive(Debug, Clone)]
pub struct Config(Map<String, Value>);

impl Config {
    /// Parses the file's bytes.
    ///
    /// # Errors
    /// [`Error::Model`] when it is no JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Config(map)),
            Ok(_) => Err(Error::Model("config.json: expected a JSON object".into())),
            Err(e) => Err(Error::Model(format!("config.json: not valid JSON ({e}); is the file complete?"))),
        }
    }

    /// Of these keys.
    pub fn of(keys: Map<String, Value>) -> Self {
        Config(keys)
    }

    /// The value of a key; JSON null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        match self.get(key) {
            Some(value) => Error::Model(format!("config.json: `{key}` is {value}, expected {expected}")),
            None => Error::Model(format!("config.json: `{key}` is missing, expected {expected}")),
        }
    }

    /// A required whole number above zero.
    pub fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(key).and_then(Value::as_u64).filter(|n| (1..=LARGEST).contains(n));
        value.map(|n| n as usize).ok_or_else(|| self.wrong(key, "a whole number from 1 to 16777216"))
    }

    /// The same with HuggingFace's default for an absent key.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_none() {
            Ok(default)
        } else {
            self.size(key)
        }
    }

    /// A number of layers, bounded: names for all of them are made.
    ///
    /// # Errors
    /// [`Error::Model`] for what is no number of layers.
    pub fn layers_or(&self, key: &str, default: usize) -> Result<usize> {
        let layers = self.size_or(key, default)?;
        if layers > MOST_LAYERS {
            return Err(self.wrong(key, &format!("a number of layers up to {MOST_LAYERS}")));
        }
        Ok(layers)
    }

    /// A list of whole numbers, or the default for an absent key.
    pub fn numbers_or(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else { return Ok(default.to_vec()) };
        let number = |v: &Value| v.as_u64().filter(|n| (0..=LARGEST).contains(n)).map(|n| n as usize);
        let all = value.as_array().and_then(|all| all.iter().map(number).collect());
        all.ok_or_else(|| self.wrong(key, "a list of whole numbers"))
    }

    /// A whole number, 0 included.
    pub fn number_or(&self, key: &str, default: u32) -> Result<u32> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| self.wrong(key, "a whole number")),
        }
    }

    /// A number or a pair of numbers `[height, width]`.
    pub fn pair_or(&self, key: &str, default: usize) -> Result<(usize, usize)> {
        let Some(value) = self.get(key) else { return Ok((default, default)) };
        let positive = |v: &Value| v.as_u64().filter(|n| (1..=LARGEST).contains(n)).map(|n| n as usize);
        let pair = match value {
            Value::Array(a) if a.len() == 2 => positive(&a[0]).zip(positive(&a[1])),
            v => positive(v).map(|n| (n, n)),
        };
        pair.ok_or_else(|| self.wrong(key, "a whole number or [height, width]"))
    }

    /// A float with a default.
    pub fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    /// A flag with a default.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A string, if there is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// The config of a part, such as `vision_config`.
    ///
    /// # Errors
    /// [`Error::Model`] when it is none.
    pub fn part(&self, key: &str) -> Result<Config> {
        match self.get(key) {
            Some(Value::Object(map)) => Ok(Config(map.clone())),
            _ => Err(self.wrong(key, "the config of a part")),
        }
    }

    /// The same where a key that is absent has this value.
    pub fn with_default(&self, key: &str, value: impl Into<Value>) -> Config {
        let mut map = self.0.clone();
        if self.get(key).is_none() {
            map.insert(key.into(), value.into());
        }
        Config(map)
    }

    /// `architectures`, empty when absent.
    pub fn architectures(&self) -> Vec<&str> {
        let list = self.get("architectures").and_then(Value::as_array);
        list.map(|a| a.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    /// Refuses what would change the forward pass of any family.
    ///
    /// # Errors
    /// [`Error::Model`] naming the key.
    pub fn plain(&self) -> Result<()> {
        let filled = |key: &str| self.get(key).filter(|v| v.as_object().is_none_or(|o| !o.is_empty()));
        if let Some(config) = filled("quantization_config") {
            let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("an unnamed method");
            return Err(Error::Model(format!(
                "config.json: `quantization_config` ({method}): quantised weights are not read; use the original checkpoint, or dequantise it and save it again"
            )));
        }
        if filled("pruned_heads").is_some() {
            return Err(Error::Model(
                "config.json: `pruned_heads`: layers with fewer heads than the others are not supported".into(),
            ));
        }
        Ok(())
    }

    /// `num_labels`, bounded: labels of so many classes are made.
    ///
    /// # Errors
    /// [`Error::Model`] for what is no number of classes.
    pub fn classes_or(&self, default: usize) -> Result<usize> {
        let classes = self.size_or("num_labels", default)?;
        if classes > MOST_CLASSES {
            return Err(self.wrong("num_labels", "a number of classes up to 1048576"));
        }
        Ok(classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key() {
        let c = Config::parse(br#"{"a": 0, "b": [3, 4], "c": 5}"#).unwrap();
        assert_eq!(
            (c.pair_or("b", 1).unwrap(), c.pair_or("c", 1).unwrap(), c.pair_or("d", 7).unwrap()),
            ((3, 4), (5, 5), (7, 7))
        );
        assert!(c.size("a").unwrap_err().to_string().contains("`a` is 0"));
        assert!(c.size("z").unwrap_err().to_string().contains("`z` is missing"));
        let deep = Config::parse(br#"{"layers": 16777216}"#).unwrap().layers_or("layers", 12).unwrap_err().to_string();
        assert!(deep.contains("`layers` is 16777216, expected a number of layers up to 1024"), "{deep}");
        assert!(Config::parse(b"{\"a\": ").unwrap_err().to_string().contains("not valid JSON"));
    }
}
