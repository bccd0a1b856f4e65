//! Is the picture faithful? Metrics over explanations: a trait, one registry, one file per metric or pair of metrics.
//!
//! A metric says what one explanation of one input is worth; [`table`] makes figures over a data set of them, with
//! confidence intervals, beside the controls of [`candidates`]; [`tune`] searches settings by them.
//!
//! # How to add a metric
//!
//! 1. `metric/NAME.rs` opens with what it asks in one sentence, the paper with equation numbers, what its parameters are and
//!    how it differs from the authors' code. It holds a const [`Entry`], whose `build` reads the parameters (modes are enums,
//!    read by [`Params::one_of`] from a table of names), and a struct that is a [`Metric`].
//! 2. What the model has to say of changed inputs is asked for, not computed: `asks` names the variants, an
//!    [`Ask`](crate::run::Ask) for each shape of them, and `score` reads the answers in the same order. What both need (a
//!    ranking, say) is a function that both call; nothing is kept between them. `run/removal.rs` takes tokens and pixels
//!    out. A metric that reads the explanation alone has no `asks`; one that explains again does so in `score`, through
//!    `case.candidate`. Metrics use `run/`, never `method/`: a test holds it.
//! 3. Two words: `mod NAME;` in `metric/mod.rs`, and `metric::NAME::ENTRY` in [`METRICS`], where it stands in tables. The
//!    command line, `vitx metrics`, completions, the README's table and the contract tests follow from there.
//! 4. Numbers: a golden array from `tests/reference/` (an independent implementation in Python, one command), which
//!    `tests/all/metrics.rs` compares; cases that can be worked out by hand stand at the foot of the file.
//! 5. `cargo test` is green once README's table is that of `vitx metrics --markdown`.

pub mod candidates;
mod contract;
pub mod curves;
pub mod dataset;
pub mod figures;
pub mod journal;
pub mod judge;
pub mod labelled;
pub mod mask;
mod metric;
pub mod paper;
pub mod plot;
pub mod questions;
pub mod randomisation;
pub mod report;
mod samples;
pub mod sanity;
pub mod search;
pub mod study;
pub mod survey;
pub mod table;
pub mod tune;

pub use candidates::Candidate;
pub use contract::{mean, Axes, Case, Configured, Direction, Entry, Metric, Needs, Score, Truth};

use crate::encoder::Facts;
use crate::error::{unknown, Error, Result};
use crate::run::Params;
use crate::scale::Scale;

/// Every metric, in the order of tables.
pub const METRICS: &[Entry] = &[
    metric::deletion::DELETION,
    metric::deletion::INSERTION,
    metric::perturbation::POSITIVE,
    metric::perturbation::NEGATIVE,
    metric::srg::ENTRY,
    metric::road::ENTRY,
    metric::eraser::COMPREHENSIVENESS,
    metric::eraser::SUFFICIENCY,
    metric::rationale::TOKEN_F1,
    metric::rationale::TOKEN_AUPRC,
    metric::segmentation::PIXEL_ACCURACY,
    metric::segmentation::MIOU,
    metric::segmentation::AVERAGE_PRECISION,
    metric::pointing::POINTING_GAME,
    metric::pointing::MASS_INSIDE,
    metric::sensitivity::ENTRY,
    metric::sparseness::ENTRY,
];

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
