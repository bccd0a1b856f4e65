//! Attribution methods: a trait, one registry, one file per method.
//!
//! To add one: write `src/method/NAME.rs` with an [`Entry`], then add `mod NAME;` and `NAME::ENTRY` here. The command
//! line, `vitx methods`, shell completions, the README's table and the contract tests follow from the registry.

mod aggregate;
mod alti;
mod attcat;
mod attention;
mod attention_gradcam;
pub mod baseline;
mod beyond_intuition;
mod cam;
mod cam_plus;
pub mod combine;
mod flow;
mod fullgrad;
mod gae;
mod grad_attention;
mod grad_rollout;
mod gradient;
mod gradient_x_input;
mod iia2;
mod input_map;
pub mod integrated_gradients;
mod interpolate;
pub mod leave_one_out;
mod legrad;
mod lrp;
pub mod masking;
mod mixing;
mod noise;
mod norms;
mod occlusion;
mod params;
pub mod propagation;
pub mod rise;
mod rollout;
mod run;
pub mod scorecam;
pub mod smoothgrad;
mod subject;
pub mod tape;
mod tokentm;
mod value_zeroing;
pub mod vit_cx;

pub use noise::Noise;
pub use params::{Measured, Param, Params};
pub use run::{logits, Batch, Pass, Reversed, Run, Seed, Watch};
pub use subject::{Score, Subject};

use crate::error::{unknown, Error, Result};
use crate::explanation::{Explanation, PixelMap};
use crate::nn::Rules;
use crate::scale::Scale;
use combine::Rows;
use serde_json::{Map, Value};

/// Every method, in the order of `vitx methods`.
pub const METHODS: &[Entry] = &[
    attention::ENTRY,
    rollout::ENTRY,
    flow::ENTRY,
    gae::ENTRY,
    grad_rollout::ENTRY,
    attention_gradcam::ENTRY,
    grad_attention::ENTRY,
    aggregate::ENTRY,
    tokentm::ENTRY,
    beyond_intuition::ENTRY,
    iia2::ENTRY,
    legrad::ENTRY,
    attcat::ENTRY,
    norms::NORM,
    norms::NORM_RES,
    norms::NORM_RESLN,
    norms::GLOBENC,
    alti::ENTRY,
    value_zeroing::ENTRY,
    gradient::ENTRY,
    gradient_x_input::ENTRY,
    smoothgrad::SMOOTHGRAD,
    smoothgrad::SMOOTHGRAD_SQUARED,
    smoothgrad::VARGRAD,
    integrated_gradients::ENTRY,
    fullgrad::FULLGRAD,
    fullgrad::FULLGRAD_PLUS,
    lrp::LRP,
    lrp::PARTIAL_LRP,
    lrp::FULL_LRP,
    propagation::ATTN_LRP,
    propagation::CP_LRP,
    propagation::RESLRP,
    cam::GRADCAM,
    cam::GRADCAM_PLUSPLUS,
    cam::HIRESCAM,
    cam::XGRADCAM,
    cam::LAYERCAM,
    cam::EIGENCAM,
    scorecam::ENTRY,
    cam_plus::GRADCAM_PLUS,
    cam_plus::XGRADCAM_PLUS,
    vit_cx::ENTRY,
    occlusion::ENTRY,
    rise::ENTRY,
    leave_one_out::ENTRY,
];

