//! Which files of a folder vitx made itself: a folder that holds pictures and their overlays is explained again without them.

use super::{has, Ledger, Written};
use std::collections::{HashMap, HashSet};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The keyword of the text chunk in PNGs that vitx makes.
const KEYWORD: &[u8] = b"vitx\0";

/// What ledgers say, read as folders are met.
#[derive(Debug, Default)]
pub struct Own {
    /// Folders whose ledger was read.
    known: HashSet<PathBuf>,
    /// Outputs by canonical path, with the folder of their ledger; a file that several runs have written has several contents.
    made: HashMap<PathBuf, Vec<(PathBuf, Written)>>,
}

impl Own {
    /// Reads the ledger of a folder, if it has one.
    pub fn learn(&mut self, folder: &Path) {
        let Ok(base) = folder.canonicalize() else { return };
        if self.known.contains(&base) || !has(&base) {
            return;
        }
        self.known.insert(base.clone());
        for (path, written) in Ledger::read(&base, None).files() {
            self.made.entry(path).or_default().push((base.clone(), written));
        }
    }

    /// Whether vitx made this file: a ledger has it, byte for byte, or it is a PNG that says so.
    pub fn made(&self, path: &Path) -> bool {
        let mut noted = path.canonicalize().ok().and_then(|p| self.made.get(&p)).into_iter().flatten();
        noted.any(|(folder, written)| written.stands(folder)) || says_so(path).unwrap_or(false)
    }
}

/// Whether a PNG holds a text chunk named `vitx`. Chunks before the picture are looked at.
fn says_so(path: &Path) -> std::io::Result<bool> {
    if path.extension().is_none_or(|e| !e.eq_ignore_ascii_case("png")) {
        return Ok(false);
    }
    let mut file = BufReader::new(std::fs::File::open(path)?);
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    if head != *b"\x89PNG\r\n\x1a\n" {
        return Ok(false);
    }
    loop {
        let mut chunk = [0; 8];
        file.read_exact(&mut chunk)?;
        let (length, kind) = chunk.split_at(4);
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        match kind {
            b"iTXt" | b"tEXt" | b"zTXt" => {
                let mut keyword = vec![0; KEYWORD.len().min(length as usize)];
                file.read_exact(&mut keyword)?;
                if keyword == KEYWORD {
                    return Ok(true);
                }
                file.seek(SeekFrom::Current(i64::from(length) - keyword.len() as i64 + 4))?;
            }
            b"IDAT" | b"IEND" => return Ok(false),
            _ => {
                file.seek(SeekFrom::Current(i64::from(length) + 4))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_pngs_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.png");
        let picture = image::RgbImage::new(3, 2);
        for (keyword, own) in [("vitx", true), ("vitxyz", false), ("Software", false)] {
            std::fs::write(&path, crate::render::png_with_text(&picture, keyword, "{}").unwrap()).unwrap();
            assert_eq!(Own::default().made(&path), own, "{keyword}");
        }
        for bytes in [&b""[..], b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt", b"GIF89a"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(!Own::default().made(&path), "{bytes:?}");
        }
    }
}
