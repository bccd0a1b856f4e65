//! The JSON record of one input, method and target (the contract of `--json` and the `json` format).

use super::Scene;
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, LeftOut, TextLayout, TextToken, Word};
use crate::identity::Identity;
use crate::target::{ranked, Labels, Output, Scale};
use serde::Serialize;
use serde_json::{Map, Value};

/// What is said of a model.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// As it was asked for.
    pub id: &'a str,
    /// The commit, of hub models.
    pub revision: Option<&'a str>,
    /// Its family's `model_type`.
    pub family: &'static str,
    /// Names of its classes.
    pub labels: &'a Labels,
    /// What its logits are.
    pub scale: Scale,
    /// It has no classifier: there is no target, and nothing is predicted.
    pub headless: bool,
    /// What the processor ran it with, if it did.
    pub instructions: Option<&'static str>,
}

/// Classes in a record's `predictions`.
const PREDICTIONS: usize = 5;

/// One line of `--json`.
#[derive(Serialize, Debug)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Record {
    /// An explanation that was made.
    Ok(Box<Done>),
    /// An input that failed.
    Error {
        /// Its name.
        input: String,
        /// Why.
        error: String,
    },
    /// An input of which a target means no output, such as `above:0.5` where nothing is above.
    Nothing {
        /// Its name.
        input: String,
        /// As it was written.
        target: String,
        /// Why there is none.
        note: String,
    },
}

impl Record {
    /// Says how long it took, in milliseconds.
    pub fn took(&mut self, ms: f64) {
        if let Record::Ok(done) = self {
            done.ms = Some((ms * 10.0).round() / 10.0);
        }
    }

    /// As it is printed: with the digits that tell an `f32`, and not those of the `f64` beside it.
    ///
    /// # Errors
    /// None that a record of ours has.
    pub fn value(&self) -> Result<Value> {
        serde_json::to_string(self).and_then(|text| serde_json::from_str(&text)).map_err(unwritten)
    }
}

fn unwritten(e: serde_json::Error) -> Error {
    Error::Input(format!("the record cannot be written as JSON: {e}"))
}

/// The record as a file.
///
/// # Errors
/// [`Error::Usage`] when the scene holds none.
pub(super) fn render(scene: &Scene<'_>, _: &Explanation) -> Result<Vec<u8>> {
    let record = scene.record.ok_or_else(|| Error::Usage("json writes a record, and the scene holds none".into()))?;
    Ok([serde_json::to_vec_pretty(record).map_err(unwritten)?, b"\n".to_vec()].concat())
}

