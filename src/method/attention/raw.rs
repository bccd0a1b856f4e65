//! Raw attention: how much the class token attends to each token in one layer.
//!
//! Bahdanau et al., ICLR 2015; Vaswani et al., NeurIPS 2017. `relevance = E_h A^l [row]`, `[T]`.
//!
//! Parameters: `heads` (how heads are joined), `layer` (default last), `row` (default the class token).
//! Not class-specific: it says where the model looks, not what for.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::values;
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Heads, Layer, Params, Reads, Rows, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "attention",
    aliases: &["raw-attention"],
    title: "where the class token looks in one layer",
    paper: "Vaswani et al., NeurIPS 2017",
    class_specific: false,
    build,
};

struct Attention {
    heads: Heads,
    layer: Layer,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let heads = params.heads()?;
    let layer = params.layer("layer", "last", "the layer that is read: its number from 0, or last")?;
    Ok(Box::new(Attention { heads, layer, rows: params.rows()? }))
}

impl Method for Attention {
    fn check(&self, model: &Facts) -> Result<()> {
        self.heads.check(model)?;
        self.layer.check("layer", model)?;
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
        let attention = run.attention(self.layer.index(run.layers()))?; // [H,T,T]
        values(&self.rows.pick(run)?.read(&self.heads.join(&attention)?)?)
    }
}
