//! A command whose result is one file: noted in the ledger beside it, and not made again while it is up to date.

use super::args::ReportArgs;
use super::outputs::refuse_existing;
use super::report::Reporter;
use super::resume::Ledger;
use anyhow::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};
use vitx::render::save;

/// The file, and what it is to be made of.
pub struct Noted {
    file: PathBuf,
    ledger: Ledger,
    key: Value,
    replace: bool,
}

impl Noted {
    /// None when the file is there already and up to date, which is said.
    ///
    /// # Errors
    /// A file that is there and something else, and must not be replaced.
    pub fn open(file: &Path, key: Value, replace: bool, report: ReportArgs) -> Result<Option<Self>> {
        let ledger = Ledger::read(file.parent().unwrap_or(Path::new("")));
        if !replace {
            if let Some(mut record) = ledger.standing(&key).and_then(|mut records| records.pop()) {
                let report = Reporter::new(report, 1);
                record["status"] = "unchanged".into();
                report.json_line(&record)?;
                report.note(&format!("up to date: {} is there already (--overwrite makes it anew)", file.display()));
                return Ok(None);
            }
            refuse_existing([file.to_path_buf()].iter(), "")?;
        }
        Ok(Some(Noted { file: file.to_path_buf(), ledger, key, replace }))
    }

    /// Writes the file and notes it.
    ///
    /// # Errors
    /// When either cannot be written.
    pub fn save(mut self, bytes: &[u8], record: &Value) -> Result<()> {
        self.ledger.begin()?;
        save::save(&self.file, bytes, self.replace)?;
        let written = self.ledger.written(&self.file, bytes);
        self.ledger.add(self.key, vec![written], vec![record.clone()]);
        Ok(())
    }
}
