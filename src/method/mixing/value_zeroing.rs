//! Value zeroing: how much a token's new state changes when another token's value is taken away.
//!
//! Mohebbi et al., EACL 2023. In each layer, attention and states stay; the value of token j is set to zero in all
//! heads (bias included) and the layer is recomputed to its end. `raw[i,j] = 1 - cos(x'_i, x'_i without j)`, the
//! diagonal like any other entry; rows normalised. `relevance` is the last layer's row, or with `rollout=true` that of
//! the layers' product.
//!
//! Without j's value, only `mid_i - u_ij` changes (see `mixing.rs`), so attention, values and projections are computed
//! once and what follows runs on T vectors for each output token that is read, a few tokens at a time. `1 - cos` is
//! computed as half the squared distance of the normalised states: the same number without cancellation.
//! Parameters: `normalise=false` keeps the raw values; `layer`, `rollout`, `start_layer`, `residual`, `row`, `matrix`.
//! Not class-specific.

use super::vectors::{Readout, Vectors};
use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{normalise, Normalise};
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Params, Pick, Reads, Rows, Run};
use candle_core::{Tensor, D};

pub(super) const ENTRY: Entry = Entry {
    name: "value-zeroing",
    aliases: &[],
    title: "change of a token's state when another's value is taken away",
    paper: "Mohebbi et al., EACL 2023",
    class_specific: false,
    build,
};

struct ValueZeroing {
    readout: Readout,
    normalise: bool,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let readout = Readout::read(params, false, false)?;
    let normalise = params.flag("normalise", true, "divide each row by its sum")?;
    Ok(Box::new(ValueZeroing { readout, normalise }))
}

impl ValueZeroing {
    /// Rows `[R,T]` of a layer.
    fn matrix(&self, run: &Run<'_>, layer: usize, pick: Pick) -> Result<Tensor> {
        let block = run.block(layer);
        let dtype = run.encoder().dtype();
        let (mid, whole) = (run.mid(layer)?, unit(&run.output_state(layer)?)?); // [T,D]
        let vectors = Vectors::of(run, layer)?;
        let rows = vectors.by_chunks(pick, 2 * block.hidden_width(), run, |mixed, range| {
            let of = |t: &Tensor| t.narrow(0, range.start, range.len())?.unsqueeze(0); // [1,I,D]
            let without = of(&mid)?.broadcast_sub(mixed)?; // [T(j),I,D]
            let output = block.finish(&without.to_dtype(dtype)?)?.output;
            let output = unit(&output.to_dtype(mid.dtype())?)?;
            let change = (output.broadcast_sub(&of(&whole)?)?.sqr()?.sum(D::Minus1)? * 0.5)?; // [T(j),I]
            Ok(change.t()?.contiguous()?)
        })?;
        if self.normalise {
            normalise(&rows, Normalise::Rows)
        } else {
            Ok(rows)
        }
    }
}

/// Vectors of the last dimension, divided by their length.
fn unit(x: &Tensor) -> Result<Tensor> {
    Ok(x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
}

impl Method for ValueZeroing {
    fn check(&self, model: &Facts) -> Result<()> {
        model.values_add_up()?;
        self.readout.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.readout.rows)
    }

    fn agnostic(&self) -> bool {
        true
    }

    fn reads(&self) -> Reads {
        Reads::States
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        self.readout.relevance(run, |layer, pick| self.matrix(run, layer, pick))
    }
}
