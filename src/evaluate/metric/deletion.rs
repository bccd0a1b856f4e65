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
use crate::evaluate::contract::{answered, mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::{image_layout, patches, ranked, trapezoid};
use crate::run::baseline::ImageBaseline;
use crate::run::modes::{led_by, name_of};
use crate::run::removal::{pixels_of, switched};
use crate::run::{Ask, Logits, Params, Score as Value};

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

/// `baseline`
pub(super) fn read_baseline(params: &mut Params, default: ImageBaseline) -> Result<ImageBaseline> {
    let about = "what patches turn into, or come from: zero (the processor's mean colour), black, mean, blur";
    params.one_of("baseline", &led_by(ImageBaseline::NAMES, default), about)
}

/// `value=probability|logit`
pub(super) fn read_value(params: &mut Params) -> Result<Value> {
    params.measure("value", Value::Probability, "what is measured of the class")
}

fn build(params: &mut Params, insert: bool) -> Result<Box<dyn Metric>> {
    let baseline = read_baseline(params, if insert { ImageBaseline::Blur } else { ImageBaseline::Zero })?;
    let patches = PatchesAStep::read(params)?;
    Ok(Box::new(Deletion { insert, baseline, patches, value: read_value(params)? }))
}

/// Patches of a ranking that turn, step by step, from the image into a baseline (or back: `insert`).
#[derive(Clone, Copy)]
pub(super) struct Turning {
    pub(super) descending: bool,
    pub(super) insert: bool,
    pub(super) baseline: ImageBaseline,
    pub(super) patches: PatchesAStep,
}

impl Turning {
    /// An image at every step.
    pub(super) fn ask<'a>(self, case: &'a Case<'_, '_>) -> Result<Ask<'a>> {
        let (subject, layout) = (case.run.subject()?, image_layout(case.explanation)?);
        let order = ranked(&patches(case.explanation), self.descending);
        let image = subject.values()?;
        let blank = self.baseline.of(&image, case.run.encoder())?;
        let ends = if self.insert { (&blank, &image) } else { (&image, &blank) };
        let (width, points) = (subject.size()?.1, self.points(order.len()));
        switched(subject, ends, points, move |k| {
            order[..self.turned(k, order.len())].iter().flat_map(|&p| pixels_of(layout, width, p)).collect()
        })
    }

    fn points(self, patches: usize) -> usize {
        patches.div_ceil(self.patches.of(patches)) + 1
    }

    /// How many patches have turned at a step.
    fn turned(self, k: usize, patches: usize) -> usize {
        (k * self.patches.of(patches)).min(patches)
    }

    /// The share of patches that have turned at each step, and the explained value there.
    pub(super) fn curve(self, case: &Case<'_, '_>, value: Value, answer: &Logits) -> Vec<(f64, f64)> {
        let patches = case.explanation.content().len();
        let share = |k: usize| self.turned(k, patches) as f64 / patches as f64;
        answer.iter().enumerate().map(|(k, row)| (share(k), case.run.score(value, row))).collect()
    }
}

/// The values of a curve.
pub(super) fn heights(curve: &[(f64, f64)]) -> Vec<f64> {
    curve.iter().map(|(_, value)| *value).collect()
}

impl Deletion {
    fn turning(&self) -> Turning {
        Turning { descending: true, insert: self.insert, baseline: self.baseline, patches: self.patches }
    }
}

impl Metric for Deletion {
    fn asks<'a>(&'a self, case: &'a Case<'_, '_>) -> Result<Vec<Ask<'a>>> {
        Ok(vec![self.turning().ask(case)?])
    }

    fn score(&self, case: &Case<'_, '_>, answers: &[Logits]) -> Result<Option<Score>> {
        let [answer] = answered(answers)?;
        let curve = self.turning().curve(case, self.value, answer);
        let area = trapezoid(&heights(&curve));
        Ok(Some(Score::of_curve(area, curve)))
    }

    fn convention(&self) -> String {
        let way = if self.insert { "from the baseline to the image" } else { "from the image to the baseline" };
        let (value, by) = (name_of(Value::NAMES, self.value), name_of(ImageBaseline::NAMES, self.baseline));
        format!("area under the {value}, patches by relevance {way} ({by}), {}", self.patches)
    }

    fn axes(&self) -> Option<Axes> {
        let how = if self.insert { "shown" } else { "hidden" };
        Some(Axes::new(format!("share of patches {how}, most relevant first"), name_of(Value::NAMES, self.value)))
    }
}
