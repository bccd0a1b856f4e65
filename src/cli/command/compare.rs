//! `vitx compare`: methods side by side, a row a target.

use crate::cli::offered;
use crate::cli::report::Reporter;
use crate::cli::sheets::{Asking, SheetArgs, Subject, Wanted};
use anyhow::{bail, Result};
use clap::Parser;
use std::process::ExitCode;
use vitx::explain::methods_or;
use vitx::explain::Answer;
use vitx::model::Checkpoint;
use vitx::render::lines::Line;

/// Put methods side by side on one sheet: a row per target, a column per method
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::COMPARE)]
pub struct Args {
    /// NAME[:key=value,...], several separated by commas, or `all`
    #[arg(long, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
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

/// Methods that are compared where none is named, as far as the model has them.
const USUAL: &str = "attention,rollout,gae,grad-rollout";

/// Runs the subcommand.
pub fn run(mut args: Args) -> Result<ExitCode> {
    args.sheet.model.classes.targets = vitx::target::texts(&args.target);
    let check = |checkpoint: &Checkpoint| -> Result<_> {
        let methods = methods_or(&args.method, USUAL, checkpoint)?;
        if let Some(m) = methods.iter().find(|m| m.matrix()) {
            bail!("method `{}`: a whole matrix has no place on a sheet; use `vitx explain -f npy`", m.spec);
        }
        let targets = vitx::explain::requests(&args.target, checkpoint)?;
        Ok(Asking { methods, targets, more: () })
    };
    let wanted = Wanted { command: "compare", part: String::new(), seed: args.seed, numbers: None };
    let Some((subject, asking)) = Subject::open(&args.sheet, &wanted, check)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let report = Reporter::new(args.sheet.report, 1);
    let (checkpoint, methods) = (&subject.model.checkpoint, &asking.methods);
    report.patience(checkpoint, methods, args.sheet.input.shape.shape());
    let mut answers = subject.explain(&asking, &report)?.into_iter().peekable();
    let mut lines = Vec::new();
    while let Some(Answer { explanation, logits, .. }) = answers.peek() {
        let said = explanation.output.said(logits, checkpoint.scale).to_string();
        let label = match checkpoint.spec.headless {
            true => vec!["no classes".into()],
            false => vec![explanation.output.label(&checkpoint.labels), said],
        };
        lines.push(Line { label, maps: answers.by_ref().take(methods.len()).map(|a| a.explanation).collect() });
    }
    if lines.is_empty() {
        bail!("{}: no class is above what --target asks for, so there is nothing to draw", subject.source.name);
    }
    let columns = methods.iter().map(|m| m.spec.clone()).collect();
    subject.write(&args.sheet, report, columns, lines, false)
}
