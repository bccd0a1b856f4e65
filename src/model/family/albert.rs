//! ALBERT (Lan et al., ICLR 2020): BERT with narrow tables and layers that share their weights.

use super::bert::{text_spec, uniform};
use crate::error::{Error, Result};
use crate::model::config::{Config, MOST_LAYERS};
use crate::model::spec::{dense_and, EmbeddingSpec, Family, LinearSpec, Modality, Names, Spec, Spelling};
use crate::nn::Activation;

/// `model_type: albert`
pub const FAMILY: Family = Family {
    name: "albert",
    title: "ALBERT",
    modality: Modality::Text,
    architectures: &["AlbertForSequenceClassification"],
    example: "textattack/albert-base-v2-SST-2",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = text_spec(c, NAMES, "albert.pooler")?;
    spec.steps = dense_and("albert.pooler", spec.width, Activation::Tanh);
    let (groups, inner) = (c.layers_or("num_hidden_groups", 1)?, c.layers_or("inner_group_num", 1)?);
    let passes = spec.layers().len();
    if groups > passes {
        return Err(Error::Model(format!("config.json: {groups} groups of layers for {passes} layers")));
    }
    if passes * inner > MOST_LAYERS {
        return Err(Error::Model(format!(
            "config.json: {passes} passes through {inner} layers; at most {MOST_LAYERS} layers are read"
        )));
    }
    // Pass i goes through every layer of its group; transformers: int(i / (passes / groups)).
    let group = |pass: usize| (pass as f64 / (passes as f64 / groups as f64)) as usize;
    let order = (0..passes).flat_map(|pass| (0..inner).map(move |own| (pass, own)));
    let layers = uniform(c)?;
    let layer = |(pass, own)| layers.layer(&NAMES.numbered(format!("{}.albert_layers.{own}", group(pass))), &NAMES);
    let layers = order.map(layer).collect();
    spec.spellings = vec![Spelling { layers, names: NAMES }];
    if let EmbeddingSpec::Words { narrow, .. } = &mut spec.embedding {
        let shape = (spec.width, c.size_or("embedding_size", 128)?);
        *narrow = Some(LinearSpec::whole("albert.encoder.embedding_hidden_mapping_in", shape, true));
    }
    Ok(spec)
}

const NAMES: Names = Names {
    first: "albert.embeddings.word_embeddings.weight",
    embeddings: "albert.embeddings",
    layer: "albert.encoder.albert_layer_groups.{}",
    attention: ["attention.query", "attention.key", "attention.value", "attention.dense"],
    norms: ["attention.LayerNorm", "full_layer_layer_norm"],
    feed_forward: ["ffn", "ffn_output"],
    ..super::bert::NAMES
};
