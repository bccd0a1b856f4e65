//! data2vec for pictures (Baevski et al., ICML 2022): BEiT under another name.

use super::beit::{self, windowed};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{Family, Modality, Names, Spec};

/// `model_type: data2vec-vision`
pub const FAMILY: Family = Family {
    name: "data2vec-vision",
    title: "data2vec, pictures",
    modality: Modality::Image,
    architectures: &["Data2VecVisionForImageClassification"],
    example: "facebook/data2vec-vision-base-ft1k",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    windowed(c, [NAMES, MODERN], "data2vec_vision")
}

const NAMES: Names = Names {
    first: "data2vec_vision.embeddings.patch_embeddings.projection.weight",
    embeddings: "data2vec_vision.embeddings",
    layer: "data2vec_vision.encoder.layer.{}",
    final_norm: Some("data2vec_vision.layernorm"),
    ..beit::NAMES
};

const MODERN: Names = Names {
    layer: "data2vec_vision.layers.{}",
    attention: beit::MODERN.attention,
    feed_forward: beit::MODERN.feed_forward,
    ..NAMES
};
