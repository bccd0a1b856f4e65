//! The matrix product, which is most of a pass: `x M + b` over the last dimension, and one product a head.
//!
//! The right factor is packed on the way, a panel of two registers' width and [`DEPTH`] rows at a time, which then stays in the
//! cache while all rows of the left one pass by; where it is a transposed weight, 8 x 8 numbers are turned in registers. So
//! weights are used as PyTorch stores them in both directions, without a second copy. Each result is one chain of fused
//! multiply-adds over [`DEPTH`] terms after the other: no matter how many rows, examples or threads there are.
//!
//! candle's own product (the gemm crate) reads transposed weights at half of its speed, and sums in an order that depends on
//! how many rows there are; rten-gemm is as fast only with weights that it packs beforehand, a copy for each direction.

use super::memory::{made, Floats};
use super::pack::{pack, Ahead, Matrix};
use super::wide;
use crate::error::Result;
use candle_core::{Tensor, D};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Multiplications that take no longer than it takes to wake another thread.
const ALONE: usize = 1 << 18;
/// Terms of a sum that are added in one go; decides where sums are cut, and so their last bits.
const DEPTH: usize = 768;
/// Rows that pass by a packed panel before the next one is packed.
const ROWS: usize = 256;
/// Terms for each of which a cache line of what is packed next is asked for.
const EACH: usize = 8;
/// Rows that are computed at once where there are 32 registers: 24 of them hold results.
const TALL: usize = 12;
/// The same for 16 registers.
const LOW: usize = 6;

/// `x M + b` over the last dimension of `x`, for x of rank 2 or 3, M `[in,out]` of any strides, b `[out]`.
pub fn matmul(x: &Tensor, m: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = x.contiguous()?;
    match product(&x, m, bias)? {
        Some(y) => Ok(y),
        None => {
            let y = composed(&x, m)?;
            Ok(bias.map(|bias| y.broadcast_add(bias)).transpose()?.unwrap_or(y))
        }
    }
}

fn product(x: &Tensor, m: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let (Some(left), Some(right)) = (Floats::of(x), Floats::of(m)) else { return Ok(None) };
    let bias_ = bias.and_then(Floats::of);
    let (&[row, column], (depth, columns)) = (right.strides(), m.dims2()?) else { return Ok(None) };
    let bias_ = bias_.as_ref().and_then(Floats::in_order);
    let (Some(left), true) = (left.in_order(), bias_.is_some() == bias.is_some()) else { return Ok(None) };
    if x.dim(D::Minus1)? != depth || left.is_empty() || columns == 0 || bias_.is_some_and(|b| b.len() != columns) {
        return Ok(None); // candle says what does not fit
    }
    let size = Size { rows: left.len() / depth, depth, columns };
    let left = Matrix { numbers: left, row: depth, column: 1 };
    let right = Matrix { numbers: right.onward(), row, column };
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(columns);
    run(&[(left, right)], size, bias_, 1.0, &shape).map(Some)
}

/// `factor * A B` for every head: `[B,H,M,K]` x `[B,H,K,N]` -> `[B,H,M,N]`, of any strides.
pub fn matmul_heads(a: &Tensor, b: &Tensor, factor: f64) -> Result<Tensor> {
    if let (Some(left), Some(right)) = (Floats::of(a), Floats::of(b)) {
        let ((batch, heads, rows, depth), (_, _, _, columns)) = (a.dims4()?, b.dims4()?);
        let fits = b.dims() == [batch, heads, depth, columns] && batch * heads * rows * depth * columns > 0;
        if let (&[ab, ah, row, column], &[bb, bh, rrow, rcolumn], true) = (left.strides(), right.strides(), fits) {
            let (left, right) = (left.onward(), right.onward());
            let one = |n: usize| {
                let (example, head) = (n / heads, n % heads);
                let left = Matrix { numbers: &left[example * ab + head * ah..], row, column };
                let right = Matrix { numbers: &right[example * bb + head * bh..], row: rrow, column: rcolumn };
                (left, right)
            };
            let pairs: Vec<_> = (0..batch * heads).map(one).collect();
            let size = Size { rows, depth, columns };
            return run(&pairs, size, None, factor as f32, &[batch, heads, rows, columns]);
        }
    }
    let product = a.contiguous()?.matmul(&b.contiguous()?)?;
    Ok(if factor == 1.0 { product } else { (product * factor)? })
}

