//! BERT (Devlin et al., NAACL 2019).

use crate::encoder::{Gate, Wiring};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{
    activation, dense_and, EmbeddingSpec, Family, Modality, Names, NormKind, Pooling, ScoresSpec, Spec, Spelling,
    Uniform,
};
use crate::nn::Activation;

/// `model_type: bert`
pub const FAMILY: Family = Family {
    name: "bert",
    title: "BERT",
    modality: Modality::Text,
    architectures: &["BertForSequenceClassification"],
    example: "textattack/bert-base-uncased-SST-2",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    text_spec(c, NAMES, "bert.pooler.dense")
}

/// What BERT and RoBERTa share; `dense`: the map before the classifier.
pub(in crate::model) fn text_spec(c: &Config, names: Names, dense: &str) -> Result<Spec> {
    for (key, what) in [
        ("is_decoder", "decoders, whose tokens see only those before them, are not supported"),
        ("add_cross_attention", "attention to another model's states is not supported"),
    ] {
        if c.flag_or(key, false)? {
            return Err(Error::Model(format!("config.json: `{key}` is true: {what}")));
        }
    }
    if let Some(kind) = c.text("position_embedding_type").filter(|k| *k != "absolute") {
        return Err(Error::Model(format!(
            "config.json: position_embedding_type `{kind}` is not supported, only `absolute`"
        )));
    }
    let layers = uniform(c)?;
    let (width, norm) = (layers.width, layers.norm);
    Ok(Spec {
        width,
        wiring: Wiring::Post,
        norm,
        embedding: EmbeddingSpec::Words {
            vocabulary: c.size_or("vocab_size", 30522)?,
            positions: c.size_or("max_position_embeddings", 512)?,
            table: true,
            types: c.number_or("type_vocab_size", 2)? as usize,
            padding_id: None,
            narrow: None,
        },
        pooling: Pooling::First,
        steps: dense_and(dense, width, Activation::Tanh),
        classifier_bias: true,
        task: Default::default(),
        headless: false,
        beside: None,
        probe: None,
        spellings: vec![Spelling { layers: layers.spelled(&names), names }], // transformers 5 writes the same names
    })
}

/// BERT's layers.
pub(in crate::model) fn uniform(c: &Config) -> Result<Uniform> {
    Ok(Uniform {
        layers: c.layers_or("num_hidden_layers", 12)?,
        heads: c.size_or("num_attention_heads", 12)?,
        width: c.size_or("hidden_size", 768)?,
        feed_forward: c.size_or("intermediate_size", 3072)?,
        activation: activation(c, "hidden_act")?,
        gate: Gate::None,
        norm: NormKind::layer_norm(c.float_or("layer_norm_eps", 1e-12)?),
        qkv_bias: [true; 3],
        bias: true,
        scores: ScoresSpec::Dot,
    })
}

pub(in crate::model) const NAMES: Names = Names {
    first: "bert.embeddings.word_embeddings.weight",
    embeddings: "bert.embeddings",
    inputs: ["word_embeddings", "LayerNorm"],
    tokens: [""; 3],
    places: "position_embeddings.weight",
    layer: "bert.encoder.layer.{}",
    attention: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    feed_forward: ["intermediate.dense", "output.dense"],
    second_half: None,
    scales: None,
    final_norm: None,
    classifiers: &["classifier"],
    apart: &[],
    other_heads: &[],
};
