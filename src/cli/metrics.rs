//! `vitx metrics`: the metric registry.

use super::args::ListArgs;
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
        print!("{}", markdown());
        return Ok(ExitCode::SUCCESS);
    }
    for entry in METRICS {
        let convention = parse(entry.name)?.metric.convention();
        if args.list.json {
            let params: Vec<_> = entry.parameters();
            let params: Vec<_> =
                params.iter().map(|p| json!({"key": p.key, "default": p.default, "about": p.about})).collect();
            println!(
                "{}",
                json!({"name": entry.name, "title": entry.title, "paper": entry.paper, "direction": entry.direction,
                       "images": entry.images, "texts": entry.texts, "convention": convention, "params": params})
            );
            continue;
        }
        let better = if entry.direction == Direction::Higher { "higher" } else { "lower" };
        println!("{}: {} ({better} is better; {})", entry.name, entry.title, entry.paper);
        println!("  {convention}");
        entry.parameters().iter().for_each(|p| println!("  {}={}  {}", p.key, p.default, p.about));
    }
    Ok(ExitCode::SUCCESS)
}
