//! `vitx metrics`: the metric registry.

use super::args::ListArgs;
use super::voice::tell;
use anyhow::Result;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;
use vitx::evaluate::{markdown, parse, Direction, METRICS};

/// List the metrics of `evaluate` and `tune`
#[derive(Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.list.markdown {
        tell!("{}", markdown().trim_end_matches('\n'));
        return Ok(ExitCode::SUCCESS);
    }
    for entry in METRICS {
        let convention = parse(entry.name)?.metric.convention();
        if args.list.json {
            let params: Vec<_> = entry.parameters();
            let params: Vec<_> =
                params.iter().map(|p| json!({"key": p.key, "default": p.default, "about": p.about})).collect();
            tell!(
                "{}",
                json!({"name": entry.name, "title": entry.title, "paper": entry.paper, "direction": entry.direction,
                       "images": entry.images, "texts": entry.texts, "convention": convention, "params": params})
            );
            continue;
        }
        let better = if entry.direction == Direction::Higher { "higher" } else { "lower" };
        tell!("{}: {} ({better} is better; {})", entry.name, entry.title, entry.paper);
        tell!("  {convention}");
        entry.parameters().iter().for_each(|p| tell!("  {}={}  {}", p.key, p.default, p.about));
    }
    Ok(ExitCode::SUCCESS)
}
