//! Attribution methods: a trait, one registry, one file per method.
//!
//! To add one: write `src/method/NAME.rs` with an [`Entry`], then add `mod NAME;` and `NAME::ENTRY` here. The command
//! line, `vitx methods`, shell completions, the README's table and the contract tests follow from the registry.

mod aggregate;
mod alti;
mod attention;
mod attention_gradcam;
pub mod combine;
mod flow;
mod gae;
mod grad_attention;
mod grad_rollout;
mod mixing;
mod norms;
mod params;
mod rollout;
mod run;
mod value_zeroing;

pub use params::{Param, Params};
pub use run::{logits, Batch, Pass, Run, Watch};

use crate::error::{unknown, Error, Result};
use crate::explanation::Explanation;
use combine::Rows;

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
    norms::NORM,
    norms::NORM_RES,
    norms::NORM_RESLN,
    norms::GLOBENC,
    alti::ENTRY,
    value_zeroing::ENTRY,
];

/// The method of `vitx explain` without `--method`.
pub const DEFAULT: &str = "gae";

/// A method with its parameters set.
pub trait Method: Send + Sync {
    /// Signed, unnormalised relevance `[T]` of one input's tokens, special tokens included; `[T,T]` row by row when
    /// every output token is asked for.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason where the method is not defined, and whatever the passes report.
    fn explain(&self, run: &Run<'_>) -> Result<Vec<f32>>;

    /// Refuses a model before its weights are read.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, [`Error::Usage`] for a layer or head the model does not have.
    fn check(&self, _model: &Facts) -> Result<()> {
        Ok(())
    }

    /// The output tokens whose rows `explain` returns.
    fn rows(&self) -> Rows;

    /// How long one input of so many tokens and layers will take, where that is long enough to say.
    fn patience(&self, _tokens: usize, _layers: usize) -> Option<String> {
        None
    }

    /// Whether values below zero carry meaning.
    fn signed(&self) -> bool {
        false
    }
}

/// What a method may need to know of a model before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
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
    let spec = params.spec(entry.name);
    Ok(Configured { entry, spec, params: params.finish()?, method })
}

/// Reads the values of `--method`: comma-separated names, where `key=value` parts belong to the name before them.
///
/// `all` stands for every method.
///
/// # Errors
/// As [`parse`]; also for the same method with the same parameters twice.
pub fn parse_list(texts: &[impl AsRef<str>]) -> Result<Vec<Configured>> {
    let mut specs: Vec<String> = Vec::new();
    for text in texts {
        let mut open = false; // whether the last name has a colon, so that further key=value parts are its own
        for part in text.as_ref().split(',').map(str::trim) {
            match specs.last_mut() {
                Some(last) if open && part.contains('=') && !part.contains(':') => {
                    last.push(',');
                    last.push_str(part);
                }
                _ if part.eq_ignore_ascii_case("all") => specs.extend(METHODS.iter().map(|e| e.name.to_string())),
                _ => {
                    open = part.contains(':');
                    specs.push(part.to_string());
                }
            }
        }
    }
    let mut list: Vec<Configured> = Vec::new();
    for spec in &specs {
        let configured = parse(spec)?;
        if list.iter().any(|c| c.spec == configured.spec) {
            return Err(Error::Usage(format!("method `{}` is given twice with the same parameters", configured.spec)));
        }
        list.push(configured);
    }
    Ok(list)
}

impl Configured {
    /// Explains one input.
    ///
    /// # Errors
    /// The method's own, and [`Error::Numeric`] for a result that is not finite.
    pub fn explain(&self, run: &Run<'_>) -> Result<Explanation> {
        let relevance = self.method.explain(run)?;
        let mut params = self.params.clone();
        if let Some(row) = run.row() {
            params.insert("row".into(), row.into());
        }
        let explanation = Explanation {
            method: self.entry.name,
            params,
            matrix: self.method.rows().matrix,
            output: run.output(),
            relevance,
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
