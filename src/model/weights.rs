//! Tensors by name, from safetensors (in files or in memory) or files of `torch.save`, checked for shape and NaN.

use super::safetensors::SafeFile;
use super::sniff::{self, Kind};
use super::torch::TorchFile;
use crate::error::{Error, Result};
use candle_core::safetensors::SliceSafetensors;
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// What a file says of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its shape.
    pub shape: Vec<usize>,
    /// What its elements are.
    pub stored: Stored,
}

/// What a tensor's elements are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Floats that are read.
    Float(DType),
    /// U8: our 8-bit format, if there is a scale beside it.
    Bytes,
    /// Anything else, by name.
    Other(String),
}

/// The tensors of a checkpoint.
pub struct Weights {
    source: Source,
    entries: BTreeMap<String, Entry>,
}

enum Source {
    /// One or more `.safetensors` files.
    Files(Vec<SafeFile>),
    /// Weights inside the binary.
    Embedded(SliceSafetensors<'static>),
    /// One or more `pytorch_model*.bin` files.
    Torch(Vec<TorchFile>),
}

impl Weights {
    /// Opens safetensors files; the shards of one checkpoint together.
    ///
    /// # Errors
    /// [`Error::Model`] naming a damaged or truncated file, or one of another kind.
    pub fn files(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let open = |path: &Path| sniff::check_weights(path, Kind::Safetensors).and_then(|()| SafeFile::open(path));
        let files = paths.iter().map(|p| open(p.as_ref())).collect::<Result<Vec<_>>>()?;
        let entries = files.iter().flat_map(SafeFile::entries).collect();
        Ok(Weights { source: Source::Files(files), entries })
    }

    /// Weights inside the binary.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a header that is no safetensors'.
    pub fn embedded(bytes: &'static [u8]) -> Result<Self> {
        let slice = SliceSafetensors::new(bytes)?;
        let entries =
            slice.tensors().iter().map(|(name, t)| (name.clone(), Entry::new(t.dtype(), t.shape()))).collect();
        Ok(Weights { source: Source::Embedded(slice), entries })
    }

    /// Opens files of `torch.save`.
    ///
    /// # Errors
    /// [`Error::Model`] naming a damaged file, or one of another kind.
    pub fn pickles(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let open = |path: &Path| sniff::check_weights(path, Kind::Zip).and_then(|()| TorchFile::open(path));
        let files = paths.iter().map(|p| open(p.as_ref())).collect::<Result<Vec<_>>>()?;
        let entries = files.iter().flat_map(TorchFile::entries).collect();
        Ok(Weights { source: Source::Torch(files), entries })
    }

    /// What a user may want to know of how the weights were found.
    pub fn notes(&self) -> Vec<String> {
        match &self.source {
            Source::Files(_) | Source::Embedded(_) => Vec::new(),
            Source::Torch(files) => files.iter().filter_map(TorchFile::note).collect(),
        }
    }

    /// Names in the files, and what stands under each.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The tensor on the CPU in its stored dtype, if there is one of this name.
    fn find(&self, name: &str) -> Result<Option<Tensor>> {
        let cpu = &Device::Cpu;
        Ok(match &self.source {
            Source::Files(files) => {
                for file in files {
                    if let Some(tensor) = file.get(name)? {
                        return Ok(Some(tensor));
                    }
                }
                None
            }
            Source::Embedded(s) => s.get(name).is_ok().then(|| s.load(name, cpu)).transpose()?,
            Source::Torch(files) => {
                for file in files {
                    if let Some(tensor) = file.get(name)? {
                        return Ok(Some(tensor));
                    }
                }
                None
            }
        })
    }

    /// Whether a tensor of this name in the files has the shape and is of a kind that is read. Reads no weights.
    ///
    /// # Errors
    /// [`Error::Model`] naming the tensor and what is wrong.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let Some(entry) = self.entries.get(name) else { return Err(missing(name, shape)) };
        let quantised = "quantised weights are not read; save the model with weights in float32, float16 or bfloat16";
        match &entry.stored {
            Stored::Float(_) => {}
            Stored::Bytes if self.scaled(name, &entry.shape) => {}
            Stored::Bytes => {
                return Err(Error::Model(format!(
                    "tensor `{name}` holds 8-bit integers without `{name}.scale` (see models/demo-vit/README.md for the one such format that is read): {quantised}"
                )));
            }
            Stored::Other(kind) => {
                return Err(Error::Model(format!("tensor `{name}` is stored as {kind}: {quantised}")));
            }
        }
        if entry.shape != shape {
            return Err(Error::Model(format!(
                "tensor `{name}` has shape {:?}, expected {shape:?} from the sizes in config.json",
                entry.shape
            )));
        }
        Ok(())
    }

