//! The ledger: a file that says what was made, from what, one JSON object a line, so that a later run can go on.
//!
//! A line holds the [`Identity`] of what was asked (contents, not names), the files that were written with their lengths and
//! SHA-256, and the records. What an identity gave is still there when its files are, byte for byte.

pub mod one;
pub mod own;
pub mod past;

use crate::error::{Error, Result};
use crate::identity::{self, differing, Identity};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The name of the ledger of an output folder.
pub const NAME: &str = ".vitx-records.jsonl";

/// A file as it was written.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Written {
    /// Relative to the ledger's folder.
    path: String,
    bytes: u64,
    sha256: String,
}

/// A line.
#[derive(Serialize, Deserialize, Debug)]
struct Line {
    key: Value,
    outputs: Vec<Written>,
    records: Vec<Value>,
}

/// What has been made, and written into one folder.
#[derive(Debug)]
pub struct Ledger {
    /// The file that says so.
    path: PathBuf,
    /// Where it is.
    folder: PathBuf,
    /// By identity; of two lines the later one counts.
    lines: HashMap<String, Line>,
    file: Option<File>,
    /// Whether it could not be written, which is said once.
    lost: bool,
}

impl Ledger {
    /// Reads the ledger of an output folder, if it has one.
    pub fn read(folder: &Path) -> Self {
        Self::read_file(&folder.join(NAME))
    }

    /// Reads a ledger, if it is there. What a crash or a damaged disk left unreadable is one line and not more.
    pub fn read_file(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default(); // none yet
        let lines = bytes.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice::<Line>(l).ok());
        let lines = lines.map(|l| (l.key.to_string(), l)).collect();
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ledger { path: path.to_path_buf(), folder, lines, file: None, lost: false }
    }

    /// Makes the folder and opens the ledger for writing.
    ///
    /// # Errors
    /// [`Error::Io`] naming the folder when it cannot be written to.
    pub fn begin(&mut self) -> Result<()> {
        let failed = |e| Error::io(if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder }, e);
        if !self.folder.as_os_str().is_empty() {
            std::fs::create_dir_all(&self.folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path).map_err(failed)?;
        // A line that a crash cut off is ended, so that the next one is whole.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last).map_err(failed)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n").map_err(failed)?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Whether anything was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What the inputs of its lines were called.
    pub fn names(&self) -> HashSet<&str> {
        self.lines.values().filter_map(|l| l.key.get("name")?.as_str()).collect()
    }

    /// The records of what was asked, if it was finished and its files are still those that were written. Outputs are named
    /// as seen from here.
    pub fn standing(&self, asked: &Identity) -> Option<Vec<Value>> {
        let line = self.lines.get(&asked.value().ok()?.to_string())?;
        if !line.outputs.iter().all(|w| w.stands(&self.folder)) {
            return None;
        }
        let mut records = line.records.clone();
        let paths =
            records.iter_mut().filter_map(|r| r.get_mut("outputs")?.as_object_mut()).flat_map(|o| o.values_mut());
        for path in paths {
            if let Some(relative) = path.as_str() {
                *path = self.folder.join(relative).display().to_string().into();
            }
        }
        Some(records)
    }

    /// In which parts of its identity a file differs from what is asked now; none when the ledger does not know the file.
    pub fn differs(&self, path: &Path, asked: &Identity) -> Option<Vec<String>> {
        let relative = self.relative(path);
        let line =
            self.lines.values().find(|l| l.outputs.iter().any(|w| w.path == relative && w.stands(&self.folder)))?;
        Some(differing(&asked.value().ok()?, &line.key))
    }

    /// Every line: the identity, as JSON, and the records.
    pub fn lines(&self) -> impl Iterator<Item = (&Value, &[Value])> {
        self.lines.values().map(|l| (&l.key, &l.records[..]))
    }

    /// Forgets all lines, in the file too.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.lines.clear();
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&self.path, e)),
            _ => Ok(()),
        }
    }

    /// Notes that the files of what was asked are complete. A ledger that cannot be written costs a later run its time, and
    /// not this one its results: the first time, the error is returned, to be told.
    pub fn add(&mut self, asked: &Identity, outputs: Vec<Written>, mut records: Vec<Value>) -> Option<Error> {
        for record in &mut records {
            for path in
                record.get_mut("outputs").and_then(Value::as_object_mut).into_iter().flat_map(|o| o.values_mut())
            {
                if let Some(shown) = path.as_str() {
                    *path = self.relative(Path::new(shown)).into();
                }
            }
        }
        let file = self.file.as_mut()?;
        let line = asked.value().and_then(|key| serde_json::to_string(&Line { key, outputs, records }));
        // One write a line: another process may add to the same ledger.
        let written = line.map_err(std::io::Error::from).and_then(|l| file.write_all(format!("{l}\n").as_bytes()));
        let failed = written.err().filter(|_| !self.lost)?;
        self.lost = true;
        Some(Error::io(&self.path, failed))
    }

    /// A file of this folder with its contents, for [`Ledger::add`].
    pub fn written(&self, path: &Path, bytes: &[u8]) -> Written {
        Written { path: self.relative(path), bytes: bytes.len() as u64, sha256: identity::of_bytes(bytes) }
    }

    /// Every file in it, as it was written.
    pub fn into_files(self) -> impl Iterator<Item = (PathBuf, Written)> {
        let folder = self.folder;
        self.lines.into_values().flat_map(|l| l.outputs).map(move |w| (folder.join(&w.path), w))
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
    }
}

impl Written {
    /// Whether the file is still there, byte for byte.
    pub fn stands(&self, folder: &Path) -> bool {
        let path = folder.join(&self.path);
        std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == self.bytes)
            && identity::sha256(&path).is_ok_and(|s| s == self.sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let key = Identity { model: "A".into(), ..Identity::of("explain") };
        let other = Identity { model: "B".into(), ..key.clone() };
        let mut ledger = Ledger::read(dir.path());
        ledger.begin().unwrap();
        let record = json!({"status": "ok", "outputs": {"npy": path.display().to_string()}});
        std::fs::write(&path, "one").unwrap();
        let written = ledger.written(&path, b"one");
        assert!(ledger.add(&key, vec![written], vec![record.clone()]).is_none());
        assert_eq!(Ledger::read(dir.path()).standing(&key), Some(vec![record]));
        assert_eq!(Ledger::read(dir.path()).standing(&other), None);
        assert_eq!(Ledger::read(dir.path()).differs(&path, &other), Some(vec!["model".to_string()]));
        for changed in ["two", "on", "one+", ""] {
            std::fs::write(&path, changed).unwrap();
            assert_eq!(Ledger::read(dir.path()).standing(&key), None, "{changed}");
            assert_eq!(Ledger::read(dir.path()).differs(&path, &key), None, "{changed}: not the file we wrote");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Ledger::read(dir.path()).standing(&key), None);
    }

    #[test]
    fn a_bad_line_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let keys = [0, 1, 2].map(|seed| Identity { seed, ..Identity::of("explain") });
        for (key, cut) in keys.iter().zip([&b"\xff\xfe\n"[..], b"{\"key\":{\"n\":9},\"outp", b"{}\n\n"]) {
            let mut ledger = Ledger::read(dir.path());
            ledger.begin().unwrap();
            ledger.add(key, vec![], vec![]);
            let mut file = OpenOptions::new().append(true).open(dir.path().join(NAME)).unwrap();
            file.write_all(cut).unwrap();
        }
        let ledger = Ledger::read(dir.path());
        assert!(keys.iter().all(|k| ledger.standing(k) == Some(vec![])), "{ledger:?}");
    }
}
