//! Numbers from a table that are added to scores (MPNet, BEiT).

use crate::error::{Error, Result};
use crate::nn::around::Places;
use crate::nn::resample::{along, bilinear};
use candle_core::Tensor;

/// Learned numbers for differences of places, by head.
#[derive(Debug, Clone)]
pub struct Relative {
    /// `[N,H]`
    pub table: Tensor,
    /// Which of them belongs to which difference.
    pub offsets: Offsets,
}

/// How a table of relative positions counts differences of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offsets {
    /// Buckets along a line, one half of them for keys behind the query (T5, MPNet).
    Buckets {
        /// How many.
        count: usize,
        /// Tokens from which on all keys are in the last of their half.
        most: usize,
    },
    /// The `(2R-1)(2C-1)` differences of patches on a grid of R rows and C columns, then one number each for what the class token
    /// asks of patches, what they ask of it, and what it asks of itself (BEiT).
    Grid {
        /// R
        rows: usize,
        /// C
        columns: usize,
    },
    /// The `(2S-1)^2` differences of tokens within a window of S x S (Swin).
    Window {
        /// S
        side: usize,
    },
}

impl Relative {
    /// The numbers of each pair of query and key, `[1,H,T,T]`.
    pub(super) fn numbers(&self, tokens: usize, places: Places) -> Result<Tensor> {
        let (_, heads) = self.table.dims2()?;
        let mut table = self.table.clone();
        let rows: Vec<u32> = match (self.offsets, places) {
            (Offsets::Buckets { count, most }, _) => {
                (0..tokens * tokens).map(|i| bucket(i / tokens, i % tokens, (count, most))).collect()
            }
            (Offsets::Grid { rows: r, columns: c }, Places::Grid { prefix: 1, rows, columns }) => {
                if (r, c) != (rows, columns) {
                    table = resampled(&table, (r, c), (rows, columns))?;
                }
                (0..tokens * tokens).map(|i| difference(i / tokens, i % tokens, (rows, columns))).collect()
            }
            (Offsets::Window { side }, _) => {
                if side * side != tokens {
                    return Err(Error::Model(format!(
                        "relative positions of windows of {side}x{side} for {tokens} tokens"
                    )));
                }
                (0..tokens * tokens).map(|i| between((i / tokens, i % tokens), (side, side)) as u32).collect()
            }
            (Offsets::Grid { .. }, _) => {
                return Err(Error::Model("relative positions of a grid need a class token in front of one".into()))
            }
        };
        let rows = Tensor::from_vec(rows, tokens * tokens, table.device())?;
        let numbers = table.index_select(&rows, 0)?.t()?; // [H,T*T]
        Ok(numbers.contiguous()?.reshape((1, heads, tokens, tokens))?)
    }
}

/// A table of the differences on one grid for another: resampled bilinearly as a picture of differences, what concerns the class
/// token as it is (transformers, after MiDaS 3.1).
fn resampled(table: &Tensor, (r, c): (usize, usize), (rows, columns): (usize, usize)) -> Result<Tensor> {
    let (n, heads) = table.dims2()?;
    let (tall, wide) = (2 * r - 1, 2 * c - 1);
    let differences = table.narrow(0, 0, tall * wide)?.reshape((tall, wide, heads))?;
    let (to_tall, to_wide) = (2 * rows - 1, 2 * columns - 1);
    let differences = along(&differences, 0, bilinear(tall, to_tall))?;
    let differences = along(&differences, 1, bilinear(wide, to_wide))?.reshape((to_tall * to_wide, heads))?;
    Ok(Tensor::cat(&[differences, table.narrow(0, tall * wide, n - tall * wide)?], 0)?)
}

/// The bucket of a key seen from a query: half of them are for keys behind it, each half exact for near keys and
/// logarithmic up to `most`.
fn bucket(query: usize, key: usize, (count, most): (usize, usize)) -> u32 {
    let half = count / 2;
    let (exact, distance) = (half / 2, query.abs_diff(key));
    let far = || {
        let share = ((distance as f32 / exact as f32).ln() / (most as f32 / exact as f32).ln()) * (half - exact) as f32;
        (exact + share as usize).min(half - 1)
    };
    let own = if distance < exact { distance } else { far() };
    (own + if key > query { half } else { 0 }) as u32
}

/// The entry of a grid's table for a key seen from a query; token 0 is the class token.
fn difference(query: usize, key: usize, (rows, columns): (usize, usize)) -> u32 {
    let all = (2 * rows - 1) * (2 * columns - 1);
    let place = match (query.checked_sub(1), key.checked_sub(1)) {
        (None, None) => all + 2,
        (Some(_), None) => all + 1,
        (None, Some(_)) => all,
        (Some(query), Some(key)) => between((query, key), (rows, columns)),
    };
    place as u32
}

/// The entry for a key seen from a query, both places of a grid.
fn between((query, key): (usize, usize), (rows, columns): (usize, usize)) -> usize {
    let down = query / columns + rows - 1 - key / columns;
    down * (2 * columns - 1) + query % columns + columns - 1 - key % columns
}
