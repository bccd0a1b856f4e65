//! `vitx summary`: what a model looks at over a data set, class by class.

use crate::cli::args::ReportArgs;
use crate::cli::data::{going, tell, tell_notes, Checked, DataArgs};
use crate::cli::job::Job;
use crate::cli::report::Reporter;
use crate::cli::{offered, voice, NOTHING_DONE};
use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use vitx::evaluate::questions::Explained;
use vitx::render::out::{refuse_ending, refuse_existing};
use vitx::render::save;
use vitx::summary::{one_method, Came, Gathering, Settings};
use vitx::Error;

/// What a model looks at over a data set: mean maps, words, shares of special tokens, inputs to look at again
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::SUMMARY)]
#[command(mut_arg("data", |arg| arg.help(DATA).long_help(DATA)))]
#[command(mut_arg("target", |arg| arg.default_value("predicted")))]
pub struct Args {
    /// NAME[:key=value,...]: one method (default: the usual one of the model)
    #[arg(long, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// Words that are told, for a class and against it each
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Words that occur less often are left out
    #[arg(long, default_value_t = 2, value_name = "N")]
    min_count: usize,
    /// List inputs whose likeliest class has a probability below this
    #[arg(long, default_value_t = 0.5, value_name = "P", value_parser = share)]
    confidence: f32,
    /// A page with the mean maps, words and lists
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,
    /// Inputs that go through the model together
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    reporting: ReportArgs,
}

const DATA: &str = "Labelled data as `vitx evaluate` reads them; or a folder of pictures, a .txt file of a text a line, a CSV with a path \
or text column: with --target predicted no labels are needed";

fn share(text: &str) -> Result<f32, String> {
    let valid = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    valid.ok_or_else(|| "expected a probability from 0 to 1".into())
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    refuse_ending("--report", args.report.as_deref(), &["html", "htm"])?;
    let checked = match args.data.target {
        Explained::Label => Checked::open(&args.data, args.reporting)?,
        Explained::Predicted => Checked::open_any(&args.data, args.reporting)?,
    };
    checked.checkpoint.check_shape(args.data.shape.shape())?;
    let method = one_method(&args.method, &checked.checkpoint)?;
    if !args.overwrite {
        refuse_existing(args.report.iter(), "")?;
    }
    let settings = Settings {
        explained: args.data.target,
        shape: args.data.shape.shape(),
        seed: args.data.seed,
        together: usize::from(args.batch_size),
        memory: args.data.model.memory(),
        confidence: args.confidence,
        top: args.top as usize,
        min_count: args.min_count,
        pictures: args.report.is_some(),
    };
    let (model, data) =
        (Job::load(checked.checkpoint, &args.data.model, &checked.device, args.reporting)?, checked.data);
    let report = Reporter::new(args.reporting, data.inputs.len());
    report.patience(&model.checkpoint, &method, settings.shape);
    tell(&data, &report)?;
    let mut noted = 0;
    let each = |came: &Came| -> Result<()> {
        let name = data.name(came.number);
        report.remarks(name, &came.remarks);
        tell_notes(name, &came.notes, &mut noted, &report);
        report.advance(1);
        came.failure.as_ref().map_or(Ok(()), |failure| report.failed(name, failure))
    };
    let gathering = Gathering { model: &model, data: &data, method: &method, settings, going: &going };
    let summary = match gathering.run(each) {
        Err(e) if matches!(e.downcast_ref(), Some(Error::Interrupted)) => return Ok(report.finish(data.all())),
        done => done?,
    };
    if summary.inputs == 0 {
        report.finish(data.all());
        voice::say("error: nothing was summarised: every input failed");
        return Ok(ExitCode::from(NOTHING_DONE));
    }
    summary.records().iter().try_for_each(|record| report.json_line(record))?;
    report.line(&summary.text())?;
    if let Some(path) = &args.report {
        save::save(path, &summary.page()?, args.overwrite)?;
        report.note(&format!("report: {}", path.display()));
    }
    Ok(report.finish(data.all()))
}
