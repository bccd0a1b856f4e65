//! What context-mixing methods share: the vectors that tokens send each other, and reading layer matrices out.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::combine::{chain, normalise, values, Normalise};
use crate::method::contract::Relevance;
use crate::run::{Layer, Params, Pick, Rows, Run};
use candle_core::Tensor;
use std::ops::Range;

/// Bytes of vectors that are held at once.
const BUDGET: usize = 64 << 20;

/// The parts of one layer's attention output: `u_ij = sum_h A_h[i,j] f^h(z_j)`, layer scale included.
pub struct Vectors {
    /// `[T,H,D]`: `f^h(z_j)`, what a token's value is worth behind the output projection.
    pub parts: Tensor,
    /// `[H,T,T]`
    pub attention: Tensor,
    /// `[T,D]`: the state that enters the layer.
    pub input: Tensor,
}

impl Vectors {
    /// The vectors of a layer.
    pub fn of(run: &Run<'_>, layer: usize) -> Result<Self> {
        let parts = run.block(layer).contributions(&run.value(layer)?)?;
        Ok(Vectors { parts, attention: run.attention(layer)?, input: run.input(layer)? })
    }

    /// The same vectors under a linear map of their components.
    pub fn mapped(self, map: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Vectors { parts: map(&self.parts)?, input: map(&self.input)?, attention: self.attention })
    }

    /// `A_h[i,j]` as `[T(j),R(i),H]` for the picked output tokens i.
    pub fn weights(&self, pick: Pick) -> Result<Tensor> {
        Ok(pick.read_dim(&self.attention, 1)?.permute((2, 1, 0))?.contiguous()?)
    }

    /// Calls `each` with `u_ij` as `[T(j),I,D]` for chunks of the picked output tokens, `extra` numbers a vector being
    /// needed besides, and joins what it returns, `[I,T]`, to `[R,T]`.
    pub fn by_chunks(
        &self,
        pick: Pick,
        extra: usize,
        run: &Run<'_>,
        each: impl Fn(&Tensor, Range<usize>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (tokens, _, d) = self.parts.dims3()?;
        let (first, count) = match pick {
            Pick::One(row) => (row, 1),
            Pick::All => (0, tokens),
            Pick::Pooled(_) => return Err(Error::Usage("vectors are made of single rows".into())),
        };
        let chunk = (BUDGET / (4 * tokens * (d + extra))).clamp(1, count);
        let mut rows = Vec::new();
        for from in (0..count).step_by(chunk) {
            let range = first + from..first + (from + chunk).min(count);
            let weights = self.attention.narrow(1, range.start, range.len())?.permute((2, 1, 0))?.contiguous()?; // [T,I,H]
            rows.push(each(&weights.matmul(&self.parts)?, range.clone())?);
            run.progress(range.end - first, count)?;
        }
        Ok(Tensor::cat(&rows, 0)?)
    }
}

/// 1 where a row's own token stands, `[T(j),I,1]`, for output tokens `range`.
pub fn own_token(range: &Range<usize>, like: &Tensor) -> Result<Tensor> {
    let tokens = like.dim(0)?;
    let eye = Tensor::eye(tokens, like.dtype(), like.device())?;
    Ok(eye.narrow(1, range.start, range.len())?.unsqueeze(2)?.contiguous()?)
}

/// How layer matrices become relevance: one layer's row, or a product over layers.
#[derive(Debug, Clone, Copy)]
pub struct Readout {
    pub rows: Rows,
    layer: Layer,
    rollout: bool,
    start: Layer,
    residual: bool,
    /// Rows of a layer are divided by their sum before layers are multiplied.
    normalise: bool,
}

impl Readout {
    /// The parameters `layer`, `rollout`, `start_layer`, `residual`, `row`, `matrix`.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params, rollout: bool, normalise: bool) -> Result<Self> {
        Ok(Readout {
            layer: params.layer(
                "layer",
                "last",
                "without rollout: the layer that is read, its number from 0, or last",
            )?,
            rollout: params.flag("rollout", rollout, "multiply the layers' matrices instead of reading one layer")?,
            start: params.layer("start_layer", "0", "with rollout: the first layer that takes part")?,
            residual: params.flag("residual", false, "with rollout: add the identity to each layer and halve")?,
            rows: params.rows()?,
            normalise,
        })
    }

    /// Refuses layers and rows the model does not have.
    ///
    /// # Errors
    /// As [`Layer::check`] and [`Rows::check`].
    pub fn check(&self, model: &Facts) -> Result<()> {
        self.layer.check("layer", model)?;
        self.start.check("start_layer", model)?;
        self.rows.check(model)
    }

    /// Relevance from `matrix`, which gives rows `[R,T]` of a layer's matrix.
    ///
    /// # Errors
    /// Whatever `matrix` reports.
    pub fn relevance(&self, run: &Run<'_>, matrix: impl Fn(usize, Pick) -> Result<Tensor>) -> Result<Relevance> {
        let pick = self.rows.pick(run)?;
        if !self.rollout {
            return values(&pick.pool(matrix(self.layer.index(run.layers()), pick.unpooled())?)?);
        }
        let layers = self.start.index(run.layers())..run.layers();
        let product = chain(pick, layers, |layer, pick| {
            let m = matrix(layer, pick)?;
            let m = if self.normalise { normalise(&m, Normalise::Rows)? } else { m };
            if self.residual {
                Ok(((&m + pick.identity(&m)?)? * 0.5)?)
            } else {
                Ok(m)
            }
        })?;
        values(&product)
    }
}
