//! The attention operation of a layer: projections, scores, probabilities, and the weighted sum of values.

use crate::error::Result;
use crate::nn::relevance::join;
use crate::nn::rules::Carried;
use crate::nn::{attention, Around, Linear, Norm, Reach, Rules, Scores};
use candle_core::Tensor;
use std::ops::Range;

/// Bytes that the reverse of the scores takes at once, in whole heads.
const SCORES: usize = 128 << 20;

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
    /// Norm in front of the output projection (EVA-02).
    pub inner: Option<Norm>,
    /// `[D,D]` output projection
    pub projection: Linear,
    /// How queries and keys become scores.
    pub scores: Scores,
    /// Which keys a token sees.
    pub reach: Reach,
}

// Where tokens see those of their own window alone, all tensors between what is read and the result are of windows: `[B,H,T,E]` stands
// for `[B*W,H,N,E]`, and `[B,H,T,T]` for `[B*W,H,N,N]`.

/// What attention computed: the fields of [`crate::trace::LayerTrace`] of the same names.
pub(super) struct Attended {
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
    pub attention: Tensor,
}

/// What a reverse pass carried to attention, down to the probabilities.
pub(super) struct AttendedGrads {
    /// By what left [`Attention::inner`].
    pub inner: Option<Tensor>,
    pub context: Tensor,
    pub attention: Tensor,
    pub value: Tensor,
}

impl Attention {
    /// Runs on what the branch reads `[B,T,D]`, every probability multiplied by `factor` (an intervention where it is not
    /// 1: rows no longer sum to 1); with the result `[B,T,D]`, of `rows` alone where they are given.
    pub(super) fn forward(
        &self,
        read: &Tensor,
        around: &Around,
        factor: f64,
        rows: Option<&Range<usize>>,
    ) -> Result<(Attended, Tensor)> {
        let sorted = self.sorted(read, around)?;
        let (query, key, attention) = self.probabilities_of(&sorted, around)?;
        let value = self.project(&self.value, &sorted)?; // [B,H,T,E]
        let attention = if factor == 1.0 { attention } else { (attention * factor)? };
        let result = match rows {
            Some(rows) => self.result(&attention.narrow(2, rows.start, rows.len())?, &value, around)?, // [B,R,D]
            None => self.result(&attention, &value, around)?,                                          // [B,T,D]
        };
        Ok((Attended { query, key, value, attention }, result))
    }

    /// The probabilities `[B,H,T,T]` of what the branch reads `[B,T,D]`.
    pub(super) fn probabilities(&self, read: &Tensor, around: &Around) -> Result<Tensor> {
        Ok(self.probabilities_of(&self.sorted(read, around)?, around)?.2)
    }

    /// Queries and keys `[B,H,T,E]`, and the probabilities `[B,H,T,T]`.
    fn probabilities_of(&self, sorted: &Tensor, around: &Around) -> Result<(Tensor, Tensor, Tensor)> {
        let (query, key) = (self.project(&self.query, sorted)?, self.project(&self.key, sorted)?); // [B,H,T,E]
        let scores = self.scores.forward(&query, &key, around)?; // [B,H,T,T]
        let attention = match around.windows(self.reach) {
            Some(windows) => attention::probabilities(scores, windows.mask(query.dim(0)?)?.as_ref())?,
            None => attention::probabilities(scores, around.mask(self.reach))?,
        };
        Ok((query, key, attention))
    }

    /// The weighted sum of values through the output projection, `[B,T,D]`.
    pub(super) fn result(&self, attention: &Tensor, value: &Tensor, around: &Around) -> Result<Tensor> {
        let merged = attention::merge_heads(&attention::context(attention, value)?)?;
        self.unsorted(self.projection.forward(&self.normed(merged)?)?, around)
    }

    /// What the output projection reads.
    fn normed(&self, merged: Tensor) -> Result<Tensor> {
        self.inner.as_ref().map_or_else(|| Ok(merged.clone()), |norm| norm.forward(&merged))
    }

    /// States `[B,T,D]` by windows, where there are some.
    fn sorted(&self, state: &Tensor, around: &Around) -> Result<Tensor> {
        around.windows(self.reach).map_or_else(|| Ok(state.clone()), |windows| windows.cut(state))
    }