/// `x M` by candle's operations.
///
/// The rows of a batch are one matrix. Where their number decides in which order candle sums, each example is multiplied
/// by itself, so that its numbers never depend on its neighbours; pooled states (rank 2) are an example a row.
fn composed(x: &Tensor, m: &Tensor) -> Result<Tensor> {
    let rows = if x.rank() == 2 { 1 } else { x.dim(D::Minus2)? };
    if !order_depends_on_rows(rows, m.dims2()?) {
        return Ok(x.broadcast_matmul(m)?);
    }
    let one = |i: usize| x.narrow(0, i, 1)?.contiguous()?.broadcast_matmul(m);
    Ok(Tensor::cat(&(0..x.dim(0)?).map(one).collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

/// Whether candle (the gemm crate) sums a product of `rows` rows in another order than one of more rows: one row and few
/// results have kernels of their own, and a deep sum is cut elsewhere while rows and columns are few.
fn order_depends_on_rows(rows: usize, (depth, columns): (usize, usize)) -> bool {
    rows == 1 || rows * columns <= 16 * 16 || (columns <= 64 && depth > 512)
}

/// `[rows, depth]` times `[depth, columns]`.
#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    depth: usize,
    columns: usize,
}

/// Where results are written. Tasks write to places of their own.
#[derive(Clone, Copy)]
struct Out(*mut f32);

impl Out {
    /// The results that lie so many numbers further.
    fn behind(self, numbers: usize) -> Self {
        Out(self.0.wrapping_add(numbers))
    }
}

// SAFETY: each task writes other entries (see `run`), and nobody reads before all are done.
#[allow(unsafe_code)]
unsafe impl Send for Out {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Out {}

/// Some columns of some rows of one product.
struct Task<'a> {
    left: Matrix<'a>,
    right: Matrix<'a>,
    size: Size,
    rows: Range<usize>,
    panel: usize,
    bias: Option<&'a [f32]>,
    factor: f32,
    out: Out,
}

/// The width of a panel.
struct Width;

impl WithSimd for Width {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

/// `factor * left right + bias` for each pair, all of one size, one behind the other in a tensor of this shape.
fn run(pairs: &[(Matrix, Matrix)], size: Size, bias: Option<&[f32]>, factor: f32, shape: &[usize]) -> Result<Tensor> {
    assert!(pairs.iter().all(|(l, r)| l.holds(size.rows, size.depth) && r.holds(size.depth, size.columns)));
    assert!(bias.is_none_or(|b| b.len() == size.columns) && size.depth > 0);
    let (panels, blocks) = (size.columns.div_ceil(wide::dispatch(Width)), size.rows.div_ceil(ROWS));
    let write = |out: &mut [MaybeUninit<f32>]| {
        assert_eq!(out.len(), pairs.len() * size.rows * size.columns);
        let first = Out(out.as_mut_ptr().cast());
        let task = |task: usize| {
            let (number, block, panel) = (task / (blocks * panels), task / panels % blocks, task % panels);
            let (left, right) = pairs[number];
            let rows = block * ROWS..((block + 1) * ROWS).min(size.rows);
            let out = first.behind(number * size.rows * size.columns);
            wide::dispatch(Task { left, right, size, rows, panel, bias, factor, out });
        };
        let tasks = 0..pairs.len() * blocks * panels;
        match pairs.len() * size.rows * size.depth * size.columns < ALONE {
            true => tasks.for_each(task),
            false => tasks.into_par_iter().for_each(task),
        }
    };
    // SAFETY: every pair's every row and column is of one block and one panel, and a task writes all entries of both.
    #[allow(unsafe_code)]
    unsafe {
        made(shape, write)
    }
}

std::thread_local!(static PANEL: std::cell::Cell<Vec<f32>> = const { std::cell::Cell::new(Vec::new()) });

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = 2 * S::F32_LANES;
        let mut buffer = PANEL.take();
        buffer.resize(DEPTH * width + 16, 0.0);
        let start = buffer.as_ptr().align_offset(64).min(16);
        let packed = &mut buffer[start..start + DEPTH * width];
        let from = self.panel * width;
        let columns = from..(from + width).min(self.size.columns);
        let mut start = 0;
        while start < self.size.depth {
            let depth = start..(start + DEPTH).min(self.size.depth);
            pack(packed, width, self.right, depth.clone(), columns.clone());
            let (ahead, mut line) = (self.ahead(&depth, &columns), 0);
            let mut row = self.rows.start;
            while row < self.rows.end {
                let tile =
                    Tile { task: &self, row, depth: depth.clone(), columns: columns.clone(), packed, ahead, line };
                line += depth.len().div_ceil(EACH);
                let left = self.rows.end - row;
                row += if S::REGISTER_COUNT >= 32 { tile.tall(simd, left) } else { tile.low(simd, left) };
            }
            start = depth.end;
        }
        PANEL.set(buffer);
    }
}

impl<'a> Task<'a> {
    /// What is packed behind these entries: the next terms of these columns, or the first ones of the next columns.
    fn ahead(&self, depth: &Range<usize>, columns: &Range<usize>) -> Ahead<'a> {
        let Size { depth: terms, columns: all, .. } = self.size;
        let (depth, columns) = match depth.end < terms {
            true => (depth.end..(depth.end + DEPTH).min(terms), columns.clone()),
            false => (0..DEPTH.min(terms), columns.end..(columns.end + columns.len()).min(all)),
        };
        Ahead::of(self.right, &depth, &columns)
    }
}

