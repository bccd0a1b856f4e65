//! The recorded forward pass.

use crate::encoder::{Encoder, Inputs};
use crate::error::Result;
use crate::trace::Trace;
use std::sync::atomic::Ordering;

/// What a forward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The logits only: each layer's record is dropped once the next has read it.
    Logits,
    /// Every layer's record, as a reverse pass needs.
    Layers,
}

impl Encoder {
    /// Runs a batch and records it.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for the wrong kind of input, [`crate::Error::Input`] for one without a whole patch.
    pub fn forward(&self, inputs: &Inputs, keep: Keep) -> Result<Trace> {
        self.passes.forward.fetch_add(1, Ordering::Relaxed);
        let embedding = self.embedding.forward(inputs)?;
        let mask = self.mask(inputs)?;
        let mut layers = Vec::new();
        let mut state = embedding.clone();
        for block in &self.blocks {
            let layer = block.forward(&state, mask.as_ref())?;
            state = layer.output.clone();
            if keep == Keep::Layers {
                layers.push(layer);
            }
        }
        let read = match &self.final_norm {
            Some(norm) => norm.forward(&state)?,
            None => state.clone(),
        };
        let pooled = self.head.pool(&read)?;
        let logits = self.head.classify(&pooled)?;
        Ok(Trace { embedding, layers, last: state, pooled, logits })
    }
}
