//! Activation maximisation: an image that a class, a channel, a token or a whole layer answers to most.
//!
//! Erhan et al. 2009; Simonyan et al. 2013. Gradient ascent on `J(I) = S(I) - decay sum I^2 - tv TV(I)` over the
//! normalised image I `[C,H,W]`: `I <- I + lr dJ/dI`. [`Settings::PLAIN`] is that and nothing else. Around it, each to be
//! switched on by itself: total variation (Mahendran & Vedaldi, CVPR 2015), jitter (random shifts before every step), a
//! Fourier parametrisation (Olah, Mordvintsev & Schubert, Distill 2017), steps of unit length, and staying within the
//! colours a picture can have.
//!
//! It returns an image, so it is not a [`crate::method::Method`].

mod fourier;
pub mod painting;
mod prior;

use crate::encoder::{Encoder, Inputs, Keep};
use crate::error::{Error, Result};
use crate::nn::numbers;
use crate::nn::Rules;
use crate::run::Noise;
use crate::target::{seed, Output};
use candle_core::Tensor;
use fourier::Fourier;

/// What is maximised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The logit of a class, or the difference of two.
    Class(Output),
    /// Part of the state entering layer `layer`, counted from 0 (`hidden_states[layer]` in transformers; L: the last).
    Unit {
        /// Which state.
        layer: usize,
        /// One channel; none: the mean of squares over all channels.
        channel: Option<usize>,
        /// One token, prefix counted; none: the mean over all tokens.
        token: Option<usize>,
    },
}

/// How the image is changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Number of steps.
    pub steps: usize,
    /// Step size; with `unit_steps` about the root mean square change of a pixel a step.
    pub lr: f64,
    /// Weight of `sum I^2`.
    pub decay: f64,
    /// Weight of the total variation.
    pub tv: f64,
    /// Largest shift before a step, in pixels.
    pub jitter: usize,
    /// Ascend in a spectrum whose low frequencies move as easily as high ones.
    pub fourier: bool,
    /// Divide the gradient of S by its root mean square: step size and weights of the penalties then mean the same for
    /// every model and unit, and J is no longer what is ascended.
    pub unit_steps: bool,
    /// Keep every pixel between black and white.
    pub clip: bool,
}

impl Settings {
    /// Gradient ascent with L2 decay and nothing else.
    pub const PLAIN: Settings =
        Settings { steps: 3, lr: 0.5, decay: 0.01, tv: 0.0, jitter: 0, fourier: false, unit_steps: false, clip: false };

    /// What gives a picture with structure on most models.
    pub const DEFAULT: Settings = Settings {
        steps: 256,
        lr: 0.05,
        decay: 0.02,
        tv: 0.02,
        jitter: 8,
        fourier: true,
        unit_steps: true,
        clip: true,
    };
}

/// The colours a pixel can have after normalisation, per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Colours {
    /// Black.
    pub low: Vec<f32>,
    /// White.
    pub high: Vec<f32>,
}

/// The ascent: an image on its way.
pub struct Ascent<'a> {
    encoder: &'a Encoder,
    objective: Objective,
    settings: Settings,
    colours: Colours,
    fourier: Option<Fourier>,
    /// `[N,2]` shifts of the steps to come.
    shifts: Vec<(usize, usize)>,
    image: Tensor,
    step: usize,
}

impl<'a> Ascent<'a> {
    /// Starts at `image` `[C,H,W]`, normalised.
    ///
    /// # Errors
    /// [`Error::Refused`] for a text model, [`Error::Usage`] for a layer, channel, token or class that is not there.
    pub fn new(
        encoder: &'a Encoder,
        objective: Objective,
        settings: Settings,
        colours: Colours,
        image: &Tensor,
        noise: &Noise,
    ) -> Result<Self> {
        let patches = encoder.patches().map_err(|_| {
            Error::Refused("activation maximisation paints pictures, and this model reads texts".into())
        })?;
        let (_, h, w) = image.dims3()?;
        let tokens = {
            let layout = patches.layout(h, w);
            layout.prefix.len() + layout.grid.0 * layout.grid.1
        };
        check(encoder, objective, tokens)?;
        let side = 2 * settings.jitter + 1;
        let offsets = numbers(&noise.offsets("maximize-jitter", settings.steps, (side, side))?)?;
        let shift = |o: f64, n: usize| (o as usize + n - settings.jitter % n) % n;
        let shifts = offsets.chunks(2).map(|o| (shift(o[0], h), shift(o[1], w))).collect();
        let fourier = settings.fourier.then(|| Fourier::new(h, w));
        let image = image.to_dtype(encoder.dtype())?;
        Ok(Ascent { encoder, objective, settings, colours, fourier, shifts, image, step: 0 })
    }

    /// The image as it stands, `[C,H,W]`.
    pub fn image(&self) -> &Tensor {
        &self.image
    }

    /// Steps taken so far.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// J and S at the image as it stands.
    ///
    /// # Errors
    /// [`Error::Numeric`] when the objective is not finite.
    pub fn objective(&self) -> Result<(f64, f64)> {
        let score = self.score(&self.image, Keep::Logits)?.0;
        let squares: f64 = numbers(&self.image)?.iter().map(|v| v * v).sum();
        let variation = if self.settings.tv == 0.0 { 0.0 } else { prior::variation(&self.image)?.0 };
        let value = score - self.settings.decay * squares - self.settings.tv * variation;
        if !value.is_finite() {
            return Err(Error::Numeric(format!(
                "the objective is {value} after {} steps; use a smaller --lr, or --dtype f32",
                self.step
            )));
        }
        Ok((value, score))
    }

