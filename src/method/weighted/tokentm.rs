//! TokenTM: attention weighted by its gradient and by how tokens change, multiplied through all layers.
//!
//! Wu et al., CVPR 2024, in the form LibraGrad's authors implemented (no code by its own authors could be found). With
//! x, a, y the states entering a layer, after attention and leaving it, A the mean over heads, `G = mean_h (dy/dA_h)^+`:
//! `s(u,v)_i = |v_i| / (|u_i| + 1e-8) softmax_i(cos(u_i, v_i))`, `C <- (I + diag s(a,y)) (I + (A diag s(x,a)) * G) C` from
//! `C = diag |x^0_i|`; row of the class token, `[T]`. Unsigned, class-specific. Parameters: `libra` (G of LibraGrad's
//! reverse pass), `row`, `matrix`.
//!
//! Refused for texts: behind a layer norm every token has the same length, so the ratios measure nothing.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{add_identity, chain, values};
use crate::method::contract::{Entry, Method, Relevance};
use crate::nn::Rules;
use crate::run::{Params, Pick, Reads, Rows, Run};
use candle_core::{Tensor, D};

pub(super) const ENTRY: Entry = Entry {
    name: "tokentm",
    aliases: &[],
    title: "attention x gradient, weighted by how tokens are transformed",
    paper: "Wu et al., CVPR 2024",
    class_specific: true,
    build: |params: &mut Params| Ok(Box::new(TokenTm { rules: params.libra()?, rows: params.rows()? })),
};

struct TokenTm {
    rules: Rules,
    rows: Rows,
}

/// Lengths of a state's tokens, `[T]`.
fn lengths(x: &Tensor) -> Result<Tensor> {
    Ok(x.sqr()?.sum(D::Minus1)?.sqrt()?)
}

/// `s(before, after)`, `[T]`.
fn change(before: &Tensor, after: &Tensor) -> Result<Tensor> {
    let (b, a) = (lengths(before)?, lengths(after)?);
    let cosine = ((before * after)?.sum(D::Minus1)? / (&b * &a)?.maximum(1e-8)?)?;
    let share = candle_nn::ops::softmax_last_dim(&cosine)?;
    Ok(((a / (b + 1e-8)?)? * share)?)
}

impl TokenTm {
    /// A layer's factor, `[T,T]`.
    fn transform(&self, run: &Run<'_>, layer: usize) -> Result<Tensor> {
        let (x, a, y) = (run.input(layer)?, run.mid(layer)?, run.output_state(layer)?); // [T,D]
        let gradient = run.attention_under(&self.rules, layer)?.relu()?.mean(0)?; // [T,T]
        let attention = run.attention(layer)?.mean(0)?.broadcast_mul(&change(&x, &a)?.unsqueeze(0)?)?;
        let mixed = add_identity(&(attention * gradient)?)?;
        // (I + diag s) M scales the rows of M by 1 + s.
        Ok(mixed.broadcast_mul(&(change(&a, &y)? + 1.0)?.unsqueeze(1)?)?)
    }
}

impl Method for TokenTm {
    fn check(&self, model: &Facts) -> Result<()> {
        model.images_only("a layer norm behind each sub-layer gives all tokens the same length")?;
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn reads(&self) -> Reads {
        Reads::States
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let layer = |l: usize, pick: Pick| pick.read(&self.transform(run, l)?);
        let rows = chain(self.rows.pick(run)?, 0..run.layers(), layer)?; // [R,T]
        values(&rows.broadcast_mul(&lengths(&run.input(0)?)?.unsqueeze(0)?)?)
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }
}
