//! Deletion and insertion: how fast the class goes when its reasons are taken away, and comes when they are shown.
//!
//! Petsiuk, Das & Saenko, BMVC 2018. Patches in descending order of relevance (ties: lower index first) turn from the
//! image into the baseline (`deletion`), or from the baseline into the image (`insertion`), `patches` at a time, the last
//! step taking what is left; point 0 is nothing turned, the last everything. The figure is the area under the class's
//! probability (`value=logit`: its logit), points equally spaced.
//!
//! `baseline`: `zero` (the processor's mean colour; default of deletion), `black`, `mean` (the image's mean colour), `blur`
//! (default of insertion). `patches=auto` makes at most 16 steps; the original takes 1 (of its pixels).

use crate::error::Result;
use crate::evaluate::contract::{mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::{image_layout, patches, pixels_of, ranked, switched, trapezoid};
use crate::run::baseline::ImageBaseline;
use crate::run::{Params, Score as Value};

pub(in crate::evaluate) const DELETION: Entry = Entry {
    name: "deletion",
    title: "does the class go when the most relevant patches go?",
    paper: "Petsiuk et al., BMVC 2018",
    direction: Direction::Lower,
    images: true,
    texts: false,
    needs: Needs::Nothing,
    default: false,
    build: |params| build(params, false),
    pool: mean,
};

pub(in crate::evaluate) const INSERTION: Entry = Entry {
    name: "insertion",
    title: "does the class come when the most relevant patches come?",
    paper: "Petsiuk et al., BMVC 2018",
    direction: Direction::Higher,
    default: false,
    build: |params| build(params, true),
    ..DELETION
};

struct Deletion {
    insert: bool,
    baseline: ImageBaseline,
    name: &'static str,
    patches: PatchesAStep,
    value: Value,
}

/// `patches=auto|N`
#[derive(Debug, Clone, Copy)]
pub(super) struct PatchesAStep(Option<usize>);

/// Steps of `patches=auto`.
const STEPS: usize = 16;

impl PatchesAStep {
    pub(super) fn read(params: &mut Params) -> Result<Self> {
        let about = "patches that turn in one step; auto: at most 16 steps";
        Ok(PatchesAStep(params.count_or_auto("patches", about, 1..=1_000_000)?))
    }

    pub(super) fn of(self, patches: usize) -> usize {
        self.0.unwrap_or(patches.div_ceil(STEPS)).max(1)
    }
}

impl std::fmt::Display for PatchesAStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(n) => write!(f, "{n} a step"),
            None => write!(f, "{STEPS} steps"),
        }
    }
}

/// `baseline`, its first choice the default.
pub(super) fn read_baseline(params: &mut Params, choices: [&'static str; 4]) -> Result<(ImageBaseline, &'static str)> {
    let about = "what patches turn into, or come from: zero (the processor's mean colour), black, mean, blur";
    let name = params.choice("baseline", &choices, about)?;
    Ok((ImageBaseline::named(name).unwrap_or(ImageBaseline::Zero), name)) // every choice is known
}

/// `value=probability|logit`
pub(super) fn read_value(params: &mut Params) -> Result<Value> {
    params.measure("value", &["probability", "logit"], "what is measured of the class")
}

pub(super) fn value_name(value: Value) -> &'static str {
    if value == Value::Logit {
        "logit"
    } else {
        "probability"
    }
}

fn build(params: &mut Params, insert: bool) -> Result<Box<dyn Metric>> {
    let choices = if insert { ["blur", "zero", "black", "mean"] } else { ["zero", "black", "mean", "blur"] };
    let (baseline, name) = read_baseline(params, choices)?;
    let patches = PatchesAStep::read(params)?;
    Ok(Box::new(Deletion { insert, baseline, name, patches, value: read_value(params)? }))
}

/// The explained value while patches of a ranking turn from the image into a baseline (or back: `insert`): the share of
/// patches that have turned, and the value.
pub(super) fn curve(
    case: &Case<'_, '_>,
    descending: bool,
    baseline: ImageBaseline,
    patches_a_step: PatchesAStep,
    value: Value,
    insert: bool,
) -> Result<Vec<(f64, f64)>> {
    let (subject, layout) = (case.run.subject()?, image_layout(case.explanation)?);
    let order = ranked(&patches(case.explanation), descending);
    let step = patches_a_step.of(order.len());
    let image = subject.values()?;
    let blank = baseline.of(&image, case.run.encoder())?;
    let ends = if insert { (&blank, &image) } else { (&image, &blank) };
    let width = subject.size()?.1;
    let points = order.len().div_ceil(step) + 1;
    let turned = |k: usize| (k * step).min(order.len());
    let logits = switched(&subject, ends, points, |k| {
        order[..turned(k)].iter().flat_map(|&p| pixels_of(layout, width, p)).collect()
    })?;
    let share = |k: usize| turned(k) as f64 / order.len() as f64;
    Ok(logits.iter().enumerate().map(|(k, row)| (share(k), subject.score(value, row))).collect())
}

/// The values of a curve.
pub(super) fn heights(curve: &[(f64, f64)]) -> Vec<f64> {
    curve.iter().map(|(_, value)| *value).collect()
}

impl Metric for Deletion {
    fn score(&self, case: &Case<'_, '_>) -> Result<Option<Score>> {
        let curve = curve(case, true, self.baseline, self.patches, self.value, self.insert)?;
        let area = trapezoid(&heights(&curve));
        Ok(Some(Score::of_curve(area, curve)))
    }

    fn convention(&self) -> String {
        let way = if self.insert { "from the baseline to the image" } else { "from the image to the baseline" };
        let value = value_name(self.value);
        format!("area under the {value}, patches by relevance {way} ({}), {}", self.name, self.patches)
    }

    fn axes(&self) -> Option<Axes> {
        let how = if self.insert { "shown" } else { "hidden" };
        Some(Axes::new(format!("share of patches {how}, most relevant first"), value_name(self.value)))
    }
}
