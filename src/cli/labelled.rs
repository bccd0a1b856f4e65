//! Labelled data with its model: what `evaluate` and `tune` share.

use super::args::{ModelArgs, ReportArgs, ShapeArgs};
use super::devices;
use super::job::{self, Job};
use super::prepare::{batch_of, Ready};
use super::questions::{group, Input, Question, Readings};
use super::report::{catch_interrupts, Reporter};
use anyhow::{bail, Result};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use vitx::encoder::Facts;
use vitx::evaluate::dataset;
use vitx::evaluate::survey::Survey;
use vitx::evaluate::{Configured, Needs, Truth};
use vitx::identity;
use vitx::model::{Checkpoint, Modality, Model};
use vitx::run::{Batch, Noise};
use vitx::target::Output;

/// Arguments of both commands.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// A folder of class folders, or a CSV: path,label[,mask[,mask_value]] for images, text,label[,text_pair][,rationale] for
    /// texts. Of a mask all but 0 is the object, and 255 of class ids or a palette is left out (README: masks)
    #[arg(long, value_name = "DATA")]
    pub data: PathBuf,
    /// The class that is explained: the labelled one, or the predicted one
    #[arg(short, long, default_value = "label", value_enum)]
    pub target: TargetArg,
    /// Use the first N inputs only
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: Option<usize>,
    /// Seed of controls, stochastic methods, confidence intervals and splits
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    #[command(flatten)]
    pub shape: ShapeArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `--target`
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetArg {
    /// The class the data says
    Label,
    /// The class the model says
    Predicted,
}

impl TargetArg {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            TargetArg::Label => "label",
            TargetArg::Predicted => "predicted",
        }
    }
}

/// Model and data.
pub struct Labelled {
    pub model: Model,
    pub facts: Facts,
    pub inputs: Vec<Input>,
    /// Samples that were left out, with the reason.
    pub failures: Vec<(String, String)>,
    /// How the masks were read.
    pub masks: Survey,
    /// How labels were found, and what of the data was left out.
    notes: Vec<String>,
}

/// What was checked before weights were read.
pub struct Checked {
    checkpoint: Checkpoint,
    device: candle_core::Device,
    pub facts: Facts,
    inputs: Vec<Input>,
    failures: Vec<(String, String)>,
    notes: Vec<String>,
}

impl Checked {
    /// Reads the data and resolves its labels. Unknown labels are reported later, with the other failures.
    ///
    /// # Errors
    /// Data that cannot be read, or of which no label is known.
    pub fn open(args: &DataArgs, report: ReportArgs) -> Result<Self> {
        devices::limit_threads(&args.model);
        let device = devices::device(&args.model.device)?;
        let dataset::Data { samples, left_out } = dataset::read(&args.data)?;
        let left_out = (!left_out.is_empty()).then(|| format!("left out of --data: {}", left_out.join("; ")));
        let texts = samples.iter().all(|s| s.content.is_text());
        if !texts && samples.iter().any(|s| s.content.is_text()) {
            bail!("--data {}: texts and pictures in one data set", args.data.display());
        }
        let id = args.model.model.clone().unwrap_or_else(|| if texts { "demo-bert" } else { "demo-vit" }.into());
        let checkpoint = job::open(&id, &args.model, report)?;
        if (checkpoint.family.modality == Modality::Text) != texts {
            let reads = if texts { "pictures, but the data are texts" } else { "texts, but the data are pictures" };
            bail!("model `{id}` reads {reads}");
        }
        let readings = Readings::of(&samples, &checkpoint);
        let told = (args.data.is_dir() || readings.numbers > 0).then(|| readings.told(args.data.is_dir()));
        let (mut inputs, mut failures) = group(samples, &checkpoint);
        if let Some(limit) = args.limit {
            inputs.truncate(limit);
        }
        if inputs.is_empty() {
            let first = failures.pop().map(|(name, why)| format!("; {name}: {why}")).unwrap_or_default();
            bail!("--data {}: no label of it is one of the model's{first}", args.data.display());
        }
        catch_interrupts()?;
        let facts = job::facts(&checkpoint);
        let notes = told.into_iter().chain(left_out).collect();
        Ok(Checked { checkpoint, device, facts, inputs, failures, notes })
    }

    /// The model's name, as it was asked for.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether any input has a mask.
    pub fn masks(&self) -> bool {
        self.inputs.iter().flat_map(|i| &i.questions).any(|q| q.mask.is_some())
    }

