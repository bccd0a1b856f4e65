//! Scores of directions alone (Liu et al., CVPR 2022: Swin v2): `s_h cos(q, k)`, and a number from a table.

use super::Relative;
use crate::error::Result;
use crate::nn::norm::Norm;
use crate::nn::rules::{NormRule, Rules, SoftmaxRule};
use candle_core::Tensor;

/// Below this a vector has no direction (as in PyTorch's `normalize`).
const SHORT: f64 = 1e-12;

/// Cosines of queries and keys.
#[derive(Debug, Clone)]
pub struct Cosine {
    /// `[H]` what they are multiplied by.
    pub scale: Tensor,
    /// What is added.
    pub table: Relative,
}

impl Cosine {
    /// Queries and keys `[B,H,T,E]` as they enter the product: of length 1, the queries times the scale.
    pub(super) fn placed(&self, query: &Tensor, key: &Tensor) -> Result<(Tensor, Tensor)> {
        let query = unit(query)?.forward(query)?;
        Ok((query.broadcast_mul(&self.scales(&query)?)?, unit(key)?.forward(key)?))
    }

    /// From those to queries and keys. Their lengths are what a norm's deviation is to other states.
    pub(super) fn reverse(
        &self,
        (query, key): (&Tensor, &Tensor),
        (by_query, by_key): (&Tensor, &Tensor),
        rules: &Rules,
    ) -> Result<(Tensor, Tensor)> {
        if rules.softmax == SoftmaxRule::Identity {
            return Ok((by_query.clone(), by_key.clone())); // relevance, which no scaling changes
        }
        let by_query = by_query.broadcast_mul(&self.scales(query)?)?;
        let back = |x: &Tensor, arriving: &Tensor| match rules.norm {
            NormRule::Gradient => unit(x)?.reverse(x, arriving, NormRule::Gradient),
            NormRule::Constant | NormRule::Identity => unit(x)?.reverse(x, arriving, NormRule::Constant),
        };
        Ok((back(query, &by_query)?, back(key, by_key)?))
    }

    fn scales(&self, like: &Tensor) -> Result<Tensor> {
        Ok(self.scale.to_dtype(like.dtype())?.reshape((1, self.scale.dim(0)?, 1, 1))?)
    }
}

fn unit(like: &Tensor) -> Result<Norm> {
    Norm::unit(like, SHORT * SHORT)
}
