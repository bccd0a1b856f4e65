//! Grad-CAM on the last attention map: heads weighted by their mean gradient.
//!
//! Selvaraju et al., ICCV 2017, as the baseline of Chefer, Gur & Wolf, ICCV 2021. `m_j = mean_h w_h A_h [row, j]`,
//! `relevance = m^+`, `[T]`, last layer. `w_h` is the mean of `dy/dA_h` over the row's patch columns (`weights=row`, the
//! authors' ViT baseline; for text over all tokens), or over the whole matrix (`weights=full`, their BERT baseline).
//!
//! Parameters: `weights` (default by modality: row for images, full for text), `clamp=false` keeps the sign.
//! The map is all zero when every `m_j` is negative. Class-specific.

use crate::encoder::Facts;
use crate::error::Result;
use crate::explanation::Layout;
use crate::method::combine::values;
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::{Layer, Params, Pick, Reads, Rows, Run};
use candle_core::Tensor;

pub(super) const ENTRY: Entry = Entry {
    name: "attention-gradcam",
    aliases: &[],
    title: "last attention map, heads weighted by their mean gradient",
    paper: "Selvaraju et al., ICCV 2017; Chefer, Gur & Wolf, ICCV 2021",
    class_specific: true,
    build,
};

/// What a head's mean gradient is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Auto,
    Row,
    Full,
}

impl Over {
    const NAMES: &'static [(&'static str, Self)] = &[("auto", Over::Auto), ("row", Over::Row), ("full", Over::Full)];
}

struct AttentionGradcam {
    weights: Over,
    clamp: bool,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let about = "mean gradient over the row or the full matrix; auto: row for images, full for text";
    let weights = params.one_of("weights", Over::NAMES, about)?;
    let clamp = params.flag("clamp", true, "cut negative values off")?;
    Ok(Box::new(AttentionGradcam { weights, clamp, rows: params.rows()? }))
}

impl AttentionGradcam {
    /// Head weights `[H,R,1]` from gradients `[H,T,T]`: one a head and row, or one a head.
    fn head_weights(&self, gradient: &Tensor, pick: Pick, layout: &Layout) -> Result<Tensor> {
        let full = match self.weights {
            Over::Full => true,
            Over::Row => false,
            Over::Auto => matches!(layout, Layout::Text(_)),
        };
        if full {
            return Ok(gradient.mean_keepdim((1, 2))?);
        }
        let skip = match layout {
            Layout::Image(image) => image.prefix.len(),
            Layout::Text(_) => 0,
        };
        let columns = gradient.dim(2)? - skip;
        Ok(pick.read_dim(gradient, 1)?.narrow(2, skip, columns)?.mean_keepdim(2)?)
    }
}

impl Method for AttentionGradcam {
    fn check(&self, model: &Facts) -> Result<()> {
        self.rows.check(model)
    }

    fn rows(&self) -> Option<Rows> {
        Some(self.rows)
    }

    fn reads(&self) -> Reads {
        Reads::Gradients
    }

    fn top_down(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (layer, pick) = (Layer::Last.index(run.layers()), self.rows.pick(run)?);
        let weights = self.head_weights(&run.attention_gradient(layer)?, pick, run.layout())?; // [H,R,1]
        let attention = pick.read_dim(&run.attention(layer)?, 1)?; // [H,R,T]
        let map = attention.broadcast_mul(&weights)?.mean(0)?; // [R,T]
        values(&if self.clamp { map.relu()? } else { map })
    }

    fn signed(&self) -> bool {
        !self.clamp
    }
}
