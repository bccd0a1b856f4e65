//! Arrays of pixel values that are already prepared: `.npy` files of NumPy.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest header that is read.
const MAX_HEADER: u64 = 1 << 16;

/// Pixel values of one or more examples.
#[derive(Debug, Clone)]
pub struct Array {
    /// `[C,H,W]` or `[B,C,H,W]`.
    pub shape: Vec<u64>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// The shape of a `.npy` file, from its header.
///
/// # Errors
/// [`Error::Input`] for a header that is damaged or promises more than the file holds.
pub fn shape(path: &Path) -> Result<Vec<u64>> {
    let unread = |e: std::io::Error| Error::Input(format!("cannot be read: {e}"));
    let file = File::open(path).map_err(unread)?;
    let length = file.metadata().map_err(unread)?.len();
    let mut start = Vec::new();
    file.take(MAX_HEADER).read_to_end(&mut start).map_err(unread)?;
    promised(&start, length)
}

/// Reads a `.npy` file `[P]` or `[1,P]` of f32 or f64.
///
/// # Errors
/// [`Error::Input`] for another shape or type, a damaged file, or values that are not finite.
pub fn vector(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).map_err(|e| Error::Input(format!("cannot be read: {e}")))?;
    let shape = promised(&bytes, bytes.len() as u64)?;
    if !matches!(shape[..], [n] | [1, n] if n > 0) {
        return Err(Error::Input(format!("the array has shape {shape:?}; expected a vector")));
    }
    let values = values(npyz::NpyFile::new(&bytes[..]).map_err(damaged)?)?;
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(values),
        false => Err(Error::Input("holds NaN or infinite numbers".into())),
    }
}

/// Reads a `.npy` file `[C,H,W]` or `[B,C,H,W]` of f32 or f64 for a model of `channels` channels.
///
/// # Errors
/// [`Error::Input`] for another shape or type, a damaged file, or values that are not finite.
pub fn read(path: &Path, channels: usize) -> Result<Array> {
    let bytes = std::fs::read(path).map_err(|e| Error::Input(format!("cannot be read: {e}")))?;
    let shape = promised(&bytes, bytes.len() as u64)?;
    let file = npyz::NpyFile::new(&bytes[..]).map_err(damaged)?;
    let c = channels as u64;
    let fits = matches!(shape[..], [n, h, w] | [(1..), n, h, w] if n == c && h > 0 && w > 0);
    if !fits || file.order() != npyz::Order::C {
        return Err(Error::Input(format!(
            "the array has shape {shape:?}; expected pixel values [{c},H,W] or [B,{c},H,W], normalised, in C order"
        )));
    }
    Ok(Array { shape, values: values(file)? })
}

fn values(file: npyz::NpyFile<&[u8]>) -> Result<Vec<f32>> {
    let wrong = Error::Input(format!("the array is of {}, not of f32 or f64", file.dtype().descr()));
    match file.try_data::<f32>() {
        Ok(values) => values.collect::<std::io::Result<Vec<_>>>().map_err(damaged),
        Err(file) => {
            let wide = file.try_data::<f64>().map_err(|_| wrong)?;
            wide.map(|v| v.map(|v| v as f32)).collect::<std::io::Result<Vec<_>>>().map_err(damaged)
        }
    }
}

fn damaged(e: std::io::Error) -> Error {
    Error::Input(format!("damaged .npy array: {e}"))
}

impl Array {
    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        let side = |from_end: usize| self.shape.iter().rev().nth(from_end).map_or(0, |n| *n as usize);
        (side(1), side(0))
    }

    /// The values `[C,H,W]` of an example.
    ///
    /// # Errors
    /// [`Error::Input`] for NaN or infinite values, and a number the array does not have.
    pub fn example(&self, number: usize, channels: usize) -> Result<Vec<f32>> {
        let (height, width) = self.size();
        let none = || Error::Input(format!("the array has no example {number}"));
        let range = || {
            let n = channels.checked_mul(height)?.checked_mul(width)?;
            let from = number.checked_mul(n)?;
            Some(from..from.checked_add(n)?)
        };
        let values = range().and_then(|range| self.values.get(range)).ok_or_else(none)?;
        if values.iter().any(|p| !p.is_finite()) {
            return Err(Error::Input("holds NaN or infinite pixel values".into()));
        }
        Ok(values.to_vec())
    }
}

