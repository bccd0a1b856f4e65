//! From pixels or token ids to the state entering the first layer.

use crate::encoder::Inputs;
use crate::error::{Error, Result};
use crate::explanation::{ImageLayout, Prefix};
use crate::nn::resample::{resize_positions, Bicubic};
use crate::nn::{LayerNorm, Linear};
use candle_core::{DType, Tensor, D};

/// Either kind of embedding.
#[derive(Debug, Clone)]
pub enum Embedding {
    /// Vision families.
    Patches(PatchEmbedding),
    /// Text families.
    Words(WordEmbedding),
}

/// Image patches, prefix tokens and position embeddings.
#[derive(Debug, Clone)]
pub struct PatchEmbedding {
    /// `[D, 3*P*P]`: the patch convolution as a linear map of a patch's pixels (channel, row, column).
    pub projection: Linear,
    /// Patch height and width in pixels.
    pub patch: (usize, usize),
    /// Prefix tokens `[D]` that get a position embedding (class, distillation), in order.
    pub positioned: Vec<(Prefix, Tensor)>,
    /// `[R,D]` register tokens, inserted behind those, without position.
    pub registers: Option<Tensor>,
    /// `[prefix + rows*columns, D]`
    pub positions: Tensor,
    /// Rows and columns of the position embeddings as trained.
    pub grid: (usize, usize),
    /// How they are resampled to another grid.
    pub kernel: Bicubic,
}

/// Word pieces, positions and token types.
#[derive(Debug, Clone)]
pub struct WordEmbedding {
    /// `[vocabulary, D]`
    pub words: Tensor,
    /// `[positions, D]`
    pub positions: Tensor,
    /// `[types, D]`
    pub types: Option<Tensor>,
    /// Layer norm after the sum.
    pub norm: LayerNorm,
    /// RoBERTa's padding id: positions count real tokens from this id + 1. None: positions count from 0.
    pub padding_id: Option<u32>,
}

impl Embedding {
    /// `[B,T,D]`
    pub fn forward(&self, inputs: &Inputs) -> Result<Tensor> {
        match (self, inputs) {
            (Embedding::Patches(e), Inputs::Pixels(pixels)) => e.forward(pixels),
            (Embedding::Words(e), Inputs::Tokens { ids, types, .. }) => e.forward(ids, types),
            (Embedding::Patches(_), _) => Err(Error::Usage("this model reads images, not texts".into())),
            (Embedding::Words(_), _) => Err(Error::Usage("this model reads texts, not images".into())),
        }
    }
}

impl PatchEmbedding {
    /// The tokens of an image of `height` x `width` pixels. Pixels behind the last whole patch are not read.
    pub fn layout(&self, height: usize, width: usize) -> ImageLayout {
        let mut prefix: Vec<Prefix> = self.positioned.iter().map(|(p, _)| *p).collect();
        let registers = self.registers.as_ref().map_or(0, |r| r.dims()[0]);
        prefix.extend(std::iter::repeat_n(Prefix::Register, registers));
        ImageLayout { prefix, grid: (height / self.patch.0, width / self.patch.1), patch: self.patch }
    }

    /// `[B,3,H,W]` -> `[B,T,D]`
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (b, _, height, width) = pixels.dims4()?;
        let (rows, columns) = self.layout(height, width).grid;
        if rows == 0 || columns == 0 {
            return Err(Error::Input(format!(
                "an input of {height}x{width} pixels holds no whole patch of {}x{}; use a larger --size",
                self.patch.0, self.patch.1
            )));
        }
        let pixels = pixels.to_dtype(self.positions.dtype())?;
        let patches = self.projection.forward(&unfold(&pixels, self.patch, (rows, columns))?)?; // [B,N,D]
        let prefix = self.positioned.len();
        let positions = resize_positions(&self.positions, prefix, self.grid, (rows, columns), self.kernel)?;
        let d = positions.dim(1)?;
        let repeat = |token: &Tensor, n: usize| token.reshape((1, n, d))?.broadcast_as((b, n, d))?.contiguous();
        let mut parts = Vec::new();
        for (_, token) in &self.positioned {
            parts.push(repeat(token, 1)?);
        }
        parts.push(patches);
        let mut states = Tensor::cat(&parts, 1)?.broadcast_add(&positions)?; // [B,prefix+N,D]
        if let Some(registers) = &self.registers {
            let (head, tail) = (states.narrow(1, 0, prefix)?, states.narrow(1, prefix, rows * columns)?);
            states = Tensor::cat(&[head, repeat(registers, registers.dim(0)?)?, tail], 1)?;
        }
        Ok(states)
    }
}

/// Patches as rows: `[B,C,H,W]` -> `[B, rows*columns, C*P*P]`
fn unfold(pixels: &Tensor, (ph, pw): (usize, usize), (rows, columns): (usize, usize)) -> Result<Tensor> {
    let (b, c, _, _) = pixels.dims4()?;
    let whole = pixels.narrow(2, 0, rows * ph)?.narrow(3, 0, columns * pw)?.contiguous()?;
    let split = whole.reshape(&[b, c, rows, ph, columns, pw])?;
    Ok(split.permute(vec![0, 2, 4, 1, 3, 5])?.contiguous()?.reshape((b, rows * columns, c * ph * pw))?)
}

impl WordEmbedding {
    /// `[B,T]` -> `[B,T,D]`
    fn forward(&self, ids: &Tensor, types: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let d = self.words.dim(D::Minus1)?;
        let look_up = |table: &Tensor, at: &Tensor| table.index_select(&at.flatten_all()?, 0)?.reshape((b, t, d));
        let mut states = (look_up(&self.words, ids)? + look_up(&self.positions, &self.position_ids(ids)?)?)?;
        if let Some(table) = &self.types {
            states = (states + look_up(table, types)?)?;
        }
        self.norm.forward(&states)
    }

    fn position_ids(&self, ids: &Tensor) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let Some(padding) = self.padding_id else {
            return Ok(Tensor::arange(0u32, t as u32, ids.device())?.broadcast_as((b, t))?.contiguous()?);
        };
        let mut positions = Vec::with_capacity(b * t);
        for row in ids.to_vec2::<u32>()? {
            let mut seen = 0;
            positions.extend(row.iter().map(|&id| {
                seen += u32::from(id != padding);
                if id == padding {
                    padding
                } else {
                    padding + seen
                }
            }));
        }
        Ok(Tensor::from_vec(positions, (b, t), ids.device())?.to_dtype(DType::U32)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn patches_are_read_in_row_major_order() -> Result<()> {
        let pixels = Tensor::arange(0f32, 2.0 * 4.0 * 5.0, &Device::Cpu)?.reshape((1, 2, 4, 5))?;
        let patches = unfold(&pixels, (2, 2), (2, 2))?; // the fifth column is no whole patch
        assert_eq!(patches.dims(), [1, 4, 8]);
        let second: Vec<f32> = patches.get(0)?.get(1)?.to_vec1()?;
        assert_eq!(second, [2.0, 3.0, 7.0, 8.0, 22.0, 23.0, 27.0, 28.0]);
        Ok(())
    }
}
