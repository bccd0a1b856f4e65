//! From pixels or token ids to the state entering the first layer.

use crate::encoder::Inputs;
use crate::error::{Error, Result};
use crate::explanation::{ImageLayout, Prefix};
use crate::nn::resample::{resize_positions, Bicubic};
use crate::nn::rules::Carried;
use crate::nn::{once, residual, Linear, Norm, Places, Rules};
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
    /// `[D, C*P*P]`: the patch convolution as a linear map of a patch's pixels (channel, row, column).
    pub projection: Linear,
    /// Patch height and width in pixels.
    pub patch: (usize, usize),
    /// How often the layers make one token of a square of four.
    pub merges: usize,
    /// Prefix tokens `[D]` that get a position embedding (class, distillation), in order.
    pub positioned: Vec<(Prefix, Tensor)>,
    /// `[R,D]` register tokens, inserted behind those, without position.
    pub registers: Option<Tensor>,
    /// What is added by position; none where attention scores know the places (DINOv3).
    pub positions: Option<PatchPositions>,
    /// Norm after the sum (CLIP).
    pub norm: Option<Norm>,
}

/// A table of position embeddings over a grid of patches.
#[derive(Debug, Clone)]
pub struct PatchPositions {
    /// `[prefix + rows*columns, D]`
    pub table: Tensor,
    /// Rows and columns as trained.
    pub grid: (usize, usize),
    /// How it is resampled to another grid.
    pub kernel: Bicubic,
}

/// Word pieces, positions and token types.
#[derive(Debug, Clone)]
pub struct WordEmbedding {
    /// `[vocabulary, D]`
    pub words: Tensor,
    /// `[positions, D]`; none where attention scores know the places (ModernBERT).
    pub positions: Option<Tensor>,
    /// `[types, D]`
    pub types: Option<Tensor>,
    /// Norm after the sum.
    pub norm: Option<Norm>,
    /// From the tables' width to D behind the norm, where they are narrower (ALBERT, ELECTRA).
    pub widened: Option<Linear>,
    /// RoBERTa's padding id: positions count real tokens from this id + 1. None: positions count from 0.
    pub padding_id: Option<u32>,
}

impl Embedding {
    /// `[B,T,D]`
    pub fn forward(&self, inputs: &Inputs) -> Result<Tensor> {
        match (self, inputs) {
            (Embedding::Patches(e), Inputs::Pixels(pixels)) => e.forward(pixels),
            (Embedding::Words(e), Inputs::Tokens { ids, types, .. }) => {
                e.forward(&e.rows(ids)?, &e.position_ids(ids)?, types)
            }
            (Embedding::Words(e), Inputs::Words { rows, positions, types, .. }) => e.forward(rows, positions, types),
            (Embedding::Patches(_), _) => Err(reads_images()),
            (Embedding::Words(_), _) => Err(reads_texts()),
        }
    }
}

impl Embedding {
    /// Where the tokens of a batch are, and how many.
    pub(super) fn places(&self, inputs: &Inputs) -> Result<(Places, usize)> {
        match (self, inputs) {
            (Embedding::Patches(patches), Inputs::Pixels(pixels)) => {
                let (_, _, height, width) = pixels.dims4()?;
                let (prefix, (rows, columns)) = (patches.prefix().len(), patches.grid(height, width));
                Ok((Places::Grid { prefix, rows, columns }, prefix + rows * columns))
            }
            (Embedding::Words(_), Inputs::Tokens { mask, .. } | Inputs::Words { mask, .. }) => {
                Ok((Places::Line, mask.dim(1)?))
            }
            (Embedding::Patches(_), _) => Err(reads_images()),
            (Embedding::Words(_), _) => Err(reads_texts()),
        }
    }

    /// A tensor of the embedding: where the weights are, and in which dtype.
    pub(super) fn example(&self) -> &Tensor {
        match self {
            Embedding::Patches(patches) => &patches.projection.weight,
            Embedding::Words(words) => &words.words,
        }
    }
}

pub(super) fn reads_images() -> Error {
    Error::Usage("this model reads images, not texts".into())
}

pub(super) fn reads_texts() -> Error {
    Error::Usage("this model reads texts, not images".into())
}

impl PatchEmbedding {
    /// The tokens of an image of `height` x `width` pixels in the last layer, a patch being what one of them stands for. Pixels behind
    /// the last whole one are not read.
    pub fn layout(&self, height: usize, width: usize) -> ImageLayout {
        self.layout_after(self.merges, (height, width))
    }

