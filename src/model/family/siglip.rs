//! SigLIP's vision tower (Zhai et al., ICCV 2023) with a linear classifier on the mean of all tokens; it has no class token.

use super::clip::{tower, vision};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{EmbeddingSpec, Family, Modality, Names, Pooling, Spec};

/// `model_type: siglip`
pub const FAMILY: Family = Family {
    name: "siglip",
    title: "SigLIP, pictures",
    modality: Modality::Image,
    architectures: &["SiglipForImageClassification"],
    example: "google/siglip-base-patch16-224 (with a linear head)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = tower(&vision(c)?, NAMES, ("gelu_pytorch_tanh", 1e-6))?;
    spec.pooling = Pooling::PatchMean;
    if let EmbeddingSpec::Patches { class, .. } = &mut spec.embedding {
        *class = false;
    }
    Ok(spec)
}

const NAMES: Names = Names { front: None, final_norm: Some("vision_model.post_layernorm"), ..super::clip::NAMES };
