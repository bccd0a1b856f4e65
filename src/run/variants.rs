//! One input by itself, as values that can be varied: what gradient and perturbation methods run the model on.
//!
//! Variants go through the model in chunks under a memory budget. An example's numbers do not depend on its neighbours
//! in a batch, so results do not depend on the chunk, the batch size or the number of threads.

use super::ask::{Ask, Logits};
use super::view::Run;
use crate::encoder::{Encoder, Inputs, Keep};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::{numbers, widened, Around, Rules};
use crate::trace::Trace;
use candle_core::{DType, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of activations that one chunk of variants takes at most: a larger one is no faster.
const BUDGET: usize = 512 << 20;

/// One input by itself.
#[derive(Clone)]
pub struct Subject<'r> {
    run: Run<'r>,
    /// A batch of this one input, unpadded: pixels, or rows of the word table.
    inputs: Inputs,
    ids: Option<Vec<u32>>,
}

/// The value whose change is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// The explained logit.
    Logit,
    /// The explained class's probability; its value where the model gives values.
    Probability,
}

impl Score {
    /// By name.
    pub const NAMES: &'static [(&'static str, Self)] = &[("logit", Score::Logit), ("probability", Score::Probability)];
}

impl<'p> Run<'p> {
    /// This input alone, to be varied.
    pub fn subject(&self) -> Result<Subject<'p>> {
        let batch = self.pass.batch;
        Subject::new(*self, &batch.inputs.example(self.row, if self.is_text() { self.tokens() } else { 0 })?)
    }

    /// The explained value of a row of logits.
    pub fn score(&self, score: Score, logits: &[f64]) -> f64 {
        match score {
            Score::Logit => self.output().value(logits),
            Score::Probability => self.output().value(&self.encoder().head.scale.measured(logits)),
        }
    }

    /// Logits of the input as it is, `[C]`.
    pub fn own_logits(&self) -> Result<Vec<f64>> {
        numbers(&self.trace()?.logits.get(self.number())?)
    }

    /// The explained value of the input as it is.
    pub fn own_score(&self, score: Score) -> Result<f64> {
        Ok(self.score(score, &self.own_logits()?))
    }
}

impl<'r> Subject<'r> {
    /// `inputs` is a batch of this one input without padding.
    fn new(run: Run<'r>, inputs: &Inputs) -> Result<Self> {
        let ids = match inputs {
            Inputs::Tokens { ids, .. } => Some(ids.get(0)?.to_vec1()?),
            _ => None,
        };
        Ok(Subject { run, inputs: run.encoder().continuous(inputs)?, ids })
    }

