//! What every layer of a pass may consult beside its state: where the tokens are, and which of them see one another.

use super::windows::{Windowing, Windows};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// Which keys a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All.
    All,
    /// Those at most so many tokens away.
    Within(usize),
    /// Itself and those before it.
    Causal,
    /// Those of its own window.
    Windows(Windowing),
}

/// Where tokens are, for scores that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// One behind the other, counted from 0.
    Line,
    /// Behind `prefix` tokens without a place a grid, row by row; coordinates are those of the patches' centres, from -1 to
    /// 1 on both axes.
    Grid {
        /// Tokens without a place.
        prefix: usize,
        /// Patches from top to bottom.
        rows: usize,
        /// Patches from left to right.
        columns: usize,
    },
}

/// What every layer of one pass may consult beside its state.
#[derive(Debug, Clone)]
pub struct Around {
    /// `[B,T]`: 1 for real tokens, 0 for padded ones, in the states' dtype; none when nothing is padded.
    pub real: Option<Tensor>,
    /// Where the tokens are.
    pub places: Places,
    /// What is added to the scores, made once a pass: the dtype's lowest number where a key is not seen, whose probability
    /// then is exactly 0; else 0. `[B,1,1,T]`, or `[B or 1,1,T,T]` where it depends on the query.
    masks: Vec<(Reach, Tensor)>,
    /// How the tokens are sorted into windows, made once a pass.
    windows: Vec<(Windowing, Windows)>,
    /// The same for the layers behind the next merging of tokens.
    pub merged: Option<Arc<Around>>,
}

impl Around {
    /// For a batch of `tokens` tokens with this mask `[B,T]` (1 real, 0 padded) and layers of these reaches.
    pub fn new(
        places: Places,
        mask: Option<&Tensor>,
        (tokens, dtype, device): (usize, DType, &Device),
        reaches: impl IntoIterator<Item = Reach>,
    ) -> Result<Self> {
        let padded = match mask {
            Some(mask) if mask.to_dtype(DType::F32)?.min_all()?.to_scalar::<f32>()? == 0.0 => {
                let (b, t) = mask.dims2()?;
                Some(mask.to_dtype(DType::F32)?.affine(-1.0, 1.0)?.reshape((b, 1, 1, t))?)
            }
            _ => None,
        }; // 1 where padded
        let mut masks: Vec<(Reach, Tensor)> = Vec::new();
        let mut windows: Vec<(Windowing, Windows)> = Vec::new();
        for reach in reaches {
            if let Reach::Windows(of) = reach {
                if windows.iter().all(|(known, _)| *known != of) {
                    windows.push((of, Windows::new(of, places, (dtype, device))?));
                }
                continue;
            }
            let far = reach.far(tokens, device)?; // 1 where too far
            let hidden = match (&padded, far) {
                (Some(padded), Some(far)) => padded.broadcast_maximum(&far)?,
                (Some(hidden), None) => hidden.clone(),
                (None, Some(hidden)) => hidden,
                (None, None) => continue,
            };
            if masks.iter().all(|(known, _)| *known != reach) {
                masks.push((reach, (hidden.to_dtype(dtype)? * lowest(dtype))?));
            }
        }
        let real = mask.filter(|_| padded.is_some()).map(|m| m.to_dtype(dtype)).transpose()?;
        Ok(Around { real, places, masks, windows, merged: None })
    }

    /// With what the layers behind a merging of tokens consult.
    pub fn before(self, merged: Around) -> Self {
        Around { merged: Some(Arc::new(merged)), ..self }
    }

    /// What is added to the scores of layers of this reach.
    pub fn mask(&self, reach: Reach) -> Option<&Tensor> {
        self.masks.iter().find(|(known, _)| *known == reach).map(|(_, mask)| mask)
    }

    /// The windows of layers of this reach, where it has some.
    pub fn windows(&self, reach: Reach) -> Option<&Windows> {
        let Reach::Windows(of) = reach else { return None };
        self.windows.iter().find(|(known, _)| *known == of).map(|(_, windows)| windows)
    }
}

impl Places {
    /// Those of tokens each of which stands for a square of four.
    pub fn merged(self) -> Self {
        match self {
            Places::Line => Places::Line,
            Places::Grid { prefix, rows, columns } => Places::Grid { prefix, rows: rows / 2, columns: columns / 2 },
        }
    }
}

impl Reach {
    /// How many keys a token of so many has scores for.
    pub fn keys(self, tokens: usize) -> usize {
        match self {
            Reach::All | Reach::Within(_) | Reach::Causal => tokens,
            Reach::Windows(Windowing { side, .. }) => side * side,
        }
    }

    /// 1 where a key is too far away, `[1,1,T,T]` f32; none where every token sees all.
    fn far(self, tokens: usize, device: &Device) -> Result<Option<Tensor>> {
        let far: &dyn Fn(usize, usize) -> bool = match self {
            Reach::All | Reach::Windows(_) => return Ok(None),
            Reach::Within(most) => &move |query, key| query.abs_diff(key) > most,
            Reach::Causal => &|query, key| key > query,
        };
        let far: Vec<f32> = (0..tokens * tokens).map(|i| f32::from(u8::from(far(i / tokens, i % tokens)))).collect();
        Ok(Some(Tensor::from_vec(far, (1, 1, tokens, tokens), device)?))
    }
}

/// The lowest finite number of a dtype.
pub(super) fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -65504.0,
        DType::BF16 => f64::from(f32::from_bits(0xff7f_0000)),
        DType::F64 => f64::MIN,
        _ => f64::from(f32::MIN),
    }
}
