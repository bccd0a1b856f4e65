//! Labelled data with its model: what `evaluate` and `tune` share.

use super::args::{FitArg, ModelArgs, ReportArgs};
use super::devices;
use super::job::{self, Job};
use super::prepare::{batch_of, Preparer, Ready};
use super::report::{catch_interrupts, Reporter};
use super::sources::{Kind, Source};
use anyhow::{bail, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use vitx::evaluate::dataset::{self, mask_at_input, rationale_tokens, Content, Sample};
use vitx::evaluate::Truth;
use vitx::explanation::Layout;
use vitx::input::text::Text;
use vitx::method::{Batch, Facts, Noise};
use vitx::model::{Checkpoint, Modality, Model};
use vitx::target::{Output, Reading, Scale};
use vitx::Error;

/// Arguments of both commands.
#[derive(clap::Args, Debug)]
pub struct DataArgs {
    /// A folder of class folders, or a CSV: path,label[,mask] for images, text,label[,rationale] for texts
    #[arg(long, value_name = "DATA")]
    pub data: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    /// The class that is explained: the labelled one, or the predicted one
    #[arg(short, long, default_value = "label", value_enum)]
    pub target: TargetArg,
    /// Use the first N inputs only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Input resolution other than the checkpoint's, in pixels: HxW or N
    #[arg(long, value_name = "HxW", value_parser = super::args::size)]
    pub size: Option<(usize, usize)>,
    /// How pictures of another shape meet the input size
    #[arg(long, value_enum)]
    pub fit: Option<FitArg>,
    /// Seed of controls, stochastic methods, confidence intervals and splits
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

/// `--target`
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetArg {
    /// The class the data says
    Label,
    /// The class the model says
    Predicted,
}

/// One input, and what is to be explained of it.
#[derive(Debug)]
pub struct Input {
    pub name: String,
    content: Content,
    pub questions: Vec<Question>,
}

/// One explanation to judge.
#[derive(Debug)]
pub struct Question {
    /// The labelled class.
    pub class: u32,
    /// Its name.
    pub label: String,
    mask: Option<PathBuf>,
    rationale: Option<String>,
}

/// Model and data.
pub struct Labelled {
    pub model: Model,
    pub facts: Facts,
    pub inputs: Vec<Input>,
    /// Samples that were left out, with the reason.
    pub failures: Vec<(String, String)>,
}

/// What was checked before weights were read.
pub struct Checked {
    checkpoint: Checkpoint,
    device: candle_core::Device,
    pub facts: Facts,
    inputs: Vec<Input>,
    failures: Vec<(String, String)>,
}

impl Checked {
    /// Reads the data and resolves its labels. Unknown labels are reported later, with the other failures.
    ///
    /// # Errors
    /// Data that cannot be read, or of which no label is known.
    pub fn open(args: &DataArgs, report: ReportArgs) -> Result<Self> {
        devices::limit_threads(&args.model);
        let device = devices::device(&args.model.device)?;
        let samples = dataset::read(&args.data)?;
        let texts = matches!(samples[0].content, Content::Text(_));
        if samples.iter().any(|s| matches!(s.content, Content::Text(_)) != texts) {
            bail!("--data {}: texts and pictures in one data set", args.data.display());
        }
        let id = args.model.model.clone().unwrap_or_else(|| if texts { "demo-bert" } else { "demo-vit" }.into());
        let checkpoint = job::open(&id, &args.model, report)?;
        if (checkpoint.family.modality == Modality::Text) != texts {
            let reads = if texts { "pictures, but the data are texts" } else { "texts, but the data are pictures" };
            bail!("model `{id}` reads {reads}");
        }
        let readings = Readings::of(&samples, &checkpoint);
        if !report.quiet && (args.data.is_dir() || readings.numbers > 0) {
            eprintln!("note: {}", readings.told(args.data.is_dir()));
        }
        let (mut inputs, mut failures) = group(samples, &checkpoint);
        if let Some(limit) = args.limit {
            inputs.truncate(limit);
        }
        if inputs.is_empty() {
            let (name, why) = failures.swap_remove(0);
            bail!("--data {}: no label of it is one of the model's; {name}: {why}", args.data.display());
        }
        catch_interrupts()?;
        let facts = job::facts(&checkpoint);
        Ok(Checked { checkpoint, device, facts, inputs, failures })
    }

    /// The model's name, as it was asked for.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// As [`Job::load`].
    pub fn load(self, args: &DataArgs) -> Result<Labelled> {
        let model = Job::load(self.checkpoint, &args.model, &self.device)?;
        Ok(Labelled { model, facts: self.facts, inputs: self.inputs, failures: self.failures })
    }
}

/// One input with its forward pass and what is asked of it.
pub struct Prepared<'m> {
    pub ready: Ready,
    pub batch: Batch<'m>,
    /// The likeliest class.
    pub predicted: u32,
    /// Logits of the input as it is.
    pub logits: Vec<f32>,
    /// What is explained, with what is known of it; in the order of the input's questions.
    pub questions: Vec<(Output, Truth)>,
}

impl Labelled {
    /// Runs the model on one input.
    ///
    /// # Errors
    /// Whatever reading, preparing or the pass reports.
    pub fn prepared(&self, number: usize, args: &DataArgs, report: &Reporter) -> vitx::Result<Prepared<'_>> {
        let input = &self.inputs[number];
        let ready = preparer(&self.model, args).prepare(&input.source())?;
        let batch = batch(&self.model, &ready, args.seed, report)?;
        let logits = batch.logits()?.remove(0);
        let asked = |q: &Question| -> vitx::Result<(Output, Truth)> {
            Ok((q.output(args.target, &logits), q.truth(&ready, batch.layout(0))?))
        };
        let questions = input.questions.iter().map(asked).collect::<vitx::Result<Vec<_>>>()?;
        Ok(Prepared { ready, predicted: vitx::target::ranked(&logits)[0], logits, batch, questions })
    }
}