    fn encoder(&self) -> &'r Encoder {
        self.run.encoder()
    }

    fn layout(&self) -> &Layout {
        self.run.layout()
    }

    /// Its values: `[C,H,W]` normalised pixels, or `[T,D]` rows of the word table; f32 at least.
    pub fn values(&self) -> Result<Tensor> {
        match &self.inputs {
            Inputs::Pixels(values) | Inputs::Words { rows: values, .. } => widened(&values.get(0)?),
            Inputs::Tokens { .. } => Err(Error::Usage("token ids have no continuous values".into())),
        }
    }

    /// Height and width of an image in pixels.
    pub fn size(&self) -> Result<(usize, usize)> {
        match &self.inputs {
            Inputs::Pixels(pixels) => Ok((pixels.dim(2)?, pixels.dim(3)?)),
            _ => Err(Error::Refused("a text has no pixels".into())),
        }
    }

    /// The token ids of a text.
    pub fn ids(&self) -> Result<&[u32]> {
        self.ids.as_deref().ok_or_else(|| Error::Refused("this input has no token ids".into()))
    }

    /// A batch of variants with these values, `[N,3,H,W]` or `[N,T,D]`.
    pub fn with(&self, values: &Tensor) -> Result<Inputs> {
        let n = values.dim(0)?;
        let many = |t: &Tensor| t.broadcast_as((n, t.dim(1)?))?.contiguous();
        Ok(match &self.inputs {
            Inputs::Words { positions, types, mask, .. } => Inputs::Words {
                rows: values.clone(),
                positions: many(positions)?,
                types: many(types)?,
                mask: many(mask)?,
            },
            _ => Inputs::Pixels(values.clone()),
        })
    }

    /// A text with some tokens replaced by others, a row of ids `[T]` a variant; positions stay as they were.
    pub fn with_ids(&self, ids: &[Vec<u32>]) -> Result<Inputs> {
        let (n, t) = (ids.len(), ids.first().map_or(0, Vec::len));
        let flat = Tensor::from_vec(ids.concat(), (n, t), self.encoder().device())?;
        self.with(&self.encoder().words()?.rows(&flat)?)
    }

    /// A text with some tokens not attended to, a row of kept tokens `[T]` a variant; everything else stays.
    pub fn with_mask(&self, kept: &[Vec<bool>]) -> Result<Inputs> {
        let (n, t) = (kept.len(), kept.first().map_or(0, Vec::len));
        let values = self.values()?.to_dtype(self.encoder().dtype())?.unsqueeze(0)?;
        let values = values.broadcast_as((n, t, values.dim(2)?))?.contiguous()?;
        let kept: Vec<u8> = kept.iter().flatten().map(|k| u8::from(*k)).collect();
        match self.with(&values)? {
            Inputs::Words { rows, positions, types, .. } => Ok(Inputs::Words {
                rows,
                positions,
                types,
                mask: Tensor::from_vec(kept, (n, t), self.encoder().device())?,
            }),
            _ => Err(Error::Refused("an image has no attention mask".into())),
        }
    }

    /// A text cut down to these tokens, one variant; later tokens move up, token types travel with their token.
    pub fn cut_to(&self, tokens: &[usize]) -> Result<Inputs> {
        let Inputs::Words { types, .. } = &self.inputs else {
            return Err(Error::Refused("tokens can be cut out of texts only".into()));
        };
        let own = self.ids()?;
        let ids: Vec<u32> = tokens.iter().map(|&t| own[t]).collect();
        let index: Vec<u32> = tokens.iter().map(|&t| t as u32).collect();
        let (device, n) = (self.encoder().device(), ids.len());
        let types = types.index_select(&Tensor::from_vec(index, n, device)?, 1)?;
        let ids = Tensor::from_vec(ids, (1, n), device)?;
        let mask = Tensor::ones((1, n), DType::U8, device)?;
        Ok(Inputs::Tokens { ids, types, mask })
    }

    /// Logits of `count` variants, `[C]` each. `make` builds the batch of a range of them.
    ///
    /// # Errors
    /// [`Error::Numeric`] when one is not finite, [`Error::Interrupted`], and whatever `make` reports.
    pub fn logits(&self, count: usize, make: impl Fn(Range<usize>) -> Result<Inputs>) -> Result<Logits> {
        let mut all = Vec::with_capacity(count);
        for range in chunks(count, self.chunk(Keep::Logits)) {
            let end = range.end;
            let logits = self.encoder().logits(&make(range)?)?;
            let (n, c) = logits.dims2()?;
            let flat = numbers(&logits)?;
            if let Some(bad) = flat.iter().position(|l| !l.is_finite()) {
                let at = end - n + bad / c.max(1);
                return Err(Error::Numeric(format!("the logits of variant {at} of the input are not finite")));
            }
            all.extend(flat.chunks(c.max(1)).map(<[f64]>::to_vec));
            self.run.progress(end, count)?;
        }
        Ok(all)
    }

    /// The explained value of each of `count` variants.
    ///
    /// # Errors
    /// As [`Subject::logits`].
    pub fn scores(
        &self,
        score: Score,
        count: usize,
        make: impl Fn(Range<usize>) -> Result<Inputs>,
    ) -> Result<Vec<f64>> {
        Ok(self.logits(count, make)?.iter().map(|row| self.run.score(score, row)).collect())
    }

    /// The answers to some asks about this input.
    ///
    /// # Errors
    /// As [`Subject::logits`].
    pub fn answers(&self, asks: &[Ask<'_>]) -> Result<Vec<Logits>> {
        asks.iter().map(|ask| self.logits(ask.count, &ask.make)).collect()
    }

    /// Calls `each` with the gradient of the explained logit at every one of `count` variants, in order, `[...]` like
    /// [`Subject::values`]. `make` gives the values of a range of variants, `[N,...]`.
    ///
    /// # Errors
    /// As [`Subject::logits`].
    pub fn gradients(
        &self,
        count: usize,
        make: impl Fn(Range<usize>) -> Result<Tensor>,
        mut each: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        for range in chunks(count, self.chunk(Keep::Reverse)) {
            let inputs = self.with(&make(range.clone())?)?;
            let (trace, seed) = self.traced(&inputs)?;
            let (_, embedding) = self.encoder().backward_each(&trace, &seed, &Rules::GRADIENT, &mut |_, _| Ok(()))?;
            let by_input = self.encoder().input_backward(&inputs, &embedding, &Rules::GRADIENT)?;
            for (i, variant) in range.clone().enumerate() {
                each(variant, &widened(&by_input.get(i)?)?)?;
            }
            self.run.progress(range.end, count)?;
        }
        Ok(())
    }

    /// A pass over variants recorded for its reverse, and the seed that explains this run's output in each of them.
    fn traced(&self, inputs: &Inputs) -> Result<(Trace, Tensor)> {
        Ok((self.encoder().forward(inputs, Keep::Reverse)?, self.run.seeds(inputs.batch()?)?))
    }

    /// What the layers consult when they run on states of this input alone, `[N,T,D]`.
    pub fn around(&self) -> Result<Arc<Around>> {
        Ok(Arc::new(self.encoder().around(&self.inputs)?))
    }

    /// Number of variants that go through the model together, within what passes may take.
    pub fn chunk(&self, keep: Keep) -> usize {
        let memory = self.run.pass.batch.memory;
        self.fitting(keep, memory.map_or(BUDGET, |memory| memory.kept.min(BUDGET)))
    }

    /// The same where their activations may take so many bytes.
    pub fn fitting(&self, keep: Keep, budget: usize) -> usize {
        let example = self.encoder().bytes(self.layout().len(), keep);
        // Variants of a reverse pass are few at a time: beyond some they take memory and no less time.
        let example = if keep == Keep::Reverse { 3 * example } else { example };
        (budget / example.max(1)).clamp(1, 64)
    }
}

/// `0..count` in pieces of `size`.
fn chunks(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(size).map(move |from| from..(from + size).min(count))
}
