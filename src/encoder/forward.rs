//! The recorded forward pass.

use crate::encoder::{Encoder, Inputs};
use crate::error::Result;
use crate::nn::Around;
use crate::trace::{Again, LayerTrace, Trace};
use candle_core::Tensor;
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// What a forward pass keeps. What it does not keep of the last layer's tokens that the head does not read, it does not compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The logits only: each layer's record is dropped once the next has read it.
    Logits,
    /// Every layer's attention probabilities, [`Trace::attentions`].
    Attention,
    /// The last layer's record.
    Last,
    /// What a reverse pass from the logits needs: every layer's record, of the last one's tokens those that the head reads.
    Reverse,
    /// The states entering the layers, of which each layer's attention and what its reverse needs is computed anew.
    Inputs,
    /// Every layer's record.
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
    /// What it consulted.
    pub around: Arc<Around>,
}

impl Encoder {
    /// Runs a batch and records it.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for the wrong kind of input, [`crate::Error::Input`] for one without a whole patch.
    pub fn forward(&self, inputs: &Inputs, keep: Keep) -> Result<Trace> {
        let states = self.embedding.forward(inputs)?;
        let around = self.around(inputs)?;
        self.forward_states(&states, &Arc::new(around), keep)
    }

    /// The logits of a batch, `[B,C]`, without a record. On the CPU parts of the batch run side by side: the matrix product
    /// alone uses all threads, but sums, norms and copies use one, and so as many of them run at once.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn logits(&self, inputs: &Inputs) -> Result<Tensor> {
        self.passes.forward.fetch_add(1, Ordering::Relaxed);
        let run = |inputs: &Inputs| -> Result<Tensor> {
            let states = self.embedding.forward(inputs)?;
            let around = self.around(inputs)?;
            Ok(self.run(&states, &Arc::new(around), Keep::Logits)?.logits)
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

    /// Runs the layers and the head on a state entering the first layer, `[B,T,D]`, as `around` says.
    pub fn forward_states(&self, embedding: &Tensor, around: &Arc<Around>, keep: Keep) -> Result<Trace> {
        self.passes.forward.fetch_add(1, Ordering::Relaxed);
        self.run(embedding, around, keep)
    }

    fn run(&self, embedding: &Tensor, around: &Arc<Around>, keep: Keep) -> Result<Trace> {
        let (mut layers, mut attentions, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
        let rows = match keep {
            Keep::Logits | Keep::Attention | Keep::Reverse | Keep::Inputs => self.head.rows(),
            Keep::Last | Keep::Layers => None,
        };
        let mut state = embedding.clone();
        let mut own = around;
        for (number, block) in self.blocks.iter().enumerate() {
            let rows = rows.as_ref().filter(|_| number + 1 == self.blocks.len());
            let layer = block.forward_rows(&state, own, rows)?;
            state = match rows {
                Some(rows) => layer.output.pad_with_zeros(1, rows.start, state.dim(1)? - rows.end)?,
                None => block.passed_on(layer.output.clone(), own)?,
            };
            if let (Some(_), Some(merged)) = (&block.merging, &own.merged) {
                own = merged;
            }
            match keep {
                Keep::Logits => {}
                Keep::Attention => attentions.push(layer.attention),
                Keep::Inputs => inputs.push(layer.input),
                Keep::Last => layers = vec![layer],
                Keep::Reverse | Keep::Layers => layers.push(layer),
            }
        }
        let ReadOut { last, pooled, logits, around: _ } = self.read_out(&state, own)?;
        let again = (keep == Keep::Inputs).then(|| {
            let rows = self.head.rows();
            Arc::new(Again { inputs, rows, recent: Mutex::new(None) })
        });
        let (embedding, around) = (embedding.clone(), around.clone());
        Ok(Trace { embedding, layers, attentions, again, last, pooled, logits, around })
    }

    /// A layer's record: as it was kept, or computed anew; none where neither is possible.
    ///
    /// # Errors
    /// Whatever the operations report.
    pub fn recorded<'t>(&self, trace: &'t Trace, number: usize) -> Result<Option<Cow<'t, LayerTrace>>> {
        if let Some(kept) = trace.layers.get(number) {
            return Ok(Some(Cow::Borrowed(kept)));
        }
        let Some((again, block)) = trace.again.as_ref().zip(self.blocks.get(number)) else { return Ok(None) };
        let Some(input) = again.inputs.get(number) else { return Ok(None) };
        let rows = again.rows.as_ref().filter(|_| number + 1 == self.blocks.len());
        again.recent.lock().unwrap_or_else(PoisonError::into_inner).take();
        let record = block.forward_rows(input, &self.around_of(&trace.around, number), rows)?;
        let attention = record.attention.clone();
        *again.recent.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, attention));
        Ok(Some(Cow::Owned(record)))
    }

    /// A layer's attention `[B,H,T,T]`: as it was kept, or computed anew; none where neither is possible.
    ///
    /// # Errors
    /// Whatever the operations report.
    pub fn attention(&self, trace: &Trace, number: usize) -> Result<Option<Tensor>> {
        if let Some(kept) = trace.attentions.get(number).or(trace.layers.get(number).map(|l| &l.attention)) {
            return Ok(Some(kept.clone()));
        }
        let Some((again, block)) = trace.again.as_ref().zip(self.blocks.get(number)) else { return Ok(None) };
        let Some(input) = again.inputs.get(number) else { return Ok(None) };
        let mut recent = again.recent.lock().unwrap_or_else(PoisonError::into_inner);
        match recent.take().filter(|(of, _)| *of == number) {
            Some((_, known)) => Ok(Some(recent.insert((number, known)).1.clone())),
            None => {
                let own = block.probabilities(input, &self.around_of(&trace.around, number))?;
                Ok(Some(recent.insert((number, own)).1.clone()))
            }
        }
    }

    /// What the head pools of a state `[B,T,D]`: it behind the final norm.
    pub fn normed(&self, state: &Tensor) -> Result<Tensor> {
        self.final_norm.as_ref().map_or_else(|| Ok(state.clone()), |norm| norm.forward(state))
    }

    /// The head, final norm included, on any state `[B,T,D]`.
    pub fn read_out(&self, state: &Tensor, around: &Arc<Around>) -> Result<ReadOut> {
        let read = self.normed(state)?;
        let pooled = self.head.pool(&read, around)?;
        let logits = self.head.classify(&pooled)?;
        Ok(ReadOut { last: state.clone(), pooled, logits, around: around.clone() })
    }
}
