//! What a method is given: one input of a batch, its trace, and on demand its gradients, computed once for all methods.

use crate::encoder::{Block, Encoder, Inputs, Keep};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::Rules;
use crate::target::{seed, Output};
use crate::trace::{Grads, Trace};
use candle_core::{DType, Tensor};
use std::cell::OnceCell;

/// Inputs that go through the model together: one forward pass for every method and target.
pub struct Batch<'m> {
    encoder: &'m Encoder,
    inputs: Inputs,
    layouts: Vec<Layout>,
    trace: OnceCell<Trace>,
    watch: Option<Watch<'m>>,
}

/// Is told how many of how many steps a slow method has done.
pub type Watch<'m> = Box<dyn Fn(usize, usize) + 'm>;

impl<'m> Batch<'m> {
    /// A batch of inputs and what their tokens are. Nothing is computed yet.
    ///
    /// # Errors
    /// [`Error::Usage`] unless there is one layout an input.
    pub fn new(encoder: &'m Encoder, inputs: Inputs, layouts: Vec<Layout>) -> Result<Self> {
        if inputs.batch()? != layouts.len() || layouts.is_empty() {
            return Err(Error::Usage(format!("a batch of {} inputs with {} layouts", inputs.batch()?, layouts.len())));
        }
        Ok(Batch { encoder, inputs, layouts, trace: OnceCell::new(), watch: None })
    }

    /// Watches the progress of slow methods.
    pub fn watched(mut self, watch: Watch<'m>) -> Self {
        self.watch = Some(watch);
        self
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

    /// The runs that explain one output of each input. Their reverse pass is shared, and made only if a method asks.
    pub fn pass(&self, outputs: Vec<Output>) -> Result<Pass<'_>> {
        if outputs.len() != self.layouts.len() {
            return Err(Error::Usage(format!("{} outputs for {} inputs", outputs.len(), self.layouts.len())));
        }
        let rows = vec![None; outputs.len()];
        Ok(Pass { batch: self, outputs, rows, grads: OnceCell::new() })
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
    grads: OnceCell<Grads>,
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

    fn grads(&self) -> Result<&Grads> {
        if self.grads.get().is_none() {
            let encoder = self.batch.encoder;
            let seed = seed(&self.outputs, encoder.classes(), encoder.dtype(), encoder.device())?;
            let _ = self.grads.set(encoder.backward(self.batch.trace()?, &seed, &Rules::GRADIENT)?);
        }
        self.grads.get().ok_or_else(|| Error::Numeric("the gradients were not kept".into()))
    }
}

/// One input and one output to explain. Tensors come without the batch axis and without padding.
#[derive(Clone, Copy)]
pub struct Run<'p> {
    pass: &'p Pass<'p>,
    row: usize,
}

impl Run<'_> {
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
    pub fn progress(&self, done: usize, total: usize) {
        if let Some(watch) = &self.pass.batch.watch {
            watch(done, total);
        }
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
        self.square(&self.pass.grads()?.layers[layer].attention)
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

    /// This input's part of a `[B,T,D]` tensor, padding cut off.
    fn state(&self, tensor: &Tensor) -> Result<Tensor> {
        widened(&tensor.get(self.row)?.narrow(0, 0, self.tokens())?)
    }

    /// This input's part of a `[B,H,T,T]` tensor, padding cut off.
    fn square(&self, tensor: &Tensor) -> Result<Tensor> {
        let n = self.tokens();
        widened(&tensor.get(self.row)?.narrow(1, 0, n)?.narrow(2, 0, n)?)
    }
}

/// Half precision as f32, contiguous.
fn widened(tensor: &Tensor) -> Result<Tensor> {
    let dtype = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(tensor.to_dtype(dtype)?.contiguous()?)
}
