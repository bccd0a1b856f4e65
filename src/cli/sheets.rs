//! What `compare` and `heads` share: one input, a sheet for images, a table for texts.

use super::args::{ModelArgs, OneInputArgs, ReportArgs};
use super::job::Job;
use super::noted;
use super::report::Reporter;
use super::style::StyleArgs;
use anyhow::{bail, Result};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vitx::explain::plan::Drawn;
use vitx::explain::{Answer, Answers, Asked};
use vitx::explanation::RowRequest;
use vitx::identity::Identity;
use vitx::input::source::refuse_inputs;
use vitx::input::Source;
use vitx::input::{Preparer, Ready};
use vitx::method::Configured;
use vitx::model::{Checkpoint, Modality, Model};
use vitx::render::figure::{lacking, unseen, Kind};
use vitx::render::lines::{Line, Lines};
use vitx::render::{Scene, Style};
use vitx::resume::one::One;
use vitx::run::Memory;
use vitx::target::Request;

/// Arguments of both commands.
#[derive(clap::Args, Debug)]
pub struct SheetArgs {
    #[command(flatten)]
    pub input: OneInputArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub style: StyleArgs,
    /// The file to write, .png, .svg or .pdf, `-` for stdout (default: <stem>.<command>.png; texts are printed, or written, also as .html
    /// or .txt)
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Width of one map in pixels
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(48..=2048))]
    pub cell: Option<u32>,
    /// Maps in a line (default: all of a row)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub columns: Option<u16>,
    /// Explain another output token than the class token: a patch as row,column, a word piece, or a token's number
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub row: Option<String>,
    /// Replace an existing file
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub report: ReportArgs,
}

impl SheetArgs {
    /// What the file ends in.
    pub fn ending(&self) -> Option<String> {
        self.out.as_ref()?.extension().map(|ending| ending.to_string_lossy().to_lowercase())
    }

    /// The kind of figure that is written, where the file says it.
    fn kind(&self) -> Option<Kind> {
        Kind::of(&self.ending()?)
    }
}

/// What a command wants of its one input.
pub struct Wanted<'a> {
    /// As it is typed.
    pub command: &'a str,
    /// What the default name tells beside the command, so that other sheets have other names.
    pub part: String,
    /// Of methods that draw random numbers.
    pub seed: u64,
    /// The ending of a file of numbers, where the command has one.
    pub numbers: Option<&'a str>,
}

/// What is asked of it.
pub struct Asking<T> {
    pub methods: Vec<Configured>,
    pub targets: Vec<Request>,
    /// What else the command makes of the checkpoint.
    pub more: T,
}

/// One input with its model, everything checked, weights read.
pub struct Subject {
    pub model: Model,
    pub source: Source,
    style: Style,
    ready: Ready,
    row: Option<RowRequest>,
    seed: u64,
    memory: Option<Memory>,
    out: Option<PathBuf>,
    /// The sheet's file, if it becomes one.
    noted: Option<One>,
}

impl Subject {
    /// Resolves the arguments; `check` may refuse the checkpoint before weights are read. None when the sheet is there
    /// already and up to date, which is said.
    ///
    /// # Errors
    /// As [`Job::resolve`]; more than one input; flags that would change nothing; an output that exists.
    pub fn open<T>(
        args: &SheetArgs,
        wanted: &Wanted<'_>,
        check: impl Fn(&Checkpoint) -> Result<Asking<T>>,
    ) -> Result<Option<(Self, Asking<T>)>> {
        let mut style = args.style.style(false)?;
        style.print.columns = args.columns.map(usize::from);
        let job = Job::resolve(&args.model, &args.input.list(), args.report, None)?;
        let [source] = &job.sources.list[..] else {
            bail!("vitx {} takes one input, not {}", wanted.command, job.sources.list.len());
        };
        let text = job.checkpoint.modality() == Modality::Text;
        let figure = !text || args.kind().is_some();
        let drawn = wanted.numbers.is_none_or(|ending| args.ending().as_deref() != Some(ending));
        let (colour, picture) = (drawn, drawn && !text);
        args.style.refuse_idle(Drawn {
            colour,
            text: drawn && text,
            heat: picture,
            blend: picture,
            figure: drawn && figure,
            fixed: args.kind() != Some(Kind::Svg),
            lettered: true,
        })?;
        for (flag, given, idle, instead) in [
            ("--cell", args.cell.is_some(), !picture, "it is for pictures; leave it out"),
            ("--columns", args.columns.is_some(), !picture, "it is for pictures; leave it out"),
            ("--width", args.style.width().is_some(), !text, "it is for texts; pass --cell"),
        ] {
            if given && idle {
                bail!("{flag} would change nothing: {instead}");
            }
        }
        let row = args.row.as_ref().map(|r| RowRequest::parse(r, text)).transpose()?;
        let checked = check(&job.checkpoint)?;
        let out = place(args, wanted, source, text)?;
        let noted = match out.as_deref().filter(|o| *o != Path::new("-")) {
            Some(file) => {
                let identity = identity(args, wanted, &checked, &style, &job, source)?;
                match noted::look(file, identity, args.overwrite, args.report)? {
                    None => return Ok(None),
                    noted => noted,
                }
            }
            None => None,
        };
        refuse_inputs(out.iter(), &job.sources.list)?;
        let source = source.clone();
        let model = Job::load(job.checkpoint, &args.model, &job.device, args.report)?;
        let prepared = source.prepare(&mut Preparer::new(&model.checkpoint.processor, args.input.shape.shape()));
        let ready = prepared.map_err(|e| anyhow::anyhow!("{}: {e}", source.name))?;
        Reporter::new(args.report, 1).remarks(&source.name, ready.remarks());
        let (seed, memory) = (wanted.seed, args.model.memory());
        Ok(Some((Subject { model, source, style, ready, row, seed, memory, out, noted }, checked)))
    }

