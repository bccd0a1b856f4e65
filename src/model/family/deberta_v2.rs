//! DeBERTa of the second and third version (He et al., ICLR 2021 and 2023): contents and places apart in every layer's scores, and a
//! pooler of its own before the classifier.

use super::bert::text_spec;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{
    dense_and, DisentangledSpec, EmbeddingSpec, Family, LinearSpec, Modality, Names, NormKind, ScoresSpec, Spec,
};
use crate::nn::Activation;
use serde_json::Value;

/// `model_type: deberta-v2`
pub const FAMILY: Family = Family {
    name: "deberta-v2",
    title: "DeBERTa, versions 2 and 3",
    modality: Modality::Text,
    architectures: &["DebertaV2ForSequenceClassification"],
    example: "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    if positive(c, "conv_kernel_size").is_some() {
        return Err(Error::Model(
            "config.json: `conv_kernel_size`: the convolution beside the first layer (deberta-v2-xlarge) is not supported; the v3 checkpoints have none".into(),
        ));
    }
    let mut spec = base(c, NAMES)?;
    let width = spec.width;
    if c.flag_or("relative_attention", false)? {
        let most = span(c)?;
        let buckets = positive(c, "position_buckets");
        let kinds = kinds(c)?;
        let shared = c.flag_or("share_att_key", false)?;
        let normed =
            c.text("norm_rel_ebd").unwrap_or("none").to_lowercase().split('|').any(|n| n.trim() == "layer_norm");
        for layer in spec.spellings.iter_mut().flat_map(|spelling| &mut spelling.layers) {
            let [query, key, ..] = &layer.projections;
            let before = query.name.trim_end_matches("query_proj");
            let own = |name: &str| LinearSpec::whole(format!("{before}{name}"), (width, width), true);
            let (asked, asking) = match shared {
                true => (key.clone(), query.clone()),
                false => (own("pos_key_proj"), own("pos_query_proj")),
            };
            layer.scores = ScoresSpec::Disentangled(Box::new(DisentangledSpec {
                places: "deberta.encoder.rel_embeddings.weight".into(),
                span: buckets.unwrap_or(most),
                norm: normed.then(|| NormKind::named(spec.norm, "deberta.encoder.LayerNorm")),
                keys: kinds.contains(&"c2p").then_some(asked),
                queries: kinds.contains(&"p2c").then_some(asking),
                buckets: buckets.map(|buckets| (buckets, most)),
            }));
        }
    }
    Ok(spec)
}

/// What all versions share: embedding, sizes, and the head.
pub(in crate::model) fn base(c: &Config, names: Names) -> Result<Spec> {
    let mut spec =
        text_spec(&c.with_default("layer_norm_eps", 1e-7).with_default("type_vocab_size", 0), names, "pooler.dense")?;
    let width = spec.width;
    if c.size_or("embedding_size", width)? != width || c.size_or("pooler_hidden_size", width)? != width {
        return Err(Error::Model(
            "config.json: `embedding_size` or `pooler_hidden_size` other than `hidden_size` is not supported".into(),
        ));
    }
    spec.steps =
        dense_and("pooler.dense", width, Activation::from_name(c.text("pooler_hidden_act").unwrap_or("gelu"))?);
    if let EmbeddingSpec::Words { table, .. } = &mut spec.embedding {
        *table = c.flag_or("position_biased_input", true)?;
    }
    Ok(spec)
}

/// Tokens up to which differences of places are told apart.
pub(in crate::model) fn span(c: &Config) -> Result<usize> {
    let longest = c.size_or("max_position_embeddings", 512)?;
    Ok(positive(c, "max_relative_positions").unwrap_or(longest))
}

/// A number above 0; -1 stands for none.
fn positive(c: &Config, key: &str) -> Option<usize> {
    c.get(key).and_then(Value::as_u64).filter(|n| *n > 0 && *n < 1 << 24).map(|n| n as usize)
}

/// `pos_att_type`, a list or names with `|` between them.
pub(in crate::model) fn kinds(c: &Config) -> Result<Vec<&str>> {
    let kinds: Vec<&str> = match c.get("pos_att_type") {
        None => Vec::new(),
        Some(Value::String(list)) => list.split('|').map(str::trim).filter(|kind| !kind.is_empty()).collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(other) => return Err(Error::Model(format!("config.json: `pos_att_type` is {other}, expected a list"))),
    };
    match kinds.iter().find(|kind| !["c2p", "p2c"].contains(*kind)) {
        Some(other) => Err(Error::Model(format!("config.json: `pos_att_type` has `{other}`, expected c2p and p2c"))),
        None => Ok(kinds),
    }
}

pub(in crate::model) const NAMES: Names = Names {
    first: "deberta.embeddings.word_embeddings.weight",
    embeddings: "deberta.embeddings",
    layer: "deberta.encoder.layer.{}",
    attention: [
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.output.dense",
    ],
    ..super::bert::NAMES
};