    /// The same after so many mergings of tokens.
    pub fn layout_after(&self, merges: usize, (height, width): (usize, usize)) -> ImageLayout {
        let finer = self.merges.saturating_sub(merges);
        let along = |length: usize, patch: usize| (length / (patch << self.merges)) << finer;
        ImageLayout {
            prefix: self.prefix(),
            grid: (along(height, self.patch.0), along(width, self.patch.1)),
            patch: (self.patch.0 << merges, self.patch.1 << merges),
        }
    }

    fn prefix(&self) -> Vec<Prefix> {
        let registers = self.registers.as_ref().map_or(0, |r| r.dims()[0]);
        let positioned = self.positioned.iter().map(|(prefix, _)| *prefix);
        positioned.chain(std::iter::repeat_n(Prefix::Register, registers)).collect()
    }

    /// Rows and columns of the tokens in the first layer.
    fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        self.layout_after(0, (height, width)).grid
    }

    /// `[B,C,H,W]` -> `[B,T,D]`
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (b, c, height, width) = pixels.dims4()?;
        let channels = self.projection.weight.dim(1)? / (self.patch.0 * self.patch.1);
        if c != channels {
            return Err(Error::Input(format!("has {c} channels, but the model reads {channels} (num_channels)")));
        }
        let (rows, columns) = self.grid(height, width);
        if rows == 0 || columns == 0 {
            let (down, across) = self.layout(height, width).patch;
            return Err(Error::Input(format!(
                "an input of {height}x{width} pixels holds no whole patch of {down}x{across}; use a larger --size"
            )));
        }
        let pixels = pixels.to_dtype(self.projection.weight.dtype())?;
        let patches = unfold(&pixels, self.patch, (rows, columns))?; // [B,N,CPP]
        let patches = once(&patches, |own| self.projection.forward(own))?; // [B,N,D]
        let content = self.content(&patches)?; // [B,prefix+N,D]
        let states = self.placed(content, (rows, columns))?;
        let states = match &self.norm {
            Some(norm) => norm.forward(&states)?,
            None => states,
        };
        let Some(registers) = &self.registers else { return Ok(states) };
        let prefix = self.positioned.len();
        let (head, tail) = (states.narrow(1, 0, prefix)?, states.narrow(1, prefix, rows * columns)?);
        let (n, d) = registers.dims2()?;
        let registers = registers.reshape((1, n, d))?.broadcast_as((b, n, d))?.contiguous()?;
        Ok(Tensor::cat(&[head, registers, tail], 1)?)
    }

    /// Positioned prefix tokens before the projected patches `[B,N,D]`, positions not yet added.
    fn content(&self, patches: &Tensor) -> Result<Tensor> {
        let (b, _, d) = patches.dims3()?;
        let mut parts = Vec::new();
        for (_, token) in &self.positioned {
            parts.push(token.reshape((1, 1, d))?.broadcast_as((b, 1, d))?.contiguous()?);
        }
        parts.push(patches.clone());
        Ok(Tensor::cat(&parts, 1)?)
    }

    fn placed(&self, content: Tensor, grid: (usize, usize)) -> Result<Tensor> {
        match self.positions_for(grid)? {
            Some(positions) => Ok(content.broadcast_add(&positions)?),
            None => Ok(content),
        }
    }

    fn positions_for(&self, to: (usize, usize)) -> Result<Option<Tensor>> {
        let Some(PatchPositions { table, grid, kernel }) = &self.positions else { return Ok(None) };
        resize_positions(table, self.positioned.len(), *grid, to, *kernel).map(Some)
    }

    /// From what arrives at the first layer's input `[B,T,D]` to what reaches the pixels `[B,C,H,W]`; 0 outside of whole
    /// patches. Relevance is divided between content and positions before, and goes through the convolution by the z^B
    /// rule with the image's own extremes as bounds (Chefer et al. 2021; registers and prefix tokens keep theirs).
    pub(super) fn backward(&self, pixels: &Tensor, arriving: &Tensor, rules: &Rules) -> Result<Tensor> {
        let (b, c, height, width) = pixels.dims4()?;
        let (grid, prefix) = (self.grid(height, width), self.prefix().len());
        let n = grid.0 * grid.1;
        let pixels = pixels.to_dtype(self.projection.weight.dtype())?;
        let patches = unfold(&pixels, self.patch, grid)?; // [B,N,CPP]
        let positioned = self.positioned.len();
        let normed = |arriving: &Tensor| -> Result<Tensor> {
            let own = arriving.narrow(1, prefix, n)?;
            let whole = Tensor::cat(&[&arriving.narrow(1, 0, positioned)?, &own], 1)?;
            match &self.norm {
                Some(norm) => {
                    let content = self.content(&self.projection.forward(&patches)?)?;
                    norm.reverse(&self.placed(content, grid)?, &whole, rules.norm)
                }
                None => Ok(whole),
            }
        };
        let arriving = normed(arriving)?; // at the sum of content and positions, [B,positioned+N,D]
        let own = arriving.narrow(1, positioned, n)?.contiguous()?;
        let by_patches = if rules.carried == Carried::Relevance {
            let by_content = match self.positions_for(grid)? {
                Some(positions) => {
                    let content = self.content(&self.projection.forward(&patches)?)?;
                    let positions = positions.unsqueeze(0)?.broadcast_as(content.shape())?.contiguous()?;
                    let residual = (rules.residual, rules.carried);
                    let (by_content, _) = residual::reverse(|| Ok(content), || Ok(positions), &arriving, residual)?;
                    by_content.narrow(1, positioned, n)?.contiguous()?
                }
                None => own,
            };
            self.z_box(&patches, &pixels, &by_content)?
        } else {
            self.projection.reverse(|| Ok(patches), &own, rules.patches)?
        };
        let whole = fold(&by_patches, c, self.patch, grid)?;
        let (down, right) = (height - whole.dim(2)?, width - whole.dim(3)?);
        debug_assert_eq!(whole.dim(0)?, b);
        Ok(whole.pad_with_zeros(2, 0, down)?.pad_with_zeros(3, 0, right)?)
    }

    /// z^B rule: with l and h the least and greatest value of each image, `S = R / (Wx - W+ l - W- h + 1e-9)` and
    /// `R_x = x (S W) - l (S W+) - h (S W-)`.
    fn z_box(&self, patches: &Tensor, pixels: &Tensor, relevance: &Tensor) -> Result<Tensor> {
        let bare = |weight: Tensor| Linear { weight, bias: None };
        let positive = self.projection.weight.relu()?;
        let (whole, negative) = (bare(self.projection.weight.clone()), bare((&self.projection.weight - &positive)?));
        let positive = bare(positive);
        let flat = pixels.flatten_from(1)?;
        let bound = |t: Tensor| -> Result<Tensor> { Ok(t.unsqueeze(2)?.broadcast_as(patches.shape())?.contiguous()?) };
        let (low, high) = (bound(flat.min_keepdim(1)?)?, bound(flat.max_keepdim(1)?)?);
        let z = ((whole.forward(patches)? - positive.forward(&low)?)? - negative.forward(&high)?)?;
        let s = (relevance / (z + 1e-9)?)?;
        let part = |x: &Tensor, w: &Linear| -> Result<Tensor> { Ok((x * w.vjp(&s)?)?) };
        Ok(((part(patches, &whole)? - part(&low, &positive)?)? - part(&high, &negative)?)?)
    }
}

