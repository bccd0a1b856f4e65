//! `vitx maximize`: the picture a class or a unit answers to most.

use super::args::{ModelArgs, ReportArgs};
use super::job::{self, Job};
use super::noted::Noted;
use super::outputs::{refuse_ending, refuse_existing};
use super::record::ModelId;
use super::report::{catch_interrupts, interrupted, Reporter};
use super::{devices, INTERRUPTED};
use anyhow::{bail, Context, Result};
use candle_core::{Device, Tensor};
use clap::Parser;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use vitx::identity;
use vitx::input::image::{decode, ImageProcessor};
use vitx::maximize::{Ascent, Colours, Objective, Settings};
use vitx::model::{Checkpoint, EmbeddingSpec, Model, Processor};
use vitx::render::save;
use vitx::run::Noise;
use vitx::target::{Output, Request, Target};

const DEFAULT: Settings = Settings::DEFAULT;

/// Paint the picture that a class or a unit of the model answers to most (activation maximisation)
#[derive(Parser, Debug)]
#[command(after_help = super::examples::MAXIMIZE)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The class whose logit is maximised: a label, a class number, A-B, or -LABEL (its logit is minimised)
    #[arg(
        short,
        long,
        value_name = "CLASS",
        required_unless_present = "unit",
        conflicts_with = "unit",
        allow_hyphen_values = true
    )]
    target: Option<String>,
    /// A unit of the state entering a layer: layer=L[,channel=C][,token=T]; without channel the whole layer (mean of
    /// squares), without token the mean over all
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// The PNG to write; its parameters stand in a text chunk named `vitx`
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Also write the picture of every step (or every N-th, see --every) into this directory
    #[arg(long, value_name = "DIR")]
    frames: Option<PathBuf>,
    /// Steps from one frame to the next
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Steps of gradient ascent
    #[arg(long, default_value_t = DEFAULT.steps, value_name = "N")]
    steps: usize,
    /// Step size; with unit steps about the mean change of a pixel, in normalised values [default: 0.05, plain: 0.5]
    #[arg(long)]
    lr: Option<f64>,
    /// Weight of the L2 penalty [default: 0.02, plain: 0.01]
    #[arg(long)]
    decay: Option<f64>,
    /// Weight of the total variation
    #[arg(long, default_value_t = DEFAULT.tv)]
    tv: f64,
    /// Largest random shift before a step, in pixels
    #[arg(long, default_value_t = DEFAULT.jitter, value_name = "PX")]
    jitter: usize,
    /// Ascend in pixels, or in a spectrum in which low frequencies move as easily as high ones
    #[arg(long, default_value = "fourier", value_enum)]
    parametrisation: Parametrisation,
    /// Divide the objective's gradient by its size, so that --lr, --decay and --tv mean the same for every model
    #[arg(long, default_value_t = DEFAULT.unit_steps, action = clap::ArgAction::Set, value_name = "BOOL")]
    unit_steps: bool,
    /// Keep pixels between black and white
    #[arg(long, default_value_t = DEFAULT.clip, action = clap::ArgAction::Set, value_name = "BOOL")]
    clip: bool,
    /// Gradient ascent with L2 decay and nothing else: no total variation, jitter, spectrum, clipping or unit steps
    #[arg(long, conflicts_with_all = ["tv", "jitter", "parametrisation", "unit_steps", "clip"])]
    plain: bool,
    /// The first picture: noise (a tenth of a standard normal), gray, or an image file
    #[arg(long, default_value = "noise", value_name = "INIT")]
    init: String,
    /// Seed of noise and jitter
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Size of the picture other than the checkpoint's input, in pixels: HxW or N
    #[arg(long, value_name = "HxW", value_parser = super::args::size)]
    size: Option<(usize, usize)>,
    /// Replace existing files
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Parametrisation {
    /// Pixels
    Pixel,
    /// Spectrum
    Fourier,
}

