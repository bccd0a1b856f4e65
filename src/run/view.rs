//! What a method is given: one input of a batch and the output that is explained of it.

use super::batch::{no_layer, Pass, Reversed, Seed};
use super::noise::Noise;
use crate::encoder::{Block, Encoder, Pool};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::{numbers, widened, Around, Places, Reach, Rules};
use crate::target::{seed, Output};
use crate::trace::{LayerGrads, LayerTrace, Trace};
use candle_core::Tensor;
use std::sync::Arc;

impl Pass<'_> {
    /// The run of one input.
    pub fn run(&self, row: usize) -> Run<'_> {
        Run { pass: self, row }
    }
}

/// One input and one output to explain. Tensors come without the batch axis and without padding.
#[derive(Clone, Copy)]
pub struct Run<'p> {
    pub(super) pass: &'p Pass<'p>,
    pub(super) row: usize,
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

    /// The token that the head reads, where it reads one.
    pub fn read_token(&self) -> Option<usize> {
        match self.encoder().head.readings.first().map(|reading| &reading.pool) {
            Some(Pool::Token(number)) => Some(*number),
            _ => None,
        }
    }

    /// How much of each token's output row the head reads, `[1,T]`, where it pools several.
    pub fn pooled(&self) -> Result<Option<&'p Tensor>> {
        let (batch, tokens) = (self.pass.batch, self.tokens());
        let Some(known) = batch.pooled.get(self.row) else { return Ok(None) };
        if known.get().is_none() {
            let states = || -> Result<(Tensor, Arc<Around>)> {
                let trace = self.trace()?;
                let own = trace.last.narrow(0, self.row, 1)?.narrow(1, 0, tokens)?.contiguous()?;
                let places = batch.encoder.around_of(&trace.around, self.layers()).places;
                let around = Around::new(places, None, (tokens, own.dtype(), own.device()), [])?;
                Ok((batch.encoder.normed(&own)?, Arc::new(around)))
            };
            let pool = batch.encoder.head.readings.first().map(|reading| &reading.pool);
            let shares = pool.map_or(Ok(None), |pool| pool.shares(tokens, &states))?;
            let _ = known.set(shares);
        }
        Ok(known.get().and_then(Option::as_ref))
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

    /// The model.
    pub fn encoder(&self) -> &'p Encoder {
        self.pass.batch.encoder
    }

    /// Its number in the batch.
    pub fn number(&self) -> usize {
        self.row
    }

    /// Whether the input is a text.
    pub fn is_text(&self) -> bool {
        matches!(self.layout(), Layout::Text(_))
    }

    /// The seed that explains this output in each of `count` variants, `[count,C]`.
    pub fn seeds(&self, count: usize) -> Result<Tensor> {
        let encoder = self.encoder();
        seed(&vec![self.output(); count], encoder.classes(), encoder.dtype(), encoder.device())
    }

    /// The seeds of the whole batch, `[B,C]`.
    pub fn batch_seeds(&self) -> Result<Tensor> {
        let encoder = self.encoder();
        seed(&self.pass.outputs, encoder.classes(), encoder.dtype(), encoder.device())
    }

    /// The explained value in logits.
    pub fn logit(&self) -> Result<f64> {
        let row = self.pass.batch.trace()?.logits.get(self.row)?;
        Ok(self.output().value(&numbers(&row)?))
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
        let batch = self.pass.batch;
        let attention = batch.encoder.attention(batch.trace()?, layer)?.ok_or_else(|| no_layer(layer))?; // [B,H,T,T]
        self.square(&attention)
    }

    /// What a layer did with the whole batch.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such layer, or where the pass kept less (see [`crate::run::Reads`]).
    pub fn record(&self, layer: usize) -> Result<&'p LayerTrace> {
        self.pass.batch.trace()?.layers.get(layer).ok_or_else(|| no_layer(layer))
    }

    /// Derivative of the explained output by the attention probabilities of a layer, `[H,T,T]`, f32 at least.
    pub fn attention_gradient(&self, layer: usize) -> Result<Tensor> {
        self.attention_under(&Rules::GRADIENT, layer)
    }

    /// What a reverse pass under `rules` carries to the attention probabilities of a layer, `[H,T,T]`, f32 at least.
    pub fn attention_under(&self, rules: &Rules, layer: usize) -> Result<Tensor> {
        let reversed = self.reverse(rules)?;
        self.square(&self.pass.attention(&reversed, layer)?)
    }

    /// The reverse pass of the whole batch under `rules`; its tensors hold every input and its padding.
    pub fn reverse(&self, rules: &Rules) -> Result<Arc<Reversed>> {
        self.pass.reversed(rules, Seed::Logit)
    }

    /// The same from another start.
    pub fn reverse_from(&self, rules: &Rules, seed: Seed) -> Result<Arc<Reversed>> {
        self.pass.reversed(rules, seed)
    }

    /// What a reverse pass carries to the input itself: `[C,H,W]` pixels, or `[T,D]` rows of the word table.
    pub fn input_under(&self, rules: &Rules) -> Result<Tensor> {
        let reversed = self.reverse(rules)?;
        if reversed.input.get().is_none() {
            let (batch, embedding) = (self.pass.batch, self.pass.embedding(&reversed)?);
            let _ = reversed.input.set(batch.encoder.input_backward(&batch.inputs, &embedding, rules)?);
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
        self.pass.constants(reversed)?.iter().map(|t| self.state(t)).collect()
    }

    /// The state entering layer l, `[T,D]`, and what a reverse pass carries to it; l = L: the state leaving the last.
    pub fn state_and(&self, reversed: &Reversed, l: usize) -> Result<(Tensor, Tensor)> {
        let trace = self.pass.batch.trace()?;
        match self.pass.batch.entering(l)? {
            Some(state) => Ok((self.state(state)?, self.state(&self.pass.layer(reversed, l)?.input)?)),
            None => Ok((self.state(&trace.last)?, self.state(&reversed.head.last)?)),
        }
    }

    /// The state leaving layer l, before any merging of its tokens, `[T,D]`, and what a reverse pass carries to it.
    pub fn left_and(&self, reversed: &Reversed, l: usize) -> Result<(Tensor, Tensor)> {
        if self.block(l).merging.is_none() {
            return self.state_and(reversed, l + 1);
        }
        let own = self.pass.layer(reversed, l)?;
        let inside = own.inside.as_ref().ok_or_else(|| no_layer(l))?;
        Ok((self.output_state(l)?, self.state(&inside.output)?))
    }

    /// What a reverse pass carried into a layer, of the whole batch and its padding.
    pub fn carried(&self, reversed: &Reversed, layer: usize) -> Result<LayerGrads> {
        self.pass.layer(reversed, layer)
    }

    /// The block of a layer.
    pub fn block(&self, layer: usize) -> &Block {
        &self.pass.batch.encoder.blocks[layer]
    }

    /// Refuses windows: of those a record holds many for each input.
    fn whole(&self) -> Result<()> {
        match self.encoder().blocks.iter().any(|block| matches!(block.attention.op.reach, Reach::Windows(_))) {
            true => Err(Error::Refused(
                "tokens of this model see those of their window alone: there is no attention of all tokens for all"
                    .into(),
            )),
            false => Ok(()),
        }
    }

    /// Values of a layer, bias included, `[H,T,E]`.
    ///
    /// # Errors
    /// As [`Run::square`].
    pub fn value(&self, layer: usize) -> Result<Tensor> {
        self.whole()?;
        let own = self.record(layer)?.value.get(self.row)?.narrow(1, 0, self.tokens())?.contiguous()?;
        widened(&own)
    }

    /// State entering a layer, `[T,D]`.
    pub fn input(&self, layer: usize) -> Result<Tensor> {
        self.state(self.pass.batch.entering(layer)?.ok_or_else(|| no_layer(layer))?)
    }

    /// State after a layer's attention and its skip connection, before any layer norm, `[T,D]`.
    pub fn mid(&self, layer: usize) -> Result<Tensor> {
        self.state(&self.record(layer)?.mid)
    }

    /// State after a layer's feed-forward and its skip connection, before any layer norm, `[T,D]`.
    pub fn sum(&self, layer: usize) -> Result<Tensor> {
        self.state(&self.record(layer)?.sum)
    }

    /// State leaving a layer, `[T,D]`.
    pub fn output_state(&self, layer: usize) -> Result<Tensor> {
        self.state(&self.record(layer)?.output)
    }

    /// The recorded forward pass of the whole batch.
    pub fn trace(&self) -> Result<&'p Trace> {
        self.pass.batch.trace()
    }

    /// This input's part of a `[B,T,...]` tensor, padding cut off, f32 at least.
    pub fn state(&self, tensor: &Tensor) -> Result<Tensor> {
        let own = tensor.get(self.row)?;
        // Images have no padding, and layers may hold more tokens than the last one, which the layout tells.
        widened(&if self.is_text() { own.narrow(0, 0, self.tokens())? } else { own })
    }

    /// Rows and columns of an image's tokens in a layer; none for texts.
    pub fn grid(&self, layer: usize) -> Result<Option<(usize, usize)>> {
        match self.encoder().around_of(&self.trace()?.around, layer).places {
            Places::Grid { rows, columns, .. } => Ok(Some((rows, columns))),
            Places::Line => Ok(None),
        }
    }

    /// What a layer's tokens have `[T]`, to equal parts at the tokens of the first layer that they stand for.
    pub fn spread(&self, amounts: &Tensor, layer: usize) -> Result<Tensor> {
        let spread = self.encoder().spread(amounts.unsqueeze(0)?, &self.trace()?.around, layer)?;
        Ok(spread.squeeze(0)?)
    }

    /// This input's part of a `[B,H,T,T]` tensor, padding cut off, f32 at least.
    ///
    /// # Errors
    /// [`Error::Refused`] where tokens see those of their window alone.
    pub fn square(&self, tensor: &Tensor) -> Result<Tensor> {
        self.whole()?;
        let n = self.tokens();
        widened(&tensor.get(self.row)?.narrow(1, 0, n)?.narrow(2, 0, n)?)
    }
}
