//! The transformer: embeddings, blocks and head as data, one recorded forward pass and one reverse pass.

mod backward;
mod block;
mod constants;
mod embedding;
mod facts;
mod forward;
mod head;

pub use block::{Block, FeedForward, Finished, NormPlacement};
pub use embedding::{Embedding, PatchEmbedding, WordEmbedding};
pub use facts::Facts;
pub use forward::{Keep, ReadOut};
pub use head::{Head, Pooling};

use crate::error::Result;
use crate::nn::{attention, LayerNorm, Rules};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A classifier ready to run. A clone shares its weights and counts its own passes.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Pixels or token ids to `[B,T,D]`.
    pub embedding: Embedding,
    /// The layers, first to last.
    pub blocks: Vec<Block>,
    /// Layer norm after the last block (vision families).
    pub final_norm: Option<LayerNorm>,
    /// Pooling and classifier.
    pub head: Head,
    /// What stands for "nothing there" in this model's inputs.
    pub neutral: Neutral,
    /// Passes run so far.
    pub passes: Passes,
}

/// How many forward and reverse passes an encoder has run (batches, not examples).
#[derive(Debug, Default)]
pub struct Passes {
    forward: AtomicUsize,
    backward: AtomicUsize,
}

impl Clone for Passes {
    fn clone(&self) -> Self {
        Passes::default()
    }
}

impl Passes {
    /// (forward, backward)
    pub fn counts(&self) -> (usize, usize) {
        (self.forward.load(Ordering::Relaxed), self.backward.load(Ordering::Relaxed))
    }
}

/// What stands for "nothing there" in a model's inputs; set by its processor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Neutral {
    /// A black pixel after normalisation, per channel.
    pub black: Vec<f32>,
    /// The mask token of a text model, if its tokenizer has one.
    pub mask_id: Option<u32>,
    /// The padding token of a text model.
    pub pad_id: u32,
}

/// A batch as the encoder reads it.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// `[B,C,H,W]` normalised pixel values.
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
    /// Texts behind the word table, where they can be varied continuously; see [`Encoder::continuous`].
    Words {
        /// `[B,T,D]` rows of the word table (`inputs_embeds` in transformers).
        rows: Tensor,
        /// `[B,T]` u32 position numbers.
        positions: Tensor,
        /// `[B,T]` u32 token types.
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
            Inputs::Words { rows, .. } => rows.dim(0)?,
        })
    }

    /// One example alone; of a text its first `tokens` tokens, padding cut off.
    pub fn example(&self, row: usize, tokens: usize) -> Result<Inputs> {
        let one = self.rows(row..row + 1)?;
        match one {
            Inputs::Pixels(_) => Ok(one),
            _ => one.map(|t| Ok(t.narrow(1, 0, tokens)?.contiguous()?)),
        }
    }

    /// Some examples of the batch.
    pub fn rows(&self, rows: Range<usize>) -> Result<Inputs> {
        self.map(|t| Ok(t.narrow(0, rows.start, rows.len())?.contiguous()?))
    }

    fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Inputs> {
        Ok(match self {
            Inputs::Pixels(pixels) => Inputs::Pixels(change(pixels)?),
            Inputs::Tokens { ids, types, mask } => {
                Inputs::Tokens { ids: change(ids)?, types: change(types)?, mask: change(mask)? }
            }
            Inputs::Words { rows, positions, types, mask } => Inputs::Words {
                rows: change(rows)?,
                positions: change(positions)?,
                types: change(types)?,
                mask: change(mask)?,
            },
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
            Inputs::Tokens { mask, .. } | Inputs::Words { mask, .. } => {
                Ok(Some(attention::additive_mask(mask, self.dtype())?))
            }
        }
    }

    /// The batch as values that can be varied continuously: pixels as they are, token ids as [`Inputs::Words`].
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for token ids in a vision model.
    pub fn continuous(&self, inputs: &Inputs) -> Result<Inputs> {
        match inputs {
            Inputs::Tokens { ids, types, mask } => self.words()?.open(ids, types, mask),
            _ => Ok(inputs.clone()),
        }
    }

    /// The word embedding of a text model.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for a vision model.
    pub fn words(&self) -> Result<&WordEmbedding> {
        match &self.embedding {
            Embedding::Words(words) => Ok(words),
            Embedding::Patches(_) => Err(embedding::reads_images()),
        }
    }

    /// The patch embedding of a vision model.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for a text model.
    pub fn patches(&self) -> Result<&PatchEmbedding> {
        match &self.embedding {
            Embedding::Patches(patches) => Ok(patches),
            Embedding::Words(_) => Err(embedding::reads_texts()),
        }
    }

    /// What a reverse pass carries on from the first layer's input `[B,T,D]` to the input itself: `[B,C,H,W]` pixels, or
    /// `[B,T,D]` rows of the word table.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for the wrong kind of input.
    pub fn input_backward(&self, inputs: &Inputs, arriving: &Tensor, rules: &Rules) -> Result<Tensor> {
        match &self.continuous(inputs)? {
            Inputs::Pixels(pixels) => self.patches()?.backward(pixels, arriving, rules),
            Inputs::Words { rows, positions, types, .. } => {
                self.words()?.backward(rows, positions, types, arriving, rules)
            }
            Inputs::Tokens { .. } => Err(embedding::reads_images()),
        }
    }
}
