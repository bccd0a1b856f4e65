//! The gradient: how much the explained logit changes with each pixel or word vector.
//!
//! Simonyan, Vedaldi & Zisserman, 2013. `G = dy/dx`, x the normalised image or the rows of the word table. Images: map
//! `max_channels |G|` `[H,W]`, patches the mean of their pixels. Texts: `norm=l2` (default) or `l1` of G over a token's
//! vector, `[T]`. Unsigned, class-specific. Parameters: `norm` (texts), `resolution`, `suppress_grid` (images).

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::values;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_pixels, PixelOptions, Pool, Reduce};
use crate::nn::Rules;
use crate::run::{Params, Reads, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "gradient",
    aliases: &["saliency", "vanilla-gradient"],
    title: "how much the logit changes with each pixel or word",
    paper: "Simonyan et al. 2013",
    class_specific: true,
    build,
};

struct Gradient {
    norm: Reduce,
    options: PixelOptions,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let norms = [("l2", Reduce::L2), ("l1", Reduce::L1)];
    let norm = params.one_of("norm", &norms, "texts: norm of a token's gradient vector")?;
    Ok(Box::new(Gradient { norm, options: PixelOptions::read(params, false)? }))
}

impl Method for Gradient {
    fn reads(&self) -> Reads {
        Reads::Gradients
    }

    fn top_down(&self) -> bool {
        true
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let gradient = run.input_under(&Rules::GRADIENT)?; // [C,H,W] or [T,D]
        if run.is_text() {
            return values(&self.norm.apply(&gradient)?);
        }
        of_pixels(run, &gradient.abs()?.max(0)?, Pool::Mean, self.options)
    }

    fn pixels(&self, _model: &Facts) -> bool {
        true
    }

    fn sizes_only(&self) -> bool {
        true
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::GRADIENT]
    }
}