/// Some rows of a panel of results.
struct Tile<'a> {
    task: &'a Task<'a>,
    row: usize,
    depth: Range<usize>,
    columns: Range<usize>,
    packed: &'a [f32],
    /// What is asked for meanwhile, and from which line on.
    ahead: Ahead<'a>,
    line: usize,
}

macro_rules! by_rows_left {
    ($tile:ident, $simd:ident, $left:ident, $($rows:literal)*) => {
        match $left {
            $($rows => { $tile.compute::<S, $rows>($simd); $rows })*
            _ => unreachable!("a tile of no rows"),
        }
    };
}

impl Tile<'_> {
    /// Computes up to [`TALL`] rows of those left; how many.
    #[inline(always)]
    fn tall<S: Simd>(self, simd: S, left: usize) -> usize {
        let rows = left.min(TALL);
        by_rows_left!(self, simd, rows, 1 2 3 4 5 6 7 8 9 10 11 12)
    }

    /// Computes up to [`LOW`] rows of those left; how many.
    #[inline(always)]
    fn low<S: Simd>(self, simd: S, left: usize) -> usize {
        let rows = left.min(LOW);
        by_rows_left!(self, simd, rows, 1 2 3 4 5 6)
    }

    /// `R` rows of two registers each: the sum so far (at first the bias), plus the products of this depth.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn compute<S: Simd, const R: usize>(&self, simd: S) {
        let (task, lanes, width) = (self.task, S::F32_LANES, self.columns.len());
        let (begins, ends) = (self.depth.start == 0, self.depth.end == task.size.depth);
        let whole = width == 2 * lanes;
        // A panel at the right edge goes through here, since registers are written whole.
        let mut edge = [0f32; 64];
        macro_rules! load {
            ($from:expr) => {
                // SAFETY: two registers' width of numbers lies from each of these places on: in the packed panel, in the edge,
                // and in a row of results where the panel is whole.
                unsafe { $from.cast::<S::f32s>().read_unaligned() }
            };
        }
        macro_rules! place {
            ($r:expr) => {
                task.out.0.wrapping_add((self.row + $r) * task.size.columns + self.columns.start)
            };
        }
        if begins {
            if let Some(bias) = task.bias {
                edge[..width].copy_from_slice(&bias[self.columns.clone()]);
            }
        }
        let (row, column) = (task.left.row, task.left.column);
        // SAFETY: entry (row, depth) of a matrix that holds them all, as `run` asserts.
        let left = unsafe { task.left.numbers.as_ptr().add(self.row * row + self.depth.start * column) };
        let panel = self.packed.as_ptr();
        let factor = simd.splat_f32s(task.factor);
        let mut line = self.line;
        // A sum a variable: an array is kept in memory as soon as the compiler loses sight of an index.
        macro_rules! rows {
            ($($r:literal $first:ident $second:ident)*) => {
                $(
                    let mut from = edge.as_ptr();
                    if !begins && $r < R {
                        from = place!($r).cast_const();
                        if !whole {
                            // SAFETY: `width` results of this row, which an earlier depth wrote.
                            unsafe { std::ptr::copy_nonoverlapping(from, edge.as_mut_ptr(), width) };
                            from = edge.as_ptr();
                        }
                    }
                    let (mut $first, mut $second) = (load!(from), load!(from.wrapping_add(lanes)));
                )*
                macro_rules! multiply {
                    ($column:expr) => {
                        for k in 0..self.depth.len() {
                            if k % EACH == 0 {
                                self.ahead.ask(line);
                                line += 1;
                            }
                            let at = panel.wrapping_add(k * 2 * lanes);
                            let (one, two) = (load!(at), load!(at.wrapping_add(lanes)));
                            $(
                                if $r < R {
                                    // SAFETY: as above.
                                    let x = simd.splat_f32s(unsafe { *left.add($r * row + k * $column) });
                                    $first = simd.mul_add_f32s(x, one, $first);
                                    $second = simd.mul_add_f32s(x, two, $second);
                                }
                            )*
                        }
                    };
                }
                match column {
                    1 => multiply!(1),
                    _ => multiply!(column),
                }
                $(
                    if $r < R {
                        if ends && task.factor != 1.0 {
                            ($first, $second) = (simd.mul_f32s($first, factor), simd.mul_f32s($second, factor));
                        }
                        let to = if whole { place!($r) } else { edge.as_mut_ptr() };
                        // SAFETY: as for loading.
                        unsafe {
                            to.cast::<S::f32s>().write_unaligned($first);
                            to.add(lanes).cast::<S::f32s>().write_unaligned($second);
                            if !whole {
                                std::ptr::copy_nonoverlapping(edge.as_ptr(), place!($r), width);
                            }
                        }
                    }
                )*
            };
        }
        rows!(0 a0 b0 1 a1 b1 2 a2 b2 3 a3 b3 4 a4 b4 5 a5 b5 6 a6 b6 7 a7 b7 8 a8 b8 9 a9 b9 10 a10 b10 11 a11 b11);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::DType;

    fn random(shape: &[usize], seed: u64) -> Tensor {
        check::random(shape, seed).to_dtype(DType::F32).unwrap()
    }

    #[test]
    fn the_kernel_equals_the_composed_path() -> Result<()> {
        let sizes = [(1, 1, 1), (2, 3, 5), (13, 8, 32), (25, 770, 33), (12, 1600, 31), (257, 40, 70), (300, 9, 64)];
        for (rows, depth, columns) in sizes {
            let (x, w) = (random(&[2, rows, depth], 1), random(&[columns, depth], 2));
            let (b, transposed) = (random(&[columns], 3), w.t()?.contiguous()?);
            for m in [w.t()?, transposed.clone()] {
                for bias in [None, Some(&b)] {
                    let want = wide::composed(|| matmul(&x, &m, bias))?;
                    check::close(&matmul(&x, &m, bias)?, &want, 1e-6 * (depth as f64).sqrt() * 4.0);
                    assert_eq!(
                        matmul(&x, &m, bias)?.flatten_all()?.to_vec1::<f32>()?,
                        matmul(&x, &w.t()?, bias)?.flatten_all()?.to_vec1::<f32>()?
                    );
                }
            }
            let (a, b) = (random(&[2, 3, rows, depth], 4), random(&[2, 3, depth, columns], 5));
            let (at, bt) = (a.t()?.contiguous()?.t()?, b.t()?.contiguous()?.t()?);
            let split = random(&[2, depth, 3, columns], 6).transpose(1, 2)?; // heads between the rows
            for (a, b) in [(&a, &b), (&at, &b), (&a, &bt), (&at, &bt), (&a, &split)] {
                let want = wide::composed(|| matmul_heads(a, b, 0.3))?;
                check::close(&matmul_heads(a, b, 0.3)?, &want, 1e-6 * (depth as f64).sqrt() * 4.0);
            }
        }
        Ok(())
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() -> Result<()> {
        let (x, w) = (random(&[300, 900], 1), random(&[70, 900], 2));
        let all = matmul(&x, &w.t()?, None)?.to_vec2::<f32>()?;
        for row in [0, 7, 11, 12, 255, 256, 299] {
            let own = matmul(&x.narrow(0, row, 1)?, &w.t()?, None)?.to_vec2::<f32>()?;
            assert_eq!(own[0], all[row], "row {row}");
        }
        Ok(())
    }
}
