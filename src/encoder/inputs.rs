//! A batch as the encoder reads it.

use crate::error::Result;
use candle_core::Tensor;
use std::ops::Range;

/// A batch as the encoder reads it.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// `[B,C,H,W]` normalised pixel values.
    Pixels(Tensor),
    /// Token ids, padded on the right.
    Tokens {
        /// `[B,T]` u32
        ids: Tensor,
        /// `[B,T]` u32 token types (ignored by models without them).
        types: Tensor,
        /// `[B,T]` u8: 1 for real tokens, 0 for padding.
        mask: Tensor,
    },
    /// Texts behind the word table, where they can be varied continuously; see [`crate::encoder::Encoder::continuous`].
    Words {
        /// `[B,T,D]` rows of the word table (`inputs_embeds` in transformers).
        rows: Tensor,
        /// `[B,T]` u32 position numbers.
        positions: Tensor,
        /// `[B,T]` u32 token types.
        types: Tensor,
        /// `[B,T]` u8: 1 for real tokens, 0 for padding.
        mask: Tensor,
    },
}

impl Inputs {
    /// Number of examples.
    pub fn batch(&self) -> Result<usize> {
        Ok(match self {
            Inputs::Pixels(pixels) => pixels.dim(0)?,
            Inputs::Tokens { ids, .. } => ids.dim(0)?,
            Inputs::Words { rows, .. } => rows.dim(0)?,
        })
    }

    /// One example alone; of a text its first `tokens` tokens, padding cut off.
    pub fn example(&self, row: usize, tokens: usize) -> Result<Inputs> {
        let one = self.rows(row..row + 1)?;
        match one {
            Inputs::Pixels(_) => Ok(one),
            _ => one.map(|t| Ok(t.narrow(1, 0, tokens)?.contiguous()?)),
        }
    }

    /// Some examples of the batch.
    pub fn rows(&self, rows: Range<usize>) -> Result<Inputs> {
        self.map(|t| Ok(t.narrow(0, rows.start, rows.len())?.contiguous()?))
    }

    /// The mask `[B,T]` of a batch of texts: 1 for real tokens, 0 for padding.
    pub(super) fn mask(&self) -> Option<&Tensor> {
        match self {
            Inputs::Pixels(_) => None,
            Inputs::Tokens { mask, .. } | Inputs::Words { mask, .. } => Some(mask),
        }
    }

    fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Inputs> {
        Ok(match self {
            Inputs::Pixels(pixels) => Inputs::Pixels(change(pixels)?),
            Inputs::Tokens { ids, types, mask } => {
                Inputs::Tokens { ids: change(ids)?, types: change(types)?, mask: change(mask)? }
            }
            Inputs::Words { rows, positions, types, mask } => Inputs::Words {
                rows: change(rows)?,
                positions: change(positions)?,
                types: change(types)?,
                mask: change(mask)?,
            },
        })
    }
}
