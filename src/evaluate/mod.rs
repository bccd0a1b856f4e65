//! Is the picture faithful? Metrics over explanations: a trait, one registry, one file per metric or pair of metrics.
//!
//! A metric says what one explanation of one input is worth; [`table`] makes figures over a data set of them, with
//! confidence intervals, beside the controls of [`candidates`]; [`tune`] searches settings by them.

pub mod candidates;
pub mod curves;
pub mod dataset;
mod deletion;
mod eraser;
mod filling;
pub mod judge;
pub mod mask;
mod perturbation;
mod pointing;
pub mod randomisation;
mod rationale;
pub mod report;
mod road;
mod samples;
mod segmentation;
mod sensitivity;
mod sparseness;
mod srg;
pub mod survey;
pub mod table;
pub mod tune;

pub use candidates::Candidate;

use crate::encoder::Facts;
use crate::error::{unknown, Error, Result};
use crate::explanation::Explanation;
use crate::run::{Measured, Param, Params, Run, Score as Value};
use crate::scale::Scale;
use serde::{Deserialize, Serialize};

/// Every metric, in the order of tables.
pub const METRICS: &[Entry] = &[
    deletion::DELETION,
    deletion::INSERTION,
    perturbation::POSITIVE,
    perturbation::NEGATIVE,
    srg::ENTRY,
    road::ENTRY,
    eraser::COMPREHENSIVENESS,
    eraser::SUFFICIENCY,
    rationale::TOKEN_F1,
    rationale::TOKEN_AUPRC,
    segmentation::PIXEL_ACCURACY,
    segmentation::MIOU,
    segmentation::AVERAGE_PRECISION,
    pointing::POINTING_GAME,
    pointing::MASS_INSIDE,
    sensitivity::ENTRY,
    sparseness::ENTRY,
];

/// What is known of an input besides its class.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// `[H*W]` at the resolution of the model's input: where the object is. Void pixels are left out of every metric.
    pub mask: Option<Vec<mask::Place>>,
    /// `[T]`: the tokens that people marked as the reason.
    pub rationale: Option<Vec<bool>>,
}

/// One explanation to be judged.
pub struct Case<'a, 'r> {
    /// The run it explains.
    pub run: &'a Run<'r>,
    /// The explanation.
    pub explanation: &'a Explanation,
    /// What is known of the input.
    pub truth: &'a Truth,
    /// What made it, to explain the input again under small changes.
    pub candidate: &'a Candidate,
}

/// What a metric says of one explanation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Score {
    /// The figure.
    pub value: f64,
    /// The curve it is the area under, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<f64>,
    /// Where the curve's points lie, from 0 to 1: the shares that were hidden or shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<f64>,
    /// Counts that figures over a data set are made of, if they are no mean of values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<f64>,
}

impl From<f64> for Score {
    fn from(value: f64) -> Self {
        Score { value, ..Score::default() }
    }
}

impl Score {
    /// A figure with its curve: `points` are the shares hidden or shown, and the value there.
    fn of_curve(value: f64, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let (at, curve) = points.into_iter().unzip();
        Score { value, curve, at, counts: Vec::new() }
    }
}

/// What the axes of a metric's curve are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axes {
    /// A share, from 0 to 1.
    pub x: String,
    /// What was measured there.
    pub y: String,
}

impl Axes {
    fn new(x: impl Into<String>, y: impl Into<String>) -> Self {
        Axes { x: x.into(), y: y.into() }
    }
}

/// A metric with its parameters set.
pub trait Metric: Send + Sync {
    /// The score of one explanation; none where the input lacks what it needs (a mask, a rationale).
    ///
    /// # Errors
    /// Whatever the passes report.
    fn score(&self, case: &Case<'_, '_>) -> Result<Option<Score>>;

    /// How the figure is computed, in a line.
    fn convention(&self) -> String;

    /// Whether what it counts is how often the model is right.
    fn counts_hits(&self) -> bool {
        false
    }

    /// The axes of its curves, if its scores have any.
    fn axes(&self) -> Option<Axes> {
        None
    }

