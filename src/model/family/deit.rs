//! DeiT (Touvron et al., ICML 2021). HuggingFace's plain and distilled models both carry the distillation token; the
//! distilled one ("with teacher") averages the logits of a head on each of the two tokens.

use super::vit::image_spec;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{EmbeddingSpec, Family, Modality, Names, Pooling, Spec};

/// `model_type: deit`
pub const FAMILY: Family = Family {
    name: "deit",
    title: "DeiT, plain and distilled",
    modality: Modality::Image,
    architectures: &["DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"],
    example: "facebook/deit-base-distilled-patch16-224",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = image_spec(c, NAMES, MODERN)?;
    if let EmbeddingSpec::Patches { distillation, .. } = &mut spec.embedding {
        *distillation = true;
    }
    if c.architectures().contains(&"DeiTForImageClassificationWithTeacher") {
        spec.pooling = Pooling::FirstAndSecond;
        for spelling in &mut spec.spellings {
            spelling.names.classifiers = &["cls_classifier", "distillation_classifier"];
        }
    }
    Ok(spec)
}

const NAMES: Names = Names {
    first: "deit.embeddings.patch_embeddings.projection.weight",
    embeddings: "deit.embeddings",
    layer: "deit.encoder.layer.{}",
    final_norm: Some("deit.layernorm"),
    other_heads: &[
        (Pooling::First, &["classifier"]),
        (Pooling::FirstAndSecond, &["cls_classifier", "distillation_classifier"]),
    ],
    ..super::vit::NAMES
};

const MODERN: Names = Names {
    layer: "deit.layers.{}",
    attention: super::vit::MODERN.attention,
    feed_forward: super::vit::MODERN.feed_forward,
    ..NAMES
};
