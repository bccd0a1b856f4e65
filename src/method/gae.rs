//! Generic attention explainability: attention weighted by the gradient of the explained class, through all layers.
//!
//! Chefer, Gur & Wolf, ICCV 2021, rules 5 and 6 for self-attention. `R = I`; for l = s..L-1:
//! `Ā = mean_h((dy/dA_h * A_h)^+)`, `R <- R + Ā R`; row of the class token, `[T]`.
//!
//! The clamp acts on each head before the mean. R is not normalised and keeps the identity, so the class token's own
//! entry is at least 1. Parameters: `start_layer` (default 0; `last` is the last layer alone), `row`. Class-specific.

use super::combine::{accumulate, clamp_then_mean, values, Layer, Rows};
use super::{Entry, Facts, Method, Params, Run};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry {
    name: "gae",
    aliases: &["generic-attention-explainability"],
    title: "gradient-weighted attention accumulated through all layers",
    paper: "Chefer, Gur & Wolf, ICCV 2021",
    group: "gradient-weighted attention",
    class_specific: true,
    build,
};

struct Gae {
    start: Layer,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let start = params.layer("start_layer", "0", "the first layer that takes part, or last")?;
    Ok(Box::new(Gae { start, rows: params.rows()? }))
}

impl Method for Gae {
    fn check(&self, model: &Facts) -> Result<()> {
        self.start.check("start_layer", model)?;
        self.rows.check(model)
    }

    fn rows(&self) -> Rows {
        self.rows
    }

    fn explain(&self, run: &Run<'_>) -> Result<Vec<f32>> {
        let layers = self.start.index(run.layers())..run.layers();
        let relevance = accumulate(self.rows.pick(run)?, layers, |layer, pick| {
            pick.read(&clamp_then_mean(&run.attention(layer)?, &run.attention_gradient(layer)?)?)
        })?;
        values(&relevance)
    }
}
