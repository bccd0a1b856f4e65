//! What a method is given: one input of a batch, its trace, and on demand its reverse passes, each made once for all
//! methods that need it.

use crate::encoder::{Block, Encoder, Inputs, Keep};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::method::noise::Noise;
use crate::method::subject::Subject;
use crate::method::tape::{Logits, Tape};
use crate::nn::Rules;
use crate::target::{seed, Output};
use crate::trace::{Grads, Trace};
use candle_core::{DType, Tensor};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

/// Inputs that go through the model together: one forward pass for every method and target.
pub struct Batch<'m> {
    encoder: &'m Encoder,
    inputs: Inputs,
    layouts: Vec<Layout>,
    trace: OnceCell<Trace>,
    noise: Noise,
    watch: Option<Watch<'m>>,
    tape: RefCell<Tape>,
}

/// Is told how many of how many steps a slow method has done; answers whether to go on.
pub type Watch<'m> = Box<dyn Fn(usize, usize) -> bool + 'm>;

impl<'m> Batch<'m> {
    /// A batch of inputs and what their tokens are. Nothing is computed yet.
    ///
    /// # Errors
    /// [`Error::Usage`] unless there is one layout an input.
    pub fn new(encoder: &'m Encoder, inputs: Inputs, layouts: Vec<Layout>) -> Result<Self> {
        if inputs.batch()? != layouts.len() || layouts.is_empty() {
            return Err(Error::Usage(format!("a batch of {} inputs with {} layouts", inputs.batch()?, layouts.len())));
        }
        Ok(Batch {
            encoder,
            inputs,
            layouts,
            trace: OnceCell::new(),
            noise: Noise::default(),
            watch: None,
            tape: RefCell::default(),
        })
    }

    /// Watches the progress of slow methods.
    pub fn watched(mut self, watch: Watch<'m>) -> Self {
        self.watch = Some(watch);
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

    /// Puts runs on variants of the inputs off, or answers them; returns what was set before.
    pub fn set_tape(&self, tape: Tape) -> Tape {
        self.tape.replace(tape)
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
            let _ = self.trace.set(self.encoder.forward(&self.inputs, Keep::Layers)?);
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
        Ok(Pass { batch: self, outputs, rows, gradient: OnceCell::new(), modified: RefCell::default() })
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
    batch: &'b Batch<'b>,
    outputs: Vec<Output>,
    rows: Vec<Option<usize>>,
    gradient: OnceCell<Rc<Reversed>>,
    /// The reverse pass under modified rules that was asked for last. Only one is kept: each holds as much as a trace.
    modified: RefCell<Option<Rc<Reversed>>>,
}

/// A reverse pass of the batch.
pub struct Reversed {
    rules: Rules,
    seed: Seed,
    /// What it carried.
    pub grads: Grads,
    input: OnceCell<Tensor>,
    constants: OnceCell<Vec<Tensor>>,
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

    /// The run of one input.
    pub fn run(&self, row: usize) -> Run<'_> {
        Run { pass: self, row }
    }

    fn reversed(&self, rules: &Rules, start: Seed) -> Result<Rc<Reversed>> {
        let plain = *rules == Rules::GRADIENT && start == Seed::Logit;
        let known = if plain { self.gradient.get().cloned() } else { self.modified.borrow().clone() };
        if let Some(known) = known.filter(|k| k.rules == *rules && k.seed == start) {
            return Ok(known);
        }
        if !plain {
            self.modified.borrow_mut().take(); // its memory is free before the next pass takes as much
        }
        let encoder = self.batch.encoder;
        let trace = self.batch.trace()?;
        let mut seeds = seed(&self.outputs, encoder.classes(), encoder.dtype(), encoder.device())?;
        if start == Seed::Probability {
            seeds = encoder.head.probability_seed(&trace.logits, &seeds)?;
        }
        let grads = encoder.backward(trace, &seeds, rules)?;
        let made = Reversed { rules: *rules, seed: start, grads, input: OnceCell::new(), constants: OnceCell::new() };
        let made = Rc::new(made);
        if plain {
            let _ = self.gradient.set(made.clone());
        } else {
            *self.modified.borrow_mut() = Some(made.clone());
        }
        Ok(made)
    }
}

/// One input and one output to explain. Tensors come without the batch axis and without padding.
#[derive(Clone, Copy)]
pub struct Run<'p> {
    pass: &'p Pass<'p>,
    row: usize,
}

