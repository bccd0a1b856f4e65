//! The reverse pass: the only place that walks the layers backwards.

use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::nn::Rules;
use crate::trace::{Grads, Trace};
use candle_core::Tensor;
use std::sync::atomic::Ordering;

impl Encoder {
    /// Pulls `seed` `[B,C]` back through a recorded pass under `rules`.
    ///
    /// # Errors
    /// [`Error::Usage`] when the trace kept no layers.
    pub fn backward(&self, trace: &Trace, seed: &Tensor, rules: &Rules) -> Result<Grads> {
        if trace.layers.len() != self.blocks.len() {
            return Err(Error::Usage("the reverse pass needs a trace made with Keep::Layers".into()));
        }
        self.passes.backward.fetch_add(1, Ordering::Relaxed);
        let (pooled, mut state) =
            self.head.backward(self.final_norm.as_ref(), &trace.last, &trace.pooled, seed, rules)?;
        let mut layers = Vec::with_capacity(self.blocks.len());
        for (block, layer) in self.blocks.iter().zip(&trace.layers).rev() {
            let grads = block.backward(layer, &state, rules)?;
            state = grads.input.clone();
            layers.push(grads);
        }
        layers.reverse();
        Ok(Grads { embedding: state, layers, pooled })
    }
}
