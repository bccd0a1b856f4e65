//! The transformer: embeddings, blocks and head as data, one recorded forward pass and one reverse pass.

mod backward;
mod block;
mod embedding;
mod forward;
mod head;

pub use block::{Block, FeedForward, NormPlacement};
pub use embedding::{Embedding, PatchEmbedding, WordEmbedding};
pub use forward::Keep;
pub use head::{Head, Pooling};

use crate::error::Result;
use crate::nn::{attention, LayerNorm};
use candle_core::{DType, Device, Tensor};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A classifier ready to run.
#[derive(Debug)]
pub struct Encoder {
    /// Pixels or token ids to `[B,T,D]`.
    pub embedding: Embedding,
    /// The layers, first to last.
    pub blocks: Vec<Block>,
    /// Layer norm after the last block (vision families).
    pub final_norm: Option<LayerNorm>,
    /// Pooling and classifier.
    pub head: Head,
    /// Passes run so far.
    pub passes: Passes,
}

/// How many forward and reverse passes an encoder has run (batches, not examples).
#[derive(Debug, Default)]
pub struct Passes {
    forward: AtomicUsize,
    backward: AtomicUsize,
}

impl Passes {
    /// (forward, backward)
    pub fn counts(&self) -> (usize, usize) {
        (self.forward.load(Ordering::Relaxed), self.backward.load(Ordering::Relaxed))
    }
}

/// A batch as the encoder reads it.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// `[B,3,H,W]` normalised pixel values.
    Pixels(Tensor),
    /// Token ids, padded on the right.
    Tokens {
        /// `[B,T]` u32
        ids: Tensor,
        /// `[B,T]` u32 token types (ignored by models without them).
        types: Tensor,
        /// `[B,T]` u8: 1 for real tokens, 0 for padding.
        mask: Tensor,
    },
}

impl Inputs {
    /// Number of examples.
    pub fn batch(&self) -> Result<usize> {
        Ok(match self {
            Inputs::Pixels(pixels) => pixels.dim(0)?,
            Inputs::Tokens { ids, .. } => ids.dim(0)?,
        })
    }
}

impl Encoder {
    /// Dtype of weights and activations.
    pub fn dtype(&self) -> DType {
        self.head.classifiers[0].weight.dtype()
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.head.classifiers[0].weight.device()
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.head.classifiers[0].weight.dims()[0]
    }

    /// The additive attention mask of a batch; none when nothing is padded.
    fn mask(&self, inputs: &Inputs) -> Result<Option<Tensor>> {
        match inputs {
            Inputs::Pixels(_) => Ok(None),
            Inputs::Tokens { mask, .. } => Ok(Some(attention::additive_mask(mask, self.dtype())?)),
        }
    }
}
