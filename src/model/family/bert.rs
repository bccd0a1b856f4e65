//! BERT (Devlin et al., NAACL 2019).

use crate::encoder::{NormPlacement, Pooling};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{activation, EmbeddingSpec, Family, Modality, Names, Spec};
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
    text_spec(c, NAMES)
}

/// What BERT and RoBERTa share.
pub(in crate::model) fn text_spec(c: &Config, names: Names) -> Result<Spec> {
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
    Ok(Spec {
        width: c.size_or("hidden_size", 768)?,
        heads: c.size_or("num_attention_heads", 12)?,
        layers: c.size_or("num_hidden_layers", 12)?,
        feed_forward: c.size_or("intermediate_size", 3072)?,
        activation: activation(c, "hidden_act")?,
        gated: false,
        placement: NormPlacement::Post,
        eps: c.float_or("layer_norm_eps", 1e-12)?,
        qkv_bias: true,
        embedding: EmbeddingSpec::Words {
            vocabulary: c.size_or("vocab_size", 30522)?,
            positions: c.size_or("max_position_embeddings", 512)?,
            types: c.size_or("type_vocab_size", 2)?,
            padding_id: None,
        },
        pooling: Pooling::First,
        dense: Some(Activation::Tanh),
        names,
        modern: None, // the same in transformers 5
    })
}

pub(in crate::model) const NAMES: Names = Names {
    first: "bert.embeddings.word_embeddings.weight",
    embeddings: "bert.embeddings",
    layer: "bert.encoder.layer.{}",
    attention: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    feed_forward: ["intermediate.dense", "output.dense"],
    second_half: None,
    scales: None,
    final_norm: None,
    dense: Some("bert.pooler.dense"),
    classifiers: &["classifier"],
    other_heads: &[],
};
