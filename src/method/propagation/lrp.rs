//! Transformer Attribution: relevance propagated to every attention map, weighted by its gradient, rolled out.
//!
//! Chefer, Gur & Wolf, CVPR 2021. The rules are [`Rules::TRANSFORMER_ATTRIBUTION`]; relevance starts as 1 at the explained
//! logit. `lrp`: `C_l = mean_h (dy/dA_h * R_{A_h})^+`, row of `(C_{L-1} + I) ... (C_s + I)`; parameters `start_layer` (0;
//! the authors' scripts use 1), `row_normalise` (rows of C + I divided by their sum; auto: texts only, as the authors' two
//! code bases do), `row`, `matrix`. `partial-lrp`: row of `mean_h (R_{A_h})^+` of the last layer; `rules=baseline`: the
//! simpler layers of the authors' LRP baseline, which do not conserve relevance. `full-lrp`: relevance of the pixels, by
//! the z^B rule through the patch convolution, `[H,W]`, patches the sum; signed. Images only. What lowers a class keeps in `lrp`
//! the class's relevance and takes the gradient of its negative.
//!
//! Class-specific. The record's checks hold the relevance at the start and at the first layer's input, and the gap. Under
//! the authors' rules it is 0 up to their 1e-9 terms where every output of a linear map has a positive product; an output
//! without one has nothing to hand its relevance to (sparse weights can make that half of it). For texts the class column is kept (the authors overwrite it).
//!
//! The technique of layer-wise relevance propagation is covered by a patent whose holders let it be used free of charge
//! for research; commercial users should check.
//!
//! Errors: refused for contrasts of two classes, and for gated feed-forwards (SwiGLU), whose product has no rule here; [`Error::Numeric`] naming the layer
//! in which relevance blows up.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::combine::{add_identity, chain, normalise, values, Normalise};
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_pixels, PixelOptions, Pool};
use crate::nn::{numbers, Rules};
use crate::run::{Layer, Reads, Rows, Run};
use serde_json::{Map, Value};

pub(super) const LRP: Entry = Entry {
    name: "lrp",
    aliases: &["transformer-attribution", "chefer-lrp"],
    title: "relevance x gradient of every attention map, rolled out",
    paper: "Chefer, Gur & Wolf, CVPR 2021",
    class_specific: true,
    build: |params| {
        let start = params.layer("start_layer", "0", "the first layer that takes part, or last")?;
        let about = "divide rows of C + I by their sum (auto: texts only)";
        let row_normalise = params.flag_or_auto("row_normalise", about)?;
        Ok(Box::new(Lrp { start, row_normalise, rows: params.rows()? }))
    },
};

pub(super) const PARTIAL_LRP: Entry = Entry {
    name: "partial-lrp",
    aliases: &[],
    title: "relevance of the last attention map",
    paper: "Voita et al., ACL 2019; Chefer, Gur & Wolf, CVPR 2021",
    class_specific: true,
    build: |params| {
        let about = "authors: those of `lrp`; baseline: the simpler ones of the authors' LRP baseline";
        let layers = [("authors", Rules::TRANSFORMER_ATTRIBUTION), ("baseline", Rules::LRP_BASELINE)];
        let rules = params.one_of("rules", &layers, about)?;
        Ok(Box::new(PartialLrp { rules, rows: params.rows()? }))
    },
};

pub(super) const FULL_LRP: Entry = Entry {
    name: "full-lrp",
    aliases: &[],
    title: "relevance propagated to the pixels",
    paper: "Chefer, Gur & Wolf, CVPR 2021",
    class_specific: true,
    build: |params| Ok(Box::new(FullLrp { options: PixelOptions::read(params, false)? })),
};

fn check(model: &Facts) -> Result<()> {
    if model.gated {
        return Err(Error::Refused(
            "its rules are not defined for a gated feed-forward (SwiGLU); use attn-lrp or reslrp".into(),
        ));
    }
    Ok(())
}

