//! `vitx metrics [NAME]`: the metric registry.

use super::args::ListArgs;
use super::offered::METRICS as OFFERED;
use super::voice::tell;
use anyhow::Result;
use clap::Parser;
use serde_json::{json, Value};
use std::process::ExitCode;
use vitx::evaluate::{markdown, parse, Configured, Direction, Needs, METRICS};

/// List the metrics of `evaluate` and `tune`, or describe one
#[derive(Parser, Debug)]
#[command(after_help = super::examples::METRICS)]
pub struct Args {
    /// A metric to describe, with parameters if you like: NAME[:key=value,...]
    #[arg(value_parser = OFFERED)]
    name: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let one = args.name.as_deref().map(parse).transpose()?;
    if args.list.markdown {
        tell!("{}", markdown().trim_end_matches('\n'));
        return Ok(ExitCode::SUCCESS);
    }
    let all = match one {
        Some(one) => vec![one],
        None => METRICS.iter().map(|e| parse(e.name)).collect::<vitx::Result<Vec<_>>>()?,
    };
    for metric in &all {
        match args.list.json {
            true => tell!("{}", record(metric)),
            false => describe(metric),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn record(metric: &Configured) -> Value {
    let e = metric.entry;
    let params: Vec<_> =
        e.parameters().iter().map(|p| json!({"key": p.key, "default": p.default, "about": p.about})).collect();
    json!({
        "name": e.name, "title": e.title, "paper": e.paper, "direction": e.direction, "images": e.images,
        "texts": e.texts, "needs": needs(e.needs), "convention": metric.convention(), "params": params,
    })
}

fn needs(needs: Needs) -> Option<&'static str> {
    match needs {
        Needs::Nothing => None,
        Needs::Mask => Some("masks"),
        Needs::Rationale => Some("rationales"),
    }
}

fn describe(metric: &Configured) {
    let e = metric.entry;
    let better = if e.direction == Direction::Higher { "higher" } else { "lower" };
    tell!("{}: {} ({better} is better; {})", e.name, e.title, e.paper);
    tell!("  {}", metric.convention());
    let reads =
        [(e.images, "images"), (e.texts, "texts")].iter().filter(|(r, _)| *r).map(|(_, n)| *n).collect::<Vec<_>>();
    let needs = needs(e.needs).map(|n| format!(" with {n}")).unwrap_or_default();
    tell!("  for {}{needs}", reads.join(", "));
    e.parameters().iter().for_each(|p| tell!("  {}={}  {}", p.key, p.default, p.about));
}
