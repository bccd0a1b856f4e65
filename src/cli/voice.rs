//! The two streams. Results go to stdout, everything else to stderr, and nothing else in this program writes to either.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Write};
use std::process::exit;
use vitx::render::printable::printable;

/// Bytes to stdout. A reader that has gone away ends the program quietly, as `head` expects.
///
/// # Errors
/// Any other write error, such as a full disk.
pub fn out(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => exit(0),
        written => written.context("the result cannot be written to stdout"),
    }
}

/// A line to stderr, control characters of names and texts escaped. It is lost where stderr cannot be written: what it says
/// is never worth more than the run.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// What [`tell`] expands to: a line of a listing. There is nothing to do after it cannot be written.
pub fn line(text: &str) {
    if let Err(e) = out(printable(&format!("{text}\n")).as_bytes()) {
        super::print_error(&e);
        exit(i32::from(super::NOTHING_DONE));
    }
}

/// `println!` for the commands that only list something: a closed pipe ends them quietly, a full disk is an error.
macro_rules! tell {
    ($($format:tt)*) => { $crate::cli::voice::line(&format!($($format)*)) };
}
pub(crate) use tell;
