//! BERT (Devlin et al., NAACL 2019).

use crate::encoder::{Gate, Wiring};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{
    activation, dense_and, EmbeddingSpec, Family, Modality, Names, NormKind, Pooling, Spec, Spelling, Uniform,
};
use crate::nn::{Activation, Scores};

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
    let (width, norm) = (c.size_or("hidden_size", 768)?, NormKind::layer_norm(c.float_or("layer_norm_eps", 1e-12)?));
    let layers = Uniform {
        layers: c.size_or("num_hidden_layers", 12)?,
        heads: c.size_or("num_attention_heads", 12)?,
        width,
        feed_forward: c.size_or("intermediate_size", 3072)?,
        activation: activation(c, "hidden_act")?,
        gate: Gate::None,
        norm,
        qkv_bias: [true; 3],
        bias: true,
        scores: Scores::Dot,
    };
    Ok(Spec {
        width,
        wiring: Wiring::Post,
        norm,
        embedding: EmbeddingSpec::Words {
            vocabulary: c.size_or("vocab_size", 30522)?,
            positions: c.size_or("max_position_embeddings", 512)?,
            table: true,
            types: c.size_or("type_vocab_size", 2)?,
            padding_id: None,
        },
        pooling: Pooling::First,
        steps: dense_and(dense, width, Activation::Tanh),
        classifier_bias: true,
        spellings: vec![Spelling { layers: layers.spelled(&names), names }], // transformers 5 writes the same names
    })
}

pub(in crate::model) const NAMES: Names = Names {
    first: "bert.embeddings.word_embeddings.weight",
    embeddings: "bert.embeddings",
    inputs: ["word_embeddings", "LayerNorm"],
    layer: "bert.encoder.layer.{}",
    attention: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    feed_forward: ["intermediate.dense", "output.dense"],
    second_half: None,
    scales: None,
    final_norm: None,
    classifiers: &["classifier"],
    other_heads: &[],
};
