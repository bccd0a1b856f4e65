//! ALTI: how much nearer to a token's new state each token's contribution brings it, through all layers.
//!
//! Ferrando et al., EMNLP 2022. With the vectors of `norm-resln` (BERT) or `norm-res` (ViT, as in the authors' code):
//! `C_ij = (|y_i|_1 - |y_i - T_ij|_1)^+`, rows normalised, `R = C^{L-1} ... C^s` without an added identity (the skip
//! connection is inside). `y_i` is the state behind attention, skip connection and, for BERT, the layer norm.
//!
//! L1 norms need the vectors themselves: they are made for a few output tokens at a time, O(T^2 D H) time and O(T D)
//! memory a token. Parameters: `layer`, `rollout` (default true), `start_layer`, `residual`, `row`, `matrix`.
//! Not class-specific.

use super::vectors::{own_token, Readout, Vectors};
use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{normalise, Normalise};
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Params, Pick, Reads, Rows, Run};
use candle_core::{Tensor, D};

pub(super) const ENTRY: Entry = Entry {
    name: "alti",
    aliases: &[],
    title: "contributions by their distance to the layer's output, through all layers",
    paper: "Ferrando et al., EMNLP 2022",
    class_specific: false,
    build,
};

struct Alti {
    readout: Readout,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Alti { readout: Readout::read(params, true, false)? }))
}

/// Rows `[R,T]` of `C` of a layer, normalised.
fn matrix(run: &Run<'_>, layer: usize, pick: Pick) -> Result<Tensor> {
    let vectors = Vectors::of(run, layer)?;
    let mid = run.mid(layer)?; // [T,D]
    let (vectors, state, divisor) = match run.block(layer).norm_behind_attention() {
        None => (vectors, mid, None),
        Some(norm) => {
            let divisor = norm.deviation(&mid)?; // [T,1]
            let state = norm.linear(&mid)?.broadcast_div(&divisor)?;
            let state = match &norm.bias {
                Some(bias) => state.broadcast_add(&bias.to_dtype(mid.dtype())?)?,
                None => state,
            };
            (vectors.mapped(|v| norm.linear(v))?, state, Some(divisor))
        }
    };
    let rows = vectors.by_chunks(pick, vectors.parts.dim(2)?, run, |mixed, range| {
        let of = |t: &Tensor| t.narrow(0, range.start, range.len())?.unsqueeze(0); // [1,I,.]
        let own = own_token(&range, mixed)?; // [T,I,1]
        let sent = (mixed + own.broadcast_mul(&of(&vectors.input)?)?)?; // v_ij, [T,I,D]
        let sent = match &divisor {
            Some(divisor) => sent.broadcast_div(&of(divisor)?)?,
            None => sent,
        };
        let state = of(&state)?;
        let distance = sent.broadcast_sub(&state)?.abs()?.sum(D::Minus1)?; // [T,I]
        let nearer = state.abs()?.sum(D::Minus1)?.broadcast_sub(&distance)?.relu()?;
        Ok(nearer.t()?.contiguous()?)
    })?;
    normalise(&rows, Normalise::Rows)
}

impl Method for Alti {
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
        self.readout.relevance(run, |layer, pick| matrix(run, layer, pick))
    }
}
