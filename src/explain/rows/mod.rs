//! A table of a run: one row an input, method and target, written as the run goes, so that it is whole up to wherever a run ends. Tables by
//! columns are made when it ends, of rows that are written beside them until then.

mod columns;

use crate::error::{Error, Result};
use crate::render::save;
use serde_json::{Map, Value};
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// What files of a table may end in.
pub const ENDINGS: &[&str] = &["csv", "jsonl", "parquet", "npz"];

/// What a column holds, where it holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Text; of what is more than that its JSON.
    Text,
    /// 64-bit integers.
    Integer,
    /// 64-bit floats.
    Number,
}

/// A column.
struct Column {
    name: &'static str,
    /// Where a record has it.
    place: &'static str,
    holds: Holds,
}

impl Column {
    const fn text(name: &'static str, place: &'static str) -> Self {
        Column { name, place, holds: Holds::Text }
    }

    const fn integer(name: &'static str, place: &'static str) -> Self {
        Column { name, place, holds: Holds::Integer }
    }

    const fn number(name: &'static str, place: &'static str) -> Self {
        Column { name, place, holds: Holds::Number }
    }

    /// Whether a value is there and of the column's kind.
    fn fits(&self, value: Option<&Value>) -> bool {
        value.is_some_and(|value| match self.holds {
            Holds::Text => true,
            Holds::Integer => value.is_i64(),
            Holds::Number => value.is_number(),
        })
    }
}

/// The columns.
const COLUMNS: &[Column] = &[
    Column::text("input", "/input"),
    Column::text("status", "/status"),
    Column::text("model", "/model/id"),
    Column::text("method", "/method/name"),
    Column::text("params", "/method/params"),
    Column::text("target", "/target/label"),
    Column::integer("class", "/target/class"),
    Column::integer("against", "/target/against"),
    Column::text("lowers", "/target/lowers"),
    Column::number("logit", "/target/logit"),
    Column::number("probability", "/target/probability"),
    Column::number("value", "/target/value"),
    Column::text("predicted", "/predictions/0/label"),
    Column::integer("predicted_class", "/predictions/0/class"),
    Column::number("predicted_probability", "/predictions/0/probability"),
    Column::number("predicted_value", "/predictions/0/value"),
    Column::number("relevance_min", "/relevance/min"),
    Column::number("relevance_max", "/relevance/max"),
    Column::number("relevance_sum", "/relevance/sum"),
    Column::number("relevance_special", "/relevance/special"),
    Column::integer("grid_rows", "/grid/0"),
    Column::integer("grid_columns", "/grid/1"),
    Column::text("checks", "/checks"),
    Column::text("outputs", "/outputs"),
    Column::integer("seed", "/seed"),
    Column::text("version", "/version"),
    Column::integer("array", "/array"), // place among the maps of --arrays
    Column::text("error", "/error"),
    Column::text("note", "/note"),
];

/// What a table is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commas,
    Lines,
    Parquet,
    Arrays,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_string_lossy().to_lowercase();
        Some(match ending.as_str() {
            "csv" => Kind::Commas,
            "jsonl" => Kind::Lines,
            "parquet" => Kind::Parquet,
            "npz" => Kind::Arrays,
            _ => return None,
        })
    }

    /// Made of all rows when a run ends.
    fn late(self) -> bool {
        matches!(self, Kind::Parquet | Kind::Arrays)
    }
}

/// A table that is being written.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    kind: Kind,
    /// Where the rows go as the run does.
    journal: PathBuf,
    file: File,
}

impl Rows {
    /// Whether a table of this name is made when a run ends, so that nothing can be put behind it.
    pub fn late(path: &Path) -> bool {
        Kind::of(path).is_some_and(Kind::late)
    }