/// Refuses contrasts: their start sums to 0, and the rule of the skip connections hands on shares of the sum.
fn one_class(run: &Run<'_>) -> Result<()> {
    match run.output().against {
        None => Ok(()),
        Some(_) => Err(Error::Refused(
            "its relevance starts from one class; explain each class by itself, or use attn-lrp or gae for a contrast"
                .into(),
        )),
    }
}

/// A gap below this is the rules' 1e-9 terms; above, relevance was lost.
const KEPT: f64 = 1e-2;

/// The record's account: relevance at the start, at the first layer's input, and what got lost between.
fn checks(run: &Run<'_>, rules: &Rules) -> Result<Map<String, Value>> {
    let reversed = run.reverse(rules)?;
    let (_, carried) = run.state_and(&reversed, 0)?;
    let start: f64 = numbers(&reversed.head.logits.get(run.number())?)?.iter().sum();
    let arrived: f64 = numbers(&carried)?.iter().sum();
    let account = [("relevance_start", start), ("relevance_embedding", arrived), ("conservation_gap", start - arrived)];
    let mut checks: Map<String, Value> = account.into_iter().map(|(k, v)| (k.to_string(), v.into())).collect();
    checks.insert("conserves".into(), ((start - arrived).abs() < KEPT).into());
    Ok(checks)
}

struct Lrp {
    start: Layer,
    row_normalise: Option<bool>,
    rows: Rows,
}

impl Method for Lrp {
    fn check(&self, model: &Facts) -> Result<()> {
        check(model)?;
        self.start.check("start_layer", model)?;
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
        one_class(run)?;
        let layers = self.start.index(run.layers())..run.layers();
        let normalised = self.row_normalise.unwrap_or(run.is_text());
        let rows = chain(self.rows.pick(run)?, layers, |layer, pick| {
            let gradient = run.attention_gradient(layer)?; // [H,T,T]
            let relevance = run.attention_under(&Rules::TRANSFORMER_ATTRIBUTION, layer)?;
            // Of what lowers the class, both change sign: the relevance of the class times the gradient of its negative.
            let product = (gradient * relevance)?;
            let product = if run.output().lowers { product.neg()? } else { product };
            let c = add_identity(&product.relu()?.mean(0)?)?;
            pick.read(&if normalised { normalise(&c, Normalise::Rows)? } else { c })
        })?;
        Ok(Relevance { checks: checks(run, &Rules::TRANSFORMER_ATTRIBUTION)?, ..values(&rows)? })
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::TRANSFORMER_ATTRIBUTION, Rules::GRADIENT]
    }
}

struct PartialLrp {
    rules: Rules,
    rows: Rows,
}

impl Method for PartialLrp {
    fn check(&self, model: &Facts) -> Result<()> {
        check(model)?;
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
        one_class(run)?;
        let relevance = run.attention_under(&self.rules, run.layers() - 1)?; // [H,T,T]
        let rows = self.rows.pick(run)?.read(&relevance.relu()?.mean(0)?)?;
        Ok(Relevance { checks: checks(run, &self.rules)?, ..values(&rows)? })
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }
}

struct FullLrp {
    options: PixelOptions,
}

impl Method for FullLrp {
    fn check(&self, model: &Facts) -> Result<()> {
        check(model)?;
        model.images_only("it ends in the rule of the patch convolution; texts have `lrp` and `attn-lrp`")
    }

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
        one_class(run)?;
        let pixels = run.input_under(&Rules::TRANSFORMER_ATTRIBUTION)?.sum(0)?; // [H,W]
        let mut relevance = of_pixels(run, &pixels, Pool::Sum, self.options)?;
        relevance.checks = checks(run, &Rules::TRANSFORMER_ATTRIBUTION)?;
        Ok(relevance)
    }

    fn signed(&self) -> bool {
        true
    }

    fn pixels(&self, _model: &Facts) -> bool {
        true
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::TRANSFORMER_ATTRIBUTION]
    }
}
