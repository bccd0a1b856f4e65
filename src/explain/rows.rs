//! A table of a run: one row an input, method and target, written as the run goes, so that it is whole up to wherever a run ends.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What files of a table may end in.
pub const ENDINGS: &[&str] = &["csv", "jsonl"];

/// The columns: what they are called, and where a record has them.
const COLUMNS: &[(&str, &str)] = &[
    ("input", "/input"),
    ("status", "/status"),
    ("model", "/model/id"),
    ("method", "/method/name"),
    ("params", "/method/params"),
    ("target", "/target/label"),
    ("class", "/target/class"),
    ("against", "/target/against"),
    ("lowers", "/target/lowers"),
    ("logit", "/target/logit"),
    ("probability", "/target/probability"),
    ("value", "/target/value"),
    ("predicted", "/predictions/0/label"),
    ("predicted_class", "/predictions/0/class"),
    ("predicted_probability", "/predictions/0/probability"),
    ("predicted_value", "/predictions/0/value"),
    ("relevance_min", "/relevance/min"),
    ("relevance_max", "/relevance/max"),
    ("relevance_sum", "/relevance/sum"),
    ("relevance_special", "/relevance/special"),
    ("grid_rows", "/grid/0"),
    ("grid_columns", "/grid/1"),
    ("checks", "/checks"),
    ("outputs", "/outputs"),
    ("seed", "/seed"),
    ("version", "/version"),
    ("error", "/error"),
    ("note", "/note"),
];

/// A table that is being written.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    file: File,
    /// Comma-separated, or one JSON object a line.
    commas: bool,
}

impl Rows {
    /// Begins a table, in the place of an earlier one or, `further`, behind its rows.
    ///
    /// # Errors
    /// [`Error::Usage`] for another ending, and for a file that is no table of ours; [`Error::Input`] when it cannot be written.
    pub fn begin(path: &Path, further: bool) -> Result<Self> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if !ENDINGS.contains(&ending.as_str()) {
            let path = path.display();
            return Err(Error::Usage(format!("--table {path}: expected a file ending in .{}", ENDINGS.join(" or ."))));
        }
        let commas = ending == "csv";
        if path.exists() && !own(path, commas) {
            let path = path.display();
            return Err(Error::Usage(format!(
                "--table {path}: there is a file that is no table of vitx; name another"
            )));
        }
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let further = further && path.exists();
        let open = || File::options().create(true).write(true).append(further).truncate(!further).open(path);
        let file = made.and_then(|()| open()).map_err(|e| failed(path, &e))?;
        let mut rows = Rows { path: path.to_path_buf(), file, commas };
        if rows.commas && !further {
            rows.line(COLUMNS.iter().map(|(name, _)| name.to_string()).collect())?;
        }
        Ok(rows)
    }

    /// Adds a record's row. It is in the file when this returns.
    ///
    /// # Errors
    /// [`Error::Input`] when it cannot be written.
    pub fn add(&mut self, record: &Value) -> Result<()> {
        let own = |place: &str| record.pointer(place).filter(|v| !v.is_null());
        if self.commas {
            return self.line(COLUMNS.iter().map(|(_, place)| own(place).map_or_else(String::new, cell)).collect());
        }
        let row = COLUMNS.iter().filter_map(|(name, place)| Some((name.to_string(), own(place)?.clone())));
        let mut text = Value::Object(row.collect::<Map<String, Value>>()).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|e| failed(&self.path, &e))
    }

    fn line(&mut self, cells: Vec<String>) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let bytes = writer.write_record(&cells).map_err(|e| e.to_string());
        let bytes = bytes.and_then(|()| writer.into_inner().map_err(|e| e.to_string()));
        let bytes = bytes.map_err(|e| Error::Fault(format!("a row of a table: {e}")))?;
        self.file.write_all(&bytes).map_err(|e| failed(&self.path, &e))
    }
}

/// Whether a file is a table that we wrote, or nothing yet.
fn own(path: &Path, commas: bool) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    let (first, names) = (text.lines().next().unwrap_or_default(), COLUMNS.iter().map(|(name, _)| *name));
    if text.is_empty() || commas {
        return text.is_empty() || first == names.collect::<Vec<_>>().join(",");
    }
    let row: Option<Map<String, Value>> = serde_json::from_str(first).ok();
    let known: Vec<&str> = names.collect();
    row.is_some_and(|row| row.contains_key("input") && row.keys().all(|key| known.contains(&key.as_str())))
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::Input(format!("{}: the table cannot be written: {e}", path.display()))
}

/// Text as it is, everything else as JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_in_the_file_at_once_and_commas_stay_within_cells() {
        let folder = tempfile::tempdir().unwrap();
        let record = json!({
            "status": "ok", "input": "a, \"b\".png", "method": {"name": "gae", "params": {"row": "class"}},
            "predictions": [{"label": "cat", "probability": 0.5}], "relevance": {"min": 0.0, "max": 1.5, "sum": 2.0},
            "grid": [16, 12], "target": null,
        });
        let csv = folder.path().join("t.csv");
        let mut rows = Rows::begin(&csv, false).unwrap();
        rows.add(&record).unwrap();
        Rows::begin(&csv, true).unwrap().add(&record).unwrap();
        assert_eq!(csv::Reader::from_path(&csv).unwrap().records().count(), 2);
        Rows::begin(&csv, false).unwrap().add(&record).unwrap();
        std::fs::write(folder.path().join("mine.csv"), "text\ngood\n").unwrap();
        assert!(Rows::begin(&folder.path().join("mine.csv"), false).is_err());
        let mut reader = csv::Reader::from_path(&csv).unwrap();
        let names = reader.headers().unwrap().clone();
        let row = reader.records().next().unwrap().unwrap();
        let of = |name: &str| &row[names.iter().position(|n| n == name).unwrap()];
        assert_eq!((of("input"), of("predicted"), of("grid_columns")), ("a, \"b\".png", "cat", "12"));
        assert_eq!((of("params"), of("class"), of("relevance_max")), ("{\"row\":\"class\"}", "", "1.5"));
        let lines = folder.path().join("t.jsonl");
        Rows::begin(&lines, false).unwrap().add(&record).unwrap();
        assert!(own(&lines, false) && !own(&csv, false));
        let row: Value = serde_json::from_str(&std::fs::read_to_string(&lines).unwrap()).unwrap();
        assert_eq!((row["grid_rows"].as_u64(), row.get("class")), (Some(16), None));
        assert!(Rows::begin(&folder.path().join("t.xlsx"), false).is_err());
    }
}
