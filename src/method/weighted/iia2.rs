//! Iterated Integrated Attributions: attention times gradient, integrated over the input and the last attention map.
//!
//! Barkan et al., ICCV 2023, the authors' ViT code (IIA2). For k, m = 0..n, n = `steps` (5): the image times k/n, the last
//! layer using m/n times its own attention map as a constant; `C_l = mean over k, m and heads of (A_h * dy/dA_h)^+`, A of
//! the last layer being the scaled map; row of `rownorm(C_{L-1} + I) ... rownorm(C_0 + I)`, `[T]`. Unsigned,
//! class-specific; (n + 1)^2 passes, of which the lower layers' forward depends on k only. Images only.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{add_identity, chain, normalise, values, Normalise};
use crate::method::contract::{Entry, Method, Relevance};
use crate::nn::Rules;
use crate::run::{Params, Reads, Rows, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "iia2",
    aliases: &["iia"],
    title: "attention x gradient integrated over input and last attention map",
    paper: "Barkan et al., ICCV 2023",
    class_specific: true,
    build: |params: &mut Params| {
        let steps = params.count("steps", 5, "steps of each of the two interpolations", 1..=64)?;
        Ok(Box::new(Iia2 { steps, rows: params.rows()? }))
    },
};

struct Iia2 {
    steps: usize,
    rows: Rows,
}

impl Method for Iia2 {
    fn check(&self, model: &Facts) -> Result<()> {
        model.images_only("the authors interpolate from a black image")?;
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn reads(&self) -> Reads {
        Reads::Logits
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let maps = run.iterated(self.steps)?; // [T,T] a layer
        let rows = chain(self.rows.pick(run)?, 0..run.layers(), |layer, pick| {
            pick.read(&normalise(&add_identity(&maps[layer])?, Normalise::Rows)?)
        })?;
        values(&rows)
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::GRADIENT]
    }
}
