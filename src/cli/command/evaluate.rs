//! `vitx evaluate`: is the picture faithful? Methods and controls over a labelled set, as a table.

use crate::cli::args::ReportArgs;
use crate::cli::data::{going, tell, tell_notes, Checked, DataArgs, PaperArgs};
use crate::cli::offered;
use crate::cli::report::Reporter;
use crate::cli::{job, voice, NOTHING_DONE};
use anyhow::Result;
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use vitx::evaluate::figures::Figures;
use vitx::evaluate::journal::{Journal, Judged};
use vitx::evaluate::labelled::Labelled;
use vitx::evaluate::sanity::{self, Found};
use vitx::evaluate::study::Study;
use vitx::evaluate::{self, Candidate, Configured};
use vitx::explain::methods_or;
use vitx::model::{Checkpoint, Model};
use vitx::render::out::{refuse_ending, refuse_existing};
use vitx::render::save;
use vitx::Error;

/// Judge methods by faithfulness and localisation over labelled data, beside random and centre controls
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::EVALUATE)]
pub struct Args {
    /// NAME[:key=value,...], several separated by commas, or `all`; raw attention and two controls are always added
    #[arg(long, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// Metrics, several separated by commas, or `all` (see `vitx metrics`); default: a choice that suits the data
    #[arg(long, value_name = "METRIC", value_parser = offered::METRICS, hide_possible_values = true)]
    metric: Vec<String>,
    /// Also compare maps with those of the model with random weights, and of another class, on the first N inputs
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "16")]
    sanity: Option<usize>,
    /// With --sanity: a checkpoint of the same shape trained on permuted labels, compared as well
    #[arg(long, value_name = "MODEL", requires = "sanity")]
    permuted_labels: Option<String>,
    /// Inputs whose perturbed copies go through the model together
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Continue an interrupted run with the same arguments
    #[arg(long)]
    resume: bool,
    /// Every score, a line each: input, class, method, metric, value
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    #[command(flatten)]
    paper: PaperArgs,
    /// A page with figures, curves and single inputs
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The page shows the first N inputs one by one
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub report_inputs: usize,
    /// Replace existing files and, without --resume, forget what an interrupted run with the same arguments has judged
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    reporting: ReportArgs,
}

/// Methods that are judged where none is named, as far as the model has them.
const USUAL: &str = "gae,grad-rollout,rollout,lrp,legrad,attn-lrp,gradcam";

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    refuse_ending("--csv", args.csv.as_deref(), &["csv", "txt"])?;
    refuse_ending("--report", args.report.as_deref(), &["html", "htm"])?;
    let tables = args.paper.files()?;
    let checked = Checked::open(&args.data, args.reporting)?;
    let metrics = evaluate::parse_list(&args.metric, &checked.facts)?;
    let named = !args.metric.is_empty() && args.metric != ["all"];
    let (metrics, unsuited) = checked.data.judging(metrics, named)?;
    let candidates = Candidate::judged(methods_or(&args.method, USUAL, &checked.checkpoint)?, &checked.facts)?;
    if !args.overwrite {
        refuse_existing(args.csv.iter().chain(&args.report).chain(tables), "")?;
    }
    let (model, data) = checked.load(&args.data, args.reporting)?;
    let inputs = data.inputs.len();
    let report = Reporter::new(args.reporting, inputs).resumable();
    let study = study(&args, &model, &data, &candidates, &metrics, &report);
    let identity = study.stated(args.data.model.dtype, &args.data.data, args.data.limit)?;
    let mut journal = Journal::open(Path::new(""), identity, data.identities(), args.resume, args.overwrite)?;
    unsuited.iter().chain(&journal.notes).for_each(|note| report.note(note));
    if !journal.done.is_empty() {
        report.note(&format!("{} of {inputs} inputs were judged before", journal.done.len()));
    }
    tell(&data, &report)?;
    let mut noted = 0;
    let each = |group: &[&Judged]| -> Result<()> {
        for one in group {
            let name = data.name(one.input);
            tell_notes(name, &one.notes, &mut noted, &report);
            one.failures.iter().try_for_each(|failure| report.failed(name, failure))?;
        }
        report.advance(group.len());
        Ok(())
    };
    if stopped(study.run(&mut journal, each))?.is_none() {
        return Ok(report.finish(inputs));
    }
    if journal.done.iter().all(|j| j.questions.is_empty()) {
        journal.remove();
        report.finish(data.all());
        voice::say("error: nothing was judged: every input failed");
        return Ok(ExitCode::from(NOTHING_DONE));
    }
    let found = match args.sanity {
        Some(n) => match stopped(checks(&args, &study, n.min(inputs), &report).map_err(Into::into))? {
            None => return Ok(report.finish(inputs)),
            found => found,
        },
        None => None,
    };
    write(&args, &Figures::of(&study, &journal.done), found.as_ref(), &report)?;
    journal.remove();
    Ok(report.finish(data.all()))
}

/// None when the user wanted to stop.
fn stopped<T>(done: Result<T>) -> Result<Option<T>> {
    match done {
        Err(e) if matches!(e.downcast_ref(), Some(Error::Interrupted)) => Ok(None),
        done => done.map(Some),
    }
}

fn study<'a>(
    args: &Args,
    model: &'a Model,
    data: &'a Labelled,
    candidates: &'a [Candidate],
    metrics: &'a [Configured],
    report: &'a Reporter,
) -> Study<'a> {
    let mut settings = args.data.settings();
    settings.together = usize::from(args.batch_size);
    settings.shown = args.report.as_ref().map_or(0, |_| args.report_inputs);
    Study { settings, listener: report, going: &going, ..Study::new(model, data, candidates, metrics) }
}

fn checks(args: &Args, study: &Study<'_>, inputs: usize, report: &Reporter) -> vitx::Result<Found> {
    report.note(&format!("sanity checks on {inputs} inputs"));
    let (device, dtype) = (study.model.encoder.device(), args.data.model.dtype);
    let permuted = args.permuted_labels.as_ref().map(|id| {
        move || {
            let quiet = ReportArgs { json: false, quiet: true, verbose: false };
            Checkpoint::open_as(id, &job::access(&args.data.model, quiet), &args.data.model.outputs()?)?
                .load(dtype, device)
        }
    });
    sanity::check(study, inputs, permuted.as_ref().map(|read| read as &dyn Fn() -> vitx::Result<Model>))
}

/// Writes what was found: the table or records, the files.
fn write(args: &Args, figures: &Figures<'_>, found: Option<&Found>, report: &Reporter) -> Result<()> {
    let records = figures.records().into_iter().chain(found.into_iter().flat_map(Found::records));
    records.into_iter().try_for_each(|record| report.json_line(&record))?;
    report.line(&figures.text())?;
    found.map_or(Ok(()), |found| report.line(&found.text()))?;
    if let Some(path) = &args.csv {
        save::save(path, &figures.csv()?, args.overwrite)?;
    }
    args.paper.write(&figures.paper(), args.overwrite)?;
    if let Some(path) = &args.report {
        save::save(path, &figures.page(found.map(|f| &f.correlations))?, args.overwrite)?;
        report.note(&format!("report: {}", path.display()));
    }
    Ok(())
}
