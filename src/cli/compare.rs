//! `vitx compare`: methods side by side, a row a target.

use super::job;
use super::offered;
use super::report::Reporter;
use super::sheets::{Explained, Line, SheetArgs, Subject, Wanted};
use anyhow::{bail, Result};
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;
use vitx::model::Checkpoint;
use vitx::target::Request;

/// Put methods side by side on one sheet: a row per target, a column per method
#[derive(Parser, Debug)]
#[command(after_help = super::examples::COMPARE)]
pub struct Args {
    /// NAME[:key=value,...], several separated by commas, or `all`
    #[arg(long, default_value = "attention,rollout,gae,grad-rollout", value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// predicted, a label, a class number (id:N always), top:K, above:P, A-B, or -LABEL (what lowers it); repeatable or
    /// separated by commas, a row each
    #[arg(short, long, default_value = "predicted", value_name = "TARGET", value_parser = offered::TARGETS, hide_possible_values = true, allow_hyphen_values = true)]
    target: Vec<String>,
    /// Seed of methods that draw random numbers
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    sheet: SheetArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let check = |checkpoint: &Checkpoint| -> Result<_> {
        let methods = job::methods(&args.method, checkpoint)?;
        if let Some(m) = methods.iter().find(|m| m.matrix()) {
            bail!("method `{}`: a whole matrix has no place on a sheet; use `vitx explain -f npy`", m.spec);
        }
        Ok((methods, Request::parse_list(&args.target, &checkpoint.labels, checkpoint.scale)?))
    };
    let what = json!({"methods": args.method, "targets": args.target});
    let wanted = Wanted { command: "compare", part: String::new(), seed: args.seed, what };
    let Some((subject, (methods, targets))) = Subject::open(&args.sheet, &wanted, check)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let report = Reporter::new(args.sheet.report, 1);
    job::tell_patience(&report, &subject.model.checkpoint, &methods, args.sheet.input.shape.size);
    let (labels, scale) = (&subject.model.checkpoint.labels, subject.model.checkpoint.scale);
    let outputs = |logits: &[f32]| {
        let meant = |target: &Request| {
            let outputs = target.resolve(logits);
            if outputs.is_empty() {
                report.note(&format!("note: {}: {}", subject.source.name, target.nothing(logits, labels, scale)));
            }
            outputs
        };
        targets.iter().flat_map(meant).collect()
    };
    let lines = subject.explain(&methods, &report, outputs)?;
    if lines.is_empty() {
        bail!("{}: no class is above what --target asks for, so there is nothing to draw", subject.source.name);
    }
    let model = &subject.model;
    let line = |e: Explained| {
        let said = e.output.said(&e.logits, model.checkpoint.scale).to_string();
        Line { label: vec![e.output.label(&model.checkpoint.labels), said], maps: e.maps }
    };
    let lines = lines.into_iter().map(line).collect();
    let columns = methods.iter().map(|m| m.spec.clone()).collect();
    subject.write(&args.sheet, report, columns, lines, false)
}
