//! What a forward and a reverse pass record: the vocabulary of the whole project.
//!
//! Shape letters: B batch, T tokens, H heads, D width, E = D/H, F feed-forward width, C classes, L layers.
//! All tensors of one [`Trace`] share the encoder's dtype and device.

use candle_core::Tensor;

/// A recorded forward pass.
#[derive(Debug, Clone)]
pub struct Trace {
    /// `[B,T,D]` state entering the first layer (`hidden_states[0]` in transformers).
    pub embedding: Tensor,
    /// One entry a layer, first layer first; empty when only the logits were asked for.
    pub layers: Vec<LayerTrace>,
    /// `[B,T,D]` state leaving the last layer, before a final layer norm.
    pub last: Tensor,
    /// `[B,P]` what the classification head reads (P = D, or 2D for DINOv2's class token and patch mean).
    pub pooled: Tensor,
    /// `[B,C]` logits.
    pub logits: Tensor,
}

/// What one layer did.
#[derive(Debug, Clone)]
pub struct LayerTrace {
    /// `[B,T,D]` state entering the layer.
    pub input: Tensor,
    /// `[B,H,T,E]` queries.
    pub query: Tensor,
    /// `[B,H,T,E]` keys.
    pub key: Tensor,
    /// `[B,H,T,E]` values, bias included.
    pub value: Tensor,
    /// `[B,H,T,T]` attention probabilities: row = output token, column = input token.
    pub attention: Tensor,
    /// `[B,H,T,E]` attention times value, before the output projection.
    pub context: Tensor,
    /// `[B,T,D]` state after the attention's skip connection (post-norm: before the first layer norm).
    pub mid: Tensor,
    /// `[B,T,F]` feed-forward state before its activation (gated feed-forward: `[B,T,2F]`).
    pub hidden: Tensor,
    /// `[B,T,D]` state after the feed-forward's skip connection (post-norm: before the second layer norm).
    pub sum: Tensor,
    /// `[B,T,D]` state leaving the layer.
    pub output: Tensor,
}

/// Derivatives of the seeded logits with respect to the [`Trace`] fields of the same names.
#[derive(Debug, Clone)]
pub struct Grads {
    /// `[B,T,D]`
    pub embedding: Tensor,
    /// One entry a layer, first layer first.
    pub layers: Vec<LayerGrads>,
    /// `[B,P]`
    pub pooled: Tensor,
}

/// Derivatives with respect to the [`LayerTrace`] fields of the same names.
#[derive(Debug, Clone)]
pub struct LayerGrads {
    /// `[B,T,D]`
    pub input: Tensor,
    /// `[B,H,T,E]`
    pub value: Tensor,
    /// `[B,H,T,T]`, the probabilities taken as free variables and everything downstream recomputed.
    pub attention: Tensor,
    /// `[B,H,T,E]`
    pub context: Tensor,
    /// `[B,T,D]`
    pub mid: Tensor,
    /// `[B,T,D]`
    pub output: Tensor,
}