/// Patches as rows: `[B,C,H,W]` -> `[B, rows*columns, C*P*P]`
fn unfold(pixels: &Tensor, (ph, pw): (usize, usize), (rows, columns): (usize, usize)) -> Result<Tensor> {
    let (b, c, _, _) = pixels.dims4()?;
    let whole = pixels.narrow(2, 0, rows * ph)?.narrow(3, 0, columns * pw)?.contiguous()?;
    let split = whole.reshape(&[b, c, rows, ph, columns, pw])?;
    Ok(split.permute(vec![0, 2, 4, 1, 3, 5])?.contiguous()?.reshape((b, rows * columns, c * ph * pw))?)
}

/// The reverse of [`unfold`]: `[B, rows*columns, C*P*P]` -> `[B,C,rows*P,columns*P]`
fn fold(patches: &Tensor, c: usize, (ph, pw): (usize, usize), (rows, columns): (usize, usize)) -> Result<Tensor> {
    let b = patches.dim(0)?;
    let split = patches.reshape(&[b, rows, columns, c, ph, pw])?;
    Ok(split.permute(vec![0, 3, 1, 4, 2, 5])?.contiguous()?.reshape((b, c, rows * ph, columns * pw))?)
}

impl WordEmbedding {
    /// Rows of the word table: `[B,T]` -> `[B,T,D]`
    pub fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        look_up(&self.words, ids)
    }

    /// Token ids as [`Inputs::Words`].
    pub(super) fn open(&self, ids: &Tensor, types: &Tensor, mask: &Tensor) -> Result<Inputs> {
        let (rows, positions) = (self.rows(ids)?, self.position_ids(ids)?);
        Ok(Inputs::Words { rows, positions, types: types.clone(), mask: mask.clone() })
    }

    /// The sum before the layer norm, `[B,T,D]`.
    fn sum(&self, rows: &Tensor, positions: &Tensor, types: &Tensor) -> Result<Tensor> {
        let states = rows.to_dtype(self.words.dtype())?;
        let states = match &self.positions {
            Some(table) => (states + look_up(table, positions)?)?,
            None => states,
        };
        Ok(match &self.types {
            Some(table) => (states + look_up(table, types)?)?,
            None => states,
        })
    }

    /// `[B,T,D]` from rows of the word table `[B,T,D]`, positions and types `[B,T]`
    fn forward(&self, rows: &Tensor, positions: &Tensor, types: &Tensor) -> Result<Tensor> {
        let normed = self.normed(self.sum(rows, positions, types)?)?;
        match &self.widened {
            Some(map) => map.forward(&normed),
            None => Ok(normed),
        }
    }

    fn normed(&self, sum: Tensor) -> Result<Tensor> {
        self.norm.as_ref().map_or(Ok(sum.clone()), |norm| norm.forward(&sum))
    }

    /// From what arrives at the first layer's input to what reaches the rows of the word table, `[B,T,D]`.
    pub(super) fn backward(
        &self,
        rows: &Tensor,
        positions: &Tensor,
        types: &Tensor,
        arriving: &Tensor,
        rules: &Rules,
    ) -> Result<Tensor> {
        let sum = self.sum(rows, positions, types)?;
        let by_normed = match &self.widened {
            Some(map) => map.reverse(|| self.normed(sum.clone()), arriving, rules.feed_forward)?,
            None => arriving.clone(),
        };
        self.norm.as_ref().map_or(Ok(by_normed.clone()), |norm| norm.reverse(&sum, &by_normed, rules.norm))
    }

    /// Position numbers, `[B,T]`.
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

