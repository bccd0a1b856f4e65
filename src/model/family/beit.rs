//! BEiT (Bao et al., ICLR 2022): relative positions of the patches in every layer's scores, keys without a bias, layer scales, and a
//! normed mean of the patches before the classifier.

use super::vit::image_spec;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{EmbeddingSpec, Family, Modality, Names, Pooling, ScoresSpec, Spec, StepSpec};
use crate::nn::Offsets;

/// `model_type: beit`
pub const FAMILY: Family = Family {
    name: "beit",
    title: "BEiT",
    modality: Modality::Image,
    architectures: &["BeitForImageClassification"],
    example: "microsoft/beit-base-patch16-224",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    windowed(c, [NAMES, MODERN], "beit")
}

/// What BEiT and data2vec share; `own`: their name before tensors.
pub(in crate::model) fn windowed(c: &Config, [old, new]: [Names; 2], own: &str) -> Result<Spec> {
    let (mean, scaled) = (c.flag_or("use_mean_pooling", true)?, c.float_or("layer_scale_init_value", 0.1)? > 0.0);
    let shaped = |names: Names| Names {
        final_norm: names.final_norm.filter(|_| !mean),
        scales: names.scales.filter(|_| scaled),
        ..names
    };
    let mut spec = image_spec(c, shaped(old), shaped(new))?;
    let EmbeddingSpec::Patches { image, patch, table, .. } = &mut spec.embedding else {
        return Err(Error::Model("an image family without patches".into()));
    };
    if !c.flag_or("use_absolute_position_embeddings", false)? {
        *table = None;
    }
    let (rows, columns) = (image.0 / patch.0.max(1), image.1 / patch.1.max(1));
    let shared = c.flag_or("use_shared_relative_position_bias", false)?;
    let each = c.flag_or("use_relative_position_bias", false)?;
    if shared && each {
        return Err(Error::Model(
            "config.json: `use_shared_relative_position_bias` beside `use_relative_position_bias` is not supported"
                .into(),
        ));
    }
    for (number, spelling) in spec.spellings.iter_mut().enumerate() {
        let old = number == 0;
        for (layer, spec) in spelling.layers.iter_mut().enumerate() {
            spec.projections[1].bias = false;
            let name = match (shared, old) {
                (true, true) => format!("{own}.encoder.relative_position_bias.relative_position_bias_table"),
                (true, false) => format!("{own}.shared_position_bias.relative_position_bias_table"),
                (false, true) => format!(
                    "{own}.encoder.layer.{layer}.attention.attention.relative_position_bias.relative_position_bias_table"
                ),
                (false, false) => {
                    format!("{own}.layers.{layer}.relative_position_bias.relative_position_bias_table")
                }
            };
            if shared || each {
                let entries = ((2 * rows).saturating_sub(1)) * ((2 * columns).saturating_sub(1)) + 3;
                spec.scores = ScoresSpec::Table { name, entries, offsets: Offsets::Grid { rows, columns } };
            }
        }
    }
    if mean {
        spec.pooling = Pooling::PatchMean;
        spec.steps = vec![StepSpec::Norm(spec.norm.named(format!("{own}.pooler.layernorm")))];
    }
    Ok(spec)
}

pub(in crate::model) const NAMES: Names = Names {
    first: "beit.embeddings.patch_embeddings.projection.weight",
    embeddings: "beit.embeddings",
    layer: "beit.encoder.layer.{}",
    scales: Some(["lambda_1", "lambda_2"]),
    final_norm: Some("beit.layernorm"),
    ..super::vit::NAMES
};

pub(in crate::model) const MODERN: Names = Names {
    layer: "beit.layers.{}",
    attention: super::vit::MODERN.attention,
    feed_forward: super::vit::MODERN.feed_forward,
    ..NAMES
};
