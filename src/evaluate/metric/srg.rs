//! Symmetric relevance gain: what knowing the order is worth, from both ends.
//!
//! Blücher, Vielhaben & Strodthoff, TMLR 2024. Area under the class's probability when the *least* influential patches turn
//! into the baseline first, less the area when the *most* influential do. The choice of baseline largely cancels. Higher
//! is better, 0 is what a random order gets. `baseline` (default mean), `patches`, `value` as in `deletion`.

use super::deletion::{curve, heights, read_baseline, read_value, value_name, PatchesAStep};
use crate::error::Result;
use crate::evaluate::contract::{mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::trapezoid;
use crate::run::baseline::ImageBaseline;
use crate::run::{Params, Score as Value};

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
    name: &'static str,
    patches: PatchesAStep,
    value: Value,
}

fn build(params: &mut Params) -> Result<Box<dyn Metric>> {
    let (baseline, name) = read_baseline(params, ["mean", "zero", "black", "blur"])?;
    Ok(Box::new(Gain { baseline, name, patches: PatchesAStep::read(params)?, value: read_value(params)? }))
}

impl Metric for Gain {
    fn score(&self, case: &Case<'_, '_>) -> Result<Option<Score>> {
        let one = |most: bool| curve(case, most, self.baseline, self.patches, self.value, false);
        let (least, most) = (one(false)?, one(true)?);
        let value = trapezoid(&heights(&least)) - trapezoid(&heights(&most));
        Ok(Some(Score::of_curve(value, least.iter().zip(&most).map(|((at, l), (_, m))| (*at, l - m)))))
    }

    fn convention(&self) -> String {
        let (value, by) = (value_name(self.value), self.name);
        format!("area between the {value}'s curves, least and most influential patches first to {by}, {}", self.patches)
    }

    fn axes(&self) -> Option<Axes> {
        let y = format!("{}: least less most influential first", value_name(self.value));
        Some(Axes::new("share of patches hidden", y))
    }
}
