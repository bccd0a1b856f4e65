//! A command line that cannot be read, and what was probably meant.

use anyhow::{Context, Result};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::borrow::Cow;
use std::ffi::OsString;
use std::io::ErrorKind as Io;
use std::path::Path;
use std::process::ExitCode;
use vitx::render::printable::printable;

use super::{voice, NOTHING_DONE};
use vitx::input::formats::is_input;

/// Help and version on stdout; a mistake on stderr, with the command that was probably meant.
///
/// # Errors
/// When stdout cannot be written.
pub fn told(mistake: &clap::Error) -> Result<ExitCode> {
    if !mistake.use_stderr() {
        return match mistake.print() {
            Err(e) if e.kind() == Io::BrokenPipe => Ok(ExitCode::SUCCESS),
            printed => printed.context("the result cannot be written to stdout").map(|()| ExitCode::SUCCESS),
        };
    }
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    match meant(mistake, &given) {
        Some(hint) => voice::say(&format!("error: {hint}")),
        // clap colours its own words, but writes the arguments as they stand.
        None => match printable(&mistake.render().to_string()) {
            Cow::Borrowed(_) => _ = mistake.print(),
            Cow::Owned(escaped) => voice::say(escaped.trim_end()),
        },
    }
    Ok(ExitCode::from(NOTHING_DONE))
}

/// For an input or a flag where a command must stand.
fn meant(mistake: &clap::Error, given: &[OsString]) -> Option<String> {
    let text = |kind| match mistake.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let first = given.first()?.to_str()?;
    match mistake.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            let input = word == "-" || Path::new(word).exists() || is_input(Path::new(word));
            input.then(|| format!("`{word}` is no command; did you mean `vitx explain {word}`?"))
        }
        ErrorKind::UnknownArgument if first.starts_with('-') && text(ContextKind::InvalidArg) == Some(first) => Some(
            format!("`{first}` stands after a command; did you mean `vitx explain {first} ...`? (see `vitx --help`)"),
        ),
        _ => None,
    }
}