fn look_up(table: &Tensor, at: &Tensor) -> Result<Tensor> {
    let (b, t) = at.dims2()?;
    Ok(table.index_select(&at.flatten_all()?, 0)?.reshape((b, t, table.dim(D::Minus1)?))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{check, Centre};
    use candle_core::Device;

    #[test]
    fn folding_undoes_unfolding_and_backward_equals_finite_differences() -> Result<()> {
        let mut embedding = PatchEmbedding {
            projection: Linear { weight: check::random(&[5, 12], 1), bias: Some(check::random(&[5], 2)) },
            patch: (2, 2),
            merges: 0,
            positioned: vec![(Prefix::Class, check::random(&[5], 3))],
            registers: Some(check::random(&[2, 5], 4)),
            positions: Some(PatchPositions { table: check::random(&[5, 5], 5), grid: (2, 2), kernel: Bicubic::Plain }),
            norm: None,
        };
        let (pixels, g) = (check::random(&[2, 3, 4, 5], 6), check::random(&[2, 7, 5], 7));
        let patches = unfold(&pixels, (2, 2), (2, 2))?;
        check::close(&fold(&patches, 3, (2, 2), (2, 2))?, &pixels.narrow(3, 0, 4)?, 0.0);
        for norm in [None, Some(norm(5, 8))] {
            embedding.norm = norm;
            let grad = embedding.backward(&pixels, &g, &Rules::GRADIENT)?;
            check::finite_differences(&pixels, &g, |p| embedding.forward(p), &grad);
        }
        Ok(())
    }

    fn norm(width: usize, seed: u64) -> Norm {
        let (weight, bias) = (check::random(&[width], seed), Some(check::random(&[width], seed + 1)));
        Norm { weight, bias, eps: 1e-6, centre: Centre::Mean }
    }

    #[test]
    fn words_backward_equals_finite_differences() -> Result<()> {
        let linear = Linear { weight: check::random(&[6, 4], 1), bias: Some(check::random(&[6], 2)) };
        for (widened, normed) in [(None, true), (Some(linear), true), (None, false)] {
            let (d, out) = (4, if widened.is_some() { 6 } else { 4 });
            let embedding = WordEmbedding {
                words: check::random(&[9, d], 3),
                positions: Some(check::random(&[5, d], 4)),
                types: None,
                norm: normed.then(|| norm(d, 5)),
                widened,
                padding_id: None,
            };
            let zeros = Tensor::zeros((2, 3), DType::U32, &Device::Cpu)?;
            let (rows, g) = (check::random(&[2, 3, d], 7), check::random(&[2, 3, out], 8));
            let grad = embedding.backward(&rows, &zeros, &zeros, &g, &Rules::GRADIENT)?;
            check::finite_differences(&rows, &g, |rows| embedding.forward(rows, &zeros, &zeros), &grad);
        }
        Ok(())
    }

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
