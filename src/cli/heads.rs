//! `vitx heads`: every head's attention, of one layer or of all.

use super::report::Reporter;
use super::sheets::{Line, SheetArgs, Subject};
use anyhow::{bail, Result};
use clap::Parser;
use std::process::ExitCode;
use vitx::method::{parse, Configured};
use vitx::model::Checkpoint;
use vitx::target::Target;

/// Show each head's attention, of one layer or of all layers, on one sheet
#[derive(Parser, Debug)]
pub struct Args {
    /// One layer, counted from 0 (default: all)
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    #[command(flatten)]
    sheet: SheetArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let check = |checkpoint: &Checkpoint| -> Result<(Vec<usize>, usize)> {
        let layers = checkpoint.spec.layers;
        match args.layer {
            Some(l) if l >= layers => bail!("--layer {l}: model `{}` has layers 0 to {}", checkpoint.id, layers - 1),
            Some(l) => Ok((vec![l], checkpoint.spec.heads)),
            None => Ok(((0..layers).collect(), checkpoint.spec.heads)),
        }
    };
    let (subject, (layers, heads)) = Subject::open(&args.sheet, "heads", check)?;
    let report = Reporter::new(args.sheet.report, 1);
    let head = |l: usize| (0..heads).map(move |h| parse(&format!("attention:layer={l},heads={h}")));
    let methods: Vec<Configured> = layers.iter().flat_map(|&l| head(l)).collect::<vitx::Result<_>>()?;
    let lines = subject.explain(&methods, &report, |logits| Target::Predicted.resolve(logits))?;
    let mut maps = lines.into_iter().flat_map(|e| e.maps);
    let line =
        |&layer: &usize| Line { label: vec![format!("layer {layer}")], maps: maps.by_ref().take(heads).collect() };
    let lines = layers.iter().map(line).collect();
    let columns = (0..heads).map(|h| format!("head {h}")).collect();
    subject.write(&args.sheet, report, columns, lines, true)
}
