//! `vitx maximize`: the picture a class or a unit answers to most.

use crate::cli::args::{named, ModelArgs, ReportArgs};
use crate::cli::job::{self, Job};
use crate::cli::noted;
use crate::cli::report::{catch_interrupts, interrupted, Reporter};
use crate::cli::INTERRUPTED;
use anyhow::{bail, Context, Result};
use candle_core::Device;
use clap::Parser;
use serde_json::{json, Value};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vitx::identity::Identity;
use vitx::input::Shape;
use vitx::maximize::painting::{Painting, Space, Start};
use vitx::maximize::{Objective, Settings};
use vitx::model::{Checkpoint, Model, Processor};
use vitx::render::json::ModelId;
use vitx::render::out::{refuse_ending, refuse_existing};
use vitx::render::save;
use vitx::resume::one::One;
use vitx::run::Noise;

const DEFAULT: Settings = Settings::DEFAULT;

/// Paint the picture that a class or a unit of the model answers to most (activation maximisation)
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::MAXIMIZE)]
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
    #[arg(long, default_value = "fourier", value_name = "PARAMETRISATION", value_parser = named(Settings::SPACES))]
    parametrisation: Space,
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
    #[arg(long, value_name = "HxW", value_parser = vitx::input::prepare::size)]
    size: Option<(usize, usize)>,
    /// Replace existing files
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    report: ReportArgs,
}

impl Args {
    fn settings(&self) -> Result<Settings> {
        let base = if self.plain { Settings::PLAIN } else { DEFAULT };
        let (lr, decay) = (self.lr.unwrap_or(base.lr), self.decay.unwrap_or(base.decay));
        let base = Settings { steps: self.steps, lr, decay, ..base };
        if self.plain {
            return Ok(base.checked()?);
        }
        let fourier = self.parametrisation == Space::Spectrum;
        let (tv, jitter, unit_steps, clip) = (self.tv, self.jitter, self.unit_steps, self.clip);
        Ok(Settings { tv, jitter, fourier, unit_steps, clip, ..base }.checked()?)
    }
}

/// Runs the subcommand.
pub fn run(mut args: Args) -> Result<ExitCode> {
    args.model.classes.targets = vitx::target::texts(args.target.as_slice());
    let settings = args.settings()?;
    let device = job::device(&args.model)?;
    let id = args.model.model.clone().unwrap_or_else(|| "demo-vit".into());
    let checkpoint = job::open(&id, &args.model, args.report)?;
    checkpoint.needs_classes()?;
    let shape = Shape { size: args.size, ..Shape::default() };
    let (Processor::Image(processor), Some(size)) = (&checkpoint.processor, checkpoint.input_size(shape)) else {
        bail!("model `{id}` reads texts; activation maximisation paints pictures")
    };
    let objective = match (&args.target, &args.unit) {
        (Some(text), _) => Objective::class(text, &checkpoint).with_context(|| format!("model `{id}`"))?,
        (None, Some(text)) => Objective::unit(text)?,
        (None, None) => bail!("pass --target CLASS or --unit layer=L,channel=C"),
    };
    refuse_ending("--out", Some(&args.out), &["png"])?;
    let start = Start::parse(&args.init);
    // Frames are many files, which nobody looks at again.
    let noted = match &args.frames {
        Some(_) if !args.overwrite => refuse_existing([&args.out].into_iter(), "").map(|()| None)?,
        Some(_) => None,
        None => {
            let identity = identity(&args, &checkpoint, settings, (size, &start), &device)?;
            let noted = noted::look(&args.out, identity, args.overwrite, args.report)?;
            let Some(noted) = noted else { return Ok(ExitCode::SUCCESS) };
            Some(noted)
        }
    };
    let noise = Noise::seeded(args.seed);
    let image = start.image(processor, size, &noise)?;
    catch_interrupts()?;
    let model = Job::load(checkpoint, &args.model, &device, args.report)?;
    paint(&args, &model, Painting::begin(&model, objective, settings, &image, &noise)?, (settings, noted))
}

/// What the picture depends on.
fn identity(
    args: &Args,
    checkpoint: &Checkpoint,
    settings: Settings,
    (size, start): ((usize, usize), &Start),
    device: &Device,
) -> Result<Identity> {
    let shape = Shape { size: Some(size), ..Shape::default() };
    let of = checkpoint.stated("maximize", (args.model.dtype, device), shape)?;
    let target = args.target.iter().chain(&args.unit).cloned().collect();
    let of = Identity { target, input: start.identity().unwrap_or_default(), seed: args.seed, ..of };
    Ok(of.by("maximize", &settings.stated()).with("out", args.out.to_string_lossy()))
}

fn paint(
    args: &Args,
    model: &Model,
    mut painting: Painting<'_>,
    (settings, noted): (Settings, Option<One>),
) -> Result<ExitCode> {
    let clock = Instant::now();
    let report = Reporter::new(args.report, 1);
    let before = painting.state()?;
    let mut frames = 0;
    while painting.ascent.advance()? {
        let step = painting.ascent.steps();
        let last = step == settings.steps;
        if let Some(dir) = args.frames.as_ref().filter(|_| last || step.is_multiple_of(args.every as usize)) {
            let digits = settings.steps.to_string().len();
            let path = dir.join(format!("frame-{step:0digits$}.png"));
            save::save(&path, &painting.png(&json!(painting.parameters(&args.init, args.seed)))?, args.overwrite)?;
            frames += 1;
        }
        report.step(step, settings.steps, || {
            let (j, s) = painting.ascent.objective()?;
            Ok(if settings.unit_steps { format!("S {s:.3}") } else { format!("J {j:.3}, S {s:.3}") })
        })?;
        if interrupted() {
            break;
        }
    }
    let (steps, after) = (painting.ascent.steps(), painting.state()?);
    let record = json!({
        "status": "ok", "model": ModelId::of(&model.into()), "objective": painting.objective(),
        "parameters": painting.parameters(&args.init, args.seed), "before": before, "after": after,
        "outputs": {"image": args.out.display().to_string(), "frames": frames},
        "version": env!("CARGO_PKG_VERSION"), "ms": (clock.elapsed().as_secs_f64() * 1e4).round() / 10.0,
    });
    let picture = painting.png(&record)?;
    match noted.filter(|_| !interrupted()) {
        Some(noted) => noted::write(noted, &picture, &record, args.overwrite)?,
        None => save::save(&args.out, &picture, args.overwrite)?,
    }
    report.json_line(&record)?;
    let what = if painting.scored() { "score" } else { "probability" };
    let number = |state: &Value| state[what].as_f64().unwrap_or(f64::NAN);
    let (title, out) = (painting.title(), args.out.display());
    report.line(&format!(
        "{title}: {what} {:.3} -> {:.3} in {steps} steps -> {out}",
        number(&before),
        number(&after)
    ))?;
    let code = report.finish(1);
    Ok(if interrupted() { ExitCode::from(INTERRUPTED) } else { code })
}
