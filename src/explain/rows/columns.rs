//! Tables by columns, made of the rows of a run when it ends: Parquet, and arrays for NumPy.

use super::{cell, Column, Holds, COLUMNS};
use crate::error::{Error, Result};
use crate::render::npz::{npz, Named};
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

/// By this a Parquet file is known as ours.
const MAKER: &str = "vitx";
/// Rows that are held in memory at a time.
const GROUP: usize = 10_000;

type Row = Map<String, Value>;

/// The rows of a file of JSON lines, so many at a time; one that was cut off is the end.
fn groups(rows: &Path, mut each: impl FnMut(&[Row]) -> Result<()>) -> Result<()> {
    let failed = |e: std::io::Error| Error::Input(format!("{}: {e}", rows.display()));
    let (mut lines, mut whole) = (BufReader::new(File::open(rows).map_err(failed)?).lines(), true);
    while whole {
        let mut group = Vec::new();
        for line in lines.by_ref().take(GROUP) {
            match serde_json::from_str(&line.map_err(failed)?) {
                Ok(row) => group.push(row),
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        whole &= !group.is_empty();
        if !group.is_empty() {
            each(&group)?;
        }
    }
    Ok(())
}

/// Whether a Parquet file was written by us.
pub(super) fn own_parquet(path: &Path) -> bool {
    let reader = File::open(path).ok().and_then(|file| SerializedFileReader::new(file).ok());
    reader.is_some_and(|reader| reader.metadata().file_metadata().created_by() == Some(MAKER))
}

/// Whether a file of arrays was written by us: its first holds what the first column is called.
pub(super) fn own_npz(path: &Path) -> bool {
    let archive = File::open(path).ok().and_then(|file| zip::ZipArchive::new(file).ok());
    let name = archive.as_ref().and_then(|archive| archive.name_for_index(0)?.ok());
    name.is_some_and(|name| name == format!("{}.npy", COLUMNS[0].name))
}

/// The rows as Parquet.
pub(super) fn parquet(rows: &Path) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Input(format!("a table as Parquet: {e}"));
    let field = |c: &Column| match c.holds {
        Holds::Text => format!("optional binary {} (UTF8);", c.name),
        Holds::Integer => format!("optional int64 {};", c.name),
        Holds::Number => format!("optional double {};", c.name),
    };
    let fields: String = COLUMNS.iter().map(field).collect();
    let schema = parse_message_type(&format!("message run {{ {fields} }}")).map_err(|e| failed(&e))?;
    let how = WriterProperties::builder().set_created_by(MAKER.into()).set_compression(Compression::UNCOMPRESSED);
    let writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(how.build()));
    let mut writer = writer.map_err(|e| failed(&e))?;
    groups(rows, |group| {
        let mut own = writer.next_row_group().map_err(|e| failed(&e))?;
        let mut columns = COLUMNS.iter();
        while let (Some(column), Some(mut into)) = (columns.next(), own.next_column().map_err(|e| failed(&e))?) {
            written(column, group, into.untyped()).and_then(|()| into.close()).map_err(|e| failed(&e))?;
        }
        own.close().map(|_| ()).map_err(|e| failed(&e))
    })?;
    writer.into_inner().map_err(|e| failed(&e))
}

/// One column of a group; where a row has nothing, there is none.
fn written(column: &Column, group: &[Row], into: &mut ColumnWriter<'_>) -> parquet::errors::Result<()> {
    let cells = || group.iter().map(|row| row.get(column.name));
    let there: Vec<i16> = cells().map(|cell| i16::from(column.fits(cell))).collect();
    let own = cells().filter(|cell| column.fits(*cell)).flatten();
    match into {
        ColumnWriter::ByteArrayColumnWriter(into) => {
            let values: Vec<ByteArray> = own.map(|value| cell(value).into_bytes().into()).collect();
            into.write_batch(&values, Some(&there), None)?;
        }
        ColumnWriter::Int64ColumnWriter(into) => {
            into.write_batch(&own.filter_map(Value::as_i64).collect::<Vec<_>>(), Some(&there), None)?;
        }
        ColumnWriter::DoubleColumnWriter(into) => {
            into.write_batch(&own.filter_map(Value::as_f64).collect::<Vec<_>>(), Some(&there), None)?;
        }
        _ => {} // the schema has no other
    }
    Ok(())
}

/// Characters of a text in an array, at most: each takes as much room as the longest.
const LONGEST: usize = 256;

/// What of a text an array holds.
fn beginning(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// The rows as arrays, one a column: where a row has nothing there is an empty text, -1 or NaN. Of longer texts the beginning is in them.
pub(super) fn arrays(rows: &Path) -> Result<Vec<u8>> {
    let (mut texts, mut integers, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for column in COLUMNS {
        match column.holds {
            Holds::Text => texts.push((column, Vec::new())),
            Holds::Integer => integers.push((column, Vec::new())),
            Holds::Number => numbers.push((column, Vec::new())),
        }
    }
    groups(rows, |group| {
        for (column, own) in &mut texts {
            own.extend(group.iter().map(|row| row.get(column.name).map_or_else(String::new, |v| beginning(&cell(v)))));
        }
        for (column, own) in &mut integers {
            own.extend(group.iter().map(|row| row.get(column.name).and_then(Value::as_i64).unwrap_or(-1)));
        }
        for (column, own) in &mut numbers {
            own.extend(group.iter().map(|row| row.get(column.name).and_then(Value::as_f64).unwrap_or(f64::NAN)));
        }
        Ok(())
    })?;
    let texts = texts.iter().map(|(column, own)| Named::texts(column.name, own));
    let integers = integers.iter().map(|(column, own)| Named::i64(column.name, own));
    let numbers = numbers.iter().map(|(column, own)| Named::f64(column.name, own));
    npz(&texts.chain(integers).chain(numbers).collect::<Vec<_>>())
}
