//! data2vec for texts (Baevski et al., ICML 2022): RoBERTa's blocks and head.

use super::roberta::counted;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{Family, Modality, Names, Spec};

/// `model_type: data2vec-text`
pub const FAMILY: Family = Family {
    name: "data2vec-text",
    title: "data2vec, texts",
    modality: Modality::Text,
    architectures: &["Data2VecTextForSequenceClassification"],
    example: "facebook/data2vec-text-base (fine-tuned)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    counted(c, NAMES)
}

const NAMES: Names = Names {
    first: "data2vec_text.embeddings.word_embeddings.weight",
    embeddings: "data2vec_text.embeddings",
    layer: "data2vec_text.encoder.layer.{}",
    ..super::roberta::NAMES
};