/// The class that a written label means. Of a model with one value any number is its true value.
fn class_of(text: &str, checkpoint: &Checkpoint) -> vitx::Result<(u32, Reading)> {
    let read = checkpoint.labels.read(text);
    let one_value = checkpoint.scale == Scale::Value && checkpoint.labels.len() == 1;
    if read.is_err() && one_value && text.trim().parse::<f64>().is_ok_and(f64::is_finite) {
        return Ok((0, Reading::Number));
    }
    read
}

/// How many different labels of the data were found by name, how many by number, and how many not.
struct Readings {
    names: usize,
    numbers: usize,
    unknown: usize,
}

impl Readings {
    fn of(samples: &[Sample], checkpoint: &Checkpoint) -> Self {
        let written: BTreeSet<&str> = samples.iter().map(|s| s.label.as_str()).collect();
        let mut all = Readings { names: 0, numbers: 0, unknown: 0 };
        for text in written {
            match class_of(text, checkpoint) {
                Ok((_, Reading::Name)) => all.names += 1,
                Ok((_, Reading::Number)) => all.numbers += 1,
                Err(_) => all.unknown += 1,
            }
        }
        all
    }

    fn told(&self, folders: bool) -> String {
        let what = if folders { "class folders" } else { "labels" };
        let unknown = if self.unknown > 0 { format!(", {} by neither", self.unknown) } else { String::new() };
        format!("{what}: {} matched by name, {} by number{unknown}", self.names, self.numbers)
    }
}

/// Samples of one picture stand together, so that it goes through the model once.
fn group(samples: Vec<Sample>, checkpoint: &Checkpoint) -> (Vec<Input>, Vec<(String, String)>) {
    let (mut inputs, mut failures): (Vec<Input>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    let mut known: HashMap<String, usize> = HashMap::new();
    for sample in samples {
        let class = match class_of(&sample.label, checkpoint) {
            Ok((class, _)) => class,
            Err(e) => {
                failures.push((sample.name, e.to_string()));
                continue;
            }
        };
        let key = match &sample.content {
            Content::Picture(path) => path.display().to_string(),
            Content::Text(text) => text.clone(),
        };
        let question =
            Question { class, label: checkpoint.labels.name(class), mask: sample.mask, rationale: sample.rationale };
        let at = *known.entry(key).or_insert_with(|| {
            inputs.push(Input { name: sample.name, content: sample.content, questions: Vec::new() });
            inputs.len() - 1
        });
        inputs[at].questions.push(question);
    }
    (inputs, failures)
}

impl Input {
    /// As the rest of the command line names inputs.
    pub fn source(&self) -> Source {
        let kind = match &self.content {
            Content::Picture(path) => Kind::Picture(path.clone()),
            Content::Text(text) => Kind::Text(Text { first: text.clone(), second: None }),
        };
        Source { name: self.name.clone(), stem: PathBuf::new(), kind }
    }
}

impl Question {
    /// Mask and rationale as metrics read them.
    pub fn truth(&self, ready: &Ready, layout: &Layout) -> vitx::Result<Truth> {
        let mask = match (&self.mask, ready) {
            (Some(path), Ready::Picture(picture)) => {
                let failed = |e: &dyn std::fmt::Display| Error::Input(format!("mask {}: {e}", path.display()));
                let bytes = std::fs::read(path).map_err(|e| failed(&e))?;
                let mask = image::load_from_memory(&bytes).map_err(|e| failed(&e))?.into_luma8();
                Some(mask_at_input(&mask, picture.0.dimensions(), &picture.1))
            }
            _ => None,
        };
        let rationale = match (&self.rationale, layout) {
            (Some(rationale), Layout::Text(text)) => Some(rationale_tokens(rationale, text)?),
            _ => None,
        };
        Ok(Truth { mask, rationale })
    }

    /// What is explained.
    pub fn output(&self, target: TargetArg, logits: &[f32]) -> Output {
        let class = match target {
            TargetArg::Label => self.class,
            TargetArg::Predicted => vitx::target::ranked(logits)[0],
        };
        Output::of(class)
    }
}

/// Prepares inputs of a model.
pub fn preparer<'a>(model: &'a Model, args: &DataArgs) -> Preparer<'a> {
    Preparer::new(&model.checkpoint.processor, args.size, args.fit)
}

/// One input as a batch of its own.
pub fn batch<'m>(model: &'m Model, ready: &Ready, seed: u64, report: &Reporter) -> vitx::Result<Batch<'m>> {
    let (inputs, layouts) = batch_of(model, std::slice::from_ref(ready))?;
    Ok(Batch::new(&model.encoder, inputs, layouts)?.watched(report.stoppable()).with_noise(Noise::seeded(seed)))
}

/// The data set's name for titles.
pub fn data_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}
