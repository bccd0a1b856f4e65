//! What `compare` and `heads` share: one input, a sheet for images, a table for texts.

use super::args::{ModelArgs, OneInputArgs, ReportArgs};
use super::devices;
use super::job::Job;
use super::noted::Noted;
use super::past::contents;
use super::prepare::{batch_of, Preparer, Ready};
use super::report::Reporter;
use super::row::RowRequest;
use super::sources::Source;
use super::stems::refuse_inputs;
use super::style::{Drawn, StyleArgs};
use anyhow::{bail, Result};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vitx::explanation::Explanation;
use vitx::method::Configured;
use vitx::model::{Checkpoint, Modality, Model};
use vitx::render::scale::{Scale, SharedRanges};
use vitx::render::sheet::{Row, Sheet};
use vitx::render::table::{self, Group};
use vitx::render::{Scene, Style};
use vitx::run::{Batch, Noise};
use vitx::target::Output;

/// Arguments of both commands.
#[derive(clap::Args, Debug)]
pub struct SheetArgs {
    #[command(flatten)]
    pub input: OneInputArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub style: StyleArgs,
    /// The file to write, `-` for stdout (default: <stem>.<command>.png; texts are printed, or written as .html or .txt)
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Width of one map in pixels
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(48..=1024))]
    pub cell: Option<u32>,
    /// Explain another output token than the class token: a patch as row,column, a word piece, or a token's number
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub row: Option<String>,
    /// Replace an existing file
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// What a command wants of its one input.
pub struct Wanted<'a> {
    /// As it is typed.
    pub command: &'a str,
    /// What the default name tells beside the command, so that other sheets have other names.
    pub part: String,
    /// Of methods that draw random numbers.
    pub seed: u64,
    /// What the sheet depends on beside contents and style.
    pub what: Value,
}

/// A line of maps.
pub struct Line {
    /// At its left, line by line.
    pub label: Vec<String>,
    /// One a column.
    pub maps: Vec<Explanation>,
}

/// One output of the input, explained by every method.
pub struct Explained {
    pub output: Output,
    pub logits: Vec<f32>,
    pub maps: Vec<Explanation>,
}

