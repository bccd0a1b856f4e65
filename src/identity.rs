//! What tells contents apart, whatever they are called: SHA-256 of bytes and of files, and one for all files of a folder.
//!
//! What a resumed run compares ([`Identity`]) is made of these, so that something changed in place is noticed and a file that only got
//! another name or date is not. A file beyond [`WHOLE`] bytes is not read from end to end: its length, its time of change and
//! blocks spread over it stand for it.

mod stated;

pub use stated::{differing, Identity, Parametrised};

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Files up to this length are read whole.
pub const WHOLE: u64 = 64 << 20;
/// Blocks that stand for a longer file: the first is its head, the last its tail.
const BLOCKS: u64 = 16;
/// Bytes of a block.
const BLOCK: u64 = 256 << 10;

/// The SHA-256 of bytes, in hexadecimal digits.
pub fn of_bytes(bytes: &[u8]) -> String {
    digits(Sha256::new_with_prefix(bytes))
}

/// The SHA-256 of a whole file, whatever its length, in hexadecimal digits.
///
/// # Errors
/// [`Error::Io`].
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => return Ok(digits(hash)),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The contents of a file: `sha256:...`, or `stamp:LENGTH:...` beyond [`WHOLE`] bytes. The file's name is not part of it.
///
/// # Errors
/// [`Error::Io`]; [`Error::Input`] for what is no regular file (reading a pipe could wait for ever).
pub fn of_file(path: &Path) -> Result<String> {
    of_file_up_to(path, WHOLE)
}

fn of_file_up_to(path: &Path, whole: u64) -> Result<String> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if !meta.is_file() {
        return Err(Error::Input(format!("{}: is no regular file", path.display())));
    }
    if meta.len() <= whole {
        return Ok(format!("sha256:{}", sha256(path)?));
    }
    let changed = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
    let mut hash = Sha256::new();
    hash.update(changed.to_le_bytes());
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut block = vec![0; BLOCK.min(meta.len()) as usize];
    let last = meta.len() - block.len() as u64;
    for i in 0..BLOCKS {
        let at = (u128::from(last) * u128::from(i) / u128::from(BLOCKS - 1)) as u64;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut block)).map_err(|e| Error::io(path, e))?;
        hash.update(&block);
    }
    Ok(format!("stamp:{}:{}", meta.len(), digits(hash)))
}

/// One identity of named contents: names and identities in a fixed order.
pub fn of_parts<'a>(parts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort();
    let mut hash = Sha256::new();
    for (name, identity) in parts {
        // Lengths first: no two lists of parts run together into the same bytes.
        for text in [name.as_bytes(), identity.as_bytes()] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    digits(hash)
}

/// The contents of the files of a folder that `wanted` names, not of the folders in it.
///
/// # Errors
/// As [`of_file`].
pub fn of_folder(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let failed = |e| Error::io(folder, e);
    let mut parts: Vec<(String, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && wanted(&name) {
            parts.push((name, path));
        }
    }
    let named = parts.iter().map(|(name, path)| Ok((name.as_str(), of_file(path)?)));
    Ok(of_parts(named.collect::<Result<Vec<_>>>()?))
}

fn digits(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_told_apart_and_names_are_not() {
        // The SHA-256 of "abc", of the standard.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_bytes(b"abc"), abc);
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "abc").unwrap();
        std::fs::copy(path("a"), path("b")).unwrap();
        assert_eq!(of_file(&path("a")).unwrap(), format!("sha256:{abc}"));
        assert_eq!(of_file(&path("a")).unwrap(), of_file(&path("b")).unwrap());
        assert!(of_file(&path("missing")).is_err());
        assert!(of_file(dir.path()).unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    fn long_files_are_told_apart_by_length_time_and_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let mut bytes = vec![0u8; 3 << 20];
        let stamp = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
            of_file_up_to(&path, 1 << 20).unwrap()
        };
        let first = stamp(&bytes);
        assert!(first.starts_with("stamp:3145728:"), "{first}");
        assert_eq!(stamp(&bytes), first);
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] = 1;
            assert_ne!(stamp(&bytes), first, "byte {at}");
            bytes[at] = 0;
        }
        assert_ne!(stamp(&bytes[1..]), first);
        std::fs::write(&path, &bytes).unwrap();
        assert_ne!(of_file_up_to(&path, 1 << 20).unwrap(), first, "another time of change");
    }

    #[test]
    fn folders_are_their_wanted_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let of = || of_folder(dir.path(), |n| n.ends_with(".json")).unwrap();
        write("a.json", "1");
        let first = of();
        write("README.md", "x");
        assert_eq!(of(), first);
        write("b.json", "1");
        let both = of();
        assert_ne!(both, first);
        write("b.json", "2");
        assert_ne!(of(), both);
        let parts = |a: &str, b: &str| of_parts([(a, b.to_string())]);
        assert_ne!(parts("ab", "c"), parts("a", "bc"));
    }
}
