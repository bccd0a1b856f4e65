//! ViT (Dosovitskiy et al., ICLR 2021).

use crate::encoder::{Gate, Wiring};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{
    activation, EmbeddingSpec, Family, Modality, Names, NormKind, Placed, Pooling, ScoresSpec, Spec, Spelling, Uniform,
};
use crate::nn::resample::Bicubic;

/// `model_type: vit`
pub const FAMILY: Family = Family {
    name: "vit",
    title: "ViT",
    modality: Modality::Image,
    architectures: &["ViTForImageClassification"],
    example: "google/vit-base-patch16-224",
    spec,
};

pub(in crate::model) fn spec(c: &Config) -> Result<Spec> {
    image_spec(c, NAMES, MODERN)
}

/// What ViT and DeiT share.
pub(in crate::model) fn image_spec(c: &Config, names: Names, modern: Names) -> Result<Spec> {
    let (width, norm) = (c.size_or("hidden_size", 768)?, NormKind::layer_norm(c.float_or("layer_norm_eps", 1e-12)?));
    let layers = Uniform {
        layers: c.layers_or("num_hidden_layers", 12)?,
        heads: c.size_or("num_attention_heads", 12)?,
        width,
        feed_forward: c.size_or("intermediate_size", 3072)?,
        activation: activation(c, "hidden_act")?,
        gate: Gate::None,
        norm,
        qkv_bias: [c.flag_or("qkv_bias", true)?; 3],
        bias: true,
        scores: ScoresSpec::Dot,
    };
    let spelling = |names: Names| Spelling { layers: layers.spelled(&names), names };
    Ok(Spec {
        width,
        wiring: Wiring::Pre,
        norm,
        embedding: EmbeddingSpec::Patches {
            image: c.pair_or("image_size", 224)?,
            patch: c.pair_or("patch_size", 16)?,
            channels: c.size_or("num_channels", 3)?,
            class: true,
            bias: true,
            distillation: false,
            registers: 0,
            table: Some(Bicubic::Plain),
            placed: Placed::Usual,
            front: None,
        },
        pooling: Pooling::First,
        steps: Vec::new(),
        classifier_bias: true,
        task: Default::default(),
        headless: false,
        beside: None,
        probe: None,
        spellings: vec![spelling(names), spelling(modern)],
    })
}

pub(in crate::model) const NAMES: Names = Names {
    first: "vit.embeddings.patch_embeddings.projection.weight",
    embeddings: "vit.embeddings",
    inputs: ["patch_embeddings.projection", ""],
    tokens: ["cls_token", "distillation_token", "register_tokens"],
    places: "position_embeddings",
    layer: "vit.encoder.layer.{}",
    attention: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ],
    norms: ["layernorm_before", "layernorm_after"],
    feed_forward: ["intermediate.dense", "output.dense"],
    second_half: None,
    scales: None,
    final_norm: Some("vit.layernorm"),
    classifiers: &["classifier"],
    apart: &[],
    other_heads: &[],
};

/// As transformers 5 writes them.
pub(in crate::model) const MODERN: Names = Names {
    layer: "vit.layers.{}",
    attention: ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"],
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    ..NAMES
};
