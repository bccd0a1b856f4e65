//! The command line: one file per subcommand, in `command/`. Every mistake is found before weights are read.

mod args;
mod command;
mod data;
mod examples;
mod job;
mod mistakes;
mod noted;
mod offered;
mod report;
mod sheets;
mod sources;
mod style;
mod voice;

use anyhow::Result;
use clap::Parser;
use command::{compare, evaluate, explain, heads, inspect, lists, maximize, predict, shell, summary, tune, worker};
use std::process::ExitCode;
use vitx::guard;

/// Some inputs failed; the others are written.
pub const SOME_FAILED: u8 = 1;
/// Usage, model or input errors before any work.
pub const NOTHING_DONE: u8 = 2;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Why did the model say that? Explanations for HuggingFace Vision Transformers and BERTs.
#[derive(Parser, Debug)]
#[command(name = "vitx", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Explain(explain::Args),
    Predict(predict::Args),
    Compare(compare::Args),
    Heads(heads::Args),
    Evaluate(evaluate::Args),
    Tune(tune::Args),
    Summary(summary::Args),
    Maximize(maximize::Args),
    Worker(worker::Args),
    Methods(lists::MethodsArgs),
    Metrics(lists::MetricsArgs),
    Models(lists::ModelsArgs),
    Inspect(inspect::Args),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Parses the arguments and runs the subcommand.
pub fn run() -> Result<ExitCode> {
    guard::keep_panics();
    match Cli::try_parse() {
        Ok(cli) => guard::caught(|| dispatch(cli.command))?,
        Err(mistake) => mistakes::told(&mistake),
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Explain(args) => explain::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Heads(args) => heads::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Summary(args) => summary::run(args),
        Command::Maximize(args) => maximize::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Methods(args) => lists::methods(args),
        Command::Metrics(args) => lists::metrics(args),
        Command::Models(args) => lists::models(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    }
}

/// The exit code of a run that ended with an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<vitx::Error>() {
        Some(vitx::Error::Interrupted) => INTERRUPTED,
        _ => NOTHING_DONE,
    }
}

/// `error: what: why` on stderr.
pub fn print_error(error: &anyhow::Error) {
    voice::say(&format!("error: {error:#}"));
}
