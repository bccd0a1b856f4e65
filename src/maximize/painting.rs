//! An ascent as users ask for it: what is painted, what it starts from, the picture as it is written, and what is told of it.

use super::{Ascent, Colours, Objective, Settings};
use crate::encoder::{Inputs, Keep};
use crate::error::{Error, Result};
use crate::identity;
use crate::input::image::{decode, ImageProcessor};
use crate::model::{Checkpoint, Model, Processor};
use crate::render::png_with_text;
use crate::run::{logits, Noise};
use crate::target::{Output, Request, Target};
use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use serde_json::{json, Map, Value};
use std::path::{Path, PathBuf};

/// The first picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A tenth of a standard normal.
    Noise,
    /// Nothing.
    Gray,
    /// A picture file.
    Picture(PathBuf),
}

impl Start {
    /// `noise`, `gray`, or a file.
    pub fn parse(text: &str) -> Self {
        match text {
            "noise" => Start::Noise,
            "gray" => Start::Gray,
            path => Start::Picture(path.into()),
        }
    }

    /// What tells it from others: of a file the contents.
    pub fn identity(&self) -> Option<String> {
        match self {
            Start::Noise => Some("noise".into()),
            Start::Gray => Some("gray".into()),
            Start::Picture(path) => identity::of_file(path).ok(),
        }
    }

    /// `[C,H,W]`, normalised, on the CPU.
    ///
    /// # Errors
    /// A file that is no picture.
    pub fn image(&self, processor: &ImageProcessor, (h, w): (usize, usize), noise: &Noise) -> Result<Tensor> {
        let c = processor.channels;
        let failed = |path: &Path, why: String| Error::Input(format!("--init {}: {why}", path.display()));
        match self {
            Start::Noise => Ok((noise.normal("maximize-start", &[c, h, w])? * 0.1)?),
            Start::Gray => Ok(Tensor::zeros((c, h, w), DType::F32, &Device::Cpu)?),
            Start::Picture(path) => {
                let bytes =
                    std::fs::read(path).map_err(|e| failed(path, format!("neither noise, gray nor a file: {e}")))?;
                let picture = decode(&bytes).map_err(|e| failed(path, e.to_string()))?;
                let prepared = processor.clone().adapted(Some((h, w)), None).apply(&picture)?;
                Ok(Tensor::from_vec(prepared.pixels, (c, h, w), &Device::Cpu)?)
            }
        }
    }
}

/// What the ascent changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Pixels.
    Pixels,
    /// Their spectrum.
    Spectrum,
}

impl Objective {
    /// A class, `A-B`, or `-LABEL`.
    ///
    /// # Errors
    /// As [`Request::parse`], and for targets that only a picture decides.
    pub fn class(text: &str, checkpoint: &Checkpoint) -> Result<Self> {
        let request = Request::parse(text, &checkpoint.labels, checkpoint.scale)?;
        match request.target {
            Target::Class(class) => Ok(Objective::Class(Output { lowers: request.lowers, ..Output::of(class) })),
            Target::Contrast { class, against } => Ok(Objective::Class(Output::contrast(class, against))),
            Target::Predicted | Target::Top(_) | Target::Above { .. } | Target::Entities | Target::Token { .. } => {
                Err(Error::Usage(format!("--target {text}: name a class; there is no picture yet to predict")))
            }
        }
    }

    /// `layer=L[,channel=C][,token=T]`
    ///
    /// # Errors
    /// [`Error::Usage`] naming what cannot be read.
    pub fn unit(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::Usage(format!("--unit {text}: {why}"));
        let (mut layer, mut channel, mut token) = (None, None, None);
        for part in text.split(',').map(str::trim) {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(format!("`{part}` is not key=value")))?;
            let number = value.parse::<usize>();
            let number = number.map_err(|e| wrong(format!("{key} is a number from 0: {e}")))?;
            match key {
                "layer" => layer = Some(number),
                "channel" => channel = Some(number),
                "token" => token = Some(number),
                _ => return Err(wrong(format!("no key `{key}`; the keys are layer, channel and token"))),
            }
        }
        let layer = layer.ok_or_else(|| wrong("layer=L is missing".into()))?;
        Ok(Objective::Unit { layer, channel, token })
    }
}

impl Settings {
    /// Names of spaces on the command line, and what they mean.
    pub const SPACES: &'static [(&'static str, &'static str, Space)] =
        &[("pixel", "Pixels", Space::Pixels), ("fourier", "Spectrum", Space::Spectrum)];

    /// Refuses what no ascent can be made with.
    ///
    /// # Errors
    /// [`Error::Usage`] for a number below 0, or that is none.
    pub fn checked(self) -> Result<Self> {
        for (name, value) in [("lr", self.lr), ("decay", self.decay), ("tv", self.tv)] {
            if !value.is_finite() || value < 0.0 {
                return Err(Error::Usage(format!("--{name} {value}: expected a number from 0")));
            }
        }
        Ok(self)
    }