/// The shape that a header gives, once the file is known to hold as much.
fn promised(bytes: &[u8], length: u64) -> Result<Vec<u64>> {
    let bad = |what: &str| Error::Input(format!("damaged .npy array: {what}"));
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err(bad("it does not start as one"));
    }
    let field = if bytes.get(6) == Some(&1) { 8..10 } else { 8..12 };
    let from = field.end;
    let size = bytes.get(field).map(|b| b.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)));
    let end = size.and_then(|n| usize::try_from(n).ok()?.checked_add(from)).ok_or_else(|| bad("its header is cut"))?;
    let header = bytes.get(from..end).map(String::from_utf8_lossy).ok_or_else(|| bad("its header is cut"))?;
    let between = |key: &str, open: char, close: char| -> Option<String> {
        let rest = header.split_once(key)?.1.split_once(':')?.1;
        Some(rest.split_once(open)?.1.split_once(close)?.0.to_string())
    };
    let list = between("'shape'", '(', ')').ok_or_else(|| bad("its header gives no shape"))?;
    let sides = list.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse::<u64>());
    let shape = sides.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| bad("its header gives no shape"))?;
    let kind = between("'descr'", '\'', '\'').unwrap_or_default();
    let item = kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or(1);
    // Two shapes: readers of arrays take the one or the other.
    if header.matches("shape").count() > 1 || header.matches("descr").count() > 1 {
        return Err(bad("its header gives a key twice"));
    }
    // A side of none does not make others possible.
    let all = shape.iter().try_fold(item, |n, side| n.checked_mul((*side).max(1)));
    let wanted = all.map(|n| if shape.contains(&0) { 0 } else { n });
    match wanted {
        Some(bytes) if bytes <= length.saturating_sub(end as u64) => Ok(shape),
        _ => Err(bad(&format!(
            "its header promises {} bytes of the shape {shape:?}, the file holds {}; is it complete?",
            wanted.map_or("more than 2^64".to_string(), |n| n.to_string()),
            length.saturating_sub(end as u64)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(shape: &str, kind: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        let length = (header.len() as u16).to_le_bytes();
        std::fs::write(file.path(), [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()).unwrap();
        file
    }

    #[test]
    fn arrays_are_read_and_impossible_ones_refused() {
        let data: Vec<u8> = (0..24).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let two = npy("(2, 3, 2, 2)", "<f4", &data);
        assert_eq!(shape(two.path()).unwrap(), [2, 3, 2, 2]);
        let array = read(two.path(), 3).unwrap();
        assert_eq!((array.size(), array.example(1, 3).unwrap()[0]), ((2, 2), 12.0));
        assert!(array.example(2, 3).is_err());
        let big: Vec<u8> = (0..24).flat_map(|i| f64::from(i).to_be_bytes()).collect();
        let six = npy("(6, 2, 2)", ">f8", &big);
        assert_eq!(read(six.path(), 6).unwrap().example(0, 6).unwrap()[23], 23.0);
        for (file, channels, part) in [
            (npy("(1000000000, 3, 8, 8)", "<f4", b""), 3, "promises"),
            (npy("(3, 4294967296, 4294967296)", "<f4", b"1"), 3, "promises more than 2^64"),
            (npy("(3, 2, 2)", "<f4", &data[..20]), 3, "is it complete?"),
            (npy("(3, 2, 2)", "<i4", &data[..48]), 3, "not of f32 or f64"),
            (npy("(3, 2, 2)", "<f4", &data), 1, "expected pixel values [1,H,W]"),
            (npy("(3, x, 2)", "<f4", &data), 3, "no shape"),
        ] {
            let error = read(file.path(), channels).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
