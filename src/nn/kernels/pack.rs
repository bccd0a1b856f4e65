//! A factor of a matrix product where it lies, and its columns packed one panel at a time.

use std::ops::Range;

/// A matrix in memory: entry (i, j) is number `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub numbers: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl Matrix<'_> {
    /// Whether the entries of a matrix of this size lie in the numbers.
    pub fn holds(&self, rows: usize, columns: usize) -> bool {
        rows > 0 && columns > 0 && (rows - 1) * self.row + (columns - 1) * self.column < self.numbers.len()
    }
}

/// The cache lines of the panel that is packed next: they are asked for while this one is multiplied, or packing, which reads
/// weights from the main memory, would wait for each.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    numbers: &'a [f32],
    /// Numbers from the first of a run to that of the next.
    step: usize,
    /// Cache lines a run.
    lines: usize,
    runs: usize,
}

/// Numbers in a cache line.
const LINE: usize = 16;

impl<'a> Ahead<'a> {
    /// The lines of entries (depth, columns) of a matrix.
    pub fn of(m: Matrix<'a>, depth: &Range<usize>, columns: &Range<usize>) -> Self {
        let numbers = m.numbers.get(depth.start * m.row + columns.start * m.column..).unwrap_or_default();
        let (step, runs, run) = match m.column {
            1 => (m.row, depth.len(), columns.len()),
            _ => (m.column, columns.len(), depth.len()),
        };
        Ahead { numbers, step, lines: run.div_ceil(LINE), runs }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lines * self.runs
    }

    /// Asks for one, where there is such a line.
    #[inline(always)]
    pub fn ask(&self, line: usize) {
        #[cfg(target_arch = "x86_64")]
        if line < self.count() {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T1};
            let (run, line) = (line / self.lines, line % self.lines);
            // Lines begin somewhere within a run: the last number of each piece is in the line that is not here yet.
            let at = self.numbers.as_ptr().wrapping_add(run * self.step + line * LINE + LINE - 1);
            // SAFETY: a hint about an address, which is not read.
            #[allow(unsafe_code)]
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(at.cast())
            };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}

/// Packs entries (depth, columns) of a matrix: `width` numbers a row, 0 beyond the last column.
#[inline(always)]
pub(super) fn pack(packed: &mut [f32], width: usize, m: Matrix, depth: Range<usize>, columns: Range<usize>) {
    if columns.len() < width {
        packed[..depth.len() * width].fill(0.0);
    }
    if m.column == 1 {
        for (k, to) in depth.zip(packed.chunks_exact_mut(width)) {
            let at = k * m.row + columns.start;
            let from = &m.numbers[at..at + columns.len()];
            let (eights, rest) = from.as_chunks::<8>();
            let (to, last) = to[..from.len()].as_chunks_mut::<8>(); // of a known size: moves, and no call of `memmove`
            to.iter_mut().zip(eights).for_each(|(to, from)| *to = *from);
            last.copy_from_slice(rest);
        }
        return;
    }
    let (mut wide, mut deep) = (0, 0);
    #[cfg(target_arch = "x86_64")]
    if m.row == 1 {
        (wide, deep) = (columns.len() / 8 * 8, depth.len() / 8 * 8);
        for j in (0..wide).step_by(8) {
            for k in (0..deep).step_by(8) {
                let from = &m.numbers[(columns.start + j) * m.column + depth.start + k..];
                assert!(from.len() >= 7 * m.column + 8 && packed.len() >= (k + 7) * width + j + 8);
                // SAFETY: eight rows of eight numbers on both sides, as asserted; kernels run with AVX2 at least.
                #[allow(unsafe_code)]
                unsafe {
                    turn(from.as_ptr(), m.column, packed.as_mut_ptr().add(k * width + j), width)
                };
            }
        }
    }
    for (j, column) in columns.enumerate() {
        let from = if j < wide { deep } else { 0 };
        for k in from..depth.len() {
            packed[k * width + j] = m.numbers[(depth.start + k) * m.row + column * m.column];
        }
    }
}

/// Transposes 8 x 8 numbers; rows are `step` and `width` numbers apart.
///
/// # Safety
/// Eight rows of eight numbers must lie at both places, and the processor must have AVX.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx")]
unsafe fn turn(from: *const f32, step: usize, to: *mut f32, width: usize) {
    use std::arch::x86_64::*;
    let mut rows = [_mm256_setzero_ps(); 8];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *row = unsafe { _mm256_loadu_ps(from.add(i * step)) };
    }
    let mut pairs = rows;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = pairs;
    for i in [0, 4] {
        fours[i] = _mm256_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_shuffle_ps::<0xEE>(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_shuffle_ps::<0xEE>(pairs[i + 1], pairs[i + 3]);
    }
    for i in 0..4 {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(to.add(i * width), _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]));
            _mm256_storeu_ps(to.add((i + 4) * width), _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]));
        }
    }
}