impl<'p> Run<'p> {
    /// The explained output.
    pub fn output(&self) -> Output {
        self.pass.outputs[self.row]
    }

    /// What the tokens are.
    pub fn layout(&self) -> &Layout {
        &self.pass.batch.layouts[self.row]
    }

    /// The output token asked for, if not the method's own choice.
    pub fn row(&self) -> Option<usize> {
        self.pass.rows[self.row]
    }

    /// Tells whoever watches that `done` of `total` steps are done.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the watcher wants to stop.
    pub fn progress(&self, done: usize, total: usize) -> Result<()> {
        match &self.pass.batch.watch {
            Some(watch) if !watch(done, total) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Random numbers of this run.
    pub fn noise(&self) -> &Noise {
        &self.pass.batch.noise
    }

    /// The put-off answer for `count` variants; none when the model is to run at once.
    pub(super) fn put_off(&self, count: usize, make: impl FnOnce() -> Result<Inputs>) -> Result<Option<Logits>> {
        self.pass.batch.tape.borrow_mut().answer(count, self.encoder().classes(), make)
    }

    /// The model.
    pub fn encoder(&self) -> &'p Encoder {
        self.pass.batch.encoder
    }

    /// Its number in the batch.
    pub fn number(&self) -> usize {
        self.row
    }

    /// This input alone, to be varied.
    pub fn subject(&self) -> Result<Subject<'p>> {
        let batch = self.pass.batch;
        Subject::new(*self, &batch.inputs.example(self.row, if self.is_text() { self.tokens() } else { 0 })?)
    }

    /// Whether the input is a text.
    pub fn is_text(&self) -> bool {
        matches!(self.layout(), Layout::Text(_))
    }

    /// The seed that explains this output in each of `count` variants, `[count,C]`.
    pub(super) fn seeds(&self, count: usize) -> Result<Tensor> {
        let encoder = self.encoder();
        seed(&vec![self.output(); count], encoder.classes(), encoder.dtype(), encoder.device())
    }

    /// The seeds of the whole batch, `[B,C]`.
    pub(super) fn batch_seeds(&self) -> Result<Tensor> {
        let encoder = self.encoder();
        seed(&self.pass.outputs, encoder.classes(), encoder.dtype(), encoder.device())
    }

    /// The explained value in logits.
    pub fn logit(&self) -> Result<f64> {
        let row = self.pass.batch.trace()?.logits.get(self.row)?;
        Ok(self.output().value(&super::combine::numbers(&row)?))
    }

    /// Number of real tokens, T.
    pub fn tokens(&self) -> usize {
        self.layout().len()
    }

    /// Number of layers, L.
    pub fn layers(&self) -> usize {
        self.pass.batch.encoder.blocks.len()
    }

    /// Attention probabilities of a layer, `[H,T,T]`, f32 at least.
    pub fn attention(&self, layer: usize) -> Result<Tensor> {
        self.square(&self.pass.batch.trace()?.layers[layer].attention)
    }

    /// Derivative of the explained output by the attention probabilities of a layer, `[H,T,T]`, f32 at least.
    pub fn attention_gradient(&self, layer: usize) -> Result<Tensor> {
        self.attention_under(&Rules::GRADIENT, layer)
    }

    /// What a reverse pass under `rules` carries to the attention probabilities of a layer, `[H,T,T]`, f32 at least.
    pub fn attention_under(&self, rules: &Rules, layer: usize) -> Result<Tensor> {
        self.square(&self.reverse(rules)?.grads.layers[layer].attention)
    }

    /// The reverse pass of the whole batch under `rules`; its tensors hold every input and its padding.
    pub fn reverse(&self, rules: &Rules) -> Result<Rc<Reversed>> {
        self.pass.reversed(rules, Seed::Logit)
    }

