//! Arrays by name in one file, and arrays that grow: what `numpy.load` reads.

use crate::error::{Error, Result};
use crate::explanation::Explanation;
use std::io::{Cursor, Write};

/// An array with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    name: String,
    /// As NumPy describes an entry, such as `<f4`.
    kind: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Named {
    /// 32-bit floats, row by row.
    pub fn f32(name: &str, shape: Vec<usize>, values: &[f32]) -> Self {
        Named::of(name, "<f4".into(), shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// 64-bit floats, in a line.
    pub fn f64(name: &str, values: &[f64]) -> Self {
        Named::of(name, "<f8".into(), vec![values.len()], values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// 64-bit integers, in a line.
    pub fn i64(name: &str, values: &[i64]) -> Self {
        Named::of(name, "<i8".into(), vec![values.len()], values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Texts, in a line: as many characters each as the longest has.
    pub fn texts(name: &str, values: &[String]) -> Self {
        let longest = values.iter().map(|v| v.chars().count()).max().unwrap_or(0).max(1);
        let padded = |v: &String| {
            let letters = v.chars().map(u32::from).chain(std::iter::repeat(0)).take(longest);
            letters.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        Named::of(name, format!("<U{longest}"), vec![values.len()], values.iter().flat_map(padded).collect())
    }

    fn of(name: &str, kind: String, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        Named { name: name.into(), kind, shape, bytes }
    }
}

/// The arrays as one file; the same arrays give the same bytes.
///
/// # Errors
/// [`Error::Input`] when it cannot be put together.
pub fn npz(arrays: &[Named]) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Input(format!("npz: {e}"));
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    // Of an array beyond 4 GiB the archive has to be told before.
    let large = |array: &Named| array.bytes.len() > u32::MAX as usize / 2;
    for array in arrays {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(large(array));
        archive.start_file(format!("{}.npy", array.name), options).map_err(|e| failed(&e))?;
        let head = head(&array.kind, &array.shape)?;
        archive.write_all(&head).and_then(|()| archive.write_all(&array.bytes)).map_err(|e| failed(&e))?;
    }
    Ok(archive.finish().map_err(|e| failed(&e))?.into_inner())
}

/// Bytes of a head, which is as long for any number of rows, so that it can be written anew where an array has grown.
pub const HEAD: usize = 128;

/// The head of an `.npy` file, version 1.0.
///
/// # Errors
/// [`Error::Fault`] for a shape that does not fit in.
pub fn head(kind: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let numbers: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let said = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}", numbers.trim_end_matches(' '));
    let room = HEAD - 10;
    if said.len() >= room {
        return Err(Error::Fault(format!("an array of {} dimensions", shape.len())));
    }
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend((room as u16).to_le_bytes());
    head.extend(format!("{said:<width$}\n", width = room - 1).into_bytes());
    Ok(head)
}

/// Attention of layers of so many heads, whose whole matrices follow each other, as one file: `attention` `[L,H,T,T]`, `layers` `[L]`,
/// and `prefix`, the number of tokens before the first patch.
///
/// # Errors
/// As [`npz`], and [`Error::Fault`] for other maps than `L*H` whole matrices.
pub fn attention(maps: &[Explanation], layers: &[usize], heads: usize) -> Result<Vec<u8>> {
    let tokens = maps.first().map_or(0, |map| map.layout.len());
    if maps.len() != layers.len() * heads || maps.iter().any(|map| map.relevance.len() != tokens * tokens) {
        return Err(Error::Fault("the maps are not the attention of every layer and head".into()));
    }
    let values: Vec<f32> = maps.iter().flat_map(|map| map.relevance.iter().copied()).collect();
    let layers: Vec<i64> = layers.iter().map(|layer| *layer as i64).collect();
    let prefix = maps.first().map_or(0, |map| map.layout.prefix()) as i64;
    let shape = vec![layers.len(), heads, tokens, tokens];
    npz(&[Named::f32("attention", shape, &values), Named::i64("layers", &layers), Named::i64("prefix", &[prefix])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_back_by_their_names() {
        let own = [
            Named::f32("maps", vec![2, 1, 2], &[1.0, 2.0, 3.0, f32::NAN]),
            Named::i64("class", &[5, -1]),
            Named::texts("input", &["a".into(), "é.png".into()]),
        ];
        let bytes = npz(&own).unwrap();
        assert_eq!(bytes, npz(&own).unwrap());
        let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
        let file = archive.by_name("maps.npy").unwrap();
        let read = npyz::NpyFile::new(file).unwrap();
        assert_eq!(read.shape(), [2, 1, 2]);
        let values: Vec<f32> = read.into_vec().unwrap();
        assert_eq!(values[..3], [1.0, 2.0, 3.0]);
        let read = npyz::NpyFile::new(archive.by_name("class.npy").unwrap()).unwrap();
        assert_eq!(read.into_vec::<i64>().unwrap(), [5, -1]);
        assert_eq!(own[2].kind, "<U5");
        assert_eq!(head("<f4", &[3, 16, 16]).unwrap().len(), HEAD);
    }
}
