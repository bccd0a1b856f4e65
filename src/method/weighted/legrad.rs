//! LeGrad: how much each layer's own class score depends on its attention map.
//!
//! Bousselham et al., ICCV 2025. `s_l` is the explained logit of the model's own head (final norm, pooling, classifier)
//! on the state leaving layer l; `E_l[j]` the mean over heads and output tokens of `(ds_l/dA_l[h,i,j])^+`. Only that
//! layer's map is differentiated, nothing downstream. Relevance is the mean of E_l from `first_layer` (default 0; the
//! authors' code: the last two) on, `[T]`. Unsigned, class-specific.
//!
//! The published form explains CLIP: its score is the cosine between the image feature of layer l and a text's embedding.
//! With a linear classifier the score is the logit, and neither the feature nor the class's weights are normalised.
//!
//! `pool=mean` (ViT): the score of the final norm of the mean over all tokens, as the authors do for CLIP. Without their
//! final min-max. One forward pass and a partial reverse of each layer.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::combine::{stacked, values};
use crate::method::contract::{Entry, Method, Relevance};
use crate::nn::Rules;
use crate::run::{Layer, Params, Reads, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "legrad",
    aliases: &[],
    title: "sensitivity of each layer's own class score to its attention",
    paper: "Bousselham et al., ICCV 2025",
    class_specific: true,
    build,
};

struct LeGrad {
    first: Layer,
    mean_pool: bool,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let first = params.layer("first_layer", "0", "the first layer that takes part, or last")?;
    let about = "head: the model's own pooling; mean: over all tokens (models that read the class token alone)";
    Ok(Box::new(LeGrad { first, mean_pool: params.one_of("pool", &[("head", false), ("mean", true)], about)? }))
}

impl Method for LeGrad {
    fn check(&self, model: &Facts) -> Result<()> {
        if self.mean_pool && (model.text || model.patch_mean || model.mean || model.reads_distillation) {
            return Err(Error::Refused(
                "pool=mean needs a vision model whose one classifier reads a single token".into(),
            ));
        }
        self.first.check("first_layer", model)
    }

    fn reads(&self) -> Reads {
        Reads::States
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        if self.mean_pool && !run.encoder().head.reads_one_token() {
            return Err(Error::Refused("pool=mean needs a classifier that reads the class token".into()));
        }
        let layers = self.first.index(run.layers())..run.layers();
        let each = layers.map(|layer| {
            let gradient = run.square(&run.local_attention(layer, self.mean_pool)?)?; // [H,T,T]
            Ok(gradient.relu()?.mean((0, 1))?)
        });
        values(&stacked(each)?.mean(0)?)
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::GRADIENT]
    }
}
