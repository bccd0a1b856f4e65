//! The ledger: a file that says what was made, from what, one JSON object a line, so that a later run can go on.
//!
//! A line holds the [`Identity`] of what was asked (contents, not names), the files that were written with their lengths and
//! SHA-256, and the records. What an identity gave is still there when its files are, byte for byte.
//!
//! Runs may write into one folder at a time: each adds its lines whole. One that is alone there takes away what an earlier one, which
//! was killed, left of a line. Each part of a run has a ledger of its own, so that machines which share a disk never add to one file.

mod lines;
pub mod one;
pub mod own;
pub mod past;

use crate::error::{Error, Result};
use crate::identity::{self, differing, Identity};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub use lines::Place;

/// Names of ledgers begin and end so; that of a whole run has nothing between.
const NAME: (&str, &str) = (".vitx-records", ".jsonl");

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
    lines: lines::Lines,
    file: Option<File>,
    /// Whether it could not be written, which is said once. The next line begins anew.
    lost: bool,
}

impl Ledger {
    /// Reads what the ledgers of an output folder say; a run adds to that of its `part`, as `--shard` counts them.
    pub fn read(folder: &Path, part: Option<(usize, usize)>) -> Self {
        let name = part.map_or_else(String::new, |(i, n)| format!(".{i}-of-{n}"));
        let own = format!("{}{name}{}", NAME.0, NAME.1);
        let mut others: Vec<_> =
            all(folder).filter(|path| path.file_name().is_none_or(|n| n != own.as_str())).collect();
        others.sort();
        Self::of(folder.join(own), &others)
    }

    /// Reads a ledger, if it is there.
    pub fn read_file(path: &Path) -> Self {
        Self::of(path.to_path_buf(), &[])
    }

    fn of(path: PathBuf, others: &[PathBuf]) -> Self {
        let mut lines = lines::Lines::default();
        others.iter().chain([&path]).for_each(|path| lines.learn(path));
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ledger { path, folder, lines, file: None, lost: false }
    }

    /// Makes the folder and opens the ledger for writing; whether another run writes it too.
    ///
    /// # Errors
    /// [`Error::Io`] naming the folder when it cannot be written to.
    pub fn begin(&mut self) -> Result<bool> {
        let failed = |e| Error::io(if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder }, e);
        if !self.folder.as_os_str().is_empty() {
            std::fs::create_dir_all(&self.folder).map_err(failed)?;
        }
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path).map_err(failed)?;
        let locked = file.try_lock();
        mended(&mut file, locked.is_ok()).map_err(failed)?;
        // From here on it is one of those that write. Where a file system has no locks nobody is known to be alone, and the end of
        // a line is all that is mended.
        if locked.is_ok() {
            file.unlock().map_err(failed)?;
        }
        if !matches!(locked, Err(TryLockError::Error(_))) {
            file.lock_shared().map_err(failed)?;
        }
        self.file = Some(file);
        Ok(matches!(locked, Err(TryLockError::WouldBlock)))
    }

    /// Whether anything was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether anything may be known of an input of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.lines.name(name)
    }

    /// Where the records are of what was asked, if it was finished and its files are still those that were written.
    pub fn standing(&self, asked: &Identity) -> Option<Place> {
        let place = self.lines.place(&asked.value().ok()?)?;
        let line = self.lines.read(place).ok()?;
        line.outputs.iter().all(|w| w.stands(&self.folder)).then_some(place)
    }

    /// The records there. Outputs are named as seen from here.
    ///
    /// # Errors
    /// [`Error::Io`] when the ledger has been changed since.
    pub fn records(&self, place: Place) -> Result<Vec<Value>> {
        let mut records = self.lines.read(place)?.records;
        let paths =
            records.iter_mut().filter_map(|r| r.get_mut("outputs")?.as_object_mut()).flat_map(|o| o.values_mut());
        for path in paths {
            if let Some(relative) = path.as_str() {
                *path = self.folder.join(relative).display().to_string().into();
            }
        }
        Ok(records)
    }

    /// In which parts of its identity a file differs from what is asked now; none when the ledger does not know the file.
    pub fn differs(&self, path: &Path, asked: &Identity) -> Option<Vec<String>> {
        let relative = self.relative(path);
        let written = |l: &Line| l.outputs.iter().any(|w| w.path == relative && w.stands(&self.folder));
        let line = self.lines.each().find(written)?;
        Some(differing(&asked.value().ok()?, &line.key))
    }

    /// What every line is of, as JSON.
    pub fn keys(&self) -> impl Iterator<Item = Value> + '_ {
        self.lines.each().map(|line| line.key)
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
        let line = asked.value().map(|key| Line { key, outputs, records });
        if line.as_ref().is_ok_and(|line| self.notes(line)) {
            return None;
        }
        let file = self.file.as_mut()?;
        let line = line.and_then(|line| serde_json::to_string(&line));
        // One write a line: another process may add to the same ledger. What a full disk took of the line before is ended.
        let start = if self.lost { "\n" } else { "" };
        let written =
            line.map_err(std::io::Error::from).and_then(|l| file.write_all(format!("{start}{l}\n").as_bytes()));
        let failed = written.err().filter(|_| !self.lost)?;
        self.lost = true;
        Some(Error::io(&self.path, failed))
    }

    /// Whether it says so already, whatever time it took then.
    fn notes(&self, line: &Line) -> bool {
        let lasting = |records: &[Value]| {
            let mut records = records.to_vec();
            records.iter_mut().filter_map(Value::as_object_mut).for_each(|record| drop(record.remove("ms")));
            records
        };
        let known = self.lines.place(&line.key).and_then(|place| self.lines.read(place).ok());
        known.is_some_and(|k| k.outputs == line.outputs && lasting(&k.records) == lasting(&line.records))
    }

    /// A file of this folder with its contents, for [`Ledger::add`].
    pub fn written(&self, path: &Path, bytes: &[u8]) -> Written {
        Written { path: self.relative(path), bytes: bytes.len() as u64, sha256: identity::of_bytes(bytes) }
    }

    /// Every file in it, as it was written.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, Written)> + '_ {
        self.lines.each().flat_map(|l| l.outputs).map(|w| (self.folder.join(&w.path), w))
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

