//! A head that attends: one learned query reads all tokens, and a feed-forward branch follows (SigLIP, Zhai et al., ICCV 2023; the
//! pooling of Lee et al., Set Transformer, ICML 2019).

use super::attention::Attention;
use super::branch::{Branch, Wiring};
use super::feed_forward::{FedGrads, FeedForward};
use crate::error::{Error, Result};
use crate::nn::rules::Carried;
use crate::nn::{attention, residual, Around, Linear, Reach, Rules};
use candle_core::{Tensor, D};

/// One learned query, the attention by which it reads, and what follows.
#[derive(Debug, Clone)]
pub struct Probe {
    /// `[1,1,D]`
    pub query: Tensor,
    /// The first token that it reads.
    pub from: usize,
    /// What it reads by. The query is not added to what it reads.
    pub attention: Attention,
    /// With its norm in front.
    pub feed_forward: Branch<FeedForward>,
}

/// What it did with a batch.
struct Record {
    /// `[B,H,1,E]`
    query: Tensor,
    /// `[B,H,N,E]` of the tokens that are read.
    key: Tensor,
    /// `[B,H,N,E]`
    value: Tensor,
    /// `[B,H,1,N]`
    attention: Tensor,
    /// `[B,1,D]` what was read.
    read: Tensor,
}

/// What reached the states `[B,T,D]`, and the relevance of the constants on the way, `[B]`.
pub(super) struct ProbeGrads {
    pub states: Tensor,
    pub constants: Tensor,
}

impl Probe {
    /// The tokens that it reads, `[B,N,D]`.
    fn own(&self, states: &Tensor) -> Result<Tensor> {
        Ok(states.narrow(1, self.from, states.dim(1)? - self.from)?.contiguous()?)
    }

    fn record(&self, states: &Tensor, around: &Around) -> Result<Record> {
        let own = &self.attention;
        let (b, _, _) = states.dims3()?;
        let states = &self.own(states)?;
        let query = own.project(&own.query, &self.query)?;
        let (_, h, one, e) = query.dims4()?;
        let query = query.broadcast_as((b, h, one, e))?.contiguous()?;
        let (key, value) = (own.project(&own.key, states)?, own.project(&own.value, states)?);
        let scores = own.scores.forward(&query, &key, around)?; // [B,H,1,N]
        let attention = attention::probabilities(scores, around.mask(Reach::All))?;
        let read = own.result(&attention, &value, around)?;
        Ok(Record { query, key, value, attention, read })
    }

    /// `[B,T,D]` -> `[B,D]`
    pub(super) fn forward(&self, states: &Tensor, around: &Around) -> Result<Tensor> {
        let read = self.record(states, around)?.read;
        let branch = &self.feed_forward;
        let (_, fed) = branch.op.forward(&branch.read(&read, Wiring::Pre)?)?;
        Ok(residual::forward(&read, &branch.added(fed, Wiring::Pre)?)?.squeeze(1)?)
    }

    /// How much of each token it reads, `[B,T]`: the mean of its heads.
    pub(super) fn shares(&self, states: &Tensor, around: &Around) -> Result<Tensor> {
        Ok(self.record(states, around)?.attention.squeeze(2)?.mean(1)?.pad_with_zeros(1, self.from, 0)?)
    }

    /// Reverse: from `[B,D]`.
    pub(super) fn reverse(
        &self,
        states: &Tensor,
        arriving: &Tensor,
        around: &Around,
        rules: &Rules,
    ) -> Result<ProbeGrads> {
        let Record { query, key, value, attention, read } = self.record(states, around)?;
        let (own, branch) = (&self.attention, &self.feed_forward);
        let normed = || branch.read(&read, Wiring::Pre);
        let (hidden, fed) = branch.op.forward(&normed()?)?;
        let at_read = || Ok(read.clone());
        let arriving = arriving.unsqueeze(1)?; // [B,1,D]
        let (by_skip, by_fed, by_result) =
            branch.reverse_to_parts(at_read, || Ok(fed.clone()), &arriving, Wiring::Pre, rules)?;
        let FedGrads { hidden: by_hidden, read: by_normed, inner: _ } =
            branch.op.reverse(normed, &hidden, &by_result, rules)?;
        let by_read = branch.reverse_to_state(at_read, (&by_skip, &by_normed), Wiring::Pre, rules)?;
        let by = own.reverse_to_attention((&attention, &value), &by_read, around, rules)?;
        let (_, by_key) = own.reverse_to_queries((&query, &key, &attention), &by.attention, around, rules)?.unzip();
        let parts = (None, by_key.as_ref(), &by.value);
        let by_states = own.reverse_to_read(|| self.own(states), parts, Carried::Gradient, around, rules)?;
        let constants = Self::constants(&[
            (own.projection.bias.as_ref(), by_read.clone()),
            (own.value.bias.as_ref(), attention::merge_heads(&by.value)?),
            (branch.norm.as_ref().and_then(|norm| norm.bias.as_ref()), by_normed),
            (branch.op.into.bias.as_ref(), by_hidden),
            (branch.op.out.bias.as_ref(), by_fed),
        ])?;
        Ok(ProbeGrads { states: by_states.pad_with_zeros(1, self.from, 0)?, constants })
    }

    /// Constants times what reached them, `[B]`. That of the keys adds the same to every score and so nothing; that of the query is
    /// part of a constant.
    fn constants(all: &[(Option<&Tensor>, Tensor)]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (constant, grad) in all {
            let Some(constant) = constant else { continue };
            let own = grad.broadcast_mul(constant)?.sum(D::Minus1)?.sum(1)?;
            sum = Some(match sum {
                Some(sum) => (sum + own)?,
                None => own,
            });
        }
        match (sum, all.first()) {
            (Some(sum), _) => Ok(sum),
            (None, Some((_, grad))) => Ok(grad.sum(D::Minus1)?.sum(1)?.zeros_like()?),
            (None, None) => Err(Error::Fault("a head without a reverse".into())),
        }
    }

    /// All its linear maps.
    pub(super) fn maps(&mut self) -> [&mut Linear; 6] {
        let Attention { query, key, value, projection, heads: _, inner: _, scores: _, reach: _ } = &mut self.attention;
        let FeedForward { into, out, activation: _, gate: _, inner: _ } = &mut self.feed_forward.op;
        [query, key, value, projection, into, out]
    }
}