    /// One step up; false when all are taken.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn advance(&mut self) -> Result<bool> {
        let Some(&shift) = self.shifts.get(self.step) else { return Ok(false) };
        let moved = prior::rolled(&self.image, shift)?;
        let gradient = self.gradient(&moved)?;
        let (_, h, w) = self.image.dims3()?;
        let mut gradient = prior::rolled(&gradient, ((h - shift.0) % h, (w - shift.1) % w))?;
        if self.settings.unit_steps {
            let entries = numbers(&gradient)?;
            let size = (entries.iter().map(|g| g * g).sum::<f64>() / entries.len() as f64).sqrt();
            gradient = (gradient * (1.0 / size.max(f64::MIN_POSITIVE)))?;
        }
        if self.settings.decay != 0.0 {
            gradient = (gradient - (&self.image * (2.0 * self.settings.decay))?)?;
        }
        if self.settings.tv != 0.0 {
            gradient = (gradient - (prior::variation(&self.image)?.1 * self.settings.tv)?)?;
        }
        if let Some(fourier) = &self.fourier {
            gradient = fourier.precondition(&gradient)?;
        }
        self.image = (&self.image + (gradient * self.settings.lr)?)?;
        if self.settings.clip {
            let bound = |b: &[f32]| -> Result<Tensor> {
                let b = Tensor::new(b, self.image.device())?.to_dtype(self.image.dtype())?.reshape((b.len(), 1, 1))?;
                Ok(b.broadcast_as(self.image.shape())?.contiguous()?)
            };
            self.image = self.image.maximum(&bound(&self.colours.low)?)?.minimum(&bound(&self.colours.high)?)?;
        }
        self.step += 1;
        Ok(true)
    }

    /// S at an image, and what its reverse pass starts from: the trace and the layer it was read at.
    fn score(&self, image: &Tensor, keep: Keep) -> Result<(f64, crate::trace::Trace)> {
        // A state is read off the record of the layer it enters.
        let keep = if matches!(self.objective, Objective::Unit { .. }) { Keep::Layers } else { keep };
        let trace = self.encoder.forward(&Inputs::Pixels(image.unsqueeze(0)?), keep)?;
        let score = match self.objective {
            Objective::Class(output) => output.value(&numbers(&trace.logits.get(0)?)?),
            Objective::Unit { layer, channel, token } => {
                let state = state(&trace, layer)?; // [T,D]
                let tokens = match token {
                    Some(token) => state.narrow(0, token, 1)?,
                    None => state,
                };
                let values = match channel {
                    Some(channel) => numbers(&tokens.narrow(1, channel, 1)?.contiguous()?)?,
                    None => numbers(&tokens.sqr()?)?,
                };
                values.iter().sum::<f64>() / values.len() as f64
            }
        };
        Ok((score, trace))
    }

    /// dS/dI, `[C,H,W]`.
    fn gradient(&self, image: &Tensor) -> Result<Tensor> {
        let (_, trace) = self.score(image, Keep::Layers)?;
        let (encoder, inputs) = (self.encoder, Inputs::Pixels(image.unsqueeze(0)?));
        let arriving = match self.objective {
            Objective::Class(output) => {
                let seed = seed(&[output], encoder.classes(), encoder.dtype(), encoder.device())?;
                encoder.backward(&trace, &seed, &Rules::GRADIENT)?.embedding
            }
            Objective::Unit { layer, channel, token } => {
                let state = state(&trace, layer)?;
                let (t, d) = state.dims2()?;
                let count = if token.is_some() { 1 } else { t } * if channel.is_some() { 1 } else { d };
                let chosen = |i: usize| token.is_none_or(|k| k == i / d) && channel.is_none_or(|c| c == i % d);
                let slope = |(i, v): (usize, f64)| match chosen(i) {
                    false => 0.0,
                    true if channel.is_some() => 1.0 / count as f64,
                    true => 2.0 * v / count as f64,
                };
                let slopes: Vec<f64> = numbers(&state)?.into_iter().enumerate().map(slope).collect();
                let seed = Tensor::from_vec(slopes, (1, t, d), &candle_core::Device::Cpu)?;
                let seed = seed.to_dtype(encoder.dtype())?.to_device(encoder.device())?;
                let start = Tensor::ones(1, encoder.dtype(), encoder.device())?;
                let below = trace.layers.get(..layer).unwrap_or_default();
                encoder.walk(below, &seed, &Rules::GRADIENT, &start, &mut |_, _| Ok(()))?
            }
        };
        Ok(encoder.input_backward(&inputs, &arriving, &Rules::GRADIENT)?.get(0)?)
    }
}

/// The state entering a layer, `[T,D]`; behind the last for L.
fn state(trace: &crate::trace::Trace, layer: usize) -> Result<Tensor> {
    Ok(trace.layers.get(layer).map_or(&trace.last, |l| &l.input).get(0)?)
}

fn check(encoder: &Encoder, objective: Objective, tokens: usize) -> Result<()> {
    let (layer, channel, token) = match objective {
        Objective::Class(output) => {
            seed(&[output], encoder.classes(), encoder.dtype(), encoder.device())?;
            return Ok(());
        }
        Objective::Unit { layer, channel, token } => (layer, channel, token),
    };
    let width = encoder.blocks.get(layer).or(encoder.blocks.last()).map_or(0, |b| b.width());
    // Tokens are those of the last layer; each merging from here on makes one of four.
    let merges = encoder.blocks.iter().skip(layer).filter(|block| block.merging.is_some()).count();
    let tokens = tokens << (2 * merges);
    let limits =
        [("layer", Some(layer), encoder.blocks.len() + 1), ("channel", channel, width), ("token", token, tokens)];
    for (key, value, limit) in limits {
        if let Some(value) = value.filter(|v| *v >= limit) {
            return Err(Error::Usage(format!("{key}={value}: this model has 0 to {}", limit - 1)));
        }
    }
    Ok(())
}