/// The method of `vitx explain` without `--method`.
pub const DEFAULT: &str = "gae";

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

    /// Whether there is a map at pixel resolution beside the patch grid.
    fn pixels(&self) -> bool {
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

/// What a method may need to know of a model before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// It reads texts, not images.
    pub text: bool,
    /// Its feed-forward is gated (SwiGLU).
    pub gated: bool,
    /// Its classifier reads the mean of the patches beside the class token.
    pub patch_mean: bool,
    /// Its tokenizer has a mask token.
    pub mask_token: bool,
    /// L
    pub layers: usize,
    /// H
    pub heads: usize,
    /// The classifier reads a class token.
    pub class_token: bool,
    /// There is a distillation token.
    pub distillation_token: bool,
    /// The layer norms stand behind the sub-layers (BERT), not before them (ViT).
    pub post_norm: bool,
    /// What its logits are.
    pub scale: Scale,
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
    /// Methods of a kind stand together.
    pub group: &'static str,
    /// Whether the map changes with the explained class.
    pub class_specific: bool,
    /// Reads the parameters.
    pub build: fn(&mut Params) -> Result<Box<dyn Method>>,
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

impl Facts {
    /// Refuses texts.
    pub(super) fn images_only(&self, why: &str) -> Result<()> {
        if self.text {
            return Err(Error::Refused(format!("it is defined for images only: {why}")));
        }
        Ok(())
    }
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

/// Finds a method by name or alias.
///
/// # Errors
/// [`Error::Usage`] naming the nearest one.
pub fn find(name: &str) -> Result<&'static Entry> {
    let is = |e: &&Entry| e.name == name || e.aliases.contains(&name);
    let names = METHODS.iter().flat_map(|e| std::iter::once(e.name).chain(e.aliases.iter().copied()));
    METHODS.iter().find(is).ok_or_else(|| unknown("method", name, names, "see `vitx methods`"))
}

/// The README's table of methods.
pub fn markdown() -> String {
    let row = |e: &Entry| {
        let keys: Vec<_> = e.parameters().iter().map(|p| format!("`{}`", p.key)).collect();
        let class = if e.class_specific { "yes" } else { "no" };
        format!("| `{}` | {} | {class} | {} | {} |\n", e.name, e.title, keys.join(" "), e.paper)
    };
    let rows: String = METHODS.iter().map(row).collect();
    format!("| method | what it shows | class-specific | parameters | paper |\n| --- | --- | --- | --- | --- |\n{rows}")
}

/// Reads `NAME[:key=value,...]`.
///
/// # Errors
/// [`Error::Usage`] for an unknown method, key or value.
pub fn parse(text: &str) -> Result<Configured> {
    let (name, given) = text.split_once(':').unwrap_or((text, ""));
    let entry = find(name.trim())?;
    let mut params = Params::parse(entry.name, given)?;
    let method = (entry.build)(&mut params)?;
    let (spec, measured) = (params.spec(entry.name), params.measured);
    Ok(Configured { entry, spec, params: params.finish()?, measured, method })
}

/// Cuts the values of a list option into `NAME[:key=value,...]` parts: commas separate names, and `key=value` parts belong
/// to the name before them.
pub fn split_specs(texts: &[impl AsRef<str>]) -> Vec<String> {
    let mut specs: Vec<String> = Vec::new();
    for text in texts {
        let mut open = false; // whether the last name has a colon, so that further key=value parts are its own
        for part in text.as_ref().split(',').map(str::trim) {
            match specs.last_mut() {
                Some(last) if open && part.contains('=') && !part.contains(':') => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => {
                    open = part.contains(':');
                    specs.push(part.to_string());
                }
            }
        }
    }
    specs
}

/// Reads the values of `--method`. `all` stands for every method.
///
/// # Errors
/// As [`parse`]; also for the same method with the same parameters twice.
pub fn parse_list(texts: &[impl AsRef<str>]) -> Result<Vec<Configured>> {
    let mut list: Vec<Configured> = Vec::new();
    for spec in split_specs(texts) {
        let specs = match spec.eq_ignore_ascii_case("all") {
            true => METHODS.iter().map(|e| e.name.to_string()).collect(),
            false => vec![spec],
        };
        for spec in specs {
            let configured = parse(&spec)?;
            if list.iter().any(|c| c.spec == configured.spec) {
                let spec = configured.spec;
                return Err(Error::Usage(format!("method `{spec}` is given twice with the same parameters")));
            }
            list.push(configured);
        }
    }
    Ok(list)
}

impl Configured {
    /// Refuses a model that lacks what the method needs.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason.
    pub fn check(&self, model: &Facts) -> Result<()> {
        self.method.check(model)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_builds_and_names_are_unique() {
        let mut names: Vec<_> = METHODS.iter().flat_map(|e| std::iter::once(&e.name).chain(e.aliases)).collect();
        for entry in METHODS {
            parse(entry.name).unwrap();
            assert!(!entry.title.is_empty() && !entry.paper.is_empty() && !entry.group.is_empty());
            assert!(entry.parameters().iter().all(|p| !p.about.is_empty()));
        }
        names.sort();
        let n = names.len();
        names.dedup();
        assert_eq!(n, names.len());
        assert!(find(DEFAULT).is_ok());
    }

    #[test]
    fn lists_keep_parameters_with_their_method() {
        let list = parse_list(&["attention,rollout:discard_ratio=0.5,start_layer=1,gae", "attention-grad"]).unwrap();
        let specs: Vec<_> = list.iter().map(|c| c.spec.as_str()).collect();
        assert_eq!(specs, ["attention", "rollout:discard_ratio=0.5,start_layer=1", "gae", "grad-attention"]);
        assert_eq!(parse_list(&["all"]).unwrap().len(), METHODS.len());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("rolout", "did you mean `rollout`"),
            ("rollout:discard=0.5", "did you mean `discard_ratio`"),
            ("rollout:discard_ratio=2", "from 0 to 1"),
            ("rollout:heads=median", "mean, max, min or a head's number"),
            ("gae:foo=1", "start_layer"),
            ("gae:start_layer", "key=value"),
            ("gae,gae", "twice"),
        ] {
            let error = parse_list(&[text]).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
