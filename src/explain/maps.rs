//! The maps of a run in one array, which grows as the run goes and is whole up to wherever it ends.

use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout};
use crate::render::npz::{head, HEAD};
use crate::render::save;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What the file may end in.
pub const ENDING: &[&str] = &["npy"];

const KIND: &str = "<f4";

/// One map as it goes into the array.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Rows and columns.
    pub grid: (usize, usize),
    /// Row by row.
    pub values: Vec<f32>,
}

impl Map {
    /// Of an explanation of a picture; none of texts and whole matrices.
    pub fn of(e: &Explanation) -> Option<Self> {
        match &e.layout {
            Layout::Image(image) if !e.matrix => Some(Map { grid: image.grid, values: e.content().to_vec() }),
            _ => None,
        }
    }
}

/// f32 `[N,gridH,gridW]`, the maps in the order of the table's rows.
#[derive(Debug)]
pub struct Maps {
    path: PathBuf,
    /// None until there is a map: a run without one leaves what was there.
    file: Option<File>,
    count: usize,
    grid: Option<(usize, usize)>,
}

impl Maps {
    /// An array in the place of an earlier one where that may be `replaced`. Nothing is touched before there is a map.
    ///
    /// # Errors
    /// [`Error::Usage`] for a file that must stay.
    pub fn begin(path: &Path, replace: bool) -> Result<Self> {
        if path.exists() && !(replace && is_array(path)) {
            let why = match replace {
                true => "is no array of NumPy; name another",
                false => "exists; pass --overwrite or --resume to make it anew",
            };
            return Err(Error::Usage(format!("--arrays {}: the file {why}", path.display())));
        }
        Ok(Maps { path: path.to_path_buf(), file: None, count: 0, grid: None })
    }

    /// Adds a map, and answers its place. It is in the file when this returns.
    ///
    /// # Errors
    /// [`Error::Input`] for a map of another size than those before it, and when it cannot be written.
    pub fn add(&mut self, map: &Map) -> Result<usize> {
        let grid = *self.grid.get_or_insert(map.grid);
        if grid != map.grid {
            return Err(Error::Input(format!(
                "its map is {}x{}, the others in {} are {}x{}: one array holds maps of one size (--size HxW, or --fit, makes them so)",
                map.grid.0, map.grid.1, self.path.display(), grid.0, grid.1
            )));
        }
        let place = self.count;
        let bytes: Vec<u8> = map.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let head = head(KIND, &[place + 1, grid.0, grid.1])?;
        let failed =
            |e: std::io::Error| Error::Input(format!("{}: the maps cannot be written: {e}", self.path.display()));
        match &mut self.file {
            None => {
                save::save(&self.path, &[head, bytes].concat(), true)?;
                self.file = Some(File::options().write(true).open(&self.path).map_err(failed)?);
            }
            Some(file) => {
                let end = (HEAD + place * bytes.len()) as u64;
                // First what is new, then how much there is: whoever reads in between finds the maps before.
                let written = file.seek(SeekFrom::Start(end)).and_then(|_| file.write_all(&bytes));
                let written = written.and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| file.write_all(&head));
                written.map_err(failed)?;
            }
        }
        self.count += 1;
        Ok(place)
    }
}

fn is_array(path: &Path) -> bool {
    let mut start = [0; 6];
    let read = File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|n| n == 0 || start == *b"\x93NUMPY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_is_whole_after_each_map() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/maps.npy");
        let mut maps = Maps::begin(&path, false).unwrap();
        assert!(!path.exists(), "there is no array without a map");
        for number in 0..3 {
            let values = vec![number as f32; 6];
            assert_eq!(maps.add(&Map { grid: (2, 3), values }).unwrap(), number);
            let read = npyz::NpyFile::new(File::open(&path).unwrap()).unwrap();
            assert_eq!(read.shape(), [number as u64 + 1, 2, 3]);
            let all: Vec<f32> = read.into_vec().unwrap();
            assert_eq!((all.len(), all.last()), (6 * (number + 1), Some(&(number as f32))));
        }
        let other = Map { grid: (1, 1), values: vec![0.0] };
        assert!(maps.add(&other).unwrap_err().to_string().contains("1x1"));
        assert!(Maps::begin(&path, false).is_err() && Maps::begin(&path, true).is_ok());
        std::fs::write(&path, "mine, not an array").unwrap();
        assert!(Maps::begin(&path, true).is_err());
    }
}