/// One input with its model, everything checked, weights read.
pub struct Subject {
    pub model: Model,
    pub source: Source,
    style: Style,
    ready: Ready,
    row: Option<RowRequest>,
    seed: u64,
    out: Option<PathBuf>,
    /// The sheet's file, if it becomes one.
    noted: Option<Noted>,
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
        check: impl Fn(&Checkpoint) -> Result<T>,
    ) -> Result<Option<(Self, T)>> {
        let style = args.style.style(false)?;
        let job = Job::resolve(&args.model, &args.input.list(), args.report, None)?;
        let [source] = &job.sources.list[..] else {
            bail!("vitx {} takes one input, not {}", wanted.command, job.sources.list.len());
        };
        let text = job.checkpoint.family.modality == Modality::Text;
        args.style.refuse_idle(Drawn { colour: true, heat: !text, blend: !text })?;
        if text && args.cell.is_some() {
            bail!("--cell would change nothing: it is for pictures; leave it out");
        }
        let row = args.row.as_ref().map(|r| RowRequest::parse(r, job.checkpoint.family.modality)).transpose()?;
        let checked = check(&job.checkpoint)?;
        let out = place(args, wanted, source, text)?;
        let noted = match out.as_deref().filter(|o| *o != Path::new("-")) {
            Some(file) => match Noted::open(file, key(args, wanted, &job)?, args.overwrite, args.report)? {
                None => return Ok(None),
                noted => noted,
            },
            None => None,
        };
        refuse_inputs(out.iter(), &job.sources.list)?;
        let source = source.clone();
        let model = Job::load(job.checkpoint, &args.model, &job.device, args.report)?;
        let prepared = Preparer::shaped(&model.checkpoint.processor, args.input.shape).prepare(&source);
        let ready = prepared.map_err(|e| anyhow::anyhow!("{}: {e}", source.name))?;
        Reporter::new(args.report, 1).remarks(&source.name, ready.remarks());
        Ok(Some((Subject { model, source, style, ready, row, seed: wanted.seed, out, noted }, checked)))
    }

    /// All methods on all outputs that `targets` makes of the logits, a line an output.
    ///
    /// # Errors
    /// The methods' own.
    pub fn explain(
        &self,
        methods: &[Configured],
        report: &Reporter,
        targets: impl Fn(&[f32]) -> Vec<Output>,
    ) -> Result<Vec<Explained>> {
        let (inputs, layouts) = batch_of(&self.model, std::slice::from_ref(&self.ready))?;
        let row = self.row.as_ref().map(|r| r.token(&layouts[0])).transpose()?;
        let batch = Batch::new(&self.model.encoder, inputs, layouts)?
            .watched(report.watch())
            .with_noise(Noise::seeded(self.seed));
        let logits = batch.logits()?.remove(0);
        let mut lines = Vec::new();
        for output in targets(&logits) {
            let pass = batch.pass(vec![output])?.with_rows(vec![row])?;
            let maps = methods.iter().map(|m| m.explain(&pass.run(0))).collect::<vitx::Result<Vec<_>>>()?;
            lines.push(Explained { output, logits: logits.clone(), maps });
        }
        Ok(lines)
    }

    /// Draws and writes. `by_line` gives each line one scale of its own; `--normalize shared` one scale for all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(
        mut self,
        args: &SheetArgs,
        report: Reporter,
        columns: Vec<String>,
        lines: Vec<Line>,
        by_line: bool,
    ) -> Result<ExitCode> {
        let all = SharedRanges::over(lines.iter().flat_map(|l| &l.maps));
        let ranges = |maps: &[Explanation]| match (self.style.scale, by_line) {
            (Scale::Shared, _) => all,
            (_, true) => SharedRanges::over(maps),
            (_, false) => SharedRanges::default(),
        };
        let bytes = match &self.ready {
            Ready::Picture(p) => {
                let file = Path::new(&self.source.name).file_name().unwrap_or_default().to_string_lossy();
                let title = format!("{file}, {}", self.model.checkpoint.id);
                let scene = Scene {
                    picture: Some(&p.0),
                    view: p.1.view,
                    input: p.1.size,
                    caption: String::new(),
                    shared: None,
                    style: &self.style,
                };
                let width = args.cell.unwrap_or(if lines.len() > 4 { 128 } else { 224 });
                let with_picture = !by_line || lines.len() == 1;
                let rows =
                    lines.into_iter().map(|l| Row { ranges: ranges(&l.maps), label: l.label, maps: l.maps }).collect();
                Sheet { title, columns, rows, with_picture }.render(&scene, width)?
            }
            Ready::Text(_) => {
                let group = |l: Line| Group {
                    heading: l.label.join(" "),
                    ranges: ranges(&l.maps),
                    lines: columns.iter().cloned().zip(l.maps).collect(),
                };
                let groups: Vec<Group> = lines.into_iter().map(group).collect();
                self.table(&groups)?.into_bytes()
            }
        };
        match self.out.as_deref() {
            None => report.stdout(&bytes)?,
            Some(out) if out == Path::new("-") => report.stdout(&bytes)?,
            Some(out) => {
                let record =
                    json!({"status": "ok", "input": self.source.name, "outputs": {"sheet": out.display().to_string()}});
                if let Some(noted) = self.noted.take() {
                    noted.save(&bytes, &record)?;
                }
                report.line(&format!("{} -> {}", self.source.name, out.display()))?;
                report.json_line(&record)?;
            }
        }
        Ok(report.finish(1))
    }

    fn table(&self, groups: &[Group]) -> vitx::Result<String> {
        let extension = self.out.as_ref().and_then(|o| o.extension()).map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("html") => table::html(&self.source.name, groups, &self.style),
            Some("ansi") => table::ansi(groups, &Style { colour: true, ..self.style.clone() }),
            Some(_) => table::ansi(groups, &Style { colour: false, ..self.style.clone() }),
            None => table::ansi(groups, &self.style),
        }
    }
}

/// The file to write; none for texts that are printed.
fn place(args: &SheetArgs, wanted: &Wanted<'_>, source: &Source, text: bool) -> Result<Option<PathBuf>> {
    let Some(out) = &args.out else {
        let stem = source.stem.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{stem}.{}{}.png", wanted.command, wanted.part);
        return Ok((!text).then(|| PathBuf::from(name)));
    };
    let extension = out.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let known: &[&str] = if text { &["html", "txt", "ansi"] } else { &["png"] };
    if out.is_dir() || !(known.contains(&extension.as_str()) || out == Path::new("-")) {
        bail!("--out {}: expected a file ending in .{}", out.display(), known.join(" or ."));
    }
    Ok(Some(out.clone()))
}

/// The identity of a sheet.
fn key(args: &SheetArgs, wanted: &Wanted<'_>, job: &Job) -> Result<Value> {
    let shape = args.input.shape.told();
    Ok(json!({
        "command": wanted.command, "what": wanted.what, "input": job.sources.list.first().and_then(contents),
        "model": job.checkpoint.identity()?, "size": shape["size"], "fit": shape["fit"], "window": shape["window"], "row": args.row,
        "style": args.style.told(false), "cell": args.cell, "seed": wanted.seed, "out": args.out,
        "dtype": devices::name(args.model.dtype), "device": devices::class(&job.device),
        "title": [&job.checkpoint.id, &job.sources.list.first().map(|s| s.name.clone()).unwrap_or_default()],
        "version": env!("CARGO_PKG_VERSION"),
    }))
}