impl Args {
    fn settings(&self) -> Result<Settings> {
        let base = if self.plain { Settings::PLAIN } else { DEFAULT };
        let (lr, decay) = (self.lr.unwrap_or(base.lr), self.decay.unwrap_or(base.decay));
        for (name, value) in [("lr", lr), ("decay", decay), ("tv", self.tv)] {
            if !value.is_finite() || value < 0.0 {
                bail!("--{name} {value}: expected a number from 0");
            }
        }
        let base = Settings { steps: self.steps, lr, decay, ..base };
        if self.plain {
            return Ok(base);
        }
        let fourier = self.parametrisation == Parametrisation::Fourier;
        let (tv, jitter, unit_steps, clip) = (self.tv, self.jitter, self.unit_steps, self.clip);
        Ok(Settings { tv, jitter, fourier, unit_steps, clip, ..base })
    }
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let settings = args.settings()?;
    devices::limit_threads(&args.model);
    let device = devices::device(&args.model.device)?;
    let id = args.model.model.clone().unwrap_or_else(|| "demo-vit".into());
    let checkpoint = job::open(&id, &args.model, args.report)?;
    let processor = match &checkpoint.processor {
        Processor::Image(processor) => processor.clone(),
        Processor::Text(_) => bail!("model `{id}` reads texts; activation maximisation paints pictures"),
    };
    let objective = match (&args.target, &args.unit) {
        (Some(text), _) => class(text, &checkpoint).with_context(|| format!("model `{id}`"))?,
        (None, Some(text)) => unit(text)?,
        (None, None) => bail!("pass --target CLASS or --unit layer=L,channel=C"),
    };
    refuse_ending("--out", Some(&args.out), &["png"])?;
    let size = args.size.or(processor.input_size());
    let size = size.unwrap_or(match &checkpoint.spec.embedding {
        EmbeddingSpec::Patches { image, .. } => *image,
        EmbeddingSpec::Words { .. } => (224, 224), // refused above
    });
    // Frames are many files, which nobody looks at again.
    let noted = match &args.frames {
        Some(_) if !args.overwrite => refuse_existing([&args.out].into_iter(), "").map(|()| None)?,
        Some(_) => None,
        None => {
            let key = key(&args, &checkpoint, settings, size, &device)?;
            let noted = Noted::open(&args.out, key, args.overwrite, args.report)?;
            let Some(noted) = noted else { return Ok(ExitCode::SUCCESS) };
            Some(noted)
        }
    };
    let noise = Noise::seeded(args.seed);
    let start = initial(&args.init, &processor, size, &noise)?;
    catch_interrupts()?;
    let model = Job::load(checkpoint, &args.model, &device, args.report)?;
    let start = start.to_device(&device)?;
    Work { args: &args, model: &model, processor: &processor, objective, settings, noted }.ascend(&start, &noise)
}