    /// Begins a table, in the place of an earlier one or, `further`, behind its rows.
    ///
    /// # Errors
    /// [`Error::Usage`] for another ending, for a file that is no table of ours, and for one that another run is writing; [`Error::Input`] when it cannot be written.
    pub fn begin(path: &Path, further: bool) -> Result<Self> {
        let shown = path.display();
        let Some(kind) = Kind::of(path) else {
            return Err(Error::Usage(format!("--table {shown}: expected a file ending in .{}", ENDINGS.join(", ."))));
        };
        let mut journal = path.to_path_buf();
        if kind.late() {
            journal.as_mut_os_string().push(".rows.jsonl");
        }
        let theirs = |path: &Path, kind| path.exists() && !own(path, kind);
        if theirs(path, kind) || (kind.late() && theirs(&journal, Kind::Lines)) {
            return Err(Error::Usage(format!(
                "--table {shown}: there is a file that is no table of vitx; name another"
            )));
        }
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let further = further && path.exists();
        let open = || File::options().create(true).append(true).open(&journal);
        let file = made.and_then(|()| open()).map_err(|e| failed(path, &e))?;
        // Two runs would mix their rows. The lock goes with the process; a file system without locks is taken as it is.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(Error::Usage(format!("--table {shown}: another run of vitx is writing it; name another")));
        }
        if !further && journal.is_file() {
            file.set_len(0).map_err(|e| failed(path, &e))?;
        }
        let mut rows = Rows { path: path.to_path_buf(), kind, journal, file };
        if kind == Kind::Commas && !further {
            rows.line(COLUMNS.iter().map(|column| column.name.to_string()).collect())?;
        }
        Ok(rows)
    }

    /// Adds a record's row. It is in a file when this returns.
    ///
    /// # Errors
    /// [`Error::Input`] when it cannot be written.
    pub fn add(&mut self, record: &Value) -> Result<()> {
        let own = |column: &Column| record.pointer(column.place).filter(|v| !v.is_null());
        if self.kind == Kind::Commas {
            return self.line(COLUMNS.iter().map(|column| own(column).map_or_else(String::new, cell)).collect());
        }
        let row = COLUMNS.iter().filter_map(|column| Some((column.name.to_string(), own(column)?.clone())));
        let mut text = Value::Object(row.collect::<Map<String, Value>>()).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|e| failed(&self.path, &e))
    }

    /// Ends the table: one by columns is made of its rows, which are then removed.
    ///
    /// # Errors
    /// [`Error::Input`] when it cannot be written; the rows stay.
    pub fn finish(self) -> Result<()> {
        let bytes = match self.kind {
            Kind::Commas | Kind::Lines => return Ok(()),
            Kind::Parquet => columns::parquet(&self.journal)?,
            Kind::Arrays => columns::arrays(&self.journal)?,
        };
        save::save(&self.path, &bytes, true)?;
        std::fs::remove_file(&self.journal).map_err(|e| failed(&self.path, &e))
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
fn own(path: &Path, kind: Kind) -> bool {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return true;
    }
    let first = || {
        let mut line = String::new();
        let read = File::open(path).and_then(|file| BufReader::new(file).read_line(&mut line));
        read.map_or_else(|_| String::new(), |_| line.trim_end_matches(['\n', '\r']).to_string())
    };
    let names = COLUMNS.iter().map(|column| column.name);
    match kind {
        Kind::Commas => first() == names.collect::<Vec<_>>().join(","),
        Kind::Lines => {
            let row: Option<Map<String, Value>> = serde_json::from_str(&first()).ok();
            let known = |key: &String| COLUMNS.iter().any(|column| column.name == key);
            row.is_some_and(|row| row.contains_key("input") && row.keys().all(known))
        }
        Kind::Parquet => columns::own_parquet(path),
        Kind::Arrays => columns::own_npz(path),
    }
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
        assert!(Rows::begin(&csv, true).is_err(), "a table is one run's at a time");
        drop(rows);
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
        assert!(own(&lines, Kind::Lines) && !own(&csv, Kind::Lines));
        let row: Value = serde_json::from_str(&std::fs::read_to_string(&lines).unwrap()).unwrap();
        assert_eq!((row["grid_rows"].as_u64(), row.get("class")), (Some(16), None));
        assert!(Rows::begin(&folder.path().join("t.xlsx"), false).is_err());
    }

    #[test]
    fn tables_by_columns_are_made_of_the_rows_when_a_run_ends() {
        let folder = tempfile::tempdir().unwrap();
        let record = |name: &str, class: Option<u32>| json!({"status": "ok", "input": name, "target": {"class": class}, "relevance": {"min": 0, "max": 1.5}});
        for ending in ["parquet", "npz"] {
            let path = folder.path().join(format!("t.{ending}"));
            let journal = folder.path().join(format!("t.{ending}.rows.jsonl"));
            let mut rows = Rows::begin(&path, false).unwrap();
            rows.add(&record("a.png", Some(5))).unwrap();
            rows.add(&record("é.png", None)).unwrap();
            assert!(journal.exists() && !path.exists());
            rows.finish().unwrap();
            assert!(path.exists() && !journal.exists());
            assert!(Rows::late(&path) && !Rows::late(Path::new("t.csv")));
            Rows::begin(&path, false).unwrap().finish().unwrap();
            std::fs::write(&path, "mine").unwrap();
            assert!(Rows::begin(&path, false).is_err());
        }
    }

    #[test]
    fn parquet_and_arrays_hold_what_the_rows_do() {
        use parquet::file::reader::FileReader;
        use parquet::record::RowAccessor;
        let folder = tempfile::tempdir().unwrap();
        let rows = folder.path().join("rows.jsonl");
        let lines = [
            "{\"input\":\"a.png\",\"class\":5,\"relevance_max\":1.5,\"relevance_min\":0}",
            "{\"input\":\"b.png\"}",
            "{\"inp",
        ];
        std::fs::write(&rows, lines.join("\n")).unwrap();
        let bytes = columns::parquet(&rows).unwrap();
        let file = folder.path().join("t.parquet");
        std::fs::write(&file, bytes).unwrap();
        let reader = parquet::file::serialized_reader::SerializedFileReader::new(File::open(&file).unwrap()).unwrap();
        let all: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        let place = |name: &str| COLUMNS.iter().position(|column| column.name == name).unwrap();
        assert_eq!(all.len(), 2, "a row that was cut off is none");
        assert_eq!((all[0].get_string(0).unwrap().as_str(), all[0].get_long(place("class")).unwrap()), ("a.png", 5));
        assert_eq!(
            (all[0].get_double(place("relevance_max")).unwrap(), all[0].get_double(place("relevance_min")).unwrap()),
            (1.5, 0.0)
        );
        assert!(all[1].get_long(place("class")).is_err());
        let bytes = columns::arrays(&rows).unwrap();
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        let classes = npyz::NpyFile::new(archive.by_name("class.npy").unwrap()).unwrap();
        assert_eq!(classes.into_vec::<i64>().unwrap(), [5, -1]);
    }
}
