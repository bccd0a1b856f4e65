//! DistilBERT (Sanh et al., 2019): no token types, its own config keys, ReLU before the classifier.

use crate::encoder::{NormPlacement, Pooling};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{activation, EmbeddingSpec, Family, Modality, Names, Spec};
use crate::nn::Activation;

/// `model_type: distilbert`
pub const FAMILY: Family = Family {
    name: "distilbert",
    title: "DistilBERT",
    modality: Modality::Text,
    architectures: &["DistilBertForSequenceClassification"],
    example: "distilbert-base-uncased-finetuned-sst-2-english",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    Ok(Spec {
        width: c.size_or("dim", 768)?,
        heads: c.size_or("n_heads", 12)?,
        layers: c.size_or("n_layers", 6)?,
        feed_forward: c.size_or("hidden_dim", 3072)?,
        activation: activation(c, "activation")?,
        gated: false,
        placement: NormPlacement::Post,
        eps: 1e-12, // fixed in transformers' DistilBERT
        qkv_bias: true,
        embedding: EmbeddingSpec::Words {
            vocabulary: c.size_or("vocab_size", 30522)?,
            positions: c.size_or("max_position_embeddings", 512)?,
            types: 0,
            padding_id: None,
        },
        pooling: Pooling::First,
        dense: Some(Activation::Relu),
        names: NAMES,
        modern: None, // the same in transformers 5
    })
}

const NAMES: Names = Names {
    first: "distilbert.embeddings.word_embeddings.weight",
    embeddings: "distilbert.embeddings",
    layer: "distilbert.transformer.layer.{}",
    attention: ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
    norms: ["sa_layer_norm", "output_layer_norm"],
    feed_forward: ["ffn.lin1", "ffn.lin2"],
    second_half: None,
    scales: None,
    final_norm: None,
    dense: Some("pre_classifier"),
    classifiers: &["classifier"],
    other_heads: &[],
};
