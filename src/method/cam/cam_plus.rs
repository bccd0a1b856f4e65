//! CAMs summed over all layers: channels of every state weighted by their gradients.
//!
//! Mehri et al. 2024 (SkipPLUS) and CVPR 2025 (LibraGrad). `sum_{l<L} sum_d w^l_d x^l_jd`, x^l the state entering layer l:
//! `gradcam-plus`: `w = mean_j g_jd`; `xgradcam-plus`: `w = sum_j g_jd |x_jd| / (sum_j |x_jd| + 1e-7)`. Means and sums run
//! over all tokens, prefix included; what merged tokens have (Swin) goes to equal parts to those they stand for. No ReLU: signed, `[T]`, class-specific. `libra=true`: LibraGrad's reverse pass. The
//! one-layer maps with a ReLU are `gradcam` and `xgradcam`.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::stacked;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_layer, Pool};
use crate::nn::{numbers, Rules};
use crate::run::{Params, Reads, Run};
use candle_core::D;

pub(super) const GRADCAM_PLUS: Entry = Entry {
    name: "gradcam-plus",
    aliases: &[],
    title: "Grad-CAM summed over all layers, signed",
    paper: "Mehri et al., CVPR 2025",
    class_specific: true,
    build: |params| Ok(Box::new(CamPlus { by_activation: false, rules: params.libra()? })),
};

pub(super) const XGRADCAM_PLUS: Entry = Entry {
    name: "xgradcam-plus",
    aliases: &[],
    title: "X-Grad-CAM summed over all layers, signed",
    paper: "Mehri et al., CVPR 2025",
    class_specific: true,
    build: |params: &mut Params| Ok(Box::new(CamPlus { by_activation: true, rules: params.libra()? })),
};

struct CamPlus {
    by_activation: bool,
    rules: Rules,
}

impl Method for CamPlus {
    fn reads(&self) -> Reads {
        Reads::Gradients
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let reversed = run.reverse(&self.rules)?;
        let each = (0..run.layers()).map(|l| {
            let (x, g) = run.state_and(&reversed, l)?; // [T,D]
            let weights = if self.by_activation {
                let size = x.abs()?;
                ((g * &size)?.sum_keepdim(0)? / (size.sum_keepdim(0)? + 1e-7)?)?
            } else {
                g.mean_keepdim(0)?
            }; // [1,D]
            run.spread(&x.broadcast_mul(&weights)?.sum(D::Minus1)?, l)
        });
        of_layer(run, numbers(&stacked(each)?.sum(0)?)?, 0, Pool::Sum)
    }

    fn pixels(&self, model: &Facts) -> bool {
        model.staged()
    }

    fn signed(&self) -> bool {
        true
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }
}
