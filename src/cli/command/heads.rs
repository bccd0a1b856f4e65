//! `vitx heads`: every head's attention, of one layer or of all.

use crate::cli::report::Reporter;
use crate::cli::sheets::{Asking, SheetArgs, Subject, Wanted};
use anyhow::{bail, Result};
use clap::Parser;
use std::process::ExitCode;
use vitx::method::parse;
use vitx::model::Checkpoint;
use vitx::render::lines::Line;
use vitx::target::Request;

/// Show each head's attention, of one layer or of all layers, on one sheet
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
    let check = |checkpoint: &Checkpoint| -> Result<_> {
        let (layers, heads) = (layers(&args.layer, checkpoint.spec.layers, &checkpoint.id)?, checkpoint.spec.heads);
        let named = |l: usize| (0..heads).map(move |h| parse(&format!("attention:layer={l},heads={h}")));
        let methods = layers.iter().flat_map(|&l| named(l)).collect::<vitx::Result<_>>()?;
        let targets = vec![Request::parse("predicted", &checkpoint.labels, checkpoint.scale)?];
        Ok(Asking { methods, targets, more: (layers, heads) })
    };
    let part = if args.layer.is_empty() { String::new() } else { format!("-layer={}", args.layer.join(",")) };
    let wanted = Wanted { command: "heads", part, seed: 0 };
    let Some((subject, asking)) = Subject::open(&args.sheet, &wanted, check)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let (layers, heads) = &asking.more;
    let report = Reporter::new(args.sheet.report, 1);
    let mut maps = subject.explain(&asking, &report)?.into_iter().map(|answer| answer.explanation);
    let line =
        |layer: &usize| Line { label: vec![format!("layer {layer}")], maps: maps.by_ref().take(*heads).collect() };
    let lines = layers.iter().map(line).collect();
    let columns = (0..*heads).map(|h| format!("head {h}")).collect();
    subject.write(&args.sheet, report, columns, lines, true)
}

/// The layers that are meant, each once; all when none is named.
fn layers(named: &[String], layers: usize, model: &str) -> Result<Vec<usize>> {
    if named.is_empty() {
        return Ok((0..layers).collect());
    }
    let mut list = Vec::new();
    for name in named.iter().map(|n| n.trim()) {
        let layer = match name {
            "last" => layers.checked_sub(1),
            number => number.parse().ok().filter(|l| *l < layers),
        };
        match layer {
            Some(layer) if !list.contains(&layer) => list.push(layer),
            Some(_) => {}
            None => bail!("--layer {name}: model `{model}` has layers 0 to {} (or `last`)", layers - 1),
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbers_or_the_last() {
        let read = |names: &[&str]| layers(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>(), 6, "m");
        assert_eq!(read(&["last"]).unwrap(), [5]);
        assert_eq!(read(&["0", "4"]).unwrap(), [0, 4]);
        assert_eq!(read(&["5", "last", " 1"]).unwrap(), [5, 1]);
        assert_eq!(read(&[]).unwrap().len(), 6);
        for bad in ["6", "-1", "first", ""] {
            assert!(read(&[bad]).unwrap_err().to_string().contains("layers 0 to 5"), "{bad}");
        }
    }
}
