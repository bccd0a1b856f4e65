//! Input times a modified gradient: layer-wise relevance propagation as rules of one reverse pass.
//!
//! `attn-lrp`: Achtibat et al., ICML 2024. `rules=attn` (default): relevance goes through the softmax, each attention
//! product shares it by halves; `cp`: attention probabilities constant; `gamma`: cp, and the generalised gamma rule with
//! `gamma_linear` in feed-forward and classifier and `gamma_conv` in the patch convolution (images), the authors' recipe
//! for ViTs. `cp-lrp`: Ali et al., ICML 2022, attention and norm deviations constant, activations with their derivative
//! (`identity=true`: with their gate, as Achtibat et al. describe it; only this one conserves). `reslrp`: Berend et al.
//! 2026, AttnLRP with sign-aligned shares of the skip connections, `gamma` (default 1; 0 is AttnLRP), `cp=true` with
//! constant attention.
//!
//! Relevance of pixels, summed over channels and patches, or of word vectors, `[T]` and `[H,W]`; `at=embedding`: of the
//! first layer's input. Signed, class-specific. The record's checks carry the sums of METHODS' `terms`: relevance of the
//! input, of what the embedding adds, of all later constants, the logit, and the gap; it closes for rules that conserve.
//!
//! The technique of layer-wise relevance propagation is covered by a patent whose holders let it be used free of charge
//! for research; commercial users should check.
//!
//! Errors: [`crate::Error::Numeric`] naming the layer in which relevance blows up.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::account::checks;
use crate::method::combine::values;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_layer, of_pixels, PixelOptions, Place, Pool, Reduce};
use crate::nn::{numbers, Rules};
use crate::run::{Params, Reads, Run};
use candle_core::D;

pub(super) const ATTN_LRP: Entry = Entry {
    name: "attn-lrp",
    aliases: &["attnlrp"],
    title: "relevance propagated through attention and all else (AttnLRP)",
    paper: "Achtibat et al., ICML 2024",
    class_specific: true,
    build: |params| {
        let about = "attn: through the softmax; cp: attention constant; gamma: cp with gamma rules (images)";
        let recipe = params.one_of("rules", Recipe::NAMES, about)?;
        let linear = params.number("gamma_linear", 0.05, "rules=gamma: in feed-forward and classifier", 0.0..=1e3)?;
        let patches = params.number("gamma_conv", 0.25, "rules=gamma: in the patch convolution", 0.0..=1e3)?;
        let rules = match recipe {
            Recipe::Attn => Rules::ATTN_LRP,
            Recipe::Cp => Rules::LIBRA,
            Recipe::Gamma => Rules::attn_lrp_gamma(linear, patches),
        };
        Propagation::build(params, rules, recipe == Recipe::Gamma)
    },
};

pub(super) const CP_LRP: Entry = Entry {
    name: "cp-lrp",
    aliases: &["cplrp"],
    title: "relevance propagated with attention and norms constant (CP-LRP)",
    paper: "Ali et al., ICML 2022",
    class_specific: true,
    build: |params| {
        let about = "activations by their gate f(x)/x: conserves relevance (Achtibat et al. 2024)";
        let identity = params.flag("identity", false, about)?;
        Propagation::build(params, if identity { Rules::LIBRA } else { Rules::CP_LRP }, false)
    },
};

pub(super) const RESLRP: Entry = Entry {
    name: "reslrp",
    aliases: &[],
    title: "relevance propagated with sign-aligned skip connections (ResLRP)",
    paper: "Berend et al. 2026",
    class_specific: true,
    build: |params| {
        let gamma =
            params.number("gamma", 1.0, "favour of the summand with the sum's sign; 0 is attn-lrp", 0.0..=1e6)?;
        let cp = params.flag("cp", false, "attention probabilities constant: conserves relevance")?;
        Propagation::build(params, if cp { Rules::reslrp_cp(gamma) } else { Rules::reslrp(gamma) }, false)
    },
};

/// `rules` of `attn-lrp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recipe {
    Attn,
    Cp,
    Gamma,
}

impl Recipe {
    const NAMES: &'static [(&'static str, Self)] =
        &[("attn", Recipe::Attn), ("cp", Recipe::Cp), ("gamma", Recipe::Gamma)];
}

struct Propagation {
    rules: Rules,
    images_only: bool,
    place: Place,
    options: PixelOptions,
}

impl Propagation {
    fn build(params: &mut Params, rules: Rules, images_only: bool) -> Result<Box<dyn Method>> {
        let about = "whose relevance: pixels and word vectors, or the first layer's input";
        let place = params.one_of("at", Place::NAMES, about)?;
        Ok(Box::new(Propagation { rules, images_only, place, options: PixelOptions::read(params, false)? }))
    }
}

impl Method for Propagation {
    fn check(&self, model: &Facts) -> Result<()> {
        if self.images_only && model.text {
            return Err(Error::Refused(
                "rules=gamma is the recipe for image models; use rules=attn or rules=cp".into(),
            ));
        }
        Ok(())
    }

    fn reads(&self) -> Reads {
        Reads::Constants
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let mut relevance = match self.place {
            Place::Embedding => {
                let (state, carried) = run.state_and(&*run.reverse(&self.rules)?, 0)?;
                of_layer(run, numbers(&(state * carried)?.sum(D::Minus1)?)?, 0, Pool::Sum)?
            }
            Place::Input => {
                let product = (run.subject()?.values()? * run.input_under(&self.rules)?)?;
                if run.is_text() {
                    values(&Reduce::Sum.apply(&product)?)?
                } else {
                    of_pixels(run, &product.sum(0)?, Pool::Sum, self.options)?
                }
            }
        };
        relevance.checks = checks(run, &self.rules)?;
        Ok(relevance)
    }

    fn signed(&self) -> bool {
        true
    }

    fn pixels(&self, model: &Facts) -> bool {
        self.place == Place::Input || model.staged()
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }
}
