//! Symmetric relevance gain: what knowing the order is worth, from both ends.
//!
//! Blücher, Vielhaben & Strodthoff, TMLR 2024. Area under the class's probability when the *least* influential patches turn
//! into the baseline first, less the area when the *most* influential do. The choice of baseline largely cancels. Higher
//! is better, 0 is what a random order gets. `baseline` (default mean), `patches`, `value` as in `deletion`.

use super::deletion::{heights, read_baseline, read_value, PatchesAStep, Turning};
use crate::error::Result;
use crate::evaluate::contract::{answered, mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::trapezoid;
use crate::run::baseline::ImageBaseline;
use crate::run::modes::name_of;
use crate::run::{Ask, Logits, Params, Score as Value};

pub(in crate::evaluate) const ENTRY: Entry = Entry {
    name: "srg",
    title: "symmetric relevance gain: least influential first minus most influential first",
    paper: "Blücher et al., TMLR 2024",
    direction: Direction::Higher,
    images: true,
    texts: false,
    needs: Needs::Nothing,
    default: true,
    build,
    pool: mean,
};

struct Gain {
    baseline: ImageBaseline,
    patches: PatchesAStep,
    value: Value,
}

fn build(params: &mut Params) -> Result<Box<dyn Metric>> {
    let baseline = read_baseline(params, ImageBaseline::Mean)?;
    Ok(Box::new(Gain { baseline, patches: PatchesAStep::read(params)?, value: read_value(params)? }))
}

impl Gain {
    /// Least and most influential patches first.
    fn turnings(&self) -> [Turning; 2] {
        let (baseline, patches) = (self.baseline, self.patches);
        [false, true].map(|descending| Turning { descending, insert: false, baseline, patches })
    }
}

impl Metric for Gain {
    fn asks<'a>(&'a self, case: &'a Case<'_, '_>) -> Result<Vec<Ask<'a>>> {
        self.turnings().into_iter().map(|turning| turning.ask(case)).collect()
    }

    fn score(&self, case: &Case<'_, '_>, answers: &[Logits]) -> Result<Option<Score>> {
        let ([first, second], [below, above]) = (self.turnings(), answered(answers)?);
        let (least, most) = (first.curve(case, self.value, below), second.curve(case, self.value, above));
        let value = trapezoid(&heights(&least)) - trapezoid(&heights(&most));
        Ok(Some(Score::of_curve(value, least.iter().zip(&most).map(|((at, l), (_, m))| (*at, l - m)))))
    }

    fn convention(&self) -> String {
        let (value, by) = (name_of(Value::NAMES, self.value), name_of(ImageBaseline::NAMES, self.baseline));
        format!("area between the {value}'s curves, least and most influential patches first to {by}, {}", self.patches)
    }

    fn axes(&self) -> Option<Axes> {
        let y = format!("{}: least less most influential first", name_of(Value::NAMES, self.value));
        Some(Axes::new("share of patches hidden", y))
    }
}