    /// The same from another start.
    pub fn reverse_from(&self, rules: &Rules, seed: Seed) -> Result<Rc<Reversed>> {
        self.pass.reversed(rules, seed)
    }

    /// What a reverse pass carries to the input itself: `[C,H,W]` pixels, or `[T,D]` rows of the word table.
    pub fn input_under(&self, rules: &Rules) -> Result<Tensor> {
        let reversed = self.reverse(rules)?;
        if reversed.input.get().is_none() {
            let (batch, grads) = (self.pass.batch, &reversed.grads);
            let _ = reversed.input.set(batch.encoder.input_backward(&batch.inputs, &grads.embedding, rules)?);
        }
        let all = reversed.input.get().ok_or_else(|| Error::Numeric("the input's gradient was not kept".into()))?;
        if self.is_text() {
            return self.state(all);
        }
        widened(&all.get(self.row)?)
    }

    /// Relevance of the constants of each layer, and last of the head, `[T]` each, from a reverse pass (see
    /// [`Encoder::constants`]).
    pub fn constants(&self, reversed: &Reversed) -> Result<Vec<Tensor>> {
        if reversed.constants.get().is_none() {
            let _ = reversed.constants.set(self.encoder().constants(&reversed.grads)?);
        }
        let all = reversed.constants.get().map_or(&[][..], Vec::as_slice);
        all.iter().map(|t| self.state(t)).collect()
    }

    /// The state entering layer l, `[T,D]`, and what a reverse pass carries to it; l = L: the state leaving the last.
    pub fn state_and(&self, grads: &Grads, l: usize) -> Result<(Tensor, Tensor)> {
        let trace = self.pass.batch.trace()?;
        let (state, grad) = match (trace.layers.get(l), grads.layers.get(l)) {
            (Some(layer), Some(own)) => (&layer.input, &own.input),
            _ => (&trace.last, &grads.head.last),
        };
        Ok((self.state(state)?, self.state(grad)?))
    }

    /// The block of a layer.
    pub fn block(&self, layer: usize) -> &Block {
        &self.pass.batch.encoder.blocks[layer]
    }

    /// Values of a layer, bias included, `[H,T,E]`.
    pub fn value(&self, layer: usize) -> Result<Tensor> {
        let own = self.pass.batch.trace()?.layers[layer].value.get(self.row)?.narrow(1, 0, self.tokens())?;
        widened(&own)
    }

    /// State entering a layer, `[T,D]`.
    pub fn input(&self, layer: usize) -> Result<Tensor> {
        self.state(&self.pass.batch.trace()?.layers[layer].input)
    }

    /// State after a layer's attention and its skip connection, before any layer norm, `[T,D]`.
    pub fn mid(&self, layer: usize) -> Result<Tensor> {
        self.state(&self.pass.batch.trace()?.layers[layer].mid)
    }

    /// State after a layer's feed-forward and its skip connection, before any layer norm, `[T,D]`.
    pub fn sum(&self, layer: usize) -> Result<Tensor> {
        self.state(&self.pass.batch.trace()?.layers[layer].sum)
    }

    /// State leaving a layer, `[T,D]`.
    pub fn output_state(&self, layer: usize) -> Result<Tensor> {
        self.state(&self.pass.batch.trace()?.layers[layer].output)
    }

    /// The recorded forward pass of the whole batch.
    pub fn trace(&self) -> Result<&'p Trace> {
        self.pass.batch.trace()
    }

    /// This input's part of a `[B,T,...]` tensor, padding cut off, f32 at least.
    pub fn state(&self, tensor: &Tensor) -> Result<Tensor> {
        widened(&tensor.get(self.row)?.narrow(0, 0, self.tokens())?)
    }

    /// This input's part of a `[B,H,T,T]` tensor, padding cut off, f32 at least.
    pub fn square(&self, tensor: &Tensor) -> Result<Tensor> {
        let n = self.tokens();
        widened(&tensor.get(self.row)?.narrow(1, 0, n)?.narrow(2, 0, n)?)
    }
}

/// Half precision as f32, contiguous.
pub(super) fn widened(tensor: &Tensor) -> Result<Tensor> {
    let dtype = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(tensor.to_dtype(dtype)?.contiguous()?)
}
