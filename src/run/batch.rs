//! Inputs that go through the model together: their trace, and on demand their reverse passes, each made once for all
//! methods that need it.

use super::noise::Noise;
use crate::encoder::{Encoder, Inputs, Keep};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::Rules;
use crate::target::{seed, Output};
use crate::trace::{Grads, LayerGrads, Trace};
use candle_core::{DType, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Inputs that go through the model together: one forward pass for every method and target.
pub struct Batch<'m> {
    pub(super) encoder: &'m Encoder,
    pub(super) inputs: Inputs,
    pub(super) layouts: Vec<Layout>,
    trace: OnceLock<Trace>,
    /// How the head pools the rows of each input, once somebody asked.
    pub(super) pooled: Vec<OnceLock<Option<Tensor>>>,
    reads: Reads,
    pub(super) noise: Noise,
    pub(super) watch: Option<Watch<'m>>,
}

/// What methods read of the passes: as much is kept, and everything else dropped on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// The logits: methods that run the model themselves.
    Logits,
    /// Attention probabilities of the forward pass; no reverse pass.
    Attention,
    /// Every record of the forward pass; of reverse passes what reaches each layer's input, attention and what its
    /// projections read.
    States,
    /// Beside those the relevance of each layer's constants.
    Constants,
    /// Everything that reverse passes carry into a layer.
    Everything,
}

impl Reads {
    /// What the forward pass keeps.
    fn keep(self) -> Keep {
        match self {
            Reads::Logits => Keep::Logits,
            Reads::Attention => Keep::Attention,
            Reads::States | Reads::Constants | Reads::Everything => Keep::Layers,
        }
    }
}

/// Is told how many of how many steps a slow method has done; answers whether to go on.
pub type Watch<'m> = Box<dyn Fn(usize, usize) -> bool + Send + Sync + 'm>;

impl<'m> Batch<'m> {
    /// A batch of inputs and what their tokens are. Nothing is computed yet.
    ///
    /// # Errors
    /// [`Error::Usage`] unless there is one layout an input, [`Error::Input`] for an input of no tokens.
    pub fn new(encoder: &'m Encoder, inputs: Inputs, layouts: Vec<Layout>) -> Result<Self> {
        if inputs.batch()? != layouts.len() || layouts.is_empty() {
            return Err(Error::Usage(format!("a batch of {} inputs with {} layouts", inputs.batch()?, layouts.len())));
        }
        if let Some(number) = layouts.iter().position(Layout::is_empty) {
            return Err(Error::Input(format!(
                "input {number} of the batch has no tokens: there is nothing to explain"
            )));
        }
        let pooled = layouts.iter().map(|_| OnceLock::new()).collect();
        Ok(Batch {
            encoder,
            inputs,
            layouts,
            trace: OnceLock::new(),
            pooled,
            reads: Reads::Everything,
            noise: Noise::default(),
            watch: None,
        })
    }