/// What the picture depends on.
fn key(args: &Args, checkpoint: &Checkpoint, s: Settings, (h, w): (usize, usize), device: &Device) -> Result<Value> {
    let init = match args.init.as_str() {
        "noise" | "gray" => json!(args.init),
        file => json!(identity::of_file(Path::new(file)).ok()),
    };
    Ok(json!({
        "command": "maximize", "model": checkpoint.identity()?, "target": args.target, "unit": args.unit, "init": init,
        "settings": [s.steps, s.lr, s.decay, s.tv, s.jitter, s.fourier, s.unit_steps, s.clip], "seed": args.seed,
        "size": [h, w], "out": args.out, "dtype": devices::name(args.model.dtype), "device": devices::class(device),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

fn class(text: &str, checkpoint: &Checkpoint) -> Result<Objective> {
    let request = Request::parse(text, &checkpoint.labels, checkpoint.scale)?;
    match request.target {
        Target::Class(class) => Ok(Objective::Class(Output { lowers: request.lowers, ..Output::of(class) })),
        Target::Contrast { class, against } => Ok(Objective::Class(Output::contrast(class, against))),
        Target::Predicted | Target::Top(_) | Target::Above { .. } => {
            bail!("--target {text}: name a class; there is no picture yet to predict")
        }
    }
}

fn unit(text: &str) -> Result<Objective> {
    let (mut layer, mut channel, mut token) = (None, None, None);
    for part in text.split(',').map(str::trim) {
        let (key, value) = part.split_once('=').with_context(|| format!("--unit {text}: `{part}` is not key=value"))?;
        let number = value.parse::<usize>().with_context(|| format!("--unit {text}: {key} is a number from 0"))?;
        match key {
            "layer" => layer = Some(number),
            "channel" => channel = Some(number),
            "token" => token = Some(number),
            _ => bail!("--unit {text}: no key `{key}`; the keys are layer, channel and token"),
        }
    }
    let layer = layer.with_context(|| format!("--unit {text}: layer=L is missing"))?;
    Ok(Objective::Unit { layer, channel, token })
}

fn initial(init: &str, processor: &ImageProcessor, (h, w): (usize, usize), noise: &Noise) -> Result<Tensor> {
    let c = processor.channels;
    match init {
        "noise" => Ok((noise.normal("maximize-start", &[c, h, w])? * 0.1)?),
        "gray" => Ok(Tensor::zeros((c, h, w), candle_core::DType::F32, &candle_core::Device::Cpu)?),
        path => {
            let bytes =
                std::fs::read(path).with_context(|| format!("--init {path}: neither noise, gray nor a file"))?;
            let picture = decode(&bytes).with_context(|| format!("--init {path}"))?;
            let prepared = processor.clone().adapted(Some((h, w)), None).apply(&picture)?;
            Ok(Tensor::from_vec(prepared.pixels, (c, h, w), &candle_core::Device::Cpu)?)
        }
    }
}

struct Work<'a> {
    args: &'a Args,
    model: &'a Model,
    processor: &'a ImageProcessor,
    objective: Objective,
    settings: Settings,
    noted: Option<Noted>,
}

impl Work<'_> {
    fn ascend(mut self, start: &Tensor, noise: &Noise) -> Result<ExitCode> {
        let clock = Instant::now();
        let report = Reporter::new(self.args.report, 1);
        let colours = Colours { low: self.processor.black(), high: self.processor.white() };
        let mut ascent = Ascent::new(&self.model.encoder, self.objective, self.settings, colours, start, noise)?;
        let before = self.state(&ascent)?;
        let mut frames = 0;
        while ascent.advance()? {
            let step = ascent.steps();
            let last = step == self.settings.steps;
            if let Some(dir) = self.args.frames.as_ref().filter(|_| last || step % self.args.every as usize == 0) {
                let digits = self.settings.steps.to_string().len();
                let path = dir.join(format!("frame-{step:0digits$}.png"));
                save::save(&path, &self.png(&ascent, &self.parameters(step))?, self.args.overwrite)?;
                frames += 1;
            }
            report.step(step, self.settings.steps, || {
                let (j, s) = ascent.objective()?;
                Ok(if self.settings.unit_steps { format!("S {s:.3}") } else { format!("J {j:.3}, S {s:.3}") })
            })?;
            if interrupted() {
                break;
            }
        }
        let after = self.state(&ascent)?;
        let record = json!({
            "status": "ok", "model": ModelId::of(self.model), "objective": self.objective_json(),
            "parameters": self.parameters(ascent.steps()), "before": before, "after": after,
            "outputs": {"image": self.args.out.display().to_string(), "frames": frames},
            "version": env!("CARGO_PKG_VERSION"), "ms": (clock.elapsed().as_secs_f64() * 1e4).round() / 10.0,
        });
        let picture = self.png(&ascent, &record)?;
        match self.noted.take().filter(|_| !interrupted()) {
            Some(noted) => noted.save(&picture, &record)?,
            None => save::save(&self.args.out, &picture, self.args.overwrite)?,
        }
        report.json_line(&record)?;
        let number = |state: &Value, key: &str| state[key].as_f64().unwrap_or(f64::NAN);
        let contrast = matches!(self.objective, Objective::Class(Output { against: Some(_), .. }));
        let what = if contrast || before["probability"].is_null() { "score" } else { "probability" };
        report.line(&format!(
            "{}: {what} {:.3} -> {:.3} in {} steps -> {}",
            self.title(),
            number(&before, what),
            number(&after, what),
            ascent.steps(),
            self.args.out.display()
        ))?;
        let code = report.finish(1);
        Ok(if interrupted() { ExitCode::from(INTERRUPTED) } else { code })
    }

    fn title(&self) -> String {
        match self.objective {
            Objective::Class(output) => output.label(&self.model.checkpoint.labels),
            Objective::Unit { layer, channel, token } => {
                let part = |name: &str, n: Option<usize>| n.map(|n| format!(" {name} {n}")).unwrap_or_default();
                format!("layer {layer}{}{}", part("channel", channel), part("token", token))
            }
        }
    }

    fn objective_json(&self) -> Value {
        match self.objective {
            Objective::Class(o) => json!({"class": o.class, "against": o.against, "label": self.title()}),
            Objective::Unit { layer, channel, token } => json!({"layer": layer, "channel": channel, "token": token}),
        }
    }

    fn parameters(&self, steps: usize) -> Value {
        let s = &self.settings;
        json!({
            "steps": steps, "lr": s.lr, "decay": s.decay, "tv": s.tv, "jitter": s.jitter,
            "parametrisation": if s.fourier { "fourier" } else { "pixel" }, "unit_steps": s.unit_steps, "clip": s.clip,
            "init": self.args.init, "seed": self.args.seed,
        })
    }

    /// Objective and score of the ascent's image; of a class also the probability, of the picture as it is written.
    fn state(&self, ascent: &Ascent<'_>) -> Result<Value> {
        let (objective, score) = ascent.objective()?;
        let objective = (!self.settings.unit_steps).then_some(objective); // with unit steps it is not what is ascended
        let Objective::Class(output) = self.objective else {
            return Ok(json!({"objective": objective, "score": score}));
        };
        let written = self.written(ascent)?;
        let pixels = self.processor.pixels(&written); // of the picture that is written, rounded to 8 bits
        let (h, w) = (written.height() as usize, written.width() as usize);
        let pixels = Tensor::from_vec(pixels, (1, self.processor.channels, h, w), self.model.encoder.device())?;
        let inputs = vitx::encoder::Inputs::Pixels(pixels);
        let trace = self.model.encoder.forward(&inputs, vitx::encoder::Keep::Logits)?;
        let logits = vitx::run::logits(&trace.logits)?.remove(0);
        let probability = self.model.probabilities(&logits).and_then(|p| p.get(output.class as usize).copied());
        Ok(json!({"objective": objective, "score": score, "probability": probability}))
    }

    /// The picture with 8 bits a channel.
    fn written(&self, ascent: &Ascent<'_>) -> Result<image::RgbImage> {
        let (_, h, w) = ascent.image().dims3()?;
        let pixels: Vec<f32> = ascent.image().to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(self.processor.picture(&pixels, h, w))
    }

    fn png(&self, ascent: &Ascent<'_>, record: &Value) -> Result<Vec<u8>> {
        Ok(vitx::render::png_with_text(&self.written(ascent)?, "vitx", &record.to_string())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        let read = |t: &str| unit(t).unwrap();
        assert_eq!(read("layer=8,channel=3"), Objective::Unit { layer: 8, channel: Some(3), token: None });
        assert_eq!(read("layer=2"), Objective::Unit { layer: 2, channel: None, token: None });
        for bad in ["channel=3", "layer", "layer=x", "layer=1,row=2"] {
            assert!(unit(bad).is_err(), "{bad}");
        }
    }
}