    /// Whether a scale for each row stands beside an 8-bit tensor.
    fn scaled(&self, name: &str, shape: &[usize]) -> bool {
        let scale = self.entries.get(&format!("{name}.scale"));
        scale.is_some_and(|s| matches!(s.stored, Stored::Float(_)) && Some(&s.shape.iter().product()) == shape.first())
    }

    /// A tensor of the files, of the given shape, dtype and device.
    ///
    /// A U8 tensor with a companion `NAME.scale` holds 8-bit weights, one scale per row of the first dimension:
    /// `w = (q - 128) * scale`.
    ///
    /// # Errors
    /// As [`Weights::check`], and [`Error::Model`] for a tensor that is not finite.
    pub fn get(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        self.check(name, shape)?;
        let mut tensor = self.find(name)?.ok_or_else(|| Error::Model(format!("tensor `{name}` could not be read")))?;
        if tensor.dtype() == DType::U8 {
            tensor = self.dequantised(name, &tensor)?;
        }
        let tensor = tensor.to_dtype(dtype)?;
        if !finite(&tensor)? {
            return Err(Error::Model(format!(
                "tensor `{name}` holds NaN or infinite weights{}; the checkpoint is damaged or its training diverged",
                if dtype == DType::F16 { " (in f16; try --dtype f32)" } else { "" }
            )));
        }
        Ok(tensor.to_device(device)?)
    }

    fn dequantised(&self, name: &str, q: &Tensor) -> Result<Tensor> {
        let scale = self
            .find(&format!("{name}.scale"))?
            .ok_or_else(|| Error::Model(format!("tensor `{name}.scale` could not be read")))?;
        let mut shape = vec![1; q.rank()];
        shape[0] = q.dims()[0];
        let centred = (q.to_dtype(DType::F32)? - 128.0)?;
        Ok(centred.broadcast_mul(&scale.to_dtype(DType::F32)?.reshape(shape)?)?)
    }

    /// Number of weights stored (not counting 8-bit scales).
    pub fn parameters(&self) -> usize {
        let scale = |name: &str| {
            let of = name.strip_suffix(".scale").and_then(|n| self.entries.get(n));
            of.is_some_and(|e| e.stored == Stored::Bytes)
        };
        let counted = self.entries.iter().filter(|(name, _)| !scale(name));
        // Views of one storage may be counted again and again.
        counted.map(|(_, e)| elements(&e.shape).unwrap_or(usize::MAX)).fold(0, usize::saturating_add)
    }
}

/// Elements of a shape; none where they are more than can be counted, whatever the order of its sides: a side of none does not make
/// others possible.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    let sides = shape.iter().try_fold(1usize, |n, side| n.checked_mul((*side).max(1)))?;
    Some(if shape.contains(&0) { 0 } else { sides })
}

impl Entry {
    /// Of a safetensors header.
    pub fn new(dtype: impl TryInto<DType> + std::fmt::Debug + Copy, shape: &[usize]) -> Self {
        let stored = match dtype.try_into() {
            Ok(dtype @ (DType::F32 | DType::F64 | DType::F16 | DType::BF16)) => Stored::Float(dtype),
            Ok(DType::U8) => Stored::Bytes,
            _ => Stored::Other(format!("{dtype:?}")),
        };
        Entry { shape: shape.to_vec(), stored }
    }
}

/// Whether every weight is a finite number.
fn finite(tensor: &Tensor) -> Result<bool> {
    let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?;
    let (storage, layout) = numbers.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(numbers)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
        return Err(Error::Model("weights are read on the CPU, in order".into()));
    };
    // The greatest magnitude as bits: a loop without a way out, which the compiler makes wide.
    let greatest = |piece: &[f32]| piece.iter().fold(0, |most, w| (w.to_bits() & i32::MAX as u32).max(most));
    Ok(numbers[from..to].par_chunks(1 << 18).all(|piece| greatest(piece) < f32::INFINITY.to_bits()))
}

/// A tensor that is not in the files.
pub fn missing(name: &str, shape: &[usize]) -> Error {
    Error::Model(format!("tensor `{name}` is missing from the weights (expected shape {shape:?}); is this checkpoint complete and of the family its config.json says?"))
}
