//! What a method is: the trait, its registry entry, and an entry with its parameters set.

use crate::encoder::{Facts, Pool};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, PixelMap};
use crate::nn::Rules;
use crate::run::{Measured, Param, Params, Reads, Rows, Run};
use crate::scale::Scale;
use serde_json::{Map, Value};

/// A method with its parameters set.
pub trait Method: Send + Sync {
    /// Signed, unnormalised relevance of one input.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason where the method is not defined, and whatever the passes report.
    fn explain(&self, run: &Run<'_>) -> Result<Relevance>;

    /// Refuses a model before its weights are read.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, [`Error::Usage`] for a layer or head the model does not have.
    fn check(&self, _model: &Facts) -> Result<()> {
        Ok(())
    }

    /// The output tokens whose rows `explain` returns; none for methods that explain the model's output itself.
    fn rows(&self) -> Option<Rows> {
        None
    }

    /// What it reads of the passes, so that they keep no more.
    fn reads(&self) -> Reads {
        Reads::Everything
    }

    /// Whether it reads each layer of a reverse pass once, from the last one down: alone, it then needs one of them at a time.
    fn top_down(&self) -> bool {
        false
    }

    /// Whether its map is of the tokens alone, and the same whatever output is asked about: it needs no classifier.
    fn agnostic(&self) -> bool {
        false
    }

    /// Whether it is defined where layers do not hold the same tokens (Swin): it reads the input, or one layer's states, or shares of a
    /// total, and no attention of all tokens for all.
    fn staged(&self) -> bool {
        false
    }

    /// Whether there is a map at pixel resolution beside the patch grid.
    fn pixels(&self, _model: &Facts) -> bool {
        false
    }

    /// Rules of the reverse passes it makes, for methods that are known by them.
    fn rules(&self) -> Vec<Rules> {
        Vec::new()
    }

    /// How long one input of so many tokens and layers will take, where that is long enough to say.
    fn patience(&self, _tokens: usize, _layers: usize) -> Option<String> {
        None
    }

    /// Whether values below zero carry meaning.
    fn signed(&self) -> bool {
        false
    }

    /// Whether only the size of a change is kept: the map of what lowers an output is then that of what raises it.
    fn sizes_only(&self) -> bool {
        false
    }
}

/// What a method found.
#[derive(Debug, Clone, Default)]
pub struct Relevance {
    /// `[T]` of each token, special tokens included, padding not; `[T,T]` row by row when every output token was asked
    /// for. Methods that attribute to pixels give prefix tokens, which have none, 0.
    pub tokens: Vec<f32>,
    /// The same at pixel resolution.
    pub pixels: Option<PixelMap>,
    /// What the method can say of its own quality, for the record.
    pub checks: Map<String, Value>,
}

impl From<Vec<f32>> for Relevance {
    fn from(tokens: Vec<f32>) -> Self {
        Relevance { tokens, ..Default::default() }
    }
}

/// An entry of the method registry.
#[derive(Debug)]
pub struct Entry {
    /// On the command line.
    pub name: &'static str,
    /// Other names people use for it.
    pub aliases: &'static [&'static str],
    /// What it answers, in a line.
    pub title: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// Whether the map changes with the explained class.
    pub class_specific: bool,
    /// Reads the parameters.
    pub build: fn(&mut Params) -> Result<Box<dyn Method>>,
}

/// Methods of a kind, and the question they answer.
#[derive(Debug)]
pub struct Group {
    /// For people.
    pub name: &'static str,
    /// What one asks when one takes a method of this kind.
    pub question: &'static str,
    /// What whoever uses one should know beside.
    pub notice: Option<&'static str>,
    /// Its methods, in the order of `vitx methods`.
    pub methods: &'static [Entry],
}

/// A registry entry with parameters: what `--method NAME:key=value` means.
pub struct Configured {
    /// The registry entry.
    pub entry: &'static Entry,
    /// As given, normalised: `gae`, `rollout:discard_ratio=0.9`.
    pub spec: String,
    /// Parameters in force, defaults included.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// What of the explained class it measures, if it does.
    pub measured: Option<Measured>,
    /// The method itself.
    pub method: Box<dyn Method>,
}

impl Entry {
    /// Its parameters with defaults and meaning.
    pub fn parameters(&self) -> Vec<Param> {
        let mut params = Params::default();
        // Building with defaults only declares the parameters; defaults are valid by the registry's test.
        let _ = (self.build)(&mut params);
        params.declared
    }
}

impl Configured {
    /// Refuses a model that lacks what the method needs.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason.
    pub fn check(&self, model: &Facts) -> Result<()> {
        self.method.check(model)?;
        if model.staged() && !self.method.staged() {
            return Err(Error::Refused(
                "it reads how much all tokens attend to all, layer by layer, and in this model tokens see those of their window alone and four become one between stages: no rule for that is published or proven; gradients, class activation maps, relevance propagation and perturbation work".into(),
            ));
        }
        if model.headless && !self.method.agnostic() {
            return Err(Error::Refused(
                "it explains what a classifier says, and the model has no classes; attention, rollout, flow, aggregate, value-zeroing, alti and the norms explain the tokens themselves".into(),
            ));
        }
        self.measured.map_or(Ok(()), |m| m.check(model.scale))
    }

    /// Whether it returns a whole matrix.
    pub fn matrix(&self) -> bool {
        self.method.rows().is_some_and(|r| r.matrix)
    }

    /// The refusal of another output token than the model's output.
    pub fn no_rows(&self) -> Error {
        Error::Refused(format!(
            "method `{}` explains the classifier's output, not a token's state; --row is for methods with a `row`",
            self.spec
        ))
    }

    /// Explains one input.
    ///
    /// # Errors
    /// The method's own, and [`Error::Numeric`] for a result that is not finite.
    pub fn explain(&self, run: &Run<'_>) -> Result<Explanation> {
        if self.method.rows().is_none() && run.row().is_some() {
            return Err(self.no_rows());
        }
        let scale = run.encoder().head.scale;
        self.measured.map_or(Ok(()), |m| m.check(scale))?;
        let relevance = self.method.explain(run)?;
        let mut checks = relevance.checks;
        if run.output().lowers && self.method.sizes_only() {
            let warning =
                "it shows how much the output changes, not which way: what lowers it looks like what raises it";
            checks.entry("warning").or_insert_with(|| warning.into());
        }
        let mut params = self.params.clone();
        if scale == Scale::Value && params.get("score").is_some_and(|s| s == "probability") {
            params.insert("score".into(), "value".into()); // what stood in for the default
        }
        if let Some(row) = run.row() {
            params.insert("row".into(), row.into());
        } else if params.get("row").is_some_and(|r| r == "auto") {
            let read: serde_json::Value = match run.encoder().head.readings.first().map(|reading| &reading.pool) {
                Some(Pool::Last) => "last".into(),
                Some(Pool::Max) => "max".into(),
                Some(Pool::Probe(_)) => "query".into(),
                Some(Pool::Token(number)) if *number > 0 => (*number).into(),
                _ if run.pooled()?.is_some() => "mean".into(),
                _ => "class".into(),
            };
            params.insert("row".into(), read); // what the classifier reads
        }
        let explanation = Explanation {
            method: self.entry.name,
            params,
            matrix: self.matrix(),
            output: run.output(),
            relevance: relevance.tokens,
            pixels: relevance.pixels,
            checks,
            layout: run.layout().clone(),
            signed: self.method.signed(),
        };
        explanation.checked()
    }
}
