//! The JSON record of one input, method and target (the contract of `--json` and the `json` format).

use serde::Serialize;
use serde_json::{Map, Value};
use vitx::explanation::{Explanation, Layout, LeftOut, TextLayout, Word};
use vitx::model::Model;
use vitx::target::{ranked, Output};

/// Classes in a record's `predictions`.
const PREDICTIONS: usize = 5;

/// One line of `--json`.
#[derive(Serialize, Debug)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Record {
    /// An explanation that was made.
    Ok(Box<Done>),
    /// An input that failed.
    Error { input: String, error: String },
    /// An input of which a target means no output, such as `above:0.5` where nothing is above.
    Nothing { input: String, target: String, note: String },
}

impl Record {
    /// As it is printed: with the digits that tell an `f32`, and not those of the `f64` beside it.
    ///
    /// # Errors
    /// None that a record of ours has.
    pub fn value(&self) -> serde_json::Result<Value> {
        serde_json::from_str(&serde_json::to_string(self)?)
    }
}

#[derive(Serialize, Debug)]
pub struct Done {
    pub input: String,
    pub model: ModelId,
    pub method: MethodId,
    pub target: TargetRecord,
    pub predictions: Vec<Prediction>,
    pub grid: Option<[usize; 2]>,
    pub tokens: Option<Vec<TokenRecord>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Word>>,
    /// The text, or the two of a pair, and what of it the model did not read.
    #[serde(flatten)]
    pub text: Option<TextRecord>,
    pub outputs: Map<String, Value>,
    pub relevance: Summary,
    pub checks: Map<String, Value>,
    pub seed: u64,
    pub version: &'static str,
    pub ms: f64,
}

#[derive(Serialize, Debug, Clone)]
pub struct ModelId {
    pub id: String,
    pub revision: Option<String>,
    pub family: &'static str,
}

#[derive(Serialize, Debug)]
pub struct MethodId {
    pub name: &'static str,
    pub params: Map<String, Value>,
}

#[derive(Serialize, Debug)]
pub struct TargetRecord {
    pub class: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<u32>,
    pub label: String,
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
    fn new(model: &Model, output: Output, logits: &[f32]) -> Self {
        let probability = model.probabilities(logits).and_then(|p| p.get(output.class as usize).copied());
        let logit = output.logit(logits);
        TargetRecord {
            class: output.class,
            against: output.against,
            label: output.label(&model.checkpoint.labels),
            logit,
            probability,
            value: probability.is_none().then_some(logit),
            difference: output.against.map(|_| logit),
            lowers: output.lowers,
        }
    }
}

#[derive(Serialize, Debug, Clone)]
pub struct Prediction {
    pub class: u32,
    pub label: String,
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

#[derive(Serialize, Debug)]
pub struct TokenRecord {
    pub text: String,
    pub start: usize,
    pub end: usize,
    pub special: bool,
    pub relevance: f32,
    /// Which text of a pair; none for special tokens.
    pub side: Option<usize>,
}

/// What records of texts say beside tokens.
#[derive(Serialize, Debug)]
pub struct TextRecord {
    pub texts: Vec<String>,
    pub truncated: Option<Truncated>,
}

#[derive(Serialize, Debug)]
pub struct Truncated {
    /// Word pieces that were left out, of all texts.
    pub tokens: usize,
    /// Where they were.
    pub left_out: Vec<LeftOut>,
}

#[derive(Serialize, Debug)]
pub struct Summary {
    pub min: f32,
    pub max: f32,
    pub sum: f32,
}

impl ModelId {
    pub fn of(model: &Model) -> Self {
        let c = &model.checkpoint;
        ModelId { id: c.id.clone(), revision: c.revision.clone(), family: c.family.name }
    }
}

/// The likeliest classes, or the greatest values.
pub fn predictions(model: &Model, logits: &[f32], top: usize) -> Vec<Prediction> {
    let probabilities = model.probabilities(logits);
    let prediction = |class: u32| {
        let label = model.checkpoint.labels.name(class);
        let of = |row: &[f32]| row.get(class as usize).copied();
        let value = if probabilities.is_none() { of(logits) } else { None };
        Prediction { class, label, probability: probabilities.as_deref().and_then(of), value }
    };
    ranked(logits).into_iter().take(top).map(prediction).collect()
}

impl Done {
    /// The record of an explanation; `outputs` and `ms` are filled in once its files are written.
    pub fn new(input: &str, model: &Model, logits: &[f32], e: &Explanation, seed: u64) -> Self {
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
            model: ModelId::of(model),
            method: MethodId { name: e.method, params: e.params.clone() },
            target: TargetRecord::new(model, e.output, logits),
            predictions: predictions(model, logits, PREDICTIONS),
            grid,
            tokens,
            words,
            text,
            outputs: Map::new(),
            relevance: Summary { min, max, sum: e.sum() },
            checks,
            seed,
            version: env!("CARGO_PKG_VERSION"),
            ms: 0.0,
        }
    }
}

impl TextRecord {
    /// Of one input.
    pub fn of(text: &TextLayout) -> Self {
        let tokens = text.left_out.iter().map(|l| l.tokens).sum();
        let truncated = (tokens > 0).then(|| Truncated { tokens, left_out: text.left_out.clone() });
        TextRecord { texts: text.texts.clone(), truncated }
    }
}

fn tokens(e: &Explanation) -> Vec<TokenRecord> {
    let Layout::Text(text) = &e.layout else { return Vec::new() };
    let record = |(token, &relevance): (&vitx::explanation::TextToken, &f32)| TokenRecord {
        text: token.piece.clone(),
        start: token.start,
        end: token.end,
        special: token.special,
        relevance,
        side: (!token.special).then_some(token.text),
    };
    text.tokens.iter().zip(&e.relevance).map(record).collect()
}