    /// All methods on all outputs that the targets mean, an output's answers one behind the other.
    ///
    /// # Errors
    /// The methods' own.
    pub fn explain<T>(&self, asking: &Asking<T>, report: &Reporter) -> Result<Vec<Answer>> {
        let (model, methods, requests) = (&self.model, &asking.methods, &asking.targets);
        let asked =
            Asked { model, methods, requests, row: self.row.as_ref(), seed: self.seed, memory: self.memory, links: 0 };
        let ready = std::slice::from_ref(&self.ready);
        let Answers { made, nothing } = asked.explain(ready, &report.watch(), &|_, _, _| true)?;
        nothing.iter().for_each(|n| report.note(&format!("note: {}: {}", self.source.name, n.note)));
        Ok(made)
    }

    /// Draws and writes. `by_line` gives each line one scale of its own; `--normalize shared` one scale for all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(
        self,
        args: &SheetArgs,
        report: Reporter,
        columns: Vec<String>,
        mut lines: Vec<Line>,
        by_line: bool,
    ) -> Result<ExitCode> {
        let maps = lines.iter_mut().flat_map(|line| &mut line.maps);
        maps.for_each(|map| *map = self.style.evidence.of(map).into_owned());
        let row = match (&self.row, lines.iter().find_map(|line| line.maps.first())) {
            (Some(row), Some(map)) => Some(row.token(&map.layout)?),
            _ => None,
        };
        let scene = Scene { row, ..Scene::of(&self.ready, &self.style) };
        let title = match &self.ready {
            Ready::Picture(_) => {
                let file = Path::new(&self.source.name).file_name().unwrap_or_default().to_string_lossy();
                format!("{file}, {}", self.model.checkpoint.id)
            }
            Ready::Text(_) => self.model.checkpoint.id.clone(), // the text itself is in the figure
        };
        if let (Ready::Text(text), Some(Kind::Pdf | Kind::Png)) = (&self.ready, args.kind()) {
            unseen(&lacking(&text.layout.texts, &self.style.print)?).iter().for_each(|note| report.note(note));
        }
        let bytes = Lines { title, columns, lines, by_line }.made(&scene, args.ending().as_deref(), args.cell)?;
        self.save(args, report, &bytes)
    }

    /// Writes what became of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(mut self, args: &SheetArgs, report: Reporter, bytes: &[u8]) -> Result<ExitCode> {
        match self.out.as_deref() {
            None => report.stdout(bytes)?,
            Some(out) if out == Path::new("-") => report.stdout(bytes)?,
            Some(out) => {
                let record =
                    json!({"status": "ok", "input": self.source.name, "outputs": {"sheet": out.display().to_string()}});
                if let Some(noted) = self.noted.take() {
                    noted::write(noted, bytes, &record, args.overwrite)?;
                }
                report.line(&format!("{} -> {}", self.source.name, out.display()))?;
                report.json_line(&record)?;
            }
        }
        Ok(report.finish(1))
    }
}

/// The file to write; none for texts that are printed.
fn place(args: &SheetArgs, wanted: &Wanted<'_>, source: &Source, text: bool) -> Result<Option<PathBuf>> {
    let Some(out) = &args.out else {
        let stem = source.stem.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{stem}.{}{}.png", wanted.command, wanted.part);
        return Ok((!text).then(|| PathBuf::from(name)));
    };
    let extension = args.ending().unwrap_or_default();
    let known: &[&str] = if text { &["html", "txt", "ansi", "svg", "pdf", "png"] } else { &["png", "svg", "pdf"] };
    let known: Vec<&str> = known.iter().copied().chain(wanted.numbers).collect();
    if out.is_dir() || !(known.contains(&extension.as_str()) || out == Path::new("-")) {
        bail!("--out {}: expected a file ending in .{}", out.display(), known.join(", ."));
    }
    Ok(Some(out.clone()))
}

/// The identity of a sheet.
fn identity<T>(
    args: &SheetArgs,
    wanted: &Wanted<'_>,
    asking: &Asking<T>,
    style: &Style,
    job: &Job,
    source: &Source,
) -> Result<Identity> {
    let on = (args.model.dtype, &job.device);
    let of = job.checkpoint.stated(wanted.command, on, args.input.shape.shape())?;
    let of = Identity {
        target: asking.targets.iter().map(|t| t.text.clone()).collect(),
        row: args.row.clone(),
        input: source.contents().unwrap_or_default(),
        style: style.stated(),
        seed: wanted.seed,
        ..of
    };
    let of = asking.methods.iter().fold(of, |of, m| of.by(&m.spec, &m.params));
    let out = args.out.as_ref().map(|o| o.to_string_lossy());
    Ok(of.with("cell", args.cell).with("out", out).with("title", vec![job.checkpoint.id.clone(), source.name.clone()]))
}
