//! Data with its model: what `evaluate`, `tune` and `summary` share.

use super::args::{named, ModelArgs, ReportArgs, ShapeArgs};
use super::job::{self, Job};
use super::report::{catch_interrupts, interrupted, Reporter};
use anyhow::Result;
use candle_core::Device;
use std::path::{Path, PathBuf};
use vitx::encoder::Facts;
use vitx::evaluate::dataset::{self, Data};
use vitx::evaluate::labelled::Labelled;
use vitx::evaluate::paper::Table;
use vitx::evaluate::questions::Explained;
use vitx::evaluate::study::{Listen, Settings};
use vitx::input::image::Remark;
use vitx::model::{Checkpoint, Model};
use vitx::render::out::refuse_ending;
use vitx::render::save::save;

/// Arguments of these commands.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// A folder of class folders, or a CSV: path,label[,mask[,mask_value]] for images, text,label[,text_pair][,rationale] for
    /// texts. Of a mask all but 0 is the object, and 255 of class ids or a palette is left out (README: masks)
    #[arg(long, value_name = "DATA")]
    pub data: PathBuf,
    /// The class that is explained: the labelled one, or the predicted one
    #[arg(short, long, default_value = "label", value_parser = named(Explained::NAMES))]
    pub target: Explained,
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

impl DataArgs {
    /// As a study has them.
    pub fn settings(&self) -> Settings {
        Settings { explained: self.target, shape: self.shape.shape(), seed: self.seed, ..Settings::default() }
    }
}

/// The table of both commands for papers.
#[derive(clap::Args, Debug)]
pub struct PaperArgs {
    /// The table for LaTeX (booktabs), the best of each column in bold
    #[arg(long, value_name = "FILE")]
    latex: Option<PathBuf>,
    /// The same table as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl PaperArgs {
    /// The files it asks for.
    ///
    /// # Errors
    /// Of another ending.
    pub fn files(&self) -> vitx::Result<impl Iterator<Item = &PathBuf>> {
        refuse_ending("--latex", self.latex.as_deref(), &["tex"])?;
        refuse_ending("--markdown", self.markdown.as_deref(), &["md", "markdown"])?;
        Ok(self.latex.iter().chain(&self.markdown))
    }

    /// Writes them.
    ///
    /// # Errors
    /// As [`save`].
    pub fn write(&self, table: &Table, overwrite: bool) -> vitx::Result<()> {
        self.latex.iter().try_for_each(|path| save(path, table.latex().as_bytes(), overwrite))?;
        self.markdown.iter().try_for_each(|path| save(path, table.markdown().as_bytes(), overwrite))
    }
}

/// What was checked before weights were read.
pub struct Checked {
    pub checkpoint: Checkpoint,
    pub device: Device,
    pub facts: Facts,
    pub data: Labelled,
}

impl Checked {
    /// Reads the data and resolves its labels. Unknown labels are reported later, with the other failures.
    ///
    /// # Errors
    /// Data that cannot be read, or of which no label is known.
    pub fn open(args: &DataArgs, report: ReportArgs) -> Result<Self> {
        Self::read(args, report, dataset::read, Labelled::of)
    }

    /// The same of data that need not have labels.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub fn open_any(args: &DataArgs, report: ReportArgs) -> Result<Self> {
        Self::read(args, report, dataset::read_any, Labelled::loosely)
    }

    fn read(
        args: &DataArgs,
        report: ReportArgs,
        read: fn(&Path) -> vitx::Result<Data>,
        of: fn(&Path, Data, &Checkpoint, Option<usize>) -> vitx::Result<Labelled>,
    ) -> Result<Self> {
        let device = job::device(&args.model)?;
        let data = read(&args.data)?;
        let usual = if data.texts(&args.data)? { "demo-bert" } else { "demo-vit" };
        let id = args.model.model.clone().unwrap_or_else(|| usual.into());
        let checkpoint = job::open(&id, &args.model, report)?;
        checkpoint.needs_classes()?;
        let data = of(&args.data, data, &checkpoint, args.limit)?;
        catch_interrupts()?;
        let facts = checkpoint.facts();
        Ok(Checked { checkpoint, device, facts, data })
    }

    /// Looks at the masks and reads the weights.
    ///
    /// # Errors
    /// As [`Job::load`].
    pub fn load(mut self, args: &DataArgs, report: ReportArgs) -> Result<(Model, Labelled)> {
        self.data.survey();
        let model = Job::load(self.checkpoint, &args.model, &self.device, report)?;
        Ok((model, self.data))
    }
}

/// Says what of the data was left out and how masks were read, and reports the samples that cannot be used.
///
/// # Errors
/// When stdout cannot be written.
pub fn tell(data: &Labelled, report: &Reporter) -> Result<()> {
    data.told().iter().for_each(|line| report.note(line));
    data.failures.iter().try_for_each(|(name, why)| report.failed(name, why))
}

/// Inputs of which a note is printed one by one; of more the number is told.
const NOTED: usize = 8;

/// Says what of an input was left out; `told` counts the inputs of which this was said.
pub fn tell_notes(name: &str, notes: &[String], told: &mut usize, report: &Reporter) {
    if notes.is_empty() {
        return;
    }
    *told += 1;
    match *told {
        n if n <= NOTED => notes.iter().for_each(|note| report.note(&format!("warning: {name}: {note}"))),
        n if n == NOTED + 1 => report.note("warning: and more of this kind; the table says how many"),
        _ => {}
    }
}

/// Whether the user lets a study go on.
pub fn going() -> bool {
    !interrupted()
}

impl Listen for Reporter {
    fn remarks(&self, input: &str, remarks: &[Remark]) {
        Reporter::remarks(self, input, remarks);
    }

    fn note(&self, text: &str) {
        Reporter::note(self, text);
    }
}
