//! What a forward and a reverse pass record: the vocabulary of the whole project.
//!
//! Shape letters: B batch, T tokens, H heads, D width, E = D/H, F feed-forward width, C classes, L layers.
//! All tensors of one [`Trace`] share the encoder's dtype and device.

use crate::nn::Around;
use candle_core::Tensor;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A recorded forward pass.
#[derive(Debug, Clone)]
pub struct Trace {
    /// `[B,T,D]` state entering the first layer (`hidden_states[0]` in transformers).
    pub embedding: Tensor,
    /// One entry a layer, first layer first; empty when they were not asked for.
    pub layers: Vec<LayerTrace>,
    /// `[B,H,T,T]` probabilities of each layer, where they alone were asked for; else empty.
    pub attentions: Vec<Tensor>,
    /// Where the layers are computed anew when they are asked for.
    pub again: Option<Arc<Again>>,
    /// `[B,T,D]` state leaving the last layer, before a final layer norm; 0 in rows that were not computed (see
    /// [`crate::encoder::Keep`]).
    pub last: Tensor,
    /// `[B,P]` what the classification head reads (P = D, or 2D for DINOv2's class token and patch mean).
    pub pooled: Tensor,
    /// `[B,C]` logits.
    pub logits: Tensor,
    /// What every layer consulted.
    pub around: Arc<Around>,
}

/// What a pass keeps of layers that are too large to keep: enough to compute each anew, to the last bit.
#[derive(Debug)]
pub struct Again {
    /// `[B,T,D]` the state entering each layer.
    pub inputs: Vec<Tensor>,
    /// The tokens that the head reads (see [`LayerTrace::rows`]).
    pub rows: Option<Range<usize>>,
    /// The layer computed last, and its attention `[B,H,T,T]`.
    pub recent: Mutex<Option<(usize, Tensor)>>,
}

/// What one layer did. What few rules ask for beside it, [`crate::encoder::Block`] computes from it once more: what both
/// branches add.
#[derive(Debug, Clone)]
pub struct LayerTrace {
    /// What it consulted beside its state.
    pub around: Arc<Around>,
    /// `[B,T,D]` state entering the layer.
    pub input: Tensor,
    /// `[B,H,T,E]` queries. (Of windows, here and in the next three: `[B*W,H,N,E]` and `[B*W,H,N,N]`.)
    pub query: Tensor,
    /// `[B,H,T,E]` keys.
    pub key: Tensor,
    /// `[B,H,T,E]` values, bias included.
    pub value: Tensor,
    /// `[B,H,T,T]` attention probabilities: row = output token, column = input token.
    pub attention: Tensor,
    /// The tokens that `mid` and all that follows hold; none: all of them. The last layer may hold those alone that the head
    /// reads, R of them in place of T.
    pub rows: Option<Range<usize>>,
    /// `[B,T,D]` state after the attention's skip connection (post-norm: before the first layer norm).
    pub mid: Tensor,
    /// `[B,T,F]` feed-forward state before its activation (gated feed-forward: `[B,T,2F]`).
    pub hidden: Tensor,
    /// `[B,T,D]` state after the feed-forward's skip connection (post-norm: before the second layer norm).
    pub sum: Tensor,
    /// `[B,T,D]` state leaving the layer, before any merging of tokens.
    pub output: Tensor,
}

/// What a reverse pass carried to the [`Trace`] fields of the same names: derivatives of the seeded logits, derivatives
/// under modified rules, or relevance (see [`crate::nn::Rules`]).
#[derive(Debug, Clone)]
pub struct Grads {
    /// `[B,T,D]`
    pub embedding: Tensor,
    /// One entry a layer, first layer first.
    pub layers: Vec<LayerGrads>,
    /// At the head.
    pub head: HeadGrads,
}

/// What a reverse pass carried through the head.
#[derive(Debug, Clone)]
pub struct HeadGrads {
    /// `[B,C]` the seed.
    pub logits: Tensor,
    /// By what leaves each step before the classifier, a list a classifier (BERT's pooler: `[B,D]` by its linear map, then
    /// by its activation).
    pub steps: Vec<Vec<Tensor>>,
    /// `[B,P]`
    pub pooled: Tensor,
    /// `[B]` of constants within the pooling, times them (a query that reads all tokens).
    pub constants: Option<Tensor>,
    /// `[B,T]` how much of each token each classifier read.
    pub read: Vec<Tensor>,
    /// `[B,T,D]` by what is pooled: the last state behind the final layer norm.
    pub normed: Tensor,
    /// `[B,T,D]` by the state leaving the last layer.
    pub last: Tensor,
}

/// What a reverse pass carried to the [`LayerTrace`] fields of the same names, and to the outputs of the norms.
#[derive(Debug, Clone)]
pub struct LayerGrads {
    /// `[B,T,D]`
    pub input: Tensor,
    /// `[B,T,D]` by what queries, keys and values are made of (pre-norm: the first norm's output), this path alone.
    pub read: Tensor,
    /// `[B,H,T,T]`, the probabilities taken as free variables and everything downstream recomputed.
    pub attention: Tensor,
    /// Everything else; none where it was dropped as soon as the layer below had it.
    pub inside: Option<Box<Inside>>,
}

/// What few methods read of a layer's gradients.
#[derive(Debug, Clone)]
pub struct Inside {
    /// `[B,H,T,E]`; none where attention probabilities are constants.
    pub query: Option<Tensor>,
    /// `[B,H,T,E]`; none where attention probabilities are constants.
    pub key: Option<Tensor>,
    /// `[B,H,T,E]`
    pub value: Tensor,
    /// `[B,H,T,E]`
    pub context: Tensor,
    /// By what left the norms inside of attention and feed-forward, where there are some.
    pub inner: [Option<Tensor>; 2],
    /// `[B,T,D]` by the results of attention and feed-forward, before a layer scale or a norm behind them.
    pub results: [Tensor; 2],
    /// `[B,T,D]`
    pub mixed: Tensor,
    /// `[B,T,D]`
    pub mid: Tensor,
    /// `[B,T,D]` by what the feed-forward reads (pre-norm: the second norm's output; post-norm: the first's, skip
    /// connection included).
    pub normed: Tensor,
    /// `[B,T,F]`
    pub hidden: Tensor,
    /// `[B,T,D]`
    pub fed: Tensor,
    /// `[B,T,D]`
    pub sum: Tensor,
    /// `[B,T,D]`
    pub output: Tensor,
    /// By the parts of a merging behind the layer.
    pub merged: Option<Box<Merged>>,
}

/// What a reverse pass carried into a merging of tokens.
#[derive(Debug, Clone)]
pub struct Merged {
    /// `[B,T,D]` by what was merged.
    pub state: Tensor,
    /// `[B,T/4,..]` by what left the norm.
    pub normed: Tensor,
    /// `[B,T/4,2D]` by what left the map.
    pub reduced: Tensor,
}
