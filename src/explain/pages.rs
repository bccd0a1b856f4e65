//! Pages of a run: one an input, and an index of them.

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::input::source::path_of as path_of_bytes;
use crate::render::json::Record;
use crate::render::page::{index, Entry, THUMBNAIL};
use crate::render::save;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Files of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its page.
    pub page: PathBuf,
    /// A small picture beside it, where an index shows it.
    pub thumbnail: Option<PathBuf>,
}

impl Place {
    /// The page there; `indexed`: an index will show it.
    pub fn new(page: PathBuf, indexed: bool) -> Self {
        let thumbnail = indexed.then(|| page.with_extension(THUMBNAIL));
        Place { page, thumbnail }
    }
}

/// The page that a record names.
pub fn of(record: &Record) -> Option<String> {
    match record {
        Record::Ok(done) => done.outputs.get("html").and_then(Value::as_str).map(String::from),
        Record::Error { .. } | Record::Nothing { .. } => None,
    }
}

/// The index of a run, which grows as inputs are done.
#[derive(Debug, Default)]
pub struct Index {
    /// By the inputs' numbers.
    entries: BTreeMap<usize, Entry>,
}

/// By this a file is known as an index of ours, which may be replaced.
const MARK: &str = "<meta name=\"generator\" content=\"vitx index\">";

impl Index {
    /// Notes an input by the records of its results; one that has a page by the first that names it.
    pub fn note(&mut self, number: usize, records: &[Value], plan: &Plan, stem: &Path) {
        let record = records.iter().find(|record| record["outputs"]["html"].is_string());
        if let (Some(place), Some(record), Some(folder)) = (plan.place(stem), record, plan.ledger_folder()) {
            self.add(number, record, &place, folder);
        }
    }

    /// Writes it where the plan has one, and says where.
    ///
    /// # Errors
    /// As [`Index::write`].
    pub fn finish(&self, plan: &Plan, about: &str) -> Result<Option<PathBuf>> {
        match plan.ledger_folder().filter(|_| plan.indexed) {
            Some(folder) => self.write(folder, about),
            None => Ok(None),
        }
    }

    /// Refuses a folder whose index is another file.
    ///
    /// # Errors
    /// [`Error::Usage`] naming it.
    pub fn check(folder: &Path) -> Result<()> {
        earlier(&folder.join("index.html")).map(|_| ())
    }

    /// Notes an input by the record of its first result, pages being named as seen from `folder`.
    pub fn add(&mut self, number: usize, record: &Value, place: &Place, folder: &Path) {
        let seen = |path: &Path| {
            let own = path.strip_prefix(folder).unwrap_or(path);
            own.components().map(|part| address(part.as_os_str())).collect::<Vec<_>>().join("/")
        };
        let first = &record["predictions"][0];
        let figure = first["probability"].as_f64().or(first["value"].as_f64());
        let entry = Entry {
            name: record["input"].as_str().unwrap_or_default().into(),
            page: seen(&place.page),
            thumbnail: place.thumbnail.as_deref().filter(|file| file.exists()).map(seen),
            label: first["label"].as_str().map(String::from),
            figure: figure.map(|figure| figure as f32),
        };
        self.entries.entry(number).or_insert(entry);
    }

    /// Writes it into the folder, and says where; nothing for no input. It replaces an earlier index and no other file.
    ///
    /// # Errors
    /// [`Error::Usage`] for another file in its place; when it cannot be written.
    pub fn write(&self, folder: &Path, about: &str) -> Result<Option<PathBuf>> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        let mut entries: Vec<Entry> = self.entries.values().cloned().collect();
        let taken = entries.iter().any(|entry| entry.page == "index.html");
        let file = folder.join(if taken { "vitx-index.html" } else { "index.html" });
        // Pages of other inputs that are still there: of another part of a run, or of an earlier one.
        let ours: Vec<String> = entries.iter().map(|entry| entry.page.clone()).collect();
        let there = |entry: &Entry| !ours.contains(&entry.page) && path_of(folder, &entry.page).exists();
        entries.extend(earlier(&file)?.into_iter().filter(there));
        let inputs = if entries.len() == 1 { "1 input".to_string() } else { format!("{} inputs", entries.len()) };
        save::save(&file, &index(&format!("Explanations of {inputs}"), about, &entries)?, true)?;
        Ok(Some(file))
    }
}

/// The entries of an index of ours, none where there is no file.
fn earlier(file: &Path) -> Result<Vec<Entry>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let data = text.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next());
    let entries = data.filter(|_| text.contains(MARK)).and_then(|data| serde_json::from_str::<Value>(data).ok());
    let entries = entries.and_then(|data| serde_json::from_value(data["entries"].clone()).ok());
    entries.ok_or_else(|| {
        let file = file.display();
        Error::Usage(format!("{file} exists and is no index of vitx: move it away, or pass another --out"))
    })
}

/// The file of an address within a folder.
fn path_of(folder: &Path, address: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = address.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    folder.join(path_of_bytes(bytes))
}

/// A part of a path as an address has it: all bytes but letters, digits and a few signs as `%XX`.
fn address(part: &OsStr) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    part.as_encoded_bytes()
        .iter()
        .map(|&b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_index_replaces_an_index_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let record = json!({"input": "a/</script><img src=x onerror=alert(1)>.png", "predictions": [{"label": "cat", "probability": 0.5}]});
        let place = Place::new(folder.path().join("a/x.html"), true);
        let mut own = Index::default();
        assert!(own.write(folder.path(), "").unwrap().is_none());
        own.add(3, &record, &place, folder.path());
        let file = own.write(folder.path(), "m").unwrap().unwrap();
        assert_eq!(own.write(folder.path(), "m").unwrap().as_ref(), Some(&file));
        let page = std::fs::read_to_string(&file).unwrap();
        assert!(page.contains("\"page\":\"a/x.html\"") && page.contains("\"label\":\"cat\""), "{page}");
        assert_eq!(page.matches("<script").count(), 2, "what a name holds is no markup");
        assert_eq!(address(OsStr::new("a b%#?é")), "a%20b%25%23%3F%C3%A9");
        std::fs::write(&file, "mine").unwrap();
        assert!(own.write(folder.path(), "m").is_err());
    }
}
