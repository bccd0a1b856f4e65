//! DINOv2 (Oquab et al., TMLR 2024) with a linear classifier on the class token beside the mean of the patch tokens.

use crate::encoder::{Gate, Wiring};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{
    activation, EmbeddingSpec, Family, Modality, Names, NormKind, Placed, Pooling, ScoresSpec, Spec, Spelling, Uniform,
};
use crate::nn::resample::Bicubic;
use crate::nn::Activation;

/// `model_type: dinov2`
pub const FAMILY: Family = Family {
    name: "dinov2",
    title: "DINOv2",
    modality: Modality::Image,
    architectures: &["Dinov2ForImageClassification"],
    example: "facebook/dinov2-small-imagenet1k-1-layer",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    image_spec(c, NAMES, 0, Bicubic::Plain)
}

/// What DINOv2 with and without registers share.
pub(in crate::model) fn image_spec(c: &Config, mut names: Names, registers: usize, kernel: Bicubic) -> Result<Spec> {
    let width = c.size_or("hidden_size", 768)?;
    let gated = c.flag_or("use_swiglu_ffn", false)?;
    let plain = (c.float_or("mlp_ratio", 4.0)? * width as f64) as usize; // transformers: int(width * ratio)
    let attention = ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"];
    let mut modern = Names { attention, ..names.clone() };
    if gated {
        names.feed_forward = ["mlp.weights_in", "mlp.weights_out"];
        (modern.feed_forward, modern.second_half) = (["mlp.gate_proj", "mlp.down_proj"], Some("mlp.up_proj"));
    }
    let norm = NormKind::layer_norm(c.float_or("layer_norm_eps", 1e-6)?);
    let layers = Uniform {
        layers: c.layers_or("num_hidden_layers", 12)?,
        heads: c.size_or("num_attention_heads", 12)?,
        width,
        // transformers: two thirds of the plain width, rounded up to a multiple of 8.
        feed_forward: if gated { (plain * 2 / 3).div_ceil(8) * 8 } else { plain },
        activation: if gated { Activation::Silu } else { activation(c, "hidden_act")? },
        gate: if gated { Gate::First } else { Gate::None },
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
            registers,
            table: Some(kernel),
            placed: Placed::Usual,
            front: None,
        },
        pooling: Pooling::ClassAndPatchMean,
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
    first: "dinov2.embeddings.patch_embeddings.projection.weight",
    embeddings: "dinov2.embeddings",
    inputs: ["patch_embeddings.projection", ""],
    tokens: ["cls_token", "distillation_token", "register_tokens"],
    places: "position_embeddings",
    layer: "dinov2.encoder.layer.{}",
    attention: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ],
    norms: ["norm1", "norm2"],
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    second_half: None,
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
    final_norm: Some("dinov2.layernorm"),
    classifiers: &["classifier"],
    apart: &[],
    other_heads: &[],
};
