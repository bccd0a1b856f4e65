//! DINOv3 (Siméoni et al. 2025): places of patches are rotations of queries and keys, with registers, and a plain or a
//! gated feed-forward. The hub's checkpoints are backbones; a linear classifier is read as DINOv2's is, on the class token
//! beside the mean of the patch tokens.

use crate::encoder::{Gate, Wiring};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{
    activation, EmbeddingSpec, Family, Modality, Names, NormKind, Placed, Pooling, ScoresSpec, Spec, Spelling, Uniform,
};
use crate::nn::Rotary;

/// `model_type: dinov3_vit`
pub const FAMILY: Family = Family {
    name: "dinov3_vit",
    title: "DINOv3",
    modality: Modality::Image,
    architectures: &["DINOv3ViTForImageClassification"],
    example: "facebook/dinov3-vits16-pretrain-lvd1689m (with a linear head)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let width = c.size_or("hidden_size", 384)?;
    let norm = NormKind::layer_norm(c.float_or("layer_norm_eps", 1e-5)?);
    let gated = c.flag_or("use_gated_mlp", false)?;
    let layers = Uniform {
        layers: c.layers_or("num_hidden_layers", 12)?,
        heads: c.size_or("num_attention_heads", 6)?,
        width,
        feed_forward: c.size_or("intermediate_size", 1536)?,
        activation: activation(c, "hidden_act")?,
        gate: if gated { Gate::First } else { Gate::None },
        norm,
        qkv_bias: [c.flag_or("query_bias", true)?, c.flag_or("key_bias", false)?, c.flag_or("value_bias", true)?],
        bias: c.flag_or("mlp_bias", true)?,
        scores: ScoresSpec::Rotary(rotary(c)?),
    };
    let names = if gated { GATED } else { NAMES };
    let mut layers = layers.spelled(&names);
    for layer in &mut layers {
        layer.projections[3].bias = c.flag_or("proj_bias", true)?;
    }
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
            registers: c.number_or("num_register_tokens", 0)? as usize,
            table: None,
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
        spellings: vec![Spelling { layers, names }],
    })
}

/// `rope_theta`, or that of `rope_parameters` (transformers 5).
fn rotary(c: &Config) -> Result<Rotary> {
    match c.get("rope_parameters").and_then(|p| p.get("rope_theta")) {
        None => Ok(Rotary::line(c.float_or("rope_theta", 100.0)?)),
        Some(theta) => match theta.as_f64() {
            Some(theta) => Ok(Rotary::line(theta)),
            None => Err(Error::Model(format!("config.json: `rope_theta` is {theta}, expected a number"))),
        },
    }
}

const NAMES: Names = Names {
    first: "model.embeddings.patch_embeddings.weight",
    embeddings: "model.embeddings",
    inputs: ["patch_embeddings", ""],
    tokens: ["cls_token", "distillation_token", "register_tokens"],
    places: "position_embeddings",
    layer: "model.layer.{}",
    attention: ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"],
    norms: ["norm1", "norm2"],
    feed_forward: ["mlp.up_proj", "mlp.down_proj"],
    second_half: None,
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
    final_norm: Some("model.norm"),
    classifiers: &["classifier"],
    apart: &[],
    other_heads: &[],
};

/// The activated half is stored apart.
const GATED: Names =
    Names { feed_forward: ["mlp.gate_proj", "mlp.down_proj"], second_half: Some("mlp.up_proj"), ..NAMES };
