//! `vitx predict`: classes and probabilities (or values) only.

use crate::cli::args::{InputArgs, ModelArgs, ReportArgs};
use crate::cli::job::Job;
use crate::cli::report::{interrupted, Reporter};
use anyhow::Result;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;
use vitx::explain::tokens::Said;
use vitx::guard::guarded;
use vitx::input::prepare::by_size;
use vitx::input::{Preparer, Ready, Source};
use vitx::model::Model;
use vitx::render::json::{ModelId, TextRecord};
use vitx::run::Memory;

/// Classify images or texts: classes and probabilities only (values, where the model gives values)
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::PREDICT)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// How many classes to print, likeliest first
    #[arg(long, default_value_t = 3, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = Job::resolve(&args.model, &args.input, args.report, None)?;
    job.checkpoint.needs_classes()?;
    let model = Job::load(job.checkpoint, &args.model, &job.device, args.report)?;
    let mut preparer = Preparer::new(&model.checkpoint.processor, args.input.shape());
    let mut report = Reporter::new(args.report, job.sources.list.len());
    for chunk in job.sources.list.chunks(usize::from(args.input.batch_size)) {
        let mut ready: Vec<(&Source, Ready)> = Vec::new();
        for source in chunk {
            ready.extend(report.prepared(source, &mut preparer)?.map(|r| (source, r)));
            if args.input.fail_fast && report.failures() > 0 {
                break;
            }
        }
        for same in by_size(ready) {
            batch(&model, &mut report, same, (args.top as usize, args.model.memory()))?;
        }
        report.advance(chunk.len());
        if interrupted() || (args.input.fail_fast && report.failures() > 0) {
            break;
        }
    }
    Ok(report.finish(job.sources.list.len()))
}

/// Predicts inputs of one size; should that fail, each alone.
fn batch(
    model: &Model,
    report: &mut Reporter,
    ready: Vec<(&Source, Ready)>,
    most: (usize, Option<Memory>),
) -> Result<()> {
    let (sources, ready): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
    match (guarded(|| Said::of(model, &ready, most)), &sources[..]) {
        (Ok(all), _) => sources
            .iter()
            .zip(&ready)
            .zip(all)
            .try_for_each(|((source, ready), said)| tell(model, report, &source.name, ready, &said)),
        (Err(e), [one]) => report.failed(&one.name, &e.to_string()),
        (Err(_), _) => sources.into_iter().zip(ready).try_for_each(|one| batch(model, report, vec![one], most)),
    }
}

fn tell(model: &Model, report: &Reporter, input: &str, ready: &Ready, said: &Said) -> Result<()> {
    if report.json() {
        let (key, value) = said.value();
        let mut record = json!({"status": "ok", "input": input, "model": ModelId::of(&model.into()), key: value});
        if let Ready::Text(t) = ready {
            let text = TextRecord::of(&t.layout);
            (record["texts"], record["truncated"]) = (json!(text.texts), json!(text.truncated));
        }
        return report.json_line(&record);
    }
    report.line(&format!("{input}: {said}"))
}
