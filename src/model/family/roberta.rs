//! RoBERTa (Liu et al., 2019): BERT's blocks, positions counted from the padding id, a head of its own.

use super::bert::text_spec;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{EmbeddingSpec, Family, Modality, Names, Spec};

/// `model_type: roberta`
pub const FAMILY: Family = Family {
    name: "roberta",
    title: "RoBERTa",
    modality: Modality::Text,
    architectures: &["RobertaForSequenceClassification"],
    example: "cardiffnlp/twitter-roberta-base-sentiment-latest",
    spec,
};

pub(in crate::model) fn spec(c: &Config) -> Result<Spec> {
    counted(c, NAMES)
}

/// What RoBERTa and its kin share.
pub(in crate::model) fn counted(c: &Config, names: Names) -> Result<Spec> {
    let mut spec = text_spec(c, names, "classifier.dense")?;
    if let EmbeddingSpec::Words { padding_id, .. } = &mut spec.embedding {
        *padding_id = Some(c.number_or("pad_token_id", 1)?);
    }
    Ok(spec)
}

pub(in crate::model) const NAMES: Names = Names {
    first: "roberta.embeddings.word_embeddings.weight",
    embeddings: "roberta.embeddings",
    layer: "roberta.encoder.layer.{}",
    classifiers: &["classifier.out_proj"],
    ..super::bert::NAMES
};