    /// Refuses a model.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason.
    fn check(&self, _model: &Facts) -> Result<()> {
        Ok(())
    }
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
}

impl Direction {
    /// Whether `a` is better than `b`.
    pub fn prefers(self, a: f64, b: f64) -> bool {
        match self {
            Direction::Higher => a > b,
            Direction::Lower => a < b,
        }
    }

    /// The figure as something to keep low, for sorting; infinite for NaN.
    pub fn loss(self, figure: f64) -> f64 {
        match self {
            _ if figure.is_nan() => f64::INFINITY,
            Direction::Higher => -figure,
            Direction::Lower => figure,
        }
    }

    /// An arrow for tables.
    pub fn arrow(self) -> &'static str {
        match self {
            Direction::Higher => "↑",
            Direction::Lower => "↓",
        }
    }
}

/// What a metric needs beside model and explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A mask of the object.
    Mask,
    /// A rationale.
    Rationale,
}

/// An entry of the metric registry.
#[derive(Debug)]
pub struct Entry {
    /// On the command line.
    pub name: &'static str,
    /// What it asks, in a line.
    pub title: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// Which way is better.
    pub direction: Direction,
    /// Whether it judges explanations of images.
    pub images: bool,
    /// Whether it judges explanations of texts.
    pub texts: bool,
    /// What it needs.
    pub needs: Needs,
    /// Part of `vitx evaluate` without `--metric`.
    pub default: bool,
    /// Reads the parameters.
    pub build: fn(&mut Params) -> Result<Box<dyn Metric>>,
    /// The figure of a data set.
    pub pool: fn(&[&Score]) -> f64,
}

/// The mean of the scores.
pub fn mean(scores: &[&Score]) -> f64 {
    scores.iter().map(|s| s.value).sum::<f64>() / scores.len() as f64
}

/// A registry entry with parameters: what `--metric NAME:key=value` means.
pub struct Configured {
    /// The registry entry.
    pub entry: &'static Entry,
    /// As given, normalised.
    pub spec: String,
    /// What of the explained class it measures, if it does.
    pub measured: Option<Measured>,
    /// What the logits of the judged model are.
    pub scale: Scale,
    /// The metric itself.
    pub metric: Box<dyn Metric>,
}

impl Configured {
    /// How the figure is computed for the judged model, in a line.
    pub fn convention(&self) -> String {
        let how = self.metric.convention();
        match (self.scale, self.measured.map(|m| m.score)) {
            (Scale::Sigmoid, _) if self.metric.counts_hits() => {
                format!("{how}; right: the class's own probability is above 0.5")
            }
            (Scale::Value, Some(Value::Probability)) => {
                format!("{how}; the model gives values: of the value, where a probability is named")
            }
            _ => how,
        }
    }

    /// The axes of its curves for the judged model, if it has any.
    pub fn axes(&self) -> Option<Axes> {
        let axes = self.metric.axes()?;
        Some(match self.scale {
            Scale::Value => Axes { y: axes.y.replace("probability", "value"), ..axes },
            Scale::Softmax | Scale::Sigmoid => axes,
        })
    }

    /// The same for a model.
    ///
    /// # Errors
    /// [`Error::Refused`] for a model that lacks what the metric needs.
    pub fn fitted(self, model: &Facts) -> Result<Self> {
        let refused = |e| match e {
            Error::Refused(why) => Error::Refused(format!("metric `{}`: {why}", self.spec)),
            other => other,
        };
        if self.metric.counts_hits() && model.scale == Scale::Value {
            let why = "accuracy is asked of a model that gives a value; pass value=logit";
            return Err(refused(Error::Refused(why.into())));
        }
        self.measured.map_or(Ok(()), |m| m.check(model.scale)).map_err(refused)?;
        self.metric.check(model).map_err(refused)?;
        Ok(Configured { scale: model.scale, ..self })
    }
}

impl Entry {
    /// Its parameters with defaults and meaning.
    pub fn parameters(&self) -> Vec<Param> {
        let mut params = Params::default();
        let _ = (self.build)(&mut params); // only declares: defaults are valid by the registry's test
        params.declared
    }

