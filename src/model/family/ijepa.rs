//! I-JEPA (Assran et al., CVPR 2023): ViT without a class token; the classifier reads the mean of the patches.

use super::vit::image_spec;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{EmbeddingSpec, Family, Modality, Names, Pooling, Spec};

/// `model_type: ijepa`
pub const FAMILY: Family = Family {
    name: "ijepa",
    title: "I-JEPA",
    modality: Modality::Image,
    architectures: &["IJepaForImageClassification"],
    example: "facebook/ijepa_vith14_1k (fine-tuned)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = image_spec(c, NAMES, MODERN)?;
    spec.pooling = Pooling::PatchMean;
    if let EmbeddingSpec::Patches { class, .. } = &mut spec.embedding {
        *class = false;
    }
    Ok(spec)
}

const NAMES: Names = Names {
    first: "ijepa.embeddings.patch_embeddings.projection.weight",
    embeddings: "ijepa.embeddings",
    layer: "ijepa.encoder.layer.{}",
    final_norm: Some("ijepa.layernorm"),
    ..super::vit::NAMES
};

const MODERN: Names = Names {
    layer: "ijepa.layers.{}",
    attention: super::vit::MODERN.attention,
    feed_forward: super::vit::MODERN.feed_forward,
    ..NAMES
};