    /// The reverse of [`Attention::sorted`].
    fn unsorted(&self, sorted: Tensor, around: &Around) -> Result<Tensor> {
        match around.windows(self.reach) {
            Some(windows) => windows.join(&sorted),
            None => Ok(sorted),
        }
    }

    pub(super) fn project(&self, linear: &Linear, read: &Tensor) -> Result<Tensor> {
        attention::split_heads(&linear.forward(read)?, self.heads)
    }

    /// From what arrives at the result `[B,T,D]` down to probabilities and values.
    pub(super) fn reverse_to_attention(
        &self,
        (attention, value): (&Tensor, &Tensor),
        arriving: &Tensor,
        around: &Around,
        rules: &Rules,
    ) -> Result<AttendedGrads> {
        let (context, arriving) = (|| attention::context(attention, value), self.sorted(arriving, around)?);
        let merged = || attention::merge_heads(&context()?);
        let by_normed = self.projection.reverse(|| self.normed(merged()?), &arriving, rules.projection)?;
        let (by_merged, inner) = match &self.inner {
            Some(norm) => (norm.reverse(&merged()?, &by_normed, rules.norm)?, Some(by_normed)),
            None => (by_normed, None),
        };
        let by_context = attention::split_heads(&by_merged, self.heads)?;
        let (by_attention, by_value) = attention::context_reverse((attention, value), context, &by_context, rules)?;
        Ok(AttendedGrads { inner, context: by_context, attention: by_attention, value: by_value })
    }

    /// From probabilities to queries and keys, `[B,H,T,E]` each; none where probabilities are constants.
    pub(super) fn reverse_to_queries(
        &self,
        (query, key, attention): (&Tensor, &Tensor, &Tensor),
        arriving: &Tensor,
        around: &Around,
        rules: &Rules,
    ) -> Result<Option<(Tensor, Tensor)>> {
        let (batch, heads, rows, tokens) = attention.dims4()?;
        let each = (SCORES / (batch * rows * tokens * attention.dtype().size_in_bytes()).max(1)).clamp(1, heads);
        let (mut by_query, mut by_key) = (Vec::new(), Vec::new());
        // Heads do not meet here, and what reaches their scores is as large as the attention itself.
        for head in (0..heads).step_by(each) {
            let own = |x: &Tensor| x.narrow(1, head, each.min(heads - head));
            let (probabilities, by_them) = (own(attention)?.contiguous()?, own(arriving)?.contiguous()?);
            let by_scores = attention::probabilities_reverse(&probabilities, &by_them, rules)?;
            let Some(by_scores) = by_scores else { return Ok(None) };
            let (query, key) = self.scores.reverse((&own(query)?, &own(key)?), &by_scores, around, rules)?;
            by_query.push(query);
            by_key.push(key);
        }
        let whole = |parts: Vec<Tensor>| match <[Tensor; 1]>::try_from(parts) {
            Ok([all]) => Ok(all),
            Err(parts) => Tensor::cat(&parts, 1),
        };
        Ok(Some((whole(by_query)?, whole(by_key)?)))
    }

    /// From queries, keys and values, `[B,H,T,E]` each, to what the branch reads, `[B,T,D]`; `carried`: how the three are
    /// summed.
    pub(super) fn reverse_to_read(
        &self,
        read: impl Fn() -> Result<Tensor>,
        (query, key, value): (Option<&Tensor>, Option<&Tensor>, &Tensor),
        carried: Carried,
        around: &Around,
        rules: &Rules,
    ) -> Result<Tensor> {
        let read = || self.sorted(&read()?, around);
        let unproject =
            |linear: &Linear, g: &Tensor| linear.reverse(read, &attention::merge_heads(g)?, rules.projection);
        let mut parts = Vec::with_capacity(3); // query, key, value: a fixed order of summing
        for (linear, part) in [(&self.query, query), (&self.key, key), (&self.value, Some(value))] {
            parts.extend(part.map(|g| unproject(linear, g)).transpose()?);
        }
        self.unsorted(join(read, &parts.iter().collect::<Vec<_>>(), carried)?, around)
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