    /// Watches the progress of slow methods.
    pub fn watched(mut self, watch: Watch<'m>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Keeps of the passes what the asked-for methods read (see [`Reads`]); by default everything.
    pub fn reading(mut self, reads: Reads) -> Self {
        self.reads = reads;
        self
    }

    /// Random numbers of stochastic methods; by default those of seed 0.
    pub fn with_noise(mut self, noise: Noise) -> Self {
        self.noise = noise;
        self
    }

    /// What the tokens of an input are.
    pub fn layout(&self, row: usize) -> &Layout {
        &self.layouts[row]
    }

    /// Asks whoever watches whether to go on.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when not.
    pub fn progress(&self) -> Result<()> {
        match &self.watch {
            Some(watch) if !watch(0, 0) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// The recorded forward pass.
    pub fn trace(&self) -> Result<&Trace> {
        if self.trace.get().is_none() {
            let _ = self.trace.set(self.encoder.forward(&self.inputs, self.reads.keep())?);
        }
        self.trace.get().ok_or_else(|| Error::Numeric("the trace was not kept".into()))
    }

    /// Logits of each input, a row of C numbers each.
    ///
    /// # Errors
    /// [`Error::Numeric`] when one is NaN or infinite.
    pub fn logits(&self) -> Result<Vec<Vec<f32>>> {
        logits(&self.trace()?.logits)
    }

    /// The runs that explain one output of each input. Their reverse passes are shared, and made only if a method asks.
    pub fn pass(&self, outputs: Vec<Output>) -> Result<Pass<'_>> {
        if outputs.len() != self.layouts.len() {
            return Err(Error::Usage(format!("{} outputs for {} inputs", outputs.len(), self.layouts.len())));
        }
        let rows = vec![None; outputs.len()];
        Ok(Pass { batch: self, outputs, rows, gradient: OnceLock::new(), modified: Mutex::default() })
    }
}

/// Logits as numbers, checked.
///
/// # Errors
/// [`Error::Numeric`] when one is NaN or infinite.
pub fn logits(logits: &Tensor) -> Result<Vec<Vec<f32>>> {
    let rows = logits.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    if rows.iter().flatten().any(|l| !l.is_finite()) {
        return Err(Error::Numeric("the model's logits are NaN or infinite; its activations overflow (try --dtype f32), or the input holds NaN".into()));
    }
    Ok(rows)
}

/// A batch with one output to explain for each input.
pub struct Pass<'b> {
    pub(super) batch: &'b Batch<'b>,
    pub(super) outputs: Vec<Output>,
    pub(super) rows: Vec<Option<usize>>,
    gradient: OnceLock<Arc<Reversed>>,
    /// The reverse pass under modified rules that was asked for last. Only one is kept: each holds as much as a trace.
    modified: Mutex<Option<Arc<Reversed>>>,
}

/// A reverse pass of the batch.
pub struct Reversed {
    rules: Rules,
    seed: Seed,
    /// What it carried.
    pub grads: Grads,
    pub(super) input: OnceLock<Tensor>,
    pub(super) constants: OnceLock<Vec<Tensor>>,
}

/// What a reverse pass starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    /// 1 at the explained logit (a contrast: -1 at the other).
    Logit,
    /// The derivative of the explained class's softmax probability.
    Probability,
}

impl Pass<'_> {
    /// The same pass, explaining these output tokens where given, instead of the methods' own choice (the class token).
    ///
    /// # Errors
    /// [`Error::Usage`] unless there is one entry an input, each a token of it.
    pub fn with_rows(mut self, rows: Vec<Option<usize>>) -> Result<Self> {
        let fits = |(row, layout): (&Option<usize>, &Layout)| row.is_none_or(|r| r < layout.len());
        if rows.len() != self.outputs.len() || !rows.iter().zip(&self.batch.layouts).all(fits) {
            return Err(Error::Usage(format!("rows {rows:?} do not fit the inputs of this batch")));
        }
        self.rows = rows;
        Ok(self)
    }

    /// The modified pass that is kept; one that a panic left is as good as any.
    fn kept(&self) -> MutexGuard<'_, Option<Arc<Reversed>>> {
        self.modified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reversed(&self, rules: &Rules, start: Seed) -> Result<Arc<Reversed>> {
        let plain = *rules == Rules::GRADIENT && start == Seed::Logit;
        let known = if plain { self.gradient.get().cloned() } else { self.kept().clone() };
        if let Some(known) = known.filter(|k| k.rules == *rules && k.seed == start) {
            return Ok(known);
        }
        if !plain {
            self.kept().take(); // its memory is free before the next pass takes as much
        }
        let encoder = self.batch.encoder;
        let trace = self.batch.trace()?;
        let mut seeds = seed(&self.outputs, encoder.classes(), encoder.dtype(), encoder.device())?;
        if start == Seed::Probability {
            seeds = encoder.head.probability_seed(&trace.logits, &seeds)?;
        }
        let (reads, mut layers, mut constants) = (self.batch.reads, Vec::new(), Vec::new());
        let (head, embedding) = encoder.backward_each(trace, &seeds, rules, &mut |number, own| {
            if reads == Reads::Constants {
                constants.push(encoder.layer_constants(number, &own)?);
            }
            layers.push(if reads == Reads::Everything { own } else { LayerGrads { inside: None, ..own } });
            Ok(())
        })?;
        layers.reverse();
        let known = OnceLock::new();
        if reads == Reads::Constants {
            constants.reverse();
            constants.push(encoder.head_constants(&head)?);
            let _ = known.set(constants);
        }
        let grads = Grads { embedding, layers, head };
        let made = Reversed { rules: *rules, seed: start, grads, input: OnceLock::new(), constants: known };
        let made = Arc::new(made);
        if plain {
            let _ = self.gradient.set(made.clone());
        } else {
            *self.kept() = Some(made.clone());
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    #[test]
    fn what_front_ends_share_may_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<Batch<'_>>();
        crosses::<Pass<'_>>();
        crosses::<Run<'_>>();
        crosses::<Encoder>();
    }
}
