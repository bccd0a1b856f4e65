//! Gradient-weighted rollout: attention rollout in which heads count by the gradient of the explained class.
//!
//! After the `vit-explain` script's gradient version of Abnar & Zuidema, ACL 2020. `E = (mean_h(A_h * dy/dA_h))^+`
//! (averaged first, clamped after: the opposite of `gae`), `a = rownorm((E + I) / 2)`, `R = a^{L-1} ... a^0`, row of
//! the class token, `[T]`.
//!
//! Parameters: `start_layer`; `discard_ratio` as in `rollout`, but entry (0, 0) is not spared (the line doing so is
//! commented out in the script); `normalisation`; `row`. Class-specific.
//!
//! No setting gives the script's own output: its hooks collect attention maps from the first layer to the last but
//! gradients from the last to the first, and it multiplies the two lists entry by entry, so that layer l is weighted by
//! the gradients of layer L-1-l. Here each layer has its own gradients; `normalisation=literal` is the script's division
//! alone.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{add_identity, chain, discard, mean_weighted, normalise, values, Normalise};
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Layer, Params, Reads, Rows, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "grad-rollout",
    aliases: &["gradient-rollout"],
    title: "attention rollout with gradient-weighted heads",
    paper: "Abnar & Zuidema, ACL 2020; Gildenblat, vit-explain 2020",
    class_specific: true,
    build,
};

struct GradRollout {
    start: Layer,
    discard_ratio: f64,
    normalise: Normalise,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(GradRollout {
        start: params.layer("start_layer", "0", "the first layer that takes part")?,
        discard_ratio: params.ratio("discard_ratio", 0.0, "share of each layer's smallest entries set to 0")?,
        normalise: Normalise::read(params)?,
        rows: params.rows()?,
    }))
}

impl Method for GradRollout {
    fn check(&self, model: &Facts) -> Result<()> {
        self.start.check("start_layer", model)?;
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
        let layers = self.start.index(run.layers())..run.layers();
        let relevance = chain(self.rows.pick(run)?, layers, |layer, pick| {
            let gradient = run.attention_gradient(layer)?;
            let weighted = mean_weighted(&run.attention(layer)?, &gradient)?.relu()?; // [T,T]
            let kept = discard(&weighted, self.discard_ratio, false)?;
            // Halving (E + I) first would change nothing: rows are normalised.
            pick.read(&normalise(&add_identity(&kept)?, self.normalise)?)
        })?;
        values(&relevance)
    }
}
