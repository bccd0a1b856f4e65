//! The recorded forward pass.

use crate::encoder::{Encoder, Inputs};
use crate::error::Result;
use crate::trace::Trace;
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::atomic::Ordering;

/// What a forward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The logits only: each layer's record is dropped once the next has read it.
    Logits,
    /// The last layer's record.
    Last,
    /// Every layer's record, as a reverse pass needs.
    Layers,
}

/// What the head computed on a state.
#[derive(Debug, Clone)]
pub struct ReadOut {
    /// `[B,T,D]` the state that was read.
    pub last: Tensor,
    /// `[B,P]` what the classifier read.
    pub pooled: Tensor,
    /// `[B,C]`
    pub logits: Tensor,
}

impl Encoder {
    /// Runs a batch and records it.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for the wrong kind of input, [`crate::Error::Input`] for one without a whole patch.
    pub fn forward(&self, inputs: &Inputs, keep: Keep) -> Result<Trace> {
        self.forward_states(&self.embedding.forward(inputs)?, self.mask(inputs)?.as_ref(), keep)
    }

    /// The logits of a batch, `[B,C]`, without a record. On the CPU parts of the batch run side by side: the matrix product
    /// alone uses all threads, but sums, norms and copies use one, and so as many of them run at once.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn logits(&self, inputs: &Inputs) -> Result<Tensor> {
        self.passes.forward.fetch_add(1, Ordering::Relaxed);
        let run = |inputs: &Inputs| -> Result<Tensor> {
            Ok(self.run(&self.embedding.forward(inputs)?, self.mask(inputs)?.as_ref(), Keep::Logits)?.logits)
        };
        let examples = inputs.batch()?;
        let threads = if self.device().is_cpu() { rayon::current_num_threads() } else { 1 };
        let size = examples.div_ceil(threads).max(1);
        if examples <= size {
            return run(inputs);
        }
        let part = |from: usize| run(&inputs.rows(from..(from + size).min(examples))?);
        let parts: Vec<Tensor> = (0..examples).into_par_iter().step_by(size).map(part).collect::<Result<_>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Runs the layers and the head on a state entering the first layer, `[B,T,D]`; `mask` as for attention.
    pub fn forward_states(&self, embedding: &Tensor, mask: Option<&Tensor>, keep: Keep) -> Result<Trace> {
        self.passes.forward.fetch_add(1, Ordering::Relaxed);
        self.run(embedding, mask, keep)
    }

    fn run(&self, embedding: &Tensor, mask: Option<&Tensor>, keep: Keep) -> Result<Trace> {
        let mut layers = Vec::new();
        let mut state = embedding.clone();
        for block in &self.blocks {
            let layer = block.forward(&state, mask)?;
            state = layer.output.clone();
            match keep {
                Keep::Logits => {}
                Keep::Last => layers = vec![layer],
                Keep::Layers => layers.push(layer),
            }
        }
        let ReadOut { last, pooled, logits } = self.read_out(&state)?;
        Ok(Trace { embedding: embedding.clone(), layers, last, pooled, logits })
    }

    /// The head, final layer norm included, on any state `[B,T,D]`.
    pub fn read_out(&self, state: &Tensor) -> Result<ReadOut> {
        let read = match &self.final_norm {
            Some(norm) => norm.forward(state)?,
            None => state.clone(),
        };
        let pooled = self.head.pool(&read)?;
        let logits = self.head.classify(&pooled)?;
        Ok(ReadOut { last: state.clone(), pooled, logits })
    }
}
