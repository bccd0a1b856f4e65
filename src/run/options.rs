//! Parameters of a method: read from `key=value`, declared as they are read, so that help and errors list them.

use super::modes::led_by;
use super::pick::{At, Heads, Layer, Row, Rows};
use super::variants::Score;
use crate::error::{nearest, Error, Result};
use crate::nn::Rules;
use crate::scale::Scale;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// A declared parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// Key.
    pub key: &'static str,
    /// Default, as it would be written.
    pub default: String,
    /// What it does and what it accepts.
    pub about: &'static str,
}

impl Param {
    /// What it is, as a record.
    pub fn record(&self) -> Value {
        serde_json::json!({"key": self.key, "default": self.default, "about": self.about})
    }
}

/// What of the explained class a method or metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Its logit or its probability.
    pub score: Score,
    /// Whether the user said so; a default probability is the value where a model gives values.
    pub asked: bool,
}

impl Measured {
    /// Refuses a probability that was asked for where there is none.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason.
    pub fn check(self, scale: Scale) -> Result<()> {
        match (self.score, scale) {
            (Score::Probability, Scale::Value) if self.asked => Err(Error::Refused(
                "a probability is asked of a model that gives a value; leave it out, or measure the logit".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// Parameters while a method is being built.
#[derive(Debug, Default)]
pub struct Params {
    /// What is being built, as errors name it: ``method `gae` ``.
    subject: String,
    given: Vec<(String, String)>,
    in_force: Map<String, Value>,
    /// What of the explained class is measured, as far as has been read.
    pub measured: Option<Measured>,
    /// What has been asked for so far.
    pub declared: Vec<Param>,
}

impl Params {
    /// Reads `key=value,key=value`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a part that is not of this form, and for a key given twice.
    pub fn parse(method: &'static str, text: &str) -> Result<Self> {
        Params::parse_for("method", method, text)
    }

    /// The same for something else that has parameters, such as a metric.
    ///
    /// # Errors
    /// As [`Params::parse`].
    pub fn parse_for(kind: &str, name: &str, text: &str) -> Result<Self> {
        let subject = format!("{kind} `{name}`");
        let mut given: Vec<(String, String)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(Error::Usage(format!("{subject}: `{part}` is not of the form key=value")));
            };
            if given.iter().any(|(k, _)| k == key) {
                return Err(Error::Usage(format!("{subject}: `{key}` is given twice")));
            }
            // `start` is short for `start_layer` wherever that is a key.
            let key = if key == "start" { "start_layer" } else { key };
            given.push((key.to_string(), value.to_string()));
        }
        Ok(Params { subject, given, ..Default::default() })
    }

    /// The given parameters as text, in their order: `NAME:key=value`.
    pub(crate) fn spec(&self, name: &str) -> String {
        let given: Vec<_> = self.given.iter().map(|(k, v)| format!("{k}={v}")).collect();
        if given.is_empty() {
            name.to_string()
        } else {
            format!("{name}:{}", given.join(","))
        }
    }

    /// The parameters in force.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key nobody asked for, listing the valid ones.
    pub(crate) fn finish(self) -> Result<Map<String, Value>> {
        let known = || self.declared.iter().map(|p| p.key);
        let Some((key, _)) = self.given.iter().find(|(k, _)| !known().any(|d| d == k)) else {
            return Ok(self.in_force);
        };
        let near = nearest(key, known()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        let list: Vec<_> = known().collect();
        let keys =
            if list.is_empty() { "it has no parameters".into() } else { format!("its keys are {}", list.join(", ")) };
        Err(Error::Usage(format!("{} has no key `{key}`{near} ({keys})", self.subject)))
    }

    /// Reads one parameter with `read`; `wanted` completes "expected ...".
    fn take<T>(
        &mut self,
        key: &'static str,
        default: &str,
        about: &'static str,
        wanted: &str,
        read: impl Fn(&str) -> Option<(T, Value)>,
    ) -> Result<T> {
        self.declared.push(Param { key, default: default.to_string(), about });
        let text = self.given.iter().find(|(k, _)| k == key).map_or(default, |(_, v)| v.as_str());
        match read(text) {
            Some((value, json)) => {
                self.in_force.insert(key.to_string(), json);
                Ok(value)
            }
            None => Err(Error::Usage(format!("{}: {key}={text}, expected {wanted}", self.subject))),
        }
    }

    /// `heads=mean|max|min|N`
    pub fn heads(&mut self) -> Result<Heads> {
        let about = "how a layer's heads are joined: mean, max, min, or one head's number";
        self.heads_or("heads", "mean", about, Heads::parse)
    }

    /// `heads=...` with a method's own choices.
    pub fn heads_or<T>(
        &mut self,
        key: &'static str,
        default: &str,
        about: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let wanted = if default == "mean" { "mean, max, min or a head's number" } else { about };
        self.take(key, default, about, wanted, |text| read(text).map(|heads| (heads, number_or_text(text))))
    }

    /// `KEY=N|last`
    pub fn layer(&mut self, key: &'static str, default: &str, about: &'static str) -> Result<Layer> {
        self.take(key, default, about, "a layer's number, counted from 0, or last", |text| {
            let layer = match text {
                "last" => Layer::Last,
                n => Layer::Number(n.parse().ok()?),
            };
            Some((layer, number_or_text(text)))
        })
    }

    /// `KEY=N|last|stageN`
    pub fn layer_or_stage(&mut self, key: &'static str, default: &str, about: &'static str) -> Result<At> {
        self.take(key, default, about, "a layer's number, counted from 0, last, or stage1 ...", |text| {
            let at = match (text, text.strip_prefix("stage")) {
                ("last", _) => At::Layer(Layer::Last),
                (_, Some(stage)) => At::Stage(stage.parse().ok()?),
                (n, None) => At::Layer(Layer::Number(n.parse().ok()?)),
            };
            Some((at, number_or_text(text)))
        })
    }

    /// `KEY=auto|N|last`; none for auto.
    pub fn layer_or_auto(&mut self, key: &'static str, about: &'static str) -> Result<Option<Layer>> {
        self.take(key, "auto", about, "auto, a layer's number, counted from 0, or last", |text| {
            let layer = match text {
                "auto" => None,
                "last" => Some(Layer::Last),
                n => Some(Layer::Number(n.parse().ok()?)),
            };
            Some((layer, number_or_text(text)))
        })
    }

    /// `row=auto|class|distillation|N` and `matrix=true|false`
    pub fn rows(&mut self) -> Result<Rows> {
        let about = "the output token that is explained: auto (what the classifier reads: the class token, or the mean of all), class, distillation, or a token's number";
        let row = self.take("row", "auto", about, "auto, class, distillation or a token's number", |text| {
            let row = match text {
                "auto" => Row::Auto,
                "class" => Row::Class,
                "distillation" => Row::Distillation,
                n => Row::Token(n.parse().ok()?),
            };
            Some((row, number_or_text(text)))
        })?;
        let matrix = self.flag("matrix", false, "every output token's row at once, [T,T] (formats npy and json)")?;
        Ok(Rows { row, matrix })
    }

    /// `KEY=true|false`
    pub fn flag(&mut self, key: &'static str, default: bool, about: &'static str) -> Result<bool> {
        self.take(key, &default.to_string(), about, "true or false", |text| {
            text.parse().ok().map(|b| (b, Value::Bool(b)))
        })
    }

    /// A number from 0 to below 1.
    pub fn ratio(&mut self, key: &'static str, default: f64, about: &'static str) -> Result<f64> {
        self.take(key, &default.to_string(), about, "a number from 0 to 1 (below 1)", |text| {
            text.parse::<f64>().ok().filter(|r| (0.0..1.0).contains(r)).map(|r| (r, Value::from(r)))
        })
    }

    /// A whole number in `range`.
    pub fn count(
        &mut self,
        key: &'static str,
        default: usize,
        about: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<usize> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(key, &default.to_string(), about, &wanted, |text| {
            text.parse::<usize>().ok().filter(|n| range.contains(n)).map(|n| (n, Value::from(n)))
        })
    }

    /// A whole number in `range`, or auto: none.
    pub fn count_or_auto(
        &mut self,
        key: &'static str,
        about: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        let wanted = format!("auto, or a whole number from {} to {}", range.start(), range.end());
        self.take(key, "auto", about, &wanted, |text| match text {
            "auto" => Some((None, Value::from("auto"))),
            n => n.parse::<usize>().ok().filter(|n| range.contains(n)).map(|n| (Some(n), Value::from(n))),
        })
    }

    /// A number in `range`.
    pub fn number(
        &mut self,
        key: &'static str,
        default: f64,
        about: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<f64> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.take(key, &default.to_string(), about, &wanted, |text| {
            text.parse::<f64>().ok().filter(|n| range.contains(n)).map(|n| (n, Value::from(n)))
        })
    }

    /// `score=logit|probability`: whose change is measured.
    pub fn score(&mut self, default: Score) -> Result<Score> {
        let about = "the value whose change is measured: the explained logit, or the class's probability";
        self.measure("score", default, about)
    }

    /// `KEY=logit|probability`, noted as what is measured.
    pub fn measure(&mut self, key: &'static str, default: Score, about: &'static str) -> Result<Score> {
        let score = self.one_of(key, &led_by(Score::NAMES, default), about)?;
        self.measured = Some(Measured { score, asked: self.given.iter().any(|(k, _)| k == key) });
        Ok(score)
    }

    /// Notes what is measured without a choice.
    pub fn measures(&mut self, score: Score) {
        self.measured = Some(Measured { score, asked: false });
    }

    /// `libra=true|false`: the reverse pass.
    pub fn libra(&mut self) -> Result<Rules> {
        let about = "reverse pass of LibraGrad: attention, norm deviations and activation gates constant";
        Ok(if self.flag("libra", false, about)? { Rules::LIBRA } else { Rules::GRADIENT })
    }

    /// One of several modes by name; the first is the default.
    pub fn one_of<T: Copy>(
        &mut self,
        key: &'static str,
        modes: &[(&'static str, T)],
        about: &'static str,
    ) -> Result<T> {
        let names: Vec<&str> = modes.iter().map(|(name, _)| *name).collect();
        let default = names.first().copied().unwrap_or_default();
        self.take(key, default, about, &names.join(" or "), |text| {
            modes.iter().find(|(name, _)| *name == text).map(|(name, mode)| (*mode, Value::from(*name)))
        })
    }

    /// `KEY=auto|true|false`; none for auto.
    pub fn flag_or_auto(&mut self, key: &'static str, about: &'static str) -> Result<Option<bool>> {
        self.one_of(key, &[("auto", None), ("true", Some(true)), ("false", Some(false))], about)
    }
}

fn number_or_text(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
}