    /// Whether it judges explanations of such a model's inputs.
    pub fn suits(&self, model: &Facts) -> bool {
        if model.text {
            self.texts
        } else {
            self.images
        }
    }
}

/// Reads `NAME[:key=value,...]`.
///
/// # Errors
/// [`Error::Usage`] for an unknown metric, key or value.
pub fn parse(text: &str) -> Result<Configured> {
    let (name, given) = text.split_once(':').unwrap_or((text, ""));
    let name = name.trim();
    let entry = METRICS.iter().find(|e| e.name == name);
    let entry = entry.ok_or_else(|| unknown("metric", name, METRICS.iter().map(|e| e.name), "see `vitx metrics`"))?;
    let mut params = Params::parse_for("metric", entry.name, given)?;
    let metric = (entry.build)(&mut params)?;
    let (spec, measured) = (params.spec(entry.name), params.measured);
    params.finish()?;
    Ok(Configured { entry, spec, measured, scale: Scale::Softmax, metric })
}

/// The metrics of a model: those named, or the defaults that suit it; `all` stands for all that suit it.
///
/// # Errors
/// As [`parse`], and [`Error::Refused`] for a metric that does not suit the model.
pub fn parse_list(texts: &[impl AsRef<str>], model: &Facts) -> Result<Vec<Configured>> {
    let can = |e: &&Entry| parse(e.name).and_then(|c| c.fitted(model)).is_ok();
    let suiting = |wanted: fn(&&Entry) -> bool| -> Vec<String> {
        METRICS.iter().filter(|e| e.suits(model)).filter(wanted).filter(can).map(|e| e.name.to_string()).collect()
    };
    let given = crate::method::split_specs(texts);
    let specs = match &given[..] {
        [] => suiting(|e| e.default),
        [all] if all == "all" => suiting(|_| true),
        _ => given,
    };
    let mut list: Vec<Configured> = Vec::new();
    for spec in &specs {
        let configured = parse(spec)?;
        if !configured.entry.suits(model) {
            let what = if model.text { "texts" } else { "images" };
            return Err(Error::Refused(format!(
                "metric `{}` is not for explanations of {what}",
                configured.entry.name
            )));
        }
        let configured = configured.fitted(model)?;
        if list.iter().any(|c| c.spec == configured.spec) {
            return Err(Error::Usage(format!("metric `{}` is given twice with the same parameters", configured.spec)));
        }
        list.push(configured);
    }
    Ok(list)
}

/// The README's table of metrics.
pub fn markdown() -> String {
    let row = |e: &Entry| {
        let keys: Vec<_> = e.parameters().iter().map(|p| format!("`{}`", p.key)).collect();
        let better = if e.direction == Direction::Higher { "higher" } else { "lower" };
        let reads = match (e.images, e.texts) {
            (true, true) => "images, texts",
            (true, false) => "images",
            _ => "texts",
        };
        let needs = match e.needs {
            Needs::Nothing => "",
            Needs::Mask => " with masks",
            Needs::Rationale => " with rationales",
        };
        format!("| `{}` | {} | {better} | {reads}{needs} | {} | {} |\n", e.name, e.title, keys.join(" "), e.paper)
    };
    let rows: String = METRICS.iter().map(row).collect();
    format!(
        "| metric | what it asks | better | for | parameters | paper |\n| --- | --- | --- | --- | --- | --- |\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_builds_and_says_how_it_computes() {
        let mut names: Vec<_> = METRICS.iter().map(|e| e.name).collect();
        for entry in METRICS {
            let configured = parse(entry.name).unwrap();
            assert!(configured.metric.convention().len() > 10, "{}", entry.name);
            assert!(entry.images || entry.texts);
            assert!(entry.parameters().iter().all(|p| !p.about.is_empty()));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        let error = parse("deletoin").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("did you mean `deletion`"), "{error}");
        let error = parse("deletion:base=x").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("metric `deletion` has no key `base`"), "{error}");
    }
}
