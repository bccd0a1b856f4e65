//! What a metric is: the trait, its registry entry, what it is given and what it says.

use super::candidates::Candidate;
use super::mask;
use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use crate::run::{Ask, Logits, Measured, Param, Params, Run, Score as Value};
use crate::scale::Scale;
use serde::{Deserialize, Serialize};

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

impl Case<'_, '_> {
    /// Refuses what belongs to another input: metrics read all of it by place.
    fn check(&self) -> Result<()> {
        let tokens = self.run.tokens();
        let fits = |what: &str, n: usize, wanted: usize| match n == wanted {
            true => Ok(()),
            false => Err(Error::Usage(format!("the {what} has {n} entries, and the input {wanted}"))),
        };
        fits("explanation", self.explanation.relevance.len(), tokens)?;
        if let Some(marked) = &self.truth.rationale {
            fits("rationale", marked.len(), tokens)?;
        }
        if let Some(mask) = &self.truth.mask {
            let (h, w) = self.run.subject()?.size()?;
            fits("mask", mask.len(), h * w)?;
            let drawn = self.explanation.drawn_pixels();
            drawn.map_or(Ok(()), |map| fits("explanation's pixel map", map.values.len(), h * w))?;
        }
        Ok(())
    }
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
    pub(super) fn of_curve(value: f64, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
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
    pub(super) fn new(x: impl Into<String>, y: impl Into<String>) -> Self {
        Axes { x: x.into(), y: y.into() }
    }
}

/// A metric with its parameters set: it asks what the model says of variants of the input, then scores the answers.
pub trait Metric: Send + Sync {
    /// The variants of the input it wants the model to see; none for metrics that read the explanation alone.
    ///
    /// # Errors
    /// [`Error::Refused`] for an explanation it does not judge; tensor operations.
    fn asks<'a>(&'a self, _case: &'a Case<'_, '_>) -> Result<Vec<Ask<'a>>> {
        Ok(Vec::new())
    }

    /// The score of one explanation; none where the input lacks what it needs (a mask, a rationale). `answers` are those to
    /// [`Metric::asks`], in its order.
    ///
    /// # Errors
    /// Whatever it computes itself reports.
    fn score(&self, case: &Case<'_, '_>, answers: &[Logits]) -> Result<Option<Score>>;

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

/// The answers to as many asks as a metric makes.
///
/// # Errors
/// [`Error::Usage`] when there are fewer or more.
pub(super) fn answered<const N: usize>(answers: &[Logits]) -> Result<&[Logits; N]> {
    let other = |_| Error::Usage(format!("a metric asked {N} times and has {} answers", answers.len()));
    answers.try_into().map_err(other)
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

impl Needs {
    /// In the plural; none for nothing.
    pub fn what(self) -> Option<&'static str> {
        match self {
            Needs::Nothing => None,
            Needs::Mask => Some("masks"),
            Needs::Rationale => Some("rationales"),
        }
    }
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
    /// What the metric asks about an explanation, once that is known to belong to its input.
    ///
    /// # Errors
    /// [`Error::Usage`] when explanation, mask or rationale are of another size; the metric's own.
    pub fn asks<'a>(&'a self, case: &'a Case<'_, '_>) -> Result<Vec<Ask<'a>>> {
        case.check()?;
        self.metric.asks(case)
    }

    /// The score of one explanation by itself; [`judge`](super::judge::judge) runs the variants of many together.
    ///
    /// # Errors
    /// The metric's own, and whatever the passes report.
    pub fn score(&self, case: &Case<'_, '_>) -> Result<Option<Score>> {
        let asks = self.asks(case)?;
        let answers = if asks.is_empty() { Vec::new() } else { case.run.subject()?.answers(&asks)? };
        self.metric.score(case, &answers)
    }

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

    /// What it is, as a record.
    pub fn record(&self) -> serde_json::Value {
        let e = self.entry;
        serde_json::json!({
            "name": e.name, "title": e.title, "paper": e.paper, "direction": e.direction, "images": e.images,
            "texts": e.texts, "needs": e.needs.what(), "convention": self.convention(),
            "params": e.parameters().iter().map(Param::record).collect::<Vec<_>>(),
        })
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
