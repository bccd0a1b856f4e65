//! Attention times gradient in one layer: which of the class token's looks speak for the explained class.
//!
//! The single-layer building block of Chefer, Gur & Wolf, ICCV 2021. `relevance = mean_h(A_h * dy/dA_h) [row]`, `[T]`,
//! signed; `clamp=true` clamps each head at 0 before the mean. Parameters: `layer` (default last), `clamp`, `row`.
//! Class-specific.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{clamp_then_mean, mean_weighted, values};
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Layer, Params, Reads, Rows, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "grad-attention",
    aliases: &["attention-grad"],
    title: "attention times its gradient in one layer, signed",
    paper: "Chefer, Gur & Wolf, ICCV 2021",
    class_specific: true,
    build,
};

struct GradAttention {
    layer: Layer,
    clamp: bool,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let layer = params.layer("layer", "last", "the layer that is read: its number from 0, or last")?;
    let clamp = params.flag("clamp", false, "clamp each head at 0 before the mean")?;
    Ok(Box::new(GradAttention { layer, clamp, rows: params.rows()? }))
}

impl Method for GradAttention {
    fn check(&self, model: &Facts) -> Result<()> {
        self.layer.check("layer", model)?;
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn reads(&self) -> Reads {
        Reads::Gradients
    }

    fn top_down(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let layer = self.layer.index(run.layers());
        let (attention, gradient) = (run.attention(layer)?, run.attention_gradient(layer)?);
        let join = if self.clamp { clamp_then_mean } else { mean_weighted };
        values(&self.rows.pick(run)?.read(&join(&attention, &gradient)?)?)
    }

    fn signed(&self) -> bool {
        !self.clamp
    }
}
