//! Inputs that go through the model together: their trace, and on demand their reverse passes, each made once for all
//! methods that need it.

use super::noise::Noise;
use crate::encoder::{Encoder, Inputs, Keep, Walk};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::Rules;
use crate::target::{seed, Output};
use crate::trace::{HeadGrads, LayerGrads, Trace};
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
    top_down: bool,
    pub(super) memory: Option<Memory>,
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
    /// What reaches each layer's input, attention and what its projections read in reverse passes; of the forward pass the
    /// attention and the states entering the layers, as those passes need them.
    Gradients,
    /// Beside those every record of the forward pass.
    States,
    /// Beside those the relevance of each layer's constants.
    Constants,
    /// Everything that reverse passes carry into a layer.
    Everything,
}

impl Reads {
    /// What the forward pass keeps.
    pub fn keep(self) -> Keep {
        match self {
            Reads::Logits => Keep::Logits,
            Reads::Attention => Keep::Attention,
            Reads::Gradients => Keep::Reverse,
            Reads::States | Reads::Constants | Reads::Everything => Keep::Layers,
        }
    }
}

/// Bytes that passes may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// With all they keep of the layers.
    pub kept: usize,
    /// At all: more is an error.
    pub most: usize,
}

impl Memory {
    /// What a user allows, such as `2G` or `500M`.
    ///
    /// # Errors
    /// [`Error::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
        let unit = units.into_iter().find(|(unit, _)| text.ends_with([*unit, unit.to_ascii_lowercase()]));
        let (number, power) = unit.map_or((text, 0), |(_, power)| (&text[..text.len() - 1], power));
        let number = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
        let most = number.map(|n| (n * (1u64 << power) as f64) as usize);
        most.map(|most| Memory { kept: most, most })
            .ok_or_else(|| Error::Usage("expected a number of bytes, such as 2G or 500M".into()))
    }

    /// Refuses what inputs of so many tokens need, where it is more than may be taken.
    ///
    /// # Errors
    /// [`Error::Input`] with both.
    pub fn holds(self, needs: usize, tokens: usize) -> Result<()> {
        if needs <= self.most {
            return Ok(());
        }
        let (needs, most) = (needs as f64 / GIB, self.most as f64 / GIB);
        Err(Error::Input(format!("{tokens} tokens need {needs:.1} GiB for the passes, and {most:.1} GiB may be taken; use a smaller --size, a shorter text, or more --memory")))
    }

    /// What each of so many passes that run at a time may take of it.
    pub fn shared_by(self, passes: usize) -> Self {
        Memory { kept: self.kept / passes.max(1), most: self.most / passes.max(1) }
    }

    /// An eighth of what is free for what is kept, and all of it where that is too little.
    pub fn share(free: usize) -> Self {
        Memory { kept: free / 8, most: free }
    }
}

const GIB: f64 = (1u64 << 30) as f64;

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
            top_down: false,
            memory: None,
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

    /// Says that one method alone reads the passes, each layer once, from the last one down: reverse passes then hold one layer's
    /// gradients at a time. One that asks again for a layer above has its pass made anew.
    pub fn top_down(mut self, alone: bool) -> Self {
        self.top_down = alone;
        self
    }

    /// Lets passes take so much memory. Layers for which it is too little are computed anew when they are asked for, to the
    /// same bits.
    pub fn within(mut self, memory: Option<Memory>) -> Self {
        self.memory = memory;
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
            let _ = self.trace.set(self.encoder.forward(&self.inputs, self.keep()?)?);
        }
        self.trace.get().ok_or_else(|| Error::Numeric("the trace was not kept".into()))
    }

    /// What the forward pass keeps within the memory it may take.
    fn keep(&self) -> Result<Keep> {
        let keep = self.reads.keep();
        let Some(memory) = self.memory else { return Ok(keep) };
        let tokens = self.layouts.iter().map(Layout::len).max().unwrap_or(0);
        let needs = |keep| self.layouts.len() * self.encoder.bytes(tokens, keep);
        let anew = matches!(keep, Keep::Attention | Keep::Reverse);
        if needs(keep) <= if anew { memory.kept } else { memory.most } {
            return Ok(keep);
        }
        let least = if anew { Keep::Inputs } else { keep };
        memory.holds(needs(least), tokens)?;
        Ok(least)
    }

    /// The state that enters a layer, of the whole batch `[B,T,D]`; none behind the last.
    pub(super) fn entering(&self, layer: usize) -> Result<Option<&Tensor>> {
        let trace = self.trace()?;
        let again = trace.again.as_ref().and_then(|again| again.inputs.get(layer));
        Ok(trace.layers.get(layer).map(|l| &l.input).or(again))
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

/// A reverse pass of the batch, which goes down as far as methods ask.
pub struct Reversed {
    rules: Rules,
    seed: Seed,
    /// What reached the head.
    pub head: HeadGrads,
    progress: Mutex<Progress>,
    pub(super) input: OnceLock<Tensor>,
}

/// How far a reverse pass has gone, and what is kept of the layers behind it.
struct Progress {
    walk: Walk,
    layers: Vec<Option<LayerGrads>>,
    /// Relevance of the layers' constants, the last layer first, where they are read.
    constants: Vec<Tensor>,
    /// Whether to keep the layer gone through last alone.
    forgets: bool,
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
        let (head, progress) = self.begin(rules, start, self.batch.top_down)?;
        let (progress, input) = (Mutex::new(progress), OnceLock::new());
        let made = Reversed { rules: *rules, seed: start, head, progress, input };
        let made = Arc::new(made);
        if plain {
            let _ = self.gradient.set(made.clone());
        } else {
            *self.kept() = Some(made.clone());
        }
        Ok(made)
    }
}

