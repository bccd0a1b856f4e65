//! The inner loop of a product: some columns of some rows, which is what one task computes.
//!
//! The right factor is packed on the way, a panel of two registers' width and [`DEPTH`] rows at a time, which then stays in the
//! cache while all rows of the left one pass by; where it is a transposed weight, 8 x 8 numbers are turned in registers. So
//! weights are used as PyTorch stores them in both directions, without a second copy. Each result is one chain of fused
//! multiply-adds over [`DEPTH`] terms after the other: no matter how many rows, examples or threads there are.

use super::curve::Curve;
use super::pack::{pack, Ahead, Matrix};
use super::wide;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Terms of a sum that are added in one go; decides where sums are cut, and so their last bits.
const DEPTH: usize = 768;
/// Terms for each of which a cache line of what is packed next is asked for.
const EACH: usize = 8;
/// Rows that are computed at once where there are 32 registers: 24 of them hold results.
const TALL: usize = 12;
/// The same for 16 registers.
const LOW: usize = 6;

/// `[rows, depth]` times `[depth, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
}

/// Where results are written. Tasks write to places of their own.
#[derive(Clone, Copy)]
pub(super) struct Out(*mut f32);

impl Out {
    /// The first of these.
    pub fn of(numbers: &mut [MaybeUninit<f32>]) -> Self {
        Out(numbers.as_mut_ptr().cast())
    }

    /// The results that lie so many numbers further.
    pub fn behind(self, numbers: usize) -> Self {
        Out(self.0.wrapping_add(numbers))
    }
}

// SAFETY: each task writes other entries (see `product::run`), and nobody reads before all are done.
#[allow(unsafe_code)]
unsafe impl Send for Out {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Out {}

/// Some columns of some rows of one product.
pub(super) struct Task<'a> {
    pub left: Matrix<'a>,
    pub right: Matrix<'a>,
    pub size: Size,
    pub rows: Range<usize>,
    pub panel: usize,
    pub bias: Option<&'a [f32]>,
    pub factor: f32,
    pub out: Out,
    /// Numbers from a row of results to the next.
    pub step: usize,
}

/// Columns of a panel.
pub(super) fn width() -> usize {
    wide::dispatch(Width)
}

struct Width;

impl WithSimd for Width {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

/// Results of a task, which are in the cache yet, once more behind an activation.
pub(super) struct Activated {
    pub curve: Curve,
    pub from: Out,
    pub to: Out,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub step: usize,
}

impl WithSimd for Activated {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows {
            let (at, width) = (row * self.step + self.columns.start, self.columns.len());
            // SAFETY: both places are this task's own (see `product::run`), and it has written the results.
            #[allow(unsafe_code)]
            let (from, to) = unsafe {
                let from = std::slice::from_raw_parts(self.from.behind(at).0, width);
                (from, std::slice::from_raw_parts_mut(self.to.behind(at).0, width))
            };
            self.curve.write(from, to);
        }
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
                task.out.0.wrapping_add((self.row + $r) * task.step + self.columns.start)
            };
        }
        if begins {
            if let Some(bias) = task.bias {
                edge[..width].copy_from_slice(&bias[self.columns.clone()]);
            }
        }
        let (row, column) = (task.left.row, task.left.column);
        // SAFETY: entry (row, depth) of a matrix that holds them all, as `product::run` asserts.
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
