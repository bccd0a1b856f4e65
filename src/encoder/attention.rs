//! The attention operation of a layer: projections, scores, probabilities, and the weighted sum of values.

use crate::error::Result;
use crate::nn::relevance::join;
use crate::nn::rules::Carried;
use crate::nn::{attention, Around, Linear, Reach, Rules, Scores};
use candle_core::Tensor;
use std::ops::Range;

/// Multi-head attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// H
    pub heads: usize,
    /// `[D,D]`
    pub query: Linear,
    /// `[D,D]`
    pub key: Linear,
    /// `[D,D]`
    pub value: Linear,
    /// `[D,D]` output projection
    pub projection: Linear,
    /// How queries and keys become scores.
    pub scores: Scores,
    /// Which keys a token sees.
    pub reach: Reach,
}

/// What attention computed: the fields of [`crate::trace::LayerTrace`] of the same names.
pub(super) struct Attended {
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
    pub attention: Tensor,
    pub context: Tensor,
}

/// What a reverse pass carried to attention, down to the probabilities.
pub(super) struct AttendedGrads {
    pub context: Tensor,
    pub attention: Tensor,
    pub value: Tensor,
}

impl Attention {
    /// Runs on what the branch reads `[B,T,D]`, every probability multiplied by `factor` (an intervention where it is not
    /// 1: rows no longer sum to 1); with the result `[B,T,D]`. Of some tokens alone, the context and the result are theirs.
    pub(super) fn forward(
        &self,
        read: &Tensor,
        around: &Around,
        factor: f64,
        rows: Option<&Range<usize>>,
    ) -> Result<(Attended, Tensor)> {
        let project = |linear: &Linear| attention::split_heads(&linear.forward(read)?, self.heads);
        let (query, key, value) = (project(&self.query)?, project(&self.key)?, project(&self.value)?); // [B,H,T,E]
        let scores = self.scores.forward(&query, &key, around)?; // [B,H,T,T]
        let attention = attention::probabilities(scores, around.mask(self.reach))?;
        let attention = if factor == 1.0 { attention } else { (attention * factor)? };
        let context = match rows {
            Some(rows) => attention::context(&attention.narrow(2, rows.start, rows.len())?, &value)?, // [B,H,R,E]
            None => attention::context(&attention, &value)?,
        }; // [B,H,T,E]
        let result = self.projection.forward(&attention::merge_heads(&context)?)?; // [B,T,D]
        Ok((Attended { query, key, value, attention, context }, result))
    }

    /// From what arrives at the result `[B,T,D]` down to probabilities and values.
    pub(super) fn reverse_to_attention(
        &self,
        (attention, value, context): (&Tensor, &Tensor, &Tensor),
        arriving: &Tensor,
        rules: &Rules,
    ) -> Result<AttendedGrads> {
        let merged = self.projection.reverse(|| attention::merge_heads(context), arriving, rules.projection)?;
        let by_context = attention::split_heads(&merged, self.heads)?;
        let (by_attention, by_value) = attention::context_reverse((attention, value, context), &by_context, rules)?;
        Ok(AttendedGrads { context: by_context, attention: by_attention, value: by_value })
    }

    /// From probabilities to queries and keys, `[B,H,T,E]` each; none where probabilities are constants.
    pub(super) fn reverse_to_queries(
        &self,
        (query, key, attention): (&Tensor, &Tensor, &Tensor),
        arriving: &Tensor,
        around: &Around,
        rules: &Rules,
    ) -> Result<Option<(Tensor, Tensor)>> {
        let by_scores = attention::probabilities_reverse(attention, arriving, rules)?;
        by_scores.map(|s| self.scores.reverse((query, key), &s, around, rules)).transpose()
    }

    /// From queries, keys and values, `[B,H,T,E]` each, to what the branch reads, `[B,T,D]`; `carried`: how the three are
    /// summed.
    pub(super) fn reverse_to_read(
        &self,
        read: impl Fn() -> Result<Tensor>,
        (query, key, value): (Option<&Tensor>, Option<&Tensor>, &Tensor),
        carried: Carried,
        rules: &Rules,
    ) -> Result<Tensor> {
        let unproject =
            |linear: &Linear, g: &Tensor| linear.reverse(&read, &attention::merge_heads(g)?, rules.projection);
        let mut parts = Vec::with_capacity(3); // query, key, value: a fixed order of summing
        for (linear, part) in [(&self.query, query), (&self.key, key), (&self.value, Some(value))] {
            parts.extend(part.map(|g| unproject(linear, g)).transpose()?);
        }
        join(&read, &parts.iter().collect::<Vec<_>>(), carried)
    }

    /// What each token's value adds per unit of attention: values `[H,T,E]` through the heads' parts of the output
    /// projection, `[T,H,D]`. The projection's bias is not in it.
    pub(super) fn contributions(&self, value: &Tensor) -> Result<Tensor> {
        let (h, _, e) = value.dims3()?;
        let weight = self.projection.weight.t()?.to_dtype(value.dtype())?.contiguous()?; // [H*E,D]
        let parts = value.matmul(&weight.reshape((h, e, weight.dim(1)?))?)?; // [H,T,D]
        Ok(parts.transpose(0, 1)?.contiguous()?)
    }
}
