//! The transformer: embeddings, blocks and head as data, one recorded forward pass and one reverse pass.

mod attention;
mod backward;
mod biases;
mod block;
mod branch;
mod embedding;
mod facts;
mod feed_forward;
mod forward;
mod head;
mod inputs;
mod merging;
mod pool;
mod probe;
mod stage;
mod weights;

pub use attention::Attention;
pub use backward::Walk;
pub use block::{Block, Finished};
pub use branch::{Branch, Wiring};
pub use embedding::{Embedding, PatchEmbedding, PatchPositions, WordEmbedding};
pub use facts::Facts;
pub use feed_forward::{FeedForward, Gate};
pub use forward::{Keep, ReadOut};
pub use head::{Head, Reading, Step};
pub use inputs::Inputs;
pub use merging::{Merging, Order};
pub use pool::Pool;
pub use probe::Probe;
pub use stage::Stage;
pub use weights::Part;

use crate::error::Result;
use crate::nn::{Around, Norm, Rules};
use candle_core::{DType, Device, Tensor};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A classifier ready to run. A clone shares its weights and counts its own passes.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Pixels or token ids to `[B,T,D]`.
    pub embedding: Embedding,
    /// The layers, first to last.
    pub blocks: Vec<Block>,
    /// Norm after the last block (vision families, ModernBERT).
    pub final_norm: Option<Norm>,
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

/// Bytes within a layer.
struct Sizes {
    state: u128,
    square: u128,
    hidden: u128,
}

impl Encoder {
    /// Dtype of weights and activations.
    pub fn dtype(&self) -> DType {
        self.embedding.example().dtype()
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.embedding.example().device()
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.head.readings.first().map_or(0, |r| r.classifier.weight.dims().first().copied().unwrap_or(0))
    }

    /// Bytes that the passes over one input take, whose last layer has so many tokens: what is kept, and with it a layer's own.
    pub fn bytes(&self, tokens: usize, keep: Keep) -> usize {
        let (mut kept, mut largest) = (0u128, 0);
        for (block, tokens) in self.tokens_of(tokens) {
            let Sizes { state, square, hidden } = self.sizes(block, tokens);
            largest = largest.max(3 * square + 3 * hidden + 12 * state);
            kept += match keep {
                Keep::Logits | Keep::Last => 0,
                Keep::Attention => square,
                Keep::Inputs => state,
                // Of each layer its record, and what a reverse pass carried to its attention and its input.
                Keep::Reverse | Keep::Layers => 2 * square + hidden + 12 * state,
            };
        }
        usize::try_from(kept + largest).unwrap_or(usize::MAX)
    }

    /// Bytes that a pass over one input of so many tokens takes at the very least, for its logits alone.
    pub fn least_bytes(&self, tokens: usize) -> usize {
        let of = |(block, tokens): (&Block, u128)| {
            let Sizes { state, square, hidden } = self.sizes(block, tokens);
            square + hidden + 2 * state
        };
        let most = self.tokens_of(tokens).map(of).max().unwrap_or(0);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Each layer with its tokens, where the last has so many.
    fn tokens_of(&self, last: usize) -> impl Iterator<Item = (&Block, u128)> {
        let merges = |blocks: &[Block]| blocks.iter().filter(|block| block.merging.is_some()).count();
        self.blocks.iter().enumerate().map(move |(number, block)| {
            let times = 1u128 << (2 * merges(&self.blocks[number..])).min(32);
            // Of more nothing can be said; what is made of these is a number still.
            (block, (last as u128 * times).min(1 << 42))
        })
    }

    /// Bytes of a layer's states, of its attention and of its hidden states, for so many tokens.
    fn sizes(&self, block: &Block, tokens: u128) -> Sizes {
        let number = self.dtype().size_in_bytes() as u128;
        let keys = block.attention.op.reach.keys(tokens as usize) as u128;
        Sizes {
            state: tokens * block.width() as u128 * number,
            square: block.heads() as u128 * tokens * keys * number,
            hidden: tokens * block.hidden_width() as u128 * number,
        }
    }

    /// What the layers consult when they run on a batch.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for the wrong kind of input.
    pub fn around(&self, inputs: &Inputs) -> Result<Around> {
        let (mut places, mut tokens) = self.embedding.places(inputs)?;
        let mut stages = Vec::new(); // first to last
        for blocks in self.blocks.split_inclusive(|block| block.merging.is_some()) {
            let reaches = blocks.iter().map(|block| block.attention.op.reach);
            stages.push(Around::new(places, inputs.mask(), (tokens, self.dtype(), self.device()), reaches)?);
            (places, tokens) = (places.merged(), tokens / 4);
        }
        let last = stages.pop().ok_or_else(|| crate::error::Error::Model("the model has no layers".into()))?;
        Ok(stages.into_iter().rev().fold(last, |behind, own| own.before(behind)))
    }

    /// The last layer of a stage, counted from 1; none where there is no such stage.
    pub fn end_of_stage(&self, stage: usize) -> Option<usize> {
        let last = self.blocks.len().checked_sub(1);
        let merges =
            self.blocks.iter().enumerate().filter(|(_, block)| block.merging.is_some()).map(|(number, _)| number);
        merges.chain(last).nth(stage.checked_sub(1)?)
    }

    /// What a layer consults, of what the first layer consults; behind the last one: what the head consults.
    pub fn around_of(&self, first: &Arc<Around>, layer: usize) -> Arc<Around> {
        let merged = self.blocks.iter().take(layer).filter(|block| block.merging.is_some()).count();
        let mut own = first;
        for _ in 0..merged {
            own = own.merged.as_ref().unwrap_or(own);
        }
        own.clone()
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
