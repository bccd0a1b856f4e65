//! Any aggregation of attention over heads and layers: the grid one searches when aggregation is a hyper-parameter.
//!
//! `E` joins a layer's heads: `mean`, `max`, `min`, one head's number, `grad` = `mean_h((A*G)^+)` (as in `gae`), or
//! `grad-post` = `(mean_h A*G)^+` (as in `grad-rollout`). `layers` joins the layers from `start_layer` on: `last` (E of
//! the last layer), `mean`, `rollout` (product of `rownorm(E + I)`), or `gae` (`R <- R + E R`). Row of the class token.
//!
//! With `mean`, `max`, `min` or one head the map is not class-specific.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::{
    accumulate, add_identity, chain, clamp_then_mean, mean_weighted, normalise, stacked, values, Normalise,
};
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Heads, Layer, Params, Pick, Reads, Rows, Run};
use candle_core::Tensor;

pub(super) const ENTRY: Entry = Entry {
    name: "aggregate",
    aliases: &[],
    title: "any aggregation over heads and layers",
    paper: "a grid over the rules of Abnar & Zuidema 2020 and Chefer et al. 2021",
    class_specific: true,
    build,
};

#[derive(Clone, Copy)]
enum Joined {
    Attention(Heads),
    Gradient,
    GradientPost,
}

impl Joined {
    const NAMES: &'static [(&'static str, Self)] = &[("grad", Joined::Gradient), ("grad-post", Joined::GradientPost)];

    fn parse(text: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, joined)| *joined);
        named.or_else(|| Heads::parse(text).map(Joined::Attention))
    }
}

/// How layers are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Rollout,
    Gae,
    Mean,
    Last,
}

impl Through {
    const NAMES: &'static [(&'static str, Self)] =
        &[("rollout", Through::Rollout), ("gae", Through::Gae), ("mean", Through::Mean), ("last", Through::Last)];
}

struct Aggregate {
    heads: Joined,
    layers: Through,
    start: Layer,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let heads =
        params.heads_or("heads", "grad", "grad, grad-post, mean, max, min, or one head's number", Joined::parse)?;
    let about = "how layers are joined: rollout, gae, mean or last";
    let layers = params.one_of("layers", Through::NAMES, about)?;
    let start = params.layer("start_layer", "0", "the first layer that takes part")?;
    Ok(Box::new(Aggregate { heads, layers, start, rows: params.rows()? }))
}

impl Aggregate {
    /// E of a layer, `[R,T]`.
    fn joined(&self, run: &Run<'_>, layer: usize, pick: Pick) -> Result<Tensor> {
        let attention = run.attention(layer)?; // [H,T,T]
        pick.read(&match self.heads {
            Joined::Attention(heads) => heads.join(&attention)?,
            Joined::Gradient => clamp_then_mean(&attention, &run.attention_gradient(layer)?)?,
            Joined::GradientPost => mean_weighted(&attention, &run.attention_gradient(layer)?)?.relu()?,
        })
    }
}

impl Method for Aggregate {
    fn check(&self, model: &Facts) -> Result<()> {
        if let Joined::Attention(heads) = self.heads {
            heads.check(model)?;
        }
        self.start.check("start_layer", model)?;
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn agnostic(&self) -> bool {
        matches!(self.heads, Joined::Attention(_))
    }

    fn reads(&self) -> Reads {
        match self.heads {
            Joined::Attention(_) => Reads::Attention,
            Joined::Gradient | Joined::GradientPost => Reads::Gradients,
        }
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (pick, layers) = (self.rows.pick(run)?, self.start.index(run.layers())..run.layers());
        let last = run.layers() - 1;
        values(&match self.layers {
            Through::Last => pick.read(&self.joined(run, last, Pick::All)?)?,
            Through::Mean => stacked(layers.map(|l| self.joined(run, l, pick)))?.mean(0)?,
            Through::Gae => accumulate(pick, layers, |l, pick| self.joined(run, l, pick))?,
            Through::Rollout => chain(pick, layers, |l, pick| {
                pick.read(&normalise(&add_identity(&self.joined(run, l, Pick::All)?)?, Normalise::Rows)?)
            })?,
        })
    }
}
