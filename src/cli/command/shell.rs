//! `vitx completions` and `vitx man`.

use crate::cli::{voice, Cli};
use anyhow::Result;
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Print a completion script for a shell
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::COMPLETIONS)]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

/// Print the manual page (roff)
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::MAN)]
pub struct ManArgs {}

/// Writes the script to stdout.
pub fn completions(args: CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vitx", &mut script);
    voice::out(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page to stdout, subcommands included.
pub fn man(_: ManArgs) -> Result<ExitCode> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        clap_mangen::Man::new(sub.clone()).render(&mut page)?;
    }
    voice::out(&page)?;
    Ok(ExitCode::SUCCESS)
}
