//! Tensors as plain numbers.

use crate::error::Result;
use candle_core::{DType, Device, Tensor};

/// A tensor's entries in f64; converted on the CPU, since not every device has f64.
pub fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?)
}

/// Half precision as f32, contiguous.
pub fn widened(tensor: &Tensor) -> Result<Tensor> {
    let dtype = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(tensor.to_dtype(dtype)?.contiguous()?)
}
