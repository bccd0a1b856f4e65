//! Beyond Intuition: attention perception times reasoning feedback.
//!
//! Chen et al., ICML 2023. Feedback: `W = mean_h ((1/N) sum_{k<N} dy/dA_h^{L-1} at input * k/(N-1))^+`, N = `steps` (20).
//! Perception: `R = I; R <- R + M_l R` from `start_layer` on, with `kind=head` (default): `M_l = sum_h I_h A_h`, `I_h =
//! mean_ij |A_h^T G_h|`, divided by its sum over heads; `kind=token`: `M_l = (mean_h A_h) diag(rho)`, `rho_j = |W_O v_j| /
//! |x_j|` (layer scale and value bias included). Relevance: row of `W * R`, or `W * |R|` for tokens, `[T]`. Unsigned,
//! class-specific.
//!
//! The scaled input is the normalised image, or the state behind a text's embedding norm. `start_layer=auto`: the
//! authors' choices, head L/4 and token L/2 for images, L-1 and L-4 for texts. `read=class-and-patches`: the class row plus
//! the mean of the patch rows, for heads that read both (DINOv2). The authors zero the class column of texts; we keep it.
//! N + 1 forward passes and partial reverse passes.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::combine::{accumulate, values};
use crate::method::contract::{Entry, Method, Relevance};
use crate::nn::{attention::merge_heads, Rules};
use crate::run::{Layer, Params, Pick, Reads, Rows, Run};
use candle_core::{Tensor, D};

pub(super) const ENTRY: Entry = Entry {
    name: "beyond-intuition",
    aliases: &[],
    title: "attention perception times integrated feedback of the last layer",
    paper: "Chen et al., ICML 2023",
    class_specific: true,
    build,
};

struct BeyondIntuition {
    head: bool,
    start: Option<Layer>,
    steps: usize,
    patches_too: bool,
    rows: Rows,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let about = "what weighs attention: heads' gradients or tokens' values";
    let head = params.one_of("kind", &[("head", true), ("token", false)], about)?;
    let start = params.layer_or_auto("start_layer", "the first layer of the perception (auto: the authors' choice)")?;
    let steps = params.count("steps", 20, "scaled inputs of the feedback", 2..=4096)?;
    let about = "class: the class token's row; class-and-patches: plus the mean of the patch rows (DINOv2)";
    let patches_too = params.one_of("read", &[("class", false), ("class-and-patches", true)], about)?;
    Ok(Box::new(BeyondIntuition { head, start, steps, patches_too, rows: params.rows()? }))
}

impl BeyondIntuition {
    fn first_layer(&self, layers: usize, text: bool) -> usize {
        match (self.start, text, self.head) {
            (Some(start), ..) => start.index(layers),
            (None, false, true) => layers / 4,
            (None, false, false) => layers / 2,
            (None, true, true) => layers - 1,
            (None, true, false) => layers.saturating_sub(4),
        }
    }

    /// M of a layer, `[T,T]`.
    fn perception(&self, run: &Run<'_>, layer: usize) -> Result<Tensor> {
        let attention = run.attention(layer)?; // [H,T,T]
        if self.head {
            let product = attention.transpose(1, 2)?.contiguous()?.matmul(&run.attention_gradient(layer)?)?;
            let importance = product.abs()?.mean((1, 2))?; // [H]
            let share = importance.broadcast_div(&importance.sum_all()?)?;
            return Ok(attention.broadcast_mul(&share.reshape((share.dim(0)?, 1, 1))?)?.sum(0)?);
        }
        let block = run.block(layer);
        let values = merge_heads(&run.value(layer)?.unsqueeze(0)?)?.squeeze(0)?; // [T,D]
        let sent = block.sent(&values)?;
        let length = |x: &Tensor| -> Result<Tensor> { Ok(x.sqr()?.sum(D::Minus1)?.sqrt()?) };
        let ratio = (length(&sent)? / length(&run.input(layer)?)?)?; // [T]
        Ok(attention.mean(0)?.broadcast_mul(&ratio.unsqueeze(0)?)?)
    }
}

impl Method for BeyondIntuition {
    fn check(&self, model: &Facts) -> Result<()> {
        model.values_add_up()?;
        if self.patches_too && !model.patch_mean {
            return Err(Error::Refused(
                "read=class-and-patches is for models whose head reads the patches' mean (DINOv2)".into(),
            ));
        }
        if let Some(start) = self.start {
            start.check("start_layer", model)?;
        }
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
        let pick = if self.patches_too { Pick::All } else { self.rows.pick(run)? };
        let own = pick.unpooled();
        let layers = self.first_layer(run.layers(), run.is_text())..run.layers();
        let perception = accumulate(own, layers, |l, pick| pick.read(&self.perception(run, l)?))?; // [R,T]
        let feedback = own.read(&run.integrated_feedback(self.steps)?.relu()?.mean(0)?)?;
        let product = pick.pool((feedback * if self.head { perception } else { perception.abs()? })?)?;
        if !self.patches_too {
            return values(&product);
        }
        let skip = run.layout().prefix();
        let patches = product.narrow(0, skip, product.dim(0)? - skip)?.mean_keepdim(0)?;
        values(&(self.rows.pick(run)?.read(&product)? + patches)?)
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::GRADIENT]
    }
}
