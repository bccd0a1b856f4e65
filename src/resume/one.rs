//! A result that is one file: noted in the ledger beside it, and not made again while it is up to date.

use super::Ledger;
use crate::error::{Error, Result};
use crate::identity::Identity;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The file, and what it is to be made of.
pub struct One {
    /// The file.
    pub file: PathBuf,
    ledger: Ledger,
    asked: Identity,
}

/// What there is already.
pub enum Look {
    /// The file is up to date; its record.
    Standing(Value),
    /// It is to be made.
    Make(Box<One>),
}

impl One {
    /// Looks in the ledger of the file's folder; `anew` takes nothing for up to date.
    pub fn look(file: &Path, asked: Identity, anew: bool) -> Look {
        let ledger = Ledger::read(file.parent().unwrap_or(Path::new("")), None);
        let standing = ledger.standing(&asked).filter(|_| !anew);
        match standing.and_then(|place| ledger.records(place).ok()?.pop()) {
            Some(mut record) => {
                record["status"] = "unchanged".into();
                Look::Standing(record)
            }
            None => Look::Make(Box::new(One { file: file.to_path_buf(), ledger, asked })),
        }
    }

    /// Writes the file with `save` and notes it; what the ledger says against it is returned.
    ///
    /// # Errors
    /// When the folder cannot be written to, and those of `save`.
    pub fn save(
        mut self,
        bytes: &[u8],
        record: &Value,
        save: impl FnOnce(&Path, &[u8]) -> Result<()>,
    ) -> Result<Option<Error>> {
        self.ledger.begin()?;
        save(&self.file, bytes)?;
        let written = self.ledger.written(&self.file, bytes);
        Ok(self.ledger.add(&self.asked, vec![written], vec![record.clone()]))
    }
}