    /// What a metric needs and no input has.
    pub fn lacks(&self, metric: &Configured) -> Option<&'static str> {
        let mut questions = self.inputs.iter().flat_map(|i| &i.questions);
        match metric.entry.needs {
            Needs::Nothing => None,
            Needs::Mask => (!self.masks()).then_some("masks"),
            Needs::Rationale => questions.all(|q| q.rationale.is_none()).then_some("rationales"),
        }
    }

    /// Refuses a metric that was asked for and that no input has anything for.
    ///
    /// # Errors
    /// What is lacking.
    pub fn refuse_lacking(&self, metric: &Configured) -> Result<()> {
        match self.lacks(metric) {
            None => Ok(()),
            Some(what) => bail!("metric `{}` needs {what}, and no input of the data has one", metric.spec),
        }
    }

    /// Looks at the masks and reads the weights.
    ///
    /// # Errors
    /// As [`Job::load`].
    pub fn load(self, args: &DataArgs, report: ReportArgs) -> Result<Labelled> {
        let mut known = BTreeSet::new();
        let asked = self.inputs.iter().flat_map(|i| i.questions.iter().map(move |q| (q, i)));
        let masks: Vec<_> = asked
            .filter_map(|(q, i)| Some((q.mask.as_ref()?, &i.content)))
            .filter(|(mask, _)| known.insert((&mask.path, &mask.object)))
            .collect();
        let masks = Survey::of(&masks);
        let model = Job::load(self.checkpoint, &args.model, &self.device, report)?;
        let Checked { facts, inputs, failures, notes, .. } = self;
        Ok(Labelled { model, facts, inputs, failures, masks, notes })
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
    /// What of the input was left out.
    pub notes: Vec<String>,
}

/// Inputs of which a note is printed one by one; of more the number is told.
const NOTED: usize = 8;

impl Labelled {
    /// Inputs and samples that could not be used: how many there are of both together.
    pub fn all(&self) -> usize {
        let names = self.inputs.iter().map(|i| &i.name).chain(self.failures.iter().map(|(name, _)| name));
        names.collect::<BTreeSet<_>>().len()
    }

    /// Says what of the data was left out and how masks were read, and reports the samples that cannot be used.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn tell(&self, report: &Reporter) -> Result<()> {
        self.notes.iter().for_each(|n| report.note(&format!("note: {n}")));
        if let Some(line) = self.masks.line() {
            report.note(&format!("masks: {line}"));
        }
        self.masks.warnings().iter().for_each(|w| report.note(&format!("warning: {w}")));
        self.failures.iter().try_for_each(|(name, why)| report.failed(name, why))
    }

    /// Says what of an input was left out; `told` counts the inputs of which this was said.
    pub fn tell_notes(&self, number: usize, notes: &[String], told: &mut usize, report: &Reporter) {
        if notes.is_empty() {
            return;
        }
        *told += 1;
        let name = &self.inputs[number].name;
        match *told {
            n if n <= NOTED => notes.iter().for_each(|note| report.note(&format!("warning: {name}: {note}"))),
            n if n == NOTED + 1 => report.note("warning: and more of this kind; the table says how many"),
            _ => {}
        }
    }

    /// What tells each input from another: the contents of its picture or text and of its masks, its labels and rationales.
    /// An input that was changed in place has another identity.
    pub fn identities(&self) -> Vec<String> {
        let mut paths: BTreeSet<&Path> = BTreeSet::new();
        for input in &self.inputs {
            paths.extend(input.files());
        }
        let paths: Vec<&Path> = paths.into_iter().collect();
        // What cannot be read is its own reason: it fails later, and is tried again once it can be read.
        let of = |path: &&Path| (path.to_path_buf(), identity::of_file(path).unwrap_or_else(|e| e.to_string()));
        let files: HashMap<PathBuf, String> = paths.par_iter().map(of).collect();
        self.inputs.iter().map(|input| input.identity(&files)).collect()
    }

    /// Runs the model on one input.
    ///
    /// # Errors
    /// Whatever reading, preparing or the pass reports.
    pub fn prepared(&self, number: usize, args: &DataArgs, report: &Reporter) -> vitx::Result<Prepared<'_>> {
        let input = &self.inputs[number];
        let ready = input.ready(&self.model, args.shape)?;
        let cut = ready.truncated().map(|left_out| format!("too long for the model; {left_out}"));
        let mut notes: Vec<String> = cut.into_iter().collect();
        report.remarks(&input.name, ready.remarks());
        let batch = batch(&self.model, &ready, args.seed, report)?;
        let logits = batch.logits()?.remove(0);
        let asked = |q: &Question| -> vitx::Result<(Output, Truth)> {
            let (truth, note) = q.truth(&ready, batch.layout(0))?;
            notes.extend(note);
            Ok((q.output(args.target, &logits), truth))
        };
        let questions = input.questions.iter().map(asked).collect::<vitx::Result<Vec<_>>>()?;
        Ok(Prepared { ready, predicted: vitx::target::ranked(&logits)[0], logits, batch, questions, notes })
    }
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
