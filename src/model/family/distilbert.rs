//! DistilBERT (Sanh et al., 2019): no token types, its own config keys, ReLU before the classifier.

use crate::encoder::{Gate, Wiring};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{
    activation, dense_and, EmbeddingSpec, Family, Modality, Names, NormKind, Pooling, ScoresSpec, Spec, Spelling,
    Uniform,
};
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
    let norm = NormKind::layer_norm(1e-12); // fixed in transformers' DistilBERT
    let width = c.size_or("dim", 768)?;
    let layers = Uniform {
        layers: c.layers_or("n_layers", 6)?,
        heads: c.size_or("n_heads", 12)?,
        width,
        feed_forward: c.size_or("hidden_dim", 3072)?,
        activation: activation(c, "activation")?,
        gate: Gate::None,
        norm,
        qkv_bias: [true; 3],
        bias: true,
        scores: ScoresSpec::Dot,
    };
    Ok(Spec {
        width,
        wiring: Wiring::Post,
        norm,
        embedding: EmbeddingSpec::Words {
            vocabulary: c.size_or("vocab_size", 30522)?,
            positions: c.size_or("max_position_embeddings", 512)?,
            table: true,
            types: 0,
            padding_id: None,
            narrow: None,
        },
        pooling: Pooling::First,
        steps: dense_and("pre_classifier", width, Activation::Relu),
        classifier_bias: true,
        task: Default::default(),
        headless: false,
        beside: None,
        probe: None,
        spellings: vec![Spelling { layers: layers.spelled(&NAMES), names: NAMES }], // transformers 5 writes the same names
    })
}

const NAMES: Names = Names {
    first: "distilbert.embeddings.word_embeddings.weight",
    embeddings: "distilbert.embeddings",
    inputs: ["word_embeddings", "LayerNorm"],
    tokens: [""; 3],
    places: "position_embeddings.weight",
    layer: "distilbert.transformer.layer.{}",
    attention: ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
    norms: ["sa_layer_norm", "output_layer_norm"],
    feed_forward: ["ffn.lin1", "ffn.lin2"],
    second_half: None,
    scales: None,
    final_norm: None,
    classifiers: &["classifier"],
    apart: &[],
    other_heads: &[],
};
