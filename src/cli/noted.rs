//! A command whose result is one file: noted in the ledger beside it, and not made again while it is up to date.

use super::args::ReportArgs;
use super::outputs::refuse_existing;
use super::report::Reporter;
use super::voice;
use anyhow::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};
use vitx::identity::Identity;
use vitx::render::save;
use vitx::resume::Ledger;

/// The file, and what it is to be made of.
pub struct Noted {
    file: PathBuf,
    ledger: Ledger,
    identity: Identity,
    replace: bool,
}

impl Noted {
    /// None when the file is there already and up to date, which is said.
    ///
    /// # Errors
    /// A file that is there and something else, and must not be replaced.
    pub fn open(file: &Path, identity: Identity, replace: bool, report: ReportArgs) -> Result<Option<Self>> {
        let ledger = Ledger::read(file.parent().unwrap_or(Path::new("")));
        if !replace {
            if let Some(mut record) = ledger.standing(&identity).and_then(|mut records| records.pop()) {
                let report = Reporter::new(report, 1);
                record["status"] = "unchanged".into();
                report.json_line(&record)?;
                report.note(&format!("up to date: {} is there already (--overwrite makes it anew)", file.display()));
                return Ok(None);
            }
            refuse_existing([file.to_path_buf()].iter(), "")?;
        }
        Ok(Some(Noted { file: file.to_path_buf(), ledger, identity, replace }))
    }

    /// Writes the file and notes it.
    ///
    /// # Errors
    /// When either cannot be written.
    pub fn save(mut self, bytes: &[u8], record: &Value) -> Result<()> {
        self.ledger.begin()?;
        save::save(&self.file, bytes, self.replace)?;
        let written = self.ledger.written(&self.file, bytes);
        if let Some(e) = self.ledger.add(&self.identity, vec![written], vec![record.clone()]) {
            voice::say(&format!("warning: {e}; a later run will do these outputs again"));
        }
        Ok(())
    }
}
