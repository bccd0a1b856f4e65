//! Tensors by name, from safetensors (mapped or in memory) or a pickle, checked for shape and NaN.

use crate::error::{Error, Result};
use candle_core::pickle::PthTensors;
use candle_core::safetensors::{MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// Where tensors come from.
pub enum Weights {
    /// One or more mapped `.safetensors` files.
    Mapped(MmapedSafetensors),
    /// Weights inside the binary.
    Embedded(SliceSafetensors<'static>),
    /// One or more `pytorch_model*.bin` files.
    Pickles(Vec<PthTensors>),
}

impl Weights {
    /// Maps safetensors files; the shards of one checkpoint together.
    ///
    /// # Errors
    /// [`Error::Model`] naming a damaged or truncated file.
    #[allow(unsafe_code)]
    pub fn map(paths: &[impl AsRef<Path>]) -> Result<Self> {
        // SAFETY: the maps are read-only and live as long as the weights are read. Should another process shorten a file
        // meanwhile, the system ends this process (SIGBUS): the price of not reading gigabytes twice.
        let mapped = unsafe { MmapedSafetensors::multi(paths) };
        let files = || paths.iter().map(|p| p.as_ref().display().to_string()).collect::<Vec<_>>().join(", ");
        Ok(Weights::Mapped(mapped.map_err(|e| damaged(&files(), &e))?))
    }

    /// Reads pickled state dicts, the format of `torch.save`.
    ///
    /// # Errors
    /// [`Error::Model`] naming a damaged file.
    pub fn pickles(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let read = |path: &Path| PthTensors::new(path, None).map_err(|e| damaged(&path.display().to_string(), &e));
        Ok(Weights::Pickles(paths.iter().map(|p| read(p.as_ref())).collect::<Result<_>>()?))
    }

    /// The tensor on the CPU in its stored dtype, if there is one of this name.
    fn find(&self, name: &str) -> Result<Option<Tensor>> {
        let cpu = &Device::Cpu;
        Ok(match self {
            Weights::Mapped(m) => m.get(name).is_ok().then(|| m.load(name, cpu)).transpose()?,
            Weights::Embedded(s) => s.get(name).is_ok().then(|| s.load(name, cpu)).transpose()?,
            Weights::Pickles(files) => {
                let file = files.iter().find(|f| f.tensor_infos().contains_key(name));
                file.map(|f| f.get(name)).transpose()?.flatten()
            }
        })
    }

    /// Whether a tensor of this name is stored.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Weights::Mapped(m) => m.get(name).is_ok(),
            Weights::Embedded(s) => s.get(name).is_ok(),
            Weights::Pickles(files) => files.iter().any(|f| f.tensor_infos().contains_key(name)),
        }
    }

    /// The stored name for `name`: itself, or its TensorFlow-era spelling (`gamma` and `beta` in layer norms).
    fn stored_name(&self, name: &str) -> Option<String> {
        let legacy = match name.rsplit_once('.') {
            Some((stem, "weight")) => format!("{stem}.gamma"),
            Some((stem, "bias")) => format!("{stem}.beta"),
            _ => return self.has(name).then(|| name.to_string()),
        };
        [name.to_string(), legacy].into_iter().find(|n| self.has(n))
    }

    /// A tensor of the given shape, dtype and device.
    ///
    /// A U8 tensor with a companion `NAME.scale` holds 8-bit weights, one scale per row of the first dimension:
    /// `w = (q - 128) * scale`.
    ///
    /// # Errors
    /// [`Error::Model`] naming a tensor that is missing, of another shape, or not finite.
    pub fn get(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let stored = self.stored_name(name).ok_or_else(|| {
            Error::Model(format!("tensor `{name}` is missing from the weights (expected shape {shape:?}); is this checkpoint complete and of the family its config.json says?"))
        })?;
        let mut tensor =
            self.find(&stored)?.ok_or_else(|| Error::Model(format!("tensor `{name}` could not be read")))?;
        if tensor.dims() != shape {
            return Err(Error::Model(format!(
                "tensor `{name}` has shape {:?}, expected {shape:?} from the sizes in config.json",
                tensor.dims()
            )));
        }
        if tensor.dtype() == DType::U8 {
            tensor = self.dequantised(name, &tensor)?;
        }
        let tensor = tensor.to_dtype(dtype)?;
        // A sum is finite only when every term is.
        if !tensor.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(Error::Model(format!(
                "tensor `{name}` holds NaN or infinite weights{}; the checkpoint is damaged or its training diverged",
                if dtype == DType::F16 { " (in f16; try --dtype f32)" } else { "" }
            )));
        }
        Ok(tensor.to_device(device)?)
    }

    fn dequantised(&self, name: &str, q: &Tensor) -> Result<Tensor> {
        let scale = self.find(&format!("{name}.scale"))?.ok_or_else(|| {
            Error::Model(format!("tensor `{name}` holds 8-bit weights without `{name}.scale`; see models/demo-vit/README.md for the format"))
        })?;
        let mut shape = vec![1; q.rank()];
        shape[0] = q.dims()[0];
        let centred = (q.to_dtype(DType::F32)? - 128.0)?;
        Ok(centred.broadcast_mul(&scale.to_dtype(DType::F32)?.reshape(shape)?)?)
    }

    /// Number of weights stored (not counting 8-bit scales).
    pub fn parameters(&self) -> usize {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        match self {
            Weights::Mapped(m) => m.tensors().iter().map(|(_, t)| count(t.shape())).sum(),
            Weights::Embedded(s) => {
                s.tensors().iter().filter(|(n, _)| !n.ends_with(".scale")).map(|(_, t)| count(t.shape())).sum()
            }
            Weights::Pickles(files) => {
                files.iter().flat_map(|f| f.tensor_infos().values()).map(|t| t.layout.shape().elem_count()).sum()
            }
        }
    }
}

fn damaged(files: &str, error: &candle_core::Error) -> Error {
    Error::Model(format!("{files}: damaged or incomplete weights ({error}); download or copy the file again"))
}
