//! Where the lines of ledgers are, by what they are of: of a line a run keeps some tens of bytes, and reads it again when it is
//! needed. A run of a million inputs is resumed in the memory of a short one.

use super::Line;
use crate::error::{Error, Result};
use serde::de::IgnoredAny;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of the files.
    file: u32,
    length: u32,
    at: u64,
}

/// What tells the identity of a line: half of its SHA-256.
type Key = [u8; 16];

/// The lines of some files.
#[derive(Debug, Default)]
pub(super) struct Lines {
    files: Vec<PathBuf>,
    /// Of two lines of one identity the later one counts.
    places: HashMap<Key, Place>,
    /// What the inputs of the lines are called, hashed.
    names: HashSet<u64>,
}

/// What is looked at of every line. That the rest of it is what it should be is seen when it is needed.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(rename = "outputs")]
    _outputs: IgnoredAny,
    #[serde(rename = "records")]
    _records: IgnoredAny,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

impl Lines {
    /// Reads a file, if it is there. What a crash or a damaged disk left unreadable is one line and not more.
    pub(super) fn learn(&mut self, path: &Path) {
        let Ok(file) = File::open(path) else { return }; // none yet
        let (mut reader, mut line, mut at) = (BufReader::new(file), Vec::new(), 0);
        let number = self.files.len() as u32;
        self.files.push(path.to_path_buf());
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if let (Ok(head), Ok(length)) = (serde_json::from_slice::<Head<'_>>(&line), u32::try_from(line.len())) {
                self.places.insert(key(head.key.get()), Place { file: number, length, at });
                let named = serde_json::from_str::<Named>(head.key.get()).ok();
                self.names.extend(named.and_then(|named| named.name).map(|name| hash(&name)));
            }
            at += line.len() as u64;
            line.clear();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a line may be of an input of this name.
    pub(super) fn name(&self, name: &str) -> bool {
        self.names.contains(&hash(name))
    }

    /// Where the line of an identity is, given as its JSON.
    pub(super) fn place(&self, identity: &Value) -> Option<Place> {
        self.places.get(&key(&identity.to_string())).copied()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`Error::Io`] when its file has changed since.
    pub(super) fn read(&self, place: Place) -> Result<Line> {
        let path = self.files.get(place.file as usize).ok_or_else(|| Error::Fault("a line of no ledger".into()))?;
        let read = || {
            let (mut file, mut bytes) = (File::open(path)?, vec![0; place.length as usize]);
            file.seek(SeekFrom::Start(place.at))?;
            file.read_exact(&mut bytes)?;
            Ok(serde_json::from_slice(&bytes)?)
        };
        read().map_err(|e: std::io::Error| Error::io(path, e))
    }

    /// All lines that count, in the order of the files.
    pub(super) fn each(&self) -> impl Iterator<Item = Line> + '_ {
        let mut places: Vec<_> = self.places.values().copied().collect();
        places.sort_by_key(|place| (place.file, place.at));
        places.into_iter().filter_map(|place| self.read(place).ok())
    }
}

fn key(identity: &str) -> Key {
    let digest = Sha256::digest(identity);
    std::array::from_fn(|i| digest[i])
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