/// Whether a folder has a ledger.
pub fn has(folder: &Path) -> bool {
    all(folder).next().is_some()
}

/// The ledgers of a folder.
fn all(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let files = std::fs::read_dir(place).into_iter().flatten().filter_map(std::result::Result::ok);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let ledgers = names.filter(|name| name.starts_with(NAME.0) && name.ends_with(NAME.1));
    let folder = folder.to_path_buf();
    ledgers.map(move |name| folder.join(name))
}

/// Sees to it that a ledger ends with a whole line: what a killed run left of one is taken away by whoever is `alone`, and ended
/// otherwise, since another run may be writing it.
fn mended(file: &mut File, alone: bool) -> std::io::Result<()> {
    let (whole, tail) = last(file)?;
    if tail.is_empty() {
        return Ok(());
    }
    match alone && serde_json::from_slice::<Line>(&tail).is_err() {
        true => file.set_len(whole),
        false => file.write_all(b"\n"),
    }
}

/// Where the last line of a file begins that has no end, and what there is of it.
fn last(file: &mut File) -> std::io::Result<(u64, Vec<u8>)> {
    let (mut at, mut tail) = (file.seek(SeekFrom::End(0))?, Vec::new());
    while at > 0 {
        let mut block = vec![0; at.min(1 << 16) as usize];
        at -= block.len() as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block)?;
        let end = block.iter().rposition(|b| *b == b'\n');
        let own = end.map_or(0, |end| end + 1);
        tail.splice(0..0, block.split_off(own));
        if end.is_some() {
            return Ok((at + own as u64, tail));
        }
    }
    Ok((0, tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(folder: &Path) -> Ledger {
        Ledger::read(folder, None)
    }

    fn standing(folder: &Path, asked: &Identity) -> Option<Vec<Value>> {
        let ledger = read(folder);
        ledger.standing(asked).map(|place| ledger.records(place).unwrap())
    }

    #[test]
    fn what_stands_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let key = Identity { model: "A".into(), ..Identity::of("explain") };
        let other = Identity { model: "B".into(), ..key.clone() };
        let mut ledger = read(dir.path());
        ledger.begin().unwrap();
        let record = json!({"status": "ok", "outputs": {"npy": path.display().to_string()}});
        std::fs::write(&path, "one").unwrap();
        let written = ledger.written(&path, b"one");
        assert!(ledger.add(&key, vec![written], vec![record.clone()]).is_none());
        assert_eq!(standing(dir.path(), &key), Some(vec![record]));
        assert_eq!(standing(dir.path(), &other), None);
        assert_eq!(read(dir.path()).differs(&path, &other), Some(vec!["model".to_string()]));
        for changed in ["two", "on", "one+", ""] {
            std::fs::write(&path, changed).unwrap();
            assert_eq!(standing(dir.path(), &key), None, "{changed}");
            assert_eq!(read(dir.path()).differs(&path, &key), None, "{changed}: not the file we wrote");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(standing(dir.path(), &key), None);
    }

    #[test]
    fn a_bad_line_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let keys = [0, 1, 2].map(|seed| Identity { seed, ..Identity::of("explain") });
        for (key, cut) in keys.iter().zip([&b"\xff\xfe\n"[..], b"{\"key\":{\"n\":9},\"outp", b"{}\n\n"]) {
            let mut ledger = read(dir.path());
            ledger.begin().unwrap();
            ledger.add(key, vec![], vec![]);
            let mut file = OpenOptions::new().append(true).open(ledger.path).unwrap();
            file.write_all(cut).unwrap();
        }
        assert!(keys.iter().all(|k| standing(dir.path(), k) == Some(vec![])));
    }

    #[test]
    fn what_was_cut_off_is_taken_away_by_whoever_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, three] = [0, 1, 2].map(|seed| Identity { seed, ..Identity::of("explain") });
        let mut ledger = read(dir.path());
        assert!(!ledger.begin().unwrap());
        ledger.add(&one, vec![], vec![]);
        let (path, whole) = (ledger.path.clone(), std::fs::read(&ledger.path).unwrap());
        let append = |bytes: &[u8]| OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
        let long = vec![b'x'; 200_000];
        append(&long);
        let mut other = read(dir.path());
        assert!(other.begin().unwrap(), "the first one is not done");
        other.add(&two, vec![], vec![]);
        assert!(standing(dir.path(), &one).is_some() && standing(dir.path(), &two).is_some());
        drop((ledger, other));
        append(&long);
        std::fs::write(&path, [&whole[..], &long].concat()).unwrap();
        assert!(!read(dir.path()).begin().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), whole, "alone");
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        read(dir.path()).begin().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole, "a line of which the end alone was missing");
        // A part has a ledger of its own, and all of them are read.
        let mut part = Ledger::read(dir.path(), Some((2, 3)));
        part.begin().unwrap();
        part.add(&three, vec![], vec![]);
        assert_eq!(part.path, dir.path().join(".vitx-records.2-of-3.jsonl"));
        assert!(standing(dir.path(), &one).is_some() && standing(dir.path(), &three).is_some());
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}
