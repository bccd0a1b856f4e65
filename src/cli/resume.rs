//! `--resume`: a ledger in the output folder of what has been written, one JSON object a line.

use super::sources::{Kind, Source};
use anyhow::Result;
use serde_json::{json, Value};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const NAME: &str = ".vitx-records.jsonl";

/// What has been written into one output folder.
pub struct Ledger {
    done: HashMap<String, Vec<PathBuf>>,
    folder: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens the ledger of a folder. Lines that were cut off by a crash are passed over.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let entry = |line: &str| -> Option<(String, Vec<PathBuf>)> {
            let value: Value = serde_json::from_str(line).ok()?;
            let files = value["outputs"].as_array()?.iter().filter_map(Value::as_str);
            Some((value["key"].to_string(), files.map(|f| folder.join(f)).collect()))
        };
        let done = old.lines().filter_map(entry).collect();
        if !folder.as_os_str().is_empty() {
            std::fs::create_dir_all(folder).map_err(|e| vitx::Error::io(folder, e))?;
        }
        let mut file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(|e| vitx::Error::io(&path, e))?;
        if !old.is_empty() && !old.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Ledger { done, folder: folder.to_path_buf(), file })
    }

    /// Whether this was written before and is still there.
    pub fn has(&self, key: &Value) -> bool {
        self.done.get(&key.to_string()).is_some_and(|files| files.iter().all(|f| f.exists()))
    }

    /// Notes that the files of one input, method and target are complete.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn add(&mut self, key: &Value, files: &[PathBuf]) -> Result<()> {
        let relative: Vec<_> =
            files.iter().map(|f| f.strip_prefix(&self.folder).unwrap_or(f).display().to_string()).collect();
        let line = format!("{}\n", json!({"key": key, "outputs": relative}));
        self.file.write_all(line.as_bytes())?;
        Ok(())
    }
}

/// Tells an input from a changed one: its path, length and time of change; a text by itself.
pub fn identity(source: &Source) -> Value {
    let file = |path: &Path| {
        let meta = std::fs::metadata(path).ok();
        let changed =
            meta.as_ref().and_then(|m| m.modified().ok()).and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        json!([source.name, meta.map(|m| m.len()), changed.map(|d| d.as_nanos().to_string())])
    };
    match &source.kind {
        Kind::Picture(path) | Kind::TextFile(path) | Kind::Array(path, _) => file(path),
        Kind::Text(text) => json!([text.first, text.second]),
        Kind::Unreadable(_) => Value::Null,
    }
}
