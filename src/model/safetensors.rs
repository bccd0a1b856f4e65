//! A `.safetensors` file: its header, and its tensors read from their places when they are asked for. It is not mapped: mapped
//! weights would be held twice until the last is read, and a file that is cut short meanwhile would end the process.

use super::weights::{elements, Entry, Stored};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use safetensors::tensor::TensorInfo;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The longest header that the format allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that one thread reads in one go.
const PIECE: usize = 4 << 20;

/// An opened file.
pub struct SafeFile {
    path: PathBuf,
    /// Where the first tensor begins.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl SafeFile {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::Model`] for a header that is broken or does not fit the file's length.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let broken = |what: String| {
            Error::Model(format!(
                "{}: damaged or incomplete weights ({what}); download or copy the file again",
                path.display()
            ))
        };
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| broken("no header".into()))?;
        let size = u64::from_le_bytes(size);
        let start = size.saturating_add(8);
        if size > LONGEST_HEADER || start > length {
            return Err(broken(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|e| broken(format!("its header: {e}")))?;
        let mut tensors = BTreeMap::new();
        for (name, value) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
            let info: TensorInfo =
                serde_json::from_value(value).map_err(|e| broken(format!("its header's tensor `{name}`: {e}")))?;
            let (from, to) = info.data_offsets;
            let bits = elements(&info.shape).and_then(|n| n.checked_mul(info.dtype.bitsize()));
            if to < from || bits.map(|bits| bits.div_ceil(8)) != Some(to - from) {
                return Err(broken(format!("tensor `{name}` of shape {:?} in bytes {from} to {to}", info.shape)));
            }
            if start.saturating_add(to as u64) > length {
                return Err(broken(format!("tensor `{name}` reaches beyond the file's {length} bytes")));
            }
            tensors.insert(name, info);
        }
        let end = tensors.values().map(|info| info.data_offsets.1).max().unwrap_or(0);
        if start + end as u64 != length {
            return Err(broken(format!("{length} bytes where its header says {}", start + end as u64)));
        }
        Ok(SafeFile { path: path.to_path_buf(), start, tensors })
    }

    /// Names, shapes and dtypes.
    pub fn entries(&self) -> impl Iterator<Item = (String, Entry)> + '_ {
        self.tensors.iter().map(|(name, info)| (name.clone(), Entry::new(info.dtype, &info.shape)))
    }

    /// A tensor on the CPU in its stored dtype, if there is one of this name.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Model`] for elements that are no numbers we know.
    pub fn get(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(info) = self.tensors.get(name) else { return Ok(None) };
        let (from, to) = info.data_offsets;
        let dtype = match Entry::new(info.dtype, &info.shape).stored {
            Stored::Float(dtype) => dtype,
            Stored::Bytes => DType::U8,
            Stored::Other(kind) => return Err(Error::Model(format!("tensor `{name}` is stored as {kind}"))),
        };
        let (shape, at) = (&info.shape[..], self.start + from as u64);
        if dtype == DType::F32 {
            let mut numbers = vec![0f32; (to - from) / 4];
            self.read(at, bytemuck::cast_slice_mut(&mut numbers))?;
            return Ok(Some(Tensor::from_vec(numbers, shape, &Device::Cpu)?));
        }
        let mut bytes = vec![0; to - from];
        self.read(at, &mut bytes)?;
        Ok(Some(Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?))
    }

    /// Fills `bytes` from a place in the file, pieces side by side.
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let piece = |(number, piece): (usize, &mut [u8])| {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(at + (number * PIECE) as u64))?;
            file.read_exact(piece)
        };
        bytes.par_chunks_mut(PIECE).enumerate().try_for_each(piece).map_err(|e| Error::io(&self.path, e))
    }
}
