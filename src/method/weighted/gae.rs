//! Generic attention explainability: attention weighted by the gradient of the explained class, through all layers.
//!
//! Chefer, Gur & Wolf, ICCV 2021, rules 5 and 6 for self-attention. `R = I`; for l = s..L-1:
//! `Ā = mean_h((dy/dA_h * A_h)^+)`, `R <- R + Ā R`; row of the class token, `[T]`.
//!
//! The clamp acts on each head before the mean. R is not normalised and keeps the identity, so the class token's own
//! entry is at least 1. Parameters: `start_layer` (default 0; `last` is the last layer alone), `libra` (dy/dA of LibraGrad's
//! reverse pass), `row`. Class-specific.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{accumulate, clamp_then_mean, values};
use crate::method::contract::{Entry, Method, Relevance};
use crate::nn::Rules;
use crate::run::{Layer, Params, Reads, Rows, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "gae",
    aliases: &["generic-attention-explainability"],
    title: "gradient-weighted attention accumulated through all layers",
    paper: "Chefer, Gur & Wolf, ICCV 2021",
    class_specific: true,
    build,
};

struct Gae {
    start: Layer,
    rules: Rules,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let start = params.layer("start_layer", "0", "the first layer that takes part, or last")?;
    Ok(Box::new(Gae { start, rules: params.libra()?, rows: params.rows()? }))
}

impl Method for Gae {
    fn check(&self, model: &Facts) -> Result<()> {
        self.start.check("start_layer", model)?;
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }

    fn reads(&self) -> Reads {
        Reads::Gradients
    }

    fn top_down(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let layers = self.start.index(run.layers())..run.layers();
        let relevance = accumulate(self.rows.pick(run)?, layers, |layer, pick| {
            let gradient = run.attention_under(&self.rules, layer)?;
            pick.read(&clamp_then_mean(&run.attention(layer)?, &gradient)?)
        })?;
        values(&relevance)
    }
}
