//! ModernBERT (Warner et al. 2024): rotary positions, layers that see everything between layers that see a window, gated
//! feed-forwards, one fused matrix for queries, keys and values, and no biases.

use crate::encoder::{Gate, Wiring};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{
    activation, EmbeddingSpec, Family, LinearSpec, Modality, Names, NormKind, Part, Pooling, ScoresSpec, Spec,
    Spelling, StepSpec, Uniform,
};
use crate::nn::{Centre, Reach, Rotary};
use serde_json::Value;

/// `model_type: modernbert`
pub const FAMILY: Family = Family {
    name: "modernbert",
    title: "ModernBERT",
    modality: Modality::Text,
    architectures: &["ModernBertForSequenceClassification"],
    example: "answerdotai/ModernBERT-base (fine-tuned)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let width = c.size_or("hidden_size", 768)?;
    let norm =
        NormKind { eps: c.float_or("norm_eps", 1e-5)?, bias: c.flag_or("norm_bias", false)?, centre: Centre::Mean };
    let (attention_bias, mlp_bias) = (c.flag_or("attention_bias", false)?, c.flag_or("mlp_bias", false)?);
    let layers = Uniform {
        layers: c.layers_or("num_hidden_layers", 22)?,
        heads: c.size_or("num_attention_heads", 12)?,
        width,
        feed_forward: c.size_or("intermediate_size", 1152)?,
        activation: activation(c, "hidden_activation")?,
        gate: Gate::First,
        norm,
        qkv_bias: [attention_bias; 3],
        bias: mlp_bias,
        scores: ScoresSpec::Dot, // set for each layer below
    };
    let (global, local) = (rotary(c, "full_attention", "global_rope_theta", 160_000.0)?, local_rotary(c)?);
    let window = Reach::Within(c.size_or("local_attention", 128)? / 2);
    let mut layers = layers.spelled(&NAMES);
    for (number, layer) in layers.iter_mut().enumerate() {
        for (which, projection) in layer.projections.iter_mut().take(3).enumerate() {
            projection.part = Some(Part::Block { which, of: 3 });
        }
        layer.projections[3].bias = attention_bias;
        (layer.scores, layer.reach) = match sees_all(c, number)? {
            true => (ScoresSpec::Rotary(global), Reach::All),
            false => (ScoresSpec::Rotary(local), window),
        };
        if number == 0 {
            layer.norms[0] = None; // the embedding's norm has just been applied
        }
    }
    let dense = LinearSpec::whole("head.dense", (width, width), c.flag_or("classifier_bias", false)?);
    Ok(Spec {
        width,
        wiring: Wiring::Pre,
        norm,
        embedding: EmbeddingSpec::Words {
            vocabulary: c.size_or("vocab_size", 50368)?,
            positions: c.size_or("max_position_embeddings", 8192)?,
            table: false,
            types: 0,
            padding_id: None,
            narrow: None,
        },
        pooling: pooling(c)?,
        steps: vec![
            StepSpec::Linear(dense),
            StepSpec::Activation(activation(c, "classifier_activation")?),
            StepSpec::Norm(norm.named("head.norm")),
        ],
        classifier_bias: true,
        task: Default::default(),
        headless: false,
        beside: None,
        probe: None,
        spellings: vec![Spelling { layers, names: NAMES }],
    })
}

fn pooling(c: &Config) -> Result<Pooling> {
    match c.text("classifier_pooling") {
        None | Some("cls") => Ok(Pooling::First),
        Some("mean") => Ok(Pooling::Mean),
        Some(other) => {
            Err(Error::Model(format!("config.json: `classifier_pooling` is \"{other}\", expected \"cls\" or \"mean\"")))
        }
    }
}

/// Whether a layer sees everything: as `layer_types` says (transformers 5), or every so many layers.
fn sees_all(c: &Config, number: usize) -> Result<bool> {
    let Some(types) = c.get("layer_types") else {
        return Ok(number.is_multiple_of(c.size_or("global_attn_every_n_layers", 3)?));
    };
    match types.get(number).and_then(Value::as_str) {
        Some("full_attention") => Ok(true),
        Some("sliding_attention") => Ok(false),
        _ => Err(Error::Model(format!(
            "config.json: `layer_types` says nothing known of layer {number}, expected \"full_attention\" or \"sliding_attention\""
        ))),
    }
}

/// The base of a kind of layers: of `rope_parameters` (transformers 5), or of its own key.
fn rotary(c: &Config, kind: &str, key: &str, default: f64) -> Result<Rotary> {
    let Some(own) = c.get("rope_parameters").and_then(|p| p.get(kind)) else {
        return Ok(Rotary::line(c.float_or(key, default)?));
    };
    if let Some(scaled) = own.get("rope_type").and_then(Value::as_str).filter(|t| *t != "default") {
        return Err(Error::Model(format!("config.json: `rope_parameters` of type \"{scaled}\" are not supported")));
    }
    match own.get("rope_theta").map_or(Some(default), Value::as_f64) {
        Some(theta) => Ok(Rotary::line(theta)),
        None => Err(Error::Model(format!("config.json: `rope_theta` of `{kind}` is no number"))),
    }
}

/// Local layers have the base of the others where the config does not say.
fn local_rotary(c: &Config) -> Result<Rotary> {
    let default =
        if c.get("local_rope_theta").is_none() { c.float_or("global_rope_theta", 10_000.0)? } else { 10_000.0 };
    rotary(c, "sliding_attention", "local_rope_theta", default)
}

const NAMES: Names = Names {
    first: "model.embeddings.tok_embeddings.weight",
    embeddings: "model.embeddings",
    inputs: ["tok_embeddings", "norm"],
    tokens: [""; 3],
    places: "position_embeddings.weight",
    layer: "model.layers.{}",
    attention: ["attn.Wqkv", "attn.Wqkv", "attn.Wqkv", "attn.Wo"],
    norms: ["attn_norm", "mlp_norm"],
    feed_forward: ["mlp.Wi", "mlp.Wo"],
    second_half: None,
    scales: None,
    final_norm: Some("model.final_norm"),
    classifiers: &["classifier"],
    apart: &[],
    other_heads: &[],
};
