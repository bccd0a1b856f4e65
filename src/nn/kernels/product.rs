//! The matrix product, which is most of a pass: `x M + b` over the last dimension, and one product a head.
//!
//! candle's own product (the gemm crate) reads transposed weights at half of its speed, and sums in an order that depends on
//! how many rows there are; rten-gemm is as fast only with weights that it packs beforehand, a copy for each direction.

use super::curve::Curve;
use super::memory::{made, Floats};
use super::pack::Matrix;
use super::tile::{self, Activated, Out, Size, Task};
use super::wide;
use crate::error::Result;
use crate::nn::Activation;
use candle_core::{Tensor, D};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Multiplications that take no longer than it takes to wake another thread.
const ALONE: usize = 1 << 18;
/// Rows that pass by a packed panel before the next one is packed.
const ROWS: usize = 256;

/// `x M + b` over the last dimension of `x`, for x of rank 2 or 3, M `[in,out]` of any strides, b `[out]`.
pub fn matmul(x: &Tensor, m: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = x.contiguous()?;
    match product(&x, m, bias, None)? {
        Some((y, _)) => Ok(y),
        None => {
            let y = composed(&x, m)?;
            Ok(bias.map(|bias| y.broadcast_add(bias)).transpose()?.unwrap_or(y))
        }
    }
}

/// The same and its activation: `y = x M + b` and `f(y)`.
pub fn matmul_activated(x: &Tensor, m: &Tensor, bias: Option<&Tensor>, f: Activation) -> Result<(Tensor, Tensor)> {
    if let Some(curve) = Curve::of(f) {
        if let Some((y, Some(activated))) = product(&x.contiguous()?, m, bias, Some(curve))? {
            return Ok((y, activated));
        }
    }
    let y = matmul(x, m, bias)?;
    let activated = f.forward(&y)?;
    Ok((y, activated))
}

fn product(x: &Tensor, m: &Tensor, bias: Option<&Tensor>, curve: Option<Curve>) -> Result<Option<Products>> {
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
    let after = After { bias: bias_, factor: 1.0, curve };
    run(&[(left, right)], size, after, (1, Order::Heads), &shape).map(Some)
}

/// Where the results of several heads lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Head by head.
    Heads,
    /// Row by row, those of a row head by head: merged heads are the same numbers.
    Rows,
}

/// `factor * A B` for every head: `[B,H,M,K]` x `[B,H,K,N]` -> `[B,H,M,N]`, of any strides.
pub fn matmul_heads(a: &Tensor, b: &Tensor, factor: f64, order: Order) -> Result<Tensor> {
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
            let after = After { bias: None, factor: factor as f32, curve: None };
            let shape = match order {
                Order::Heads => [batch, heads, rows, columns],
                Order::Rows => [batch, rows, heads, columns],
            };
            let (product, _) = run(&pairs, size, after, (heads, order), &shape)?;
            return Ok(if order == Order::Rows { product.transpose(1, 2)? } else { product });
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

/// What is done with a product.
#[derive(Clone, Copy)]
struct After<'a> {
    /// Added.
    bias: Option<&'a [f32]>,
    /// Multiplied by.
    factor: f32,
    /// The activation behind which results are written once more.
    curve: Option<Curve>,
}

/// Results, and the same behind the activation where one was asked for.
type Products = (Tensor, Option<Tensor>);

/// The product of each pair, all of one size, so many of which are the heads of an example; in a tensor of this shape.
fn run(
    pairs: &[(Matrix, Matrix)],
    size: Size,
    after: After,
    (heads, order): (usize, Order),
    shape: &[usize],
) -> Result<Products> {
    let Size { rows, depth, columns } = size;
    assert!(pairs.iter().all(|(l, r)| l.holds(rows, depth) && r.holds(depth, columns)));
    assert!(after.bias.is_none_or(|b| b.len() == columns) && depth > 0 && pairs.len().is_multiple_of(heads));
    let width = tile::width();
    let (panels, blocks) = (columns.div_ceil(width), rows.div_ceil(ROWS));
    let step = if order == Order::Rows { heads * columns } else { columns };
    let all = |first: Out, activated: Option<(Curve, Out)>| {
        let task = |task: usize| {
            let (number, block, panel) = (task / (blocks * panels), task / panels % blocks, task % panels);
            let (left, right) = pairs[number];
            let own = match order {
                Order::Heads => number * rows * columns,
                Order::Rows => number / heads * heads * rows * columns + number % heads * columns,
            };
            let (rows, out) = (block * ROWS..((block + 1) * ROWS).min(rows), first.behind(own));
            let After { bias, factor, .. } = after;
            wide::dispatch(Task { left, right, size, rows: rows.clone(), panel, bias, factor, out, step });
            if let Some((curve, to)) = activated {
                let columns = panel * width..((panel + 1) * width).min(columns);
                wide::dispatch(Activated { curve, from: out, to: to.behind(own), rows, columns, step });
            }
        };
        let tasks = 0..pairs.len() * blocks * panels;
        match pairs.len() * rows * depth * columns < ALONE {
            true => tasks.for_each(task),
            false => tasks.into_par_iter().for_each(task),
        }
    };
    let mut activated = None;
    let write = |out: &mut [MaybeUninit<f32>]| {
        assert_eq!(out.len(), pairs.len() * rows * columns);
        let first = Out::of(out);
        match after.curve {
            None => all(first, None),
            // SAFETY: as below.
            #[allow(unsafe_code)]
            Some(curve) => activated = Some(unsafe { made(shape, |to| all(first, Some((curve, Out::of(to))))) }),
        }
    };
    // SAFETY: every pair's every row and column is of one block and one panel, and a task writes all entries of both.
    #[allow(unsafe_code)]
    let product = unsafe { made(shape, write) }?;
    Ok((product, activated.transpose()?))
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
                for f in [Activation::Gelu, Activation::Relu] {
                    let (before, after) = matmul_activated(&x, &m, Some(&b), f)?;
                    check::close(&before, &matmul(&x, &m, Some(&b))?, 0.0);
                    check::close(&after, &f.forward(&before)?, 0.0);
                }
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
                let want = wide::composed(|| matmul_heads(a, b, 0.3, Order::Heads))?;
                for order in [Order::Heads, Order::Rows] {
                    check::close(&matmul_heads(a, b, 0.3, order)?, &want, 1e-6 * (depth as f64).sqrt() * 4.0);
                }
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
