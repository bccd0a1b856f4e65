//! `vitx heads`: every head's attention, of one layer or of all.

use crate::cli::report::Reporter;
use crate::cli::sheets::{Asking, SheetArgs, Subject, Wanted};
use anyhow::{bail, Result};
use clap::Parser;
use std::process::ExitCode;
use vitx::method::parse;
use vitx::model::Checkpoint;
use vitx::render::lines::Line;
use vitx::render::npz::attention;
use vitx::target::Request;

/// The ending of a file of all attention.
const NUMBERS: &str = "npz";

/// Show each head's attention, of one layer or of all layers, on one sheet; or write all of it as numbers
/// (-o FILE.npz: `attention` [layers,heads,T,T] of output token by token, `layers`, and `prefix`, the tokens before the first patch)
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::HEADS)]
pub struct Args {
    /// Layers, counted from 0 and separated by commas; `last` is the last (default: all)
    #[arg(long, value_name = "L", value_delimiter = ',')]
    layer: Vec<String>,
    #[command(flatten)]
    sheet: SheetArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(scale) = args.sheet.style.scale().filter(|s| !["auto", "shared"].contains(s)) {
        bail!("--normalize {scale} would change nothing: heads draws each layer on one scale; leave it out, or pass shared");
    }
    let numbers = args.sheet.ending().as_deref() == Some(NUMBERS);
    if numbers && args.sheet.row.is_some() {
        bail!("--row would change nothing: the file holds every output token's row; leave it out");
    }
    let how = if numbers { ",matrix=true" } else { "" };
    let check = |checkpoint: &Checkpoint| -> Result<_> {
        let (layers, heads) = (checkpoint.layers(&args.layer)?, checkpoint.spec.heads());
        let named = |l: usize| (0..heads).map(move |h| parse(&format!("attention:layer={l},heads={h}{how}")));
        let methods = layers.iter().flat_map(|&l| named(l)).collect::<vitx::Result<Vec<_>>>()?;
        methods.iter().try_for_each(|m| m.check(&checkpoint.facts()))?;
        let targets = vec![Request::parse("predicted", &checkpoint.labels, checkpoint.scale)?];
        Ok(Asking { methods, targets, more: (layers, heads) })
    };
    let part = if args.layer.is_empty() { String::new() } else { format!("-layer={}", args.layer.join(",")) };
    let wanted = Wanted { command: "heads", part, seed: 0, numbers: Some(NUMBERS) };
    let Some((subject, asking)) = Subject::open(&args.sheet, &wanted, check)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let (layers, heads) = &asking.more;
    let report = Reporter::new(args.sheet.report, 1);
    let mut maps = subject.explain(&asking, &report)?.into_iter().map(|answer| answer.explanation);
    if numbers {
        let bytes = attention(&maps.collect::<Vec<_>>(), layers, *heads)?;
        return subject.save(&args.sheet, report, &bytes);
    }
    let line =
        |layer: &usize| Line { label: vec![format!("layer {layer}")], maps: maps.by_ref().take(*heads).collect() };
    let lines = layers.iter().map(line).collect();
    let columns = (0..*heads).map(|h| format!("head {h}")).collect();
    subject.write(&args.sheet, report, columns, lines, true)
}