    /// As records state them.
    pub fn stated(&self) -> Map<String, Value> {
        let stated = json!({
            "steps": self.steps, "lr": self.lr, "decay": self.decay, "tv": self.tv, "jitter": self.jitter,
            "parametrisation": if self.fourier { "fourier" } else { "pixel" }, "unit_steps": self.unit_steps,
            "clip": self.clip,
        });
        stated.as_object().cloned().unwrap_or_default()
    }
}

/// A picture on its way.
pub struct Painting<'m> {
    model: &'m Model,
    processor: &'m ImageProcessor,
    objective: Objective,
    settings: Settings,
    /// How far it is.
    pub ascent: Ascent<'m>,
}

impl<'m> Painting<'m> {
    /// Starts at `image` `[C,H,W]`, normalised.
    ///
    /// # Errors
    /// As [`Ascent::new`].
    pub fn begin(
        model: &'m Model,
        objective: Objective,
        settings: Settings,
        image: &Tensor,
        noise: &Noise,
    ) -> Result<Self> {
        let Processor::Image(processor) = &model.checkpoint.processor else {
            return Err(Error::Refused("activation maximisation paints pictures, and this model reads texts".into()));
        };
        let colours = Colours { low: processor.black(), high: processor.white() };
        let image = image.to_device(model.encoder.device())?;
        let ascent = Ascent::new(&model.encoder, objective, settings, colours, &image, noise)?;
        Ok(Painting { model, processor, objective, settings, ascent })
    }

    /// What is maximised, by name.
    pub fn title(&self) -> String {
        match self.objective {
            Objective::Class(output) => output.label(&self.model.checkpoint.labels),
            Objective::Unit { layer, channel, token } => {
                let part = |name: &str, n: Option<usize>| n.map(|n| format!(" {name} {n}")).unwrap_or_default();
                format!("layer {layer}{}{}", part("channel", channel), part("token", token))
            }
        }
    }

    /// What is maximised, as records state it.
    pub fn objective(&self) -> Value {
        match self.objective {
            Objective::Class(o) => json!({"class": o.class, "against": o.against, "label": self.title()}),
            Objective::Unit { layer, channel, token } => json!({"layer": layer, "channel": channel, "token": token}),
        }
    }

    /// Whether what is told of it is a score, and no probability.
    pub fn scored(&self) -> bool {
        match self.objective {
            Objective::Class(output) => output.against.is_some() || self.model.probabilities(&[0.0]).is_none(),
            Objective::Unit { .. } => true,
        }
    }

    /// What it was made with, after so many steps as were taken.
    pub fn parameters(&self, init: &str, seed: u64) -> Map<String, Value> {
        let own = [("steps", json!(self.ascent.steps())), ("init", json!(init)), ("seed", json!(seed))];
        self.settings.stated().into_iter().chain(own.map(|(key, value)| (key.to_string(), value))).collect()
    }

    /// Objective and score as the image stands; of a class also the probability, of the picture as it is written.
    ///
    /// # Errors
    /// As [`Ascent::objective`].
    pub fn state(&self) -> Result<Value> {
        let (objective, score) = self.ascent.objective()?;
        let objective = (!self.settings.unit_steps).then_some(objective); // with unit steps it is not what is ascended
        let Objective::Class(output) = self.objective else {
            return Ok(json!({"objective": objective, "score": score}));
        };
        let written = self.picture()?;
        let pixels = self.processor.pixels(&written); // of the picture that is written, rounded to 8 bits
        let (h, w) = (written.height() as usize, written.width() as usize);
        let pixels = Tensor::from_vec(pixels, (1, self.processor.channels, h, w), self.model.encoder.device())?;
        let trace = self.model.encoder.forward(&Inputs::Pixels(pixels), Keep::Logits)?;
        let logits = logits(&trace.logits)?.into_iter().next().unwrap_or_default();
        let probability = self.model.probabilities(&logits).and_then(|p| p.get(output.class as usize).copied());
        Ok(json!({"objective": objective, "score": score, "probability": probability}))
    }

    /// The picture with 8 bits a channel.
    ///
    /// # Errors
    /// Tensor operations.
    pub fn picture(&self) -> Result<RgbImage> {
        let (_, h, w) = self.ascent.image().dims3()?;
        let pixels: Vec<f32> = self.ascent.image().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(self.processor.picture(&pixels, h, w))
    }

    /// The picture as a PNG that holds what it was made from.
    ///
    /// # Errors
    /// As [`png_with_text`].
    pub fn png(&self, record: &Value) -> Result<Vec<u8>> {
        png_with_text(&self.picture()?, "vitx", &record.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        let read = |t: &str| Objective::unit(t).unwrap();
        assert_eq!(read("layer=8,channel=3"), Objective::Unit { layer: 8, channel: Some(3), token: None });
        assert_eq!(read("layer=2"), Objective::Unit { layer: 2, channel: None, token: None });
        for bad in ["channel=3", "layer", "layer=x", "layer=1,row=2"] {
            assert!(Objective::unit(bad).is_err(), "{bad}");
        }
    }
}