/// The record of an explanation that was made.
#[derive(Serialize, Debug)]
pub struct Done {
    /// Its name.
    pub input: String,
    /// What was explained.
    pub model: ModelId,
    /// How.
    pub method: MethodId,
    /// Which output; none of a backbone.
    pub target: Option<TargetRecord>,
    /// What the model says, likeliest first.
    pub predictions: Vec<Prediction>,
    /// Height and width in pixels of what the model reads of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<(usize, usize)>,
    /// Rows and columns of patches.
    pub grid: Option<[usize; 2]>,
    /// The tokens of a text.
    pub tokens: Option<Vec<TokenRecord>>,
    /// Its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Word>>,
    /// The text, or the two of a pair, and what of it the model did not read.
    #[serde(flatten)]
    pub text: Option<TextRecord>,
    /// Its files, by format.
    pub outputs: Map<String, Value>,
    /// Least, greatest and sum.
    pub relevance: Summary,
    /// What the method says of its own quality.
    pub checks: Map<String, Value>,
    /// Of random numbers.
    pub seed: u64,
    /// Of vitx.
    pub version: &'static str,
    /// The processor's instructions that were used, on which last bits may depend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<&'static str>,
    /// Everything the result depends on; none where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// How long it took; files do not hold it, so that made again they are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

/// Which model.
#[derive(Serialize, Debug, Clone)]
pub struct ModelId {
    /// As it was asked for.
    pub id: String,
    /// The commit, of hub models.
    pub revision: Option<String>,
    /// `model_type`
    pub family: &'static str,
}

/// Which method.
#[derive(Serialize, Debug)]
pub struct MethodId {
    /// In the registry.
    pub name: &'static str,
    /// In force, defaults included.
    pub params: Map<String, Value>,
}

/// Which output.
#[derive(Serialize, Debug)]
pub struct TargetRecord {
    /// Its number.
    pub class: u32,
    /// The class it is contrasted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<u32>,
    /// Its name.
    pub label: String,
    /// Of the class; of a contrast the difference.
    pub logit: f32,
    /// Of the class; none of models that give values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f32>,
    /// Of models that give values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f32>,
    /// Of a contrast: the class's logit less the other's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f32>,
    /// What lowers the class is explained.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lowers: bool,
}

impl TargetRecord {
    fn new(about: &About<'_>, output: Output, logits: &[f32]) -> Self {
        let probability = about.scale.probabilities(logits).and_then(|p| p.get(output.class as usize).copied());
        let logit = output.logit(logits);
        TargetRecord {
            class: output.class,
            against: output.against,
            label: output.label(about.labels),
            logit,
            probability,
            value: probability.is_none().then_some(logit),
            difference: output.against.map(|_| logit),
            lowers: output.lowers,
        }
    }
}

/// What a model says of one class.
#[derive(Serialize, Debug, Clone)]
pub struct Prediction {
    /// Its number.
    pub class: u32,
    /// Its name.
    pub label: String,
    /// Of models that have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f32>,
    /// Of models that give values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f32>,
}

impl Prediction {
    /// What is printed of it: the probability, or the value.
    pub fn figure(&self) -> f32 {
        self.probability.or(self.value).unwrap_or(f32::NAN)
    }
}

/// A token of a text.
#[derive(Serialize, Debug)]
pub struct TokenRecord {
    /// The word piece.
    pub text: String,
    /// Its first character.
    pub start: usize,
    /// One past its last.
    pub end: usize,
    /// Whether it stands for no text.
    pub special: bool,
    /// What the method says.
    pub relevance: f32,
    /// Which text of a pair; none for special tokens.
    pub side: Option<usize>,
}

/// What records of texts say beside tokens.
#[derive(Serialize, Debug)]
pub struct TextRecord {
    /// The text, or the two of a pair.
    pub texts: Vec<String>,
    /// What the model did not read.
    pub truncated: Option<Truncated>,
    /// Where the windows begin and end in which it read a text that is too long, in characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<(usize, usize)>,
}

/// What did not fit into the model.
#[derive(Serialize, Debug)]
pub struct Truncated {
    /// Word pieces that were left out, of all texts.
    pub tokens: usize,
    /// Where they were.
    pub left_out: Vec<LeftOut>,
}

/// Relevance at a glance.
#[derive(Serialize, Debug)]
pub struct Summary {
    /// The least.
    pub min: f32,
    /// The greatest.
    pub max: f32,
    /// Of all.
    pub sum: f32,
    /// How much of a text's relevance its special tokens hold, by size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special: Option<f32>,
}

impl ModelId {
    /// Of a model.
    pub fn of(about: &About<'_>) -> Self {
        ModelId { id: about.id.into(), revision: about.revision.map(String::from), family: about.family }
    }
}

/// The likeliest classes, or the greatest values.
pub fn predictions(about: &About<'_>, logits: &[f32], top: usize) -> Vec<Prediction> {
    let probabilities = about.scale.probabilities(logits);
    let prediction = |class: u32| {
        let label = about.labels.name(class);
        let of = |row: &[f32]| row.get(class as usize).copied();
        let value = if probabilities.is_none() { of(logits) } else { None };
        Prediction { class, label, probability: probabilities.as_deref().and_then(of), value }
    };
    ranked(logits).into_iter().take(top).map(prediction).collect()
}

impl Done {
    /// What the checks of an explanation say against it; `method` as it was asked for.
    pub fn warnings(&self, method: &str) -> Vec<String> {
        let constant = self.checks.contains_key("constant");
        let constant =
            constant.then(|| format!("the {method} map is constant ({}): it says nothing", self.relevance.max));
        let own = self.checks.get("warning").and_then(Value::as_str).map(|warning| format!("{method}: {warning}"));
        constant.into_iter().chain(own).collect()
    }

    /// The record of an explanation; `size`, `identity` and `outputs` are filled in by whoever knows them, `ms` once its files are drawn.
    pub fn new(input: &str, about: &About<'_>, logits: &[f32], e: &Explanation, seed: u64) -> Self {
        let (min, max) = e.range();
        let mut checks = e.checks.clone();
        if min == max {
            checks.insert("constant".into(), true.into());
        }
        let text = match &e.layout {
            Layout::Text(text) => Some(TextRecord::of(text)),
            Layout::Image(_) => None,
        };
        let (grid, tokens, words) = match &e.layout {
            Layout::Image(image) => (Some([image.grid.0, image.grid.1]), None, None),
            Layout::Text(_) if e.matrix => (None, None, None),
            Layout::Text(_) => (None, Some(tokens(e)), Some(e.words())),
        };
        Done {
            input: input.to_string(),
            model: ModelId::of(about),
            method: MethodId { name: e.method, params: e.params.clone() },
            target: (!about.headless).then(|| TargetRecord::new(about, e.output, logits)),
            predictions: if about.headless { Vec::new() } else { predictions(about, logits, PREDICTIONS) },
            size: None,
            grid,
            tokens,
            words,
            text,
            outputs: Map::new(),
            relevance: Summary { min, max, sum: e.sum(), special: e.special_share() },
            checks,
            seed,
            version: env!("CARGO_PKG_VERSION"),
            instructions: about.instructions,
            identity: None,
            ms: None,
        }
    }
}

impl TextRecord {
    /// Of one input.
    pub fn of(text: &TextLayout) -> Self {
        let tokens = text.left_out.iter().map(|l| l.tokens).sum();
        let truncated = (tokens > 0).then(|| Truncated { tokens, left_out: text.left_out.clone() });
        TextRecord { texts: text.texts.clone(), truncated, windows: text.windows.clone() }
    }
}

fn tokens(e: &Explanation) -> Vec<TokenRecord> {
    let Layout::Text(text) = &e.layout else { return Vec::new() };
    let record = |(token, &relevance): (&TextToken, &f32)| TokenRecord {
        text: token.piece.clone(),
        start: token.start,
        end: token.end,
        special: token.special,
        relevance,
        side: (!token.special).then_some(token.text),
    };
    text.tokens.iter().zip(&e.relevance).map(record).collect()
}
