//! A state split among heads and merged back, means over heads, and the sum of a skip connection.

use super::memory::{by_rows, Floats, Row};
use crate::error::Result;
use candle_core::Tensor;

/// `[B,T,D]` -> `[B,H,T,E]`, the same numbers where they are.
pub fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, t, d) = x.dims3()?;
    Ok(x.reshape((b, t, heads, d / heads))?.transpose(1, 2)?)
}

/// `[B,H,T,E]` -> `[B,T,D]`; the same numbers where heads lie between the tokens.
pub fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (b, h, t, e) = x.dims4()?;
    Ok(x.transpose(1, 2)?.reshape((b, t, h * e))?)
}

/// `a + b`, both of one shape.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if let (Some(first), Some(second)) = (Floats::of(a), Floats::of(b)) {
        if let (Some(x), Some(y), true) = (first.in_order(), second.in_order(), a.dims() == b.dims()) {
            let width = a.dims().last().copied().unwrap_or(1);
            return by_rows(a.shape(), width, &Sum { x, y });
        }
    }
    Ok((a + b)?)
}

/// The mean over the heads, `[H,T,T]` -> `[T,T]`.
pub fn mean_heads(x: &Tensor) -> Result<Tensor> {
    let (h, t, n) = x.dims3()?;
    if let Some(own) = Floats::of(x) {
        if let Some(x) = own.in_order() {
            return by_rows((t, n), n, &Mean { x, g: None, heads: h, clamp: false });
        }
    }
    Ok(x.mean(0)?)
}

/// The mean over the heads of products, `[H,T,T]` -> `[T,T]`; with `clamp` those below 0 count 0.
pub fn mean_products(x: &Tensor, g: &Tensor, clamp: bool) -> Result<Tensor> {
    let (h, t, n) = x.dims3()?;
    if let (Some(first), Some(second), true) = (Floats::of(x), Floats::of(g), x.dims() == g.dims()) {
        if let (Some(x), g @ Some(_)) = (first.in_order(), second.in_order()) {
            return by_rows((t, n), n, &Mean { x, g, heads: h, clamp });
        }
    }
    let product = (x * g)?;
    Ok(if clamp { product.relu()? } else { product }.mean(0)?)
}

struct Mean<'a> {
    x: &'a [f32],
    g: Option<&'a [f32]>,
    heads: usize,
    clamp: bool,
}

impl Row for Mean<'_> {
    #[inline(always)]
    fn write(&self, number: usize, out: &mut [f32]) {
        let step = self.x.len() / self.heads;
        for head in 0..self.heads {
            let from = head * step + number * out.len();
            let at = from..from + out.len();
            let x = &self.x[at.clone()];
            match self.g.map(|g| &g[at]) {
                None => out.iter_mut().zip(x).for_each(|(out, x)| *out += x),
                Some(g) if self.clamp => {
                    for ((out, x), g) in out.iter_mut().zip(x).zip(g) {
                        let product = x * g;
                        // Not `max`, which would hide NaN.
                        *out += if product < 0.0 { 0.0 } else { product };
                    }
                }
                Some(g) => out.iter_mut().zip(x).zip(g).for_each(|((out, x), g)| *out += x * g),
            }
        }
        let share = 1.0 / self.heads as f32;
        out.iter_mut().for_each(|out| *out *= share);
    }
}

struct Sum<'a> {
    x: &'a [f32],
    y: &'a [f32],
}

impl Row for Sum<'_> {
    #[inline(always)]
    fn write(&self, number: usize, out: &mut [f32]) {
        let at = number * out.len()..(number + 1) * out.len();
        for ((out, x), y) in out.iter_mut().zip(&self.x[at.clone()]).zip(&self.y[at]) {
            *out = x + y;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wide::composed;
    use super::*;
    use crate::nn::check;
    use candle_core::DType;

    #[test]
    fn means_over_heads_are_those_of_the_composed_path() -> Result<()> {
        for (h, t) in [(1, 1), (3, 5), (12, 40)] {
            let (x, g) = (check::random(&[h, t, t], 1), check::random(&[h, t, t], 2));
            let (x, g) = (x.to_dtype(DType::F32)?, g.to_dtype(DType::F32)?);
            check::close(&mean_heads(&x)?, &composed(|| mean_heads(&x))?, 1e-6);
            for clamp in [false, true] {
                let want = composed(|| mean_products(&x, &g, clamp))?;
                check::close(&mean_products(&x, &g, clamp)?, &want, 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn heads_are_parts_of_the_width_and_sums_those_of_the_composed_path() -> Result<()> {
        for (b, t, heads, e) in [(1, 1, 1, 1), (2, 5, 3, 4), (3, 197, 2, 64)] {
            let x = check::random(&[b, t, heads * e], 1).to_dtype(DType::F32)?;
            let split = split_heads(&x, heads)?;
            let one = split.narrow(0, b - 1, 1)?.narrow(1, heads - 1, 1)?.reshape((t, e))?;
            check::close(&one, &x.get(b - 1)?.narrow(1, (heads - 1) * e, e)?, 0.0);
            check::close(&merge_heads(&split)?, &x, 0.0);
            check::close(&merge_heads(&split.contiguous()?)?, &x, 0.0);
            check::close(&add(&x, &x)?, &(&x + &x)?, 0.0);
            check::close(
                &add(&x.narrow(1, 0, 1)?, &x.narrow(1, t - 1, 1)?)?,
                &composed(|| add(&x.narrow(1, 0, 1).unwrap(), &x.narrow(1, t - 1, 1).unwrap()))?,
                0.0,
            );
        }
        Ok(())
    }
}
