//! CLIP's vision tower (Radford et al., ICML 2021) with a linear classifier on the mean of the patches: a norm in front of the first
//! layer, a patch convolution without bias, and the fast GELU.

use super::vit::image_spec;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{EmbeddingSpec, Family, Modality, Names, NormKind, Pooling, Spec};

/// `model_type: clip`
pub const FAMILY: Family = Family {
    name: "clip",
    title: "CLIP, pictures",
    modality: Modality::Image,
    architectures: &["CLIPForImageClassification"],
    example: "openai/clip-vit-base-patch32 (with a linear head)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = tower(&c.part("vision_config")?, NAMES, ("quick_gelu", 1e-5))?;
    spec.pooling = Pooling::PatchMean;
    if let EmbeddingSpec::Patches { bias, .. } = &mut spec.embedding {
        *bias = false;
    }
    Ok(spec)
}

/// What the vision towers of CLIP and SigLIP share; with the activation and the norms' epsilon of configs that say neither.
pub(in crate::model) fn tower(c: &Config, names: Names, (activation, eps): (&str, f64)) -> Result<Spec> {
    let c = c.with_default("hidden_act", activation).with_default("layer_norm_eps", eps);
    let c = c.with_default("patch_size", if activation == "quick_gelu" { 32 } else { 16 });
    let mut spec = image_spec(&c, names.clone(), names)?;
    spec.norm = NormKind::layer_norm(c.float_or("layer_norm_eps", eps)?);
    spec.spellings.truncate(1);
    Ok(spec)
}

pub(in crate::model) const NAMES: Names = Names {
    first: "vision_model.embeddings.patch_embedding.weight",
    embeddings: "vision_model.embeddings",
    inputs: ["patch_embedding", ""],
    tokens: ["class_embedding", "", ""],
    places: "position_embedding.weight",
    front: Some("vision_model.pre_layrnorm"),
    layer: "vision_model.encoder.layers.{}",
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    norms: ["layer_norm1", "layer_norm2"],
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    final_norm: None,
    ..super::vit::NAMES
};
