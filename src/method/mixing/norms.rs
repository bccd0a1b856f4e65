//! Norm-based attribution: not how much a token is attended to, but how long the vector is that it sends.
//!
//! With `u_ij = sum_h A_h[i,j] f^h(z_j)` (heads summed before the norm, value bias inside, output bias not), the skip
//! connection `v_ij = u_ij + delta_ij x_i`, and `ln_y(v) = gamma * (v - mean v) / sqrt(var y + eps)`, the linear part
//! of a layer norm at its actual input:
//!
//! - `norm`: `|u_ij|` (Kobayashi et al., EMNLP 2020);
//! - `norm-res`: `|v_ij|`, `norm-resln`: `|ln_m(v_ij)|` at the state m behind the skip connection (EMNLP 2021). Models
//!   with the norm in front have none there; the norm that reads m, the feed-forward's, stands in (ours);
//! - `globenc`: `|ln_g(ln_m(v_ij))|` through both norms of a BERT layer, multiplied over layers without normalisation
//!   (Modarressi et al., NAACL 2022); refused for models with the norm in front.
//!
//! L2 norms come from Gram matrices of each token's H vectors, O(T D H^2 + T^2 H^2), so no T x T x D array is made.
//! Parameters: `layer`, `rollout`, `start_layer`, `residual`, `row`, `matrix`. Not class-specific.

use super::vectors::{Readout, Vectors};
use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Params, Pick, Reads, Rows, Run};
use candle_core::{Tensor, D};

pub(super) const NORM: Entry = Entry {
    name: "norm",
    aliases: &["attention-norm"],
    title: "length of the vector each token sends in a layer",
    paper: "Kobayashi et al., EMNLP 2020",
    class_specific: false,
    build: |params| build(params, Kind::Norm),
};

pub(super) const NORM_RES: Entry = Entry {
    name: "norm-res",
    title: "the same with the skip connection",
    paper: "Kobayashi et al., EMNLP 2021",
    build: |params| build(params, Kind::Res),
    aliases: &["attnres-n"],
    ..NORM
};

pub(super) const NORM_RESLN: Entry = Entry {
    name: "norm-resln",
    title: "the same with skip connection and layer norm",
    paper: "Kobayashi et al., EMNLP 2021",
    build: |params| build(params, Kind::ResLn),
    aliases: &["attnresln-n"],
    ..NORM
};

pub(super) const GLOBENC: Entry = Entry {
    name: "globenc",
    title: "the same with both layer norms, through all layers (BERT family)",
    paper: "Modarressi et al., NAACL 2022",
    build: |params| build(params, Kind::GlobEnc),
    aliases: &[],
    ..NORM
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Norm,
    Res,
    ResLn,
    GlobEnc,
}

struct Norms {
    kind: Kind,
    readout: Readout,
}

fn build(params: &mut Params, kind: Kind) -> Result<Box<dyn Method>> {
    let globenc = kind == Kind::GlobEnc;
    Ok(Box::new(Norms { kind, readout: Readout::read(params, globenc, !globenc)? }))
}

impl Norms {
    /// Rows `[R,T]` of a layer's norms.
    fn matrix(&self, run: &Run<'_>, layer: usize, pick: Pick) -> Result<Tensor> {
        let block = run.block(layer);
        let vectors = Vectors::of(run, layer)?;
        let after = || block.norm_after_attention().ok_or_else(|| lacking("no norm reads the state behind attention"));
        let (vectors, divisor) = match self.kind {
            Kind::Norm | Kind::Res => (vectors, None),
            Kind::ResLn => {
                let norm = after()?;
                (vectors.mapped(|v| norm.linear(v))?, Some(norm.deviation(&run.mid(layer)?)?))
            }
            Kind::GlobEnc => {
                let (first, second) = (after()?, block.norm_behind_feed_forward());
                let second = second.ok_or_else(|| lacking("globenc is defined for the BERT family only"))?;
                let both = vectors.mapped(|v| second.linear(&first.linear(v)?))?;
                (both, Some((first.deviation(&run.mid(layer)?)? * second.deviation(&run.sum(layer)?)?)?))
            }
        };
        let squared = squared_norms(&vectors, pick)?;
        let squared = if self.kind == Kind::Norm { squared } else { with_skip(&vectors, &squared, pick)? };
        let norms = squared.relu()?.sqrt()?;
        Ok(match divisor {
            Some(divisor) => norms.broadcast_div(&pick.read(&divisor)?)?,
            None => norms,
        })
    }
}

/// `|u_ij|^2 = a_ij K_j a_ij` with the Gram matrix `K_j` of token j's H vectors, `[R,T]`.
fn squared_norms(vectors: &Vectors, pick: Pick) -> Result<Tensor> {
    let gram = vectors.parts.matmul(&vectors.parts.t()?)?; // [T,H,H]
    let weights = vectors.weights(pick)?; // [T(j),R(i),H]
    Ok((weights.matmul(&gram)? * weights)?.sum(D::Minus1)?.t()?.contiguous()?)
}

/// Replaces each row's own entry by `|u_ii + x_i|^2`, `[R,T]`.
fn with_skip(vectors: &Vectors, squared: &Tensor, pick: Pick) -> Result<Tensor> {
    let tokens = vectors.parts.dim(0)?;
    let own: Vec<Tensor> = (0..tokens)
        .map(|i| Ok(vectors.attention.narrow(1, i, 1)?.narrow(2, i, 1)?.reshape((1, 1, ()))?))
        .collect::<Result<_>>()?;
    let own = Tensor::cat(&own, 0)?.contiguous()?; // [T,1,H]
    let diagonal = (own.matmul(&vectors.parts)?.squeeze(1)? + &vectors.input)?.sqr()?.sum(1)?; // [T]
    let identity = pick.identity(squared)?;
    let off = (squared * identity.affine(-1.0, 1.0)?)?;
    Ok((off + identity.broadcast_mul(&diagonal.unsqueeze(0)?)?)?)
}

fn lacking(why: &str) -> Error {
    Error::Refused(why.into())
}

impl Method for Norms {
    fn check(&self, model: &Facts) -> Result<()> {
        model.values_add_up()?;
        if self.kind == Kind::GlobEnc && !model.post_norm {
            return Err(Error::Refused(
                "globenc is defined for encoders with the layer norm behind each sub-layer (BERT family); norm-resln is its nearest kin for others".into(),
            ));
        }
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
