//! A command whose result is one file: what is said of it when it is up to date, and when it is written.

use super::args::ReportArgs;
use super::report::Reporter;
use super::voice;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use vitx::identity::Identity;
use vitx::render::out::refuse_existing;
use vitx::render::save;
use vitx::resume::one::{Look, One};
use vitx::Error;

/// None when the file is there already and up to date, which is said.
///
/// # Errors
/// A file that is there and something else, and must not be replaced.
pub fn look(file: &Path, asked: Identity, replace: bool, report: ReportArgs) -> Result<Option<One>> {
    match One::look(file, asked, replace) {
        Look::Standing(record) => {
            let report = Reporter::new(report, 1);
            report.json_line(&record)?;
            report.note(&format!("up to date: {} is there already (--overwrite makes it anew)", file.display()));
            Ok(None)
        }
        Look::Make(one) => {
            if !replace {
                refuse_existing([&one.file].into_iter(), "")?;
            }
            Ok(Some(*one))
        }
    }
}

/// Writes the file and notes it.
///
/// # Errors
/// When either cannot be written.
pub fn write(one: One, bytes: &[u8], record: &Value, replace: bool) -> Result<()> {
    save::sweep(one.file.parent().unwrap_or(Path::new("")));
    lost(one.save(bytes, record, |file, bytes| save::save(file, bytes, replace))?);
    Ok(())
}

/// Says that a ledger could not be written.
pub fn lost(e: Option<Error>) {
    if let Some(e) = e {
        voice::say(&format!("warning: {e}; a later run will do these outputs again"));
    }
}
