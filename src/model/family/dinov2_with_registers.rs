//! DINOv2 with registers (Darcet et al., ICLR 2024): register tokens between the class token and the patches, and
//! position embeddings resampled with antialiasing.

use super::dinov2::image_spec;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{Family, Modality, Names, Spec};
use crate::nn::resample::Bicubic;

/// `model_type: dinov2_with_registers`
pub const FAMILY: Family = Family {
    name: "dinov2_with_registers",
    title: "DINOv2 with registers",
    modality: Modality::Image,
    architectures: &["Dinov2WithRegistersForImageClassification"],
    example: "facebook/dinov2-with-registers-small-imagenet1k-1-layer",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    image_spec(c, NAMES, c.number_or("num_register_tokens", 4)? as usize, Bicubic::Antialiased)
}

const NAMES: Names = Names {
    first: "dinov2_with_registers.embeddings.patch_embeddings.projection.weight",
    embeddings: "dinov2_with_registers.embeddings",
    layer: "dinov2_with_registers.encoder.layer.{}",
    final_norm: Some("dinov2_with_registers.layernorm"),
    ..super::dinov2::NAMES
};
