//! Scores of contents and places apart (DeBERTa).

use crate::error::{Error, Result};
use crate::nn::kernels::{self, Order};
use crate::nn::Linear;
use candle_core::{Tensor, D};

/// Scores of contents and places apart (He et al., ICLR 2021): `(q_i k_j + q_i K[d(i,j)] + k_j Q[d(i,j)]) / sqrt(n E)` for the n of
/// these terms that there are, where d is where the query is, seen from the key.
#[derive(Debug, Clone)]
pub struct Disentangled {
    /// `[2S,D]` embeddings of differences of places, from -S to S - 1, as the projections read them.
    pub places: Tensor,
    /// To K, `[2S,D]`: what a query asks of a place; none without this term.
    pub keys: Option<Linear>,
    /// To Q, `[2S,D]`: what a place asks of a key; none without this term.
    pub queries: Option<Linear>,
    /// Differences are counted one by one up to half of so many buckets, and logarithmically up to the second number; none: one by
    /// one.
    pub buckets: Option<(usize, usize)>,
}

impl Disentangled {
    /// The two terms beside the product of contents, `[B,H,T,T]`; none without either.
    pub(super) fn terms(&self, query: &Tensor, key: &Tensor, scale: f64) -> Result<Option<Tensor>> {
        let (shape, tokens) = (query.dims4()?, query.dim(2)?);
        let term = |map: &Linear, x: &Tensor, way: Way| -> Result<Tensor> {
            let asked = kernels::matmul_heads(x, &self.projected(map, shape)?.t()?, scale, Order::Heads)?; // [B,H,T,2S]
            Ok(asked.gather(&self.index(shape, tokens, way)?, D::Minus1)?)
        };
        let by_query = self.keys.as_ref().map(|map| term(map, query, Way::FromQuery)).transpose()?;
        let by_key = self
            .queries
            .as_ref()
            .map(|map| term(map, key, Way::FromKey)?.t()?.contiguous().map_err(Error::from))
            .transpose()?;
        Ok(match (by_query, by_key) {
            (Some(a), Some(b)) => Some((a + b)?),
            (one, other) => one.or(other),
        })
    }

    /// What reaches queries and keys through the two terms, `[B,H,T,E]` each, before any scaling.
    pub(super) fn reverse(&self, query: &Tensor, arriving: &Tensor) -> Result<(Tensor, Tensor)> {
        let (shape, tokens) = (query.dims4()?, query.dim(2)?);
        let back = |map: &Option<Linear>, arriving: Tensor, way: Way| -> Result<Tensor> {
            let Some(map) = map else { return Ok(query.zeros_like()?) };
            let places = self.places.dim(0)?;
            let empty = Tensor::zeros((shape.0, shape.1, tokens, places), query.dtype(), query.device())?;
            let each = empty.scatter_add(&self.index(shape, tokens, way)?, &arriving, D::Minus1)?; // [B,H,T,2S]
            kernels::matmul_heads(&each, &self.projected(map, shape)?, 1.0, Order::Rows)
        };
        let by_key = arriving.t()?.contiguous()?;
        Ok((back(&self.keys, arriving.contiguous()?, Way::FromQuery)?, back(&self.queries, by_key, Way::FromKey)?))
    }

    /// Places through a projection, a head each, `[B,H,2S,E]`.
    fn projected(&self, map: &Linear, (b, h, _, e): (usize, usize, usize, usize)) -> Result<Tensor> {
        let places = self.places.dim(0)?;
        let heads = map.forward(&self.places)?.reshape((1, places, h, e))?.transpose(1, 2)?; // [1,H,2S,E]
        Ok(heads.broadcast_as((b, h, places, e))?)
    }

    /// The place of each pair of tokens, `[B,H,T,T]` u32.
    fn index(&self, (b, h, _, _): (usize, usize, usize, usize), tokens: usize, way: Way) -> Result<Tensor> {
        let span = (self.places.dim(0)? / 2) as i64;
        let place = |n: usize| {
            let (row, column) = ((n / tokens) as i64, (n % tokens) as i64);
            let seen = match way {
                Way::FromQuery => self.bucket(row - column),
                Way::FromKey => -self.bucket(row - column),
            };
            (seen + span).clamp(0, 2 * span - 1) as u32
        };
        let index: Vec<u32> = (0..tokens * tokens).map(place).collect();
        let index = Tensor::from_vec(index, (1, 1, tokens, tokens), self.places.device())?;
        Ok(index.broadcast_as((b, h, tokens, tokens))?.contiguous()?)
    }

    /// A difference of places, as it is counted. In f32, as the weights were trained.
    fn bucket(&self, difference: i64) -> i64 {
        let Some((buckets, most)) = self.buckets else { return difference };
        let middle = (buckets / 2) as i64;
        let size = difference.abs();
        if size <= middle {
            return difference;
        }
        let share = (size as f32 / middle as f32).ln() / ((most as f32 - 1.0) / middle as f32).ln();
        ((share * (middle as f32 - 1.0)).ceil() as i64 + middle) * difference.signum()
    }
}

/// Whose row of products a difference of places is looked up in.
#[derive(Debug, Clone, Copy)]
enum Way {
    FromQuery,
    FromKey,
}
