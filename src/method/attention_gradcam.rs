//! Grad-CAM on the last attention map: heads weighted by their mean gradient.
//!
//! Selvaraju et al., ICCV 2017, as the baseline of Chefer, Gur & Wolf, ICCV 2021. `m_j = mean_h w_h A_h [row, j]`,
//! `relevance = m^+`, `[T]`, last layer. `w_h` is the mean of `dy/dA_h` over the row's patch columns (`weights=row`, the
//! authors' ViT baseline; for text over all tokens), or over the whole matrix (`weights=full`, their BERT baseline).
//!
//! Parameters: `weights` (default by modality: row for images, full for text), `clamp=false` keeps the sign.
//! The map is all zero when every `m_j` is negative. Class-specific.

use super::combine::{values, Layer, Row};
use super::{Entry, Facts, Method, Params, Run};
use crate::error::Result;
use crate::explanation::Layout;
use candle_core::Tensor;

pub(super) const ENTRY: Entry = Entry {
    name: "attention-gradcam",
    aliases: &[],
    title: "last attention map, heads weighted by their mean gradient",
    paper: "Selvaraju et al., ICCV 2017; Chefer, Gur & Wolf, ICCV 2021",
    group: "gradient-weighted attention",
    class_specific: true,
    build,
};

struct AttentionGradcam {
    weights: &'static str,
    clamp: bool,
    row: Row,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let about = "mean gradient over the row or the full matrix; auto: row for images, full for text";
    let weights = params.choice("weights", &["auto", "row", "full"], about)?;
    let clamp = params.flag("clamp", true, "cut negative values off")?;
    Ok(Box::new(AttentionGradcam { weights, clamp, row: params.row()? }))
}

impl AttentionGradcam {
    /// Head weights `[H]` from gradients `[H,T,T]`.
    fn head_weights(&self, gradient: &Tensor, row: usize, layout: &Layout) -> Result<Tensor> {
        let full = self.weights == "full" || (self.weights == "auto" && matches!(layout, Layout::Text(_)));
        if full {
            return Ok(gradient.mean((1, 2))?);
        }
        let skip = match layout {
            Layout::Image(image) => image.prefix.len(),
            Layout::Text(_) => 0,
        };
        let columns = gradient.dim(2)? - skip;
        Ok(gradient.narrow(1, row, 1)?.narrow(2, skip, columns)?.mean((1, 2))?)
    }
}

impl Method for AttentionGradcam {
    fn check(&self, model: &Facts) -> Result<()> {
        self.row.check(model)
    }

    fn explain(&self, run: &Run<'_>) -> Result<Vec<f32>> {
        let (layer, row) = (Layer::Last.index(run.layers()), self.row.index(run.layout())?);
        let weights = self.head_weights(&run.attention_gradient(layer)?, row, run.layout())?; // [H]
        let attention = run.attention(layer)?.narrow(1, row, 1)?.squeeze(1)?; // [H,T]
        let map = attention.broadcast_mul(&weights.unsqueeze(1)?)?.mean(0)?; // [T]
        values(&if self.clamp { map.relu()? } else { map })
    }

    fn signed(&self) -> bool {
        !self.clamp
    }
}