impl Pass<'_> {
    fn begin(&self, rules: &Rules, start: Seed, forgets: bool) -> Result<(HeadGrads, Progress)> {
        let (encoder, trace) = (self.batch.encoder, self.batch.trace()?);
        let mut seeds = seed(&self.outputs, encoder.classes(), encoder.dtype(), encoder.device())?;
        if start == Seed::Probability {
            seeds = encoder.head.probability_seed(&trace.logits, &seeds)?;
        }
        let (head, walk) = encoder.begin(trace, &seeds, rules)?;
        let walk = walk.bare(self.batch.reads < Reads::Constants);
        let layers = vec![None; encoder.blocks.len()];
        Ok((head, Progress { walk, layers, constants: Vec::new(), forgets }))
    }

    /// The progress of a pass, which is begun anew where it has forgotten a layer that is asked for.
    fn progress<'r>(&self, reversed: &'r Reversed, layer: usize) -> Result<MutexGuard<'r, Progress>> {
        let mut progress = reversed.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if layer >= progress.walk.left() && progress.layers.get(layer).is_some_and(Option::is_none) {
            *progress = self.begin(&reversed.rules, reversed.seed, false)?.1;
        }
        Ok(progress)
    }

    /// Goes through one more layer.
    fn step(&self, progress: &mut Progress) -> Result<()> {
        let (batch, encoder) = (self.batch, self.batch.encoder);
        if progress.forgets {
            progress.layers.fill(None); // before the next layer takes as much
        }
        let Some((number, own)) = encoder.step(batch.trace()?, &mut progress.walk)? else { return Ok(()) };
        if batch.reads >= Reads::Constants {
            progress.constants.push(encoder.layer_constants(number, &own, &batch.trace()?.around)?);
        }
        let kept = if batch.reads == Reads::Everything { own } else { LayerGrads { inside: None, ..own } };
        if let Some(place) = progress.layers.get_mut(number) {
            *place = Some(kept);
        }
        Ok(())
    }

    /// What a reverse pass carried into a layer.
    ///
    /// # Errors
    /// [`Error::Usage`] for a layer the model does not have.
    pub(super) fn layer(&self, reversed: &Reversed, layer: usize) -> Result<LayerGrads> {
        let mut progress = self.progress(reversed, layer)?;
        while progress.walk.left() > layer {
            self.step(&mut progress)?;
        }
        progress.layers.get(layer).cloned().flatten().ok_or_else(|| no_layer(layer))
    }

    /// What a reverse pass carried to a layer's attention, `[B,H,T,T]`; it goes no further for it.
    ///
    /// # Errors
    /// As [`Pass::layer`].
    pub(super) fn attention(&self, reversed: &Reversed, layer: usize) -> Result<Tensor> {
        let mut progress = self.progress(reversed, layer)?;
        if let Some(Some(known)) = progress.layers.get(layer) {
            return Ok(known.attention.clone());
        }
        while progress.walk.left() > layer + 1 {
            self.step(&mut progress)?;
        }
        if progress.forgets {
            progress.layers.fill(None); // before the next layer takes as much
        }
        let reached = self.batch.encoder.peek(self.batch.trace()?, &mut progress.walk)?;
        reached.filter(|_| progress.walk.left() == layer + 1).ok_or_else(|| no_layer(layer))
    }

    /// What a reverse pass carried to the state entering the first layer, `[B,T,D]`.
    pub(super) fn embedding(&self, reversed: &Reversed) -> Result<Tensor> {
        let mut progress = reversed.progress.lock().unwrap_or_else(PoisonError::into_inner);
        while progress.walk.left() > 0 {
            self.step(&mut progress)?;
        }
        Ok(progress.walk.arriving().clone())
    }

    /// Relevance of the constants of each layer, and last of the head, `[B,T]` each.
    ///
    /// # Errors
    /// [`Error::Usage`] where the pass reads less than them (see [`Reads`]).
    pub(super) fn constants(&self, reversed: &Reversed) -> Result<Vec<Tensor>> {
        self.embedding(reversed)?;
        let progress = reversed.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.constants.len() != self.batch.encoder.blocks.len() {
            return Err(Error::Usage("constants are asked of a reverse pass that did not keep them".into()));
        }
        let head = self.batch.encoder.head_constants(&reversed.head, &self.batch.trace()?.around)?;
        Ok(progress.constants.iter().rev().cloned().chain([head]).collect())
    }
}

pub(super) fn no_layer(layer: usize) -> Error {
    Error::Usage(format!("layer {layer} is asked of a pass that has no such layer, or did not keep it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    #[test]
    fn memory_is_read_as_it_is_written() {
        let most = |text: &str| Memory::parse(text).ok().map(|m| m.most);
        assert_eq!([most("2G"), most("1.5m"), most("300")], [Some(2 << 30), Some(3 << 19), Some(300)]);
        assert!(["", "G", "-1G", "2 GB", "inf"].iter().all(|text| most(text).is_none()));
    }

    #[test]
    fn what_front_ends_share_may_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<Batch<'_>>();
        crosses::<Pass<'_>>();
        crosses::<Run<'_>>();
        crosses::<Encoder>();
    }
}
