//! Tensors as memory: where their numbers lie, and new ones made of what a loop writes.

use crate::error::Result;
use candle_core::{CpuStorage, DType, Device, Layout, Shape, Storage, StorageRef, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// A tensor's numbers, f32 in this machine's memory.
pub(super) struct Floats<'t> {
    storage: StorageRef<'t>,
    layout: &'t Layout,
}

impl<'t> Floats<'t> {
    /// None for another dtype or device, or where kernels are off.
    pub fn of(x: &'t Tensor) -> Option<Self> {
        if !super::wide::on() || x.dtype() != DType::F32 || !x.device().is_cpu() {
            return None;
        }
        let (storage, layout) = x.storage_and_layout();
        matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))).then_some(Floats { storage, layout })
    }

    /// The numbers in order, if they lie so.
    pub fn in_order(&self) -> Option<&[f32]> {
        let (from, to) = self.layout.contiguous_offsets()?;
        self.whole().get(from..to)
    }

    /// From the tensor's first number on; entries lie at the sum of their places times the strides.
    pub fn onward(&self) -> &[f32] {
        self.whole().get(self.layout.start_offset()..).unwrap_or_default()
    }

    /// Numbers from an entry to the next of each dimension.
    pub fn strides(&self) -> &[usize] {
        self.layout.stride()
    }

    fn whole(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => numbers,
            _ => &[],
        }
    }
}

/// A tensor of what `write` writes.
///
/// # Safety
/// `write` must write every number.
#[allow(unsafe_code)]
pub(super) unsafe fn made(shape: impl Into<Shape>, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Result<Tensor> {
    let shape = shape.into();
    let mut numbers = Vec::with_capacity(shape.elem_count());
    write(&mut numbers.spare_capacity_mut()[..shape.elem_count()]);
    // SAFETY: the caller's promise.
    unsafe { numbers.set_len(shape.elem_count()) };
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// A loop over the numbers of one row.
///
/// A trait and no closure: only functions that say so are sure to be inlined into what [`super::wide::dispatch`] runs, and
/// outside of it every fused multiply-add is a call.
pub(super) trait Row: Sync {
    /// Writes row `number`, which is 0 before. Must be `#[inline(always)]`.
    fn write(&self, number: usize, out: &mut [f32]);
}

/// A tensor whose rows of `width` numbers are each written by `row`. They are written side by side, some at a time; how many is
/// a matter of their width alone.
pub(super) fn by_rows(shape: impl Into<Shape>, width: usize, row: &impl Row) -> Result<Tensor> {
    let width = width.max(1);
    let each = (8192 / width).max(1);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let chunk = |(number, out)| {
            super::wide::dispatch(Chunk { row, first: number * each, width, out: zeroed(out) });
        };
        match out.len() <= each * width {
            true => chunk((0, out)), // to ask other threads would take longer
            false => out.par_chunks_mut(each * width).enumerate().for_each(chunk),
        }
    };
    // SAFETY: the chunks cover everything, and each is zeroed.
    #[allow(unsafe_code)]
    unsafe {
        made(shape, write)
    }
}

/// Some rows one behind the other.
struct Chunk<'a, R> {
    row: &'a R,
    first: usize,
    width: usize,
    out: &'a mut [f32],
}

impl<R: Row> WithSimd for Chunk<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, out) in self.out.chunks_exact_mut(self.width).enumerate() {
            self.row.write(self.first + i, out);
        }
    }
}

/// Numbers that may be written, since they are 0 now. A chunk that is about to be written is in the cache then.
fn zeroed(out: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    out.fill(MaybeUninit::new(0.0));
    // SAFETY: every one was just written, and a number that may be unwritten is laid out as one.
    #[allow(unsafe_code)]
    unsafe {
        &mut *(std::ptr::from_mut(out) as *mut [f32])
    }
}
