//! Attention rollout: how much of each token reaches the class token through all layers, if values only ever mix.
//!
//! Abnar & Zuidema, ACL 2020. `Â = rownorm(E_h A + I)`, `R = Â^{L-1} ... Â^s`, row of the class token, `[T]`.
//!
//! Parameters: `heads`; `start_layer` (lower layers are ignored); `residual=false` leaves out the identity and the
//! normalisation; `discard_ratio` sets that share of each layer's smallest entries to 0, sparing entry (0, 0), as the
//! `vit-explain` script does (for every image, not only the first of a batch); `normalisation=literal` repeats that
//! script's division of entry (i, j) by the sum of row j. Not class-specific.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{add_identity, chain, discard, normalise, values, Normalise};
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Heads, Layer, Params, Reads, Rows, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "rollout",
    aliases: &["attention-rollout"],
    title: "attention multiplied through all layers",
    paper: "Abnar & Zuidema, ACL 2020",
    class_specific: false,
    build,
};

struct Rollout {
    heads: Heads,
    start: Layer,
    residual: bool,
    discard_ratio: f64,
    normalise: Normalise,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Rollout {
        heads: params.heads()?,
        start: params.layer("start_layer", "0", "the first layer that takes part")?,
        residual: params.flag("residual", true, "add the identity for the skip connection and normalise rows")?,
        discard_ratio: params.ratio("discard_ratio", 0.0, "share of each layer's smallest entries set to 0")?,
        normalise: Normalise::read(params)?,
        rows: params.rows()?,
    }))
}

impl Method for Rollout {
    fn check(&self, model: &Facts) -> Result<()> {
        self.heads.check(model)?;
        self.start.check("start_layer", model)?;
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn agnostic(&self) -> bool {
        true
    }

    fn reads(&self) -> Reads {
        Reads::Attention
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let layers = self.start.index(run.layers())..run.layers();
        let relevance = chain(self.rows.pick(run)?, layers, |layer, pick| {
            let joined = self.heads.join(&run.attention(layer)?)?; // [T,T]
            let kept = discard(&joined, self.discard_ratio, true)?;
            let mixed = if self.residual { normalise(&add_identity(&kept)?, self.normalise)? } else { kept };
            pick.read(&mixed)
        })?;
        values(&relevance)
    }
}
