//! CLIP (Radford et al., ICML 2021): a picture tower with a norm in front of the first layer, a patch convolution without bias and the
//! fast GELU, and a text tower whose tokens see those before them. Texts are its classes, or a linear classifier reads the mean
//! of the patches.

use super::vit::image_spec;
use crate::encoder::{Gate, Wiring};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{
    activation, Beside, EmbeddingSpec, Family, LinearSpec, Modality, Names, NormKind, Pooling, ScoresSpec, Spec,
    Spelling, StepSpec, Uniform,
};
use crate::nn::Reach;
use crate::scale::Scale;

/// `model_type: clip`
pub const FAMILY: Family = Family {
    name: "clip",
    title: "CLIP",
    modality: Modality::Image,
    architectures: &["CLIPModel", "CLIPForImageClassification", "CLIPVisionModel", "CLIPVisionModelWithProjection"],
    example: "openai/clip-vit-base-patch32",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = pictures(c)?;
    if classifier(c) {
        spec.pooling = Pooling::PatchMean;
    } else if c.get("text_config").is_some() {
        let width = c.size_or("projection_dim", 512)?;
        spec.steps = projected(&spec, width);
        spec.beside = Some(Box::new(Beside {
            spec: texts(&c.part("text_config")?, width, Reach::Causal)?,
            width,
            scale: "logit_scale",
            bias: None,
            logits: Scale::Softmax,
            filled: false,
        }));
    }
    Ok(spec)
}

/// CLIP's picture tower.
pub(in crate::model) fn pictures(c: &Config) -> Result<Spec> {
    let mut spec = tower(&vision(c)?, NAMES, ("quick_gelu", 1e-5))?;
    if let EmbeddingSpec::Patches { bias, front, .. } = &mut spec.embedding {
        (*bias, *front) = (false, Some(spec.norm.named("vision_model.pre_layrnorm")));
    }
    Ok(spec)
}

/// The config of the picture tower; that of a tower saved alone is flat.
pub(in crate::model) fn vision(c: &Config) -> Result<Config> {
    match c.get("vision_config") {
        Some(_) => c.part("vision_config"),
        None => Ok(c.clone()),
    }
}

/// Whether a linear classifier is said to be on top.
pub(in crate::model) fn classifier(c: &Config) -> bool {
    c.architectures().iter().any(|class| class.ends_with("ForImageClassification"))
}

/// What is between a picture's class token and the space of both.
pub(in crate::model) fn projected(spec: &Spec, width: usize) -> Vec<StepSpec> {
    vec![
        StepSpec::Norm(spec.norm.named("vision_model.post_layernorm")),
        StepSpec::Linear(LinearSpec::whole("visual_projection", (width, spec.width), false)),
        StepSpec::Unit,
    ]
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

/// CLIP's text tower, and SigLIP's but for its head.
pub(in crate::model) fn texts(c: &Config, space: usize, reach: Reach) -> Result<Spec> {
    let c = c.with_default("hidden_act", "quick_gelu");
    let (width, norm) = (c.size_or("hidden_size", 512)?, NormKind::layer_norm(c.float_or("layer_norm_eps", 1e-5)?));
    let layers = Uniform {
        layers: c.layers_or("num_hidden_layers", 12)?,
        heads: c.size_or("num_attention_heads", 8)?,
        width,
        feed_forward: c.size_or("intermediate_size", 2048)?,
        activation: activation(&c, "hidden_act")?,
        gate: Gate::None,
        norm,
        qkv_bias: [true; 3],
        bias: true,
        scores: ScoresSpec::Dot,
    };
    let mut layers = layers.spelled(&TEXTS);
    layers.iter_mut().for_each(|layer| layer.reach = reach);
    Ok(Spec {
        width,
        wiring: Wiring::Pre,
        norm,
        embedding: EmbeddingSpec::Words {
            vocabulary: c.size_or("vocab_size", 49408)?,
            positions: c.size_or("max_position_embeddings", 77)?,
            table: true,
            types: 0,
            padding_id: None,
            narrow: None,
        },
        pooling: Pooling::Last, // the end of the text, which is the last token of one that is not padded
        steps: vec![StepSpec::Linear(LinearSpec::whole("text_projection", (space, width), false)), StepSpec::Unit],
        classifier_bias: false,
        task: Default::default(),
        headless: true,
        beside: None,
        probe: None,
        spellings: vec![Spelling { layers, names: TEXTS }],
    })
}

pub(in crate::model) const NAMES: Names = Names {
    first: "vision_model.embeddings.patch_embedding.weight",
    embeddings: "vision_model.embeddings",
    inputs: ["patch_embedding", ""],
    tokens: ["class_embedding", "", ""],
    places: "position_embedding.weight",
    layer: "vision_model.encoder.layers.{}",
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    norms: ["layer_norm1", "layer_norm2"],
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    final_norm: None,
    apart: &[
        "text_model.",
        "text_projection.",
        "logit_scale",
        "logit_bias",
        "visual_projection.",
        "vision_model.post_layernorm.",
    ],
    ..super::vit::NAMES
};

const TEXTS: Names = Names {
    first: "text_model.embeddings.token_embedding.weight",
    embeddings: "text_model.embeddings",
    inputs: ["token_embedding", ""],
    layer: "text_model.encoder.layers.{}",
    final_norm: Some("text_model.final_layer_norm"),
    apart: &["vision_model.", "visual_projection.", "logit_scale", "logit_bias"],
    ..NAMES
};
