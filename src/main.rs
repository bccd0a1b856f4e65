//! The `vitx` command: parse, run, print the error chain, exit code.

mod cli;
mod memory;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep();
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            cli::print_error(&error);
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
