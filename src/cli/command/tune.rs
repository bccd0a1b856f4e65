//! `vitx tune`: which aggregation is best, found on one part of the data and measured on another.

use crate::cli::args::ReportArgs;
use crate::cli::data::{going, tell, tell_notes, Checked, DataArgs, PaperArgs};
use crate::cli::offered;
use crate::cli::report::Reporter;
use anyhow::{bail, Result};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use vitx::evaluate::search::{search, Plan, Step};
use vitx::evaluate::study::Study;
use vitx::evaluate::tune::{self, Field};
use vitx::evaluate::{self, Configured};
use vitx::render::out::{refuse_ending, refuse_existing};
use vitx::render::save;
use vitx::Error;

/// Search head and layer aggregation, start layer, or any parameters, and print the best --method string
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::TUNE)]
pub struct Args {
    /// Grids NAME:key=a|b|c,...; repeatable. Default: heads x layers x start_layer of `aggregate`
    #[arg(long, value_name = "GRID", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// The setting that is kept unless another is better beyond doubt: the interval of its gain, which holds for all settings
    /// at once with 95 % confidence, lies above 0 (default: gae, or the method of the first grid without its choices)
    #[arg(long, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    baseline: Option<String>,
    /// The metric that decides (default: average-precision where there are masks, else srg; comprehensiveness for texts)
    #[arg(long, value_name = "METRIC", value_parser = offered::METRICS, hide_possible_values = true)]
    metric: Option<String>,
    /// About how many explanations may be judged; settings are then halved in rounds (successive halving), and intervals hold
    /// for those left at the end
    #[arg(long, value_name = "N")]
    budget: Option<usize>,
    /// Share of the inputs that the search does not see
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    held_out: f64,
    /// Settings to list, and to measure on the held-out inputs
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// A PNG of the grid
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    paper: PaperArgs,
    /// Replace existing files
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    if !(0.0..1.0).contains(&args.held_out) || args.held_out == 0.0 {
        bail!(
            "--held-out {}: expected a share between 0 and 1; a figure on the inputs it was picked on says little",
            args.held_out
        );
    }
    refuse_ending("--out", args.out.as_deref(), &["png"])?;
    let tables = args.paper.files()?;
    let checked = Checked::open(&args.data, args.report)?;
    if !args.overwrite {
        refuse_existing(args.out.iter().chain(tables), "")?;
    }
    let metric = [metric(&args, &checked)?];
    let field = Field::of(&args.method, args.baseline.as_deref(), checked.facts.layers)?;
    for candidate in &field.candidates {
        vitx::explain::methods(&[candidate.name().to_string()], &checked.checkpoint)?;
    }
    let (model, data) = checked.load(&args.data, args.report)?;
    let inputs = data.inputs.len();
    let report = Reporter::new(args.report, inputs);
    if inputs > 1 {
        tell(&data, &report)?;
    }
    let study = Study {
        settings: args.data.settings(),
        listener: &report,
        going: &going,
        ..Study::new(&model, &data, &field.candidates, &metric)
    };
    let mut noted = 0;
    let each = |input: usize, step: Step<'_>| -> Result<()> {
        match step {
            Step::Notes(notes) => tell_notes(data.name(input), notes, &mut noted, &report),
            Step::Failed(e) => report.failed(data.name(input), &e.to_string())?,
            Step::Done => report.advance(1),
        }
        Ok(())
    };
    let plan = Plan { budget: args.budget, held_out: args.held_out, top: args.top };
    let found = match search(study, (field.settings, field.kept), plan, each) {
        Err(e) if matches!(e.downcast_ref(), Some(Error::Interrupted)) => return Ok(report.finish(inputs)),
        found => found?,
    };
    found.records().iter().try_for_each(|record| report.json_line(record))?;
    report.line(&found.text())?;
    found.caution().iter().for_each(|caution| report.note(caution));
    args.paper.write(&found.paper(), args.overwrite)?;
    if let Some(path) = &args.out {
        save::save(path, &found.picture(&field.grids)?, args.overwrite)?;
        report.note(&format!("grid: {}", path.display()));
    }
    report.line(&format!("--method {}", found.chosen()))?;
    Ok(report.finish(data.all()))
}

fn metric(args: &Args, checked: &Checked) -> Result<Configured> {
    let default = tune::default_metric(&checked.facts, checked.data.has_masks());
    let named = args.metric.as_deref().unwrap_or(default);
    let mut list = evaluate::parse_list(&[named], &checked.facts)?.into_iter();
    match (list.next(), list.next()) {
        (Some(metric), None) => {
            checked.data.refuse_lacking(&metric)?;
            Ok(metric)
        }
        _ => bail!("--metric takes one metric: there must be one order"),
    }
}
