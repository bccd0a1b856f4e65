//! ERNIE (Sun et al., 2019 to 2021): BERT's blocks and head.

use super::bert::text_spec;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{Family, Modality, Names, Spec};

/// `model_type: ernie`
pub const FAMILY: Family = Family {
    name: "ernie",
    title: "ERNIE",
    modality: Modality::Text,
    architectures: &["ErnieForSequenceClassification"],
    example: "nghuyong/ernie-2.0-base-en (fine-tuned)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    if c.flag_or("use_task_id", false)? {
        return Err(Error::Model("config.json: `use_task_id` is true: embeddings of tasks are not supported".into()));
    }
    text_spec(c, NAMES, "ernie.pooler.dense")
}

const NAMES: Names = Names {
    first: "ernie.embeddings.word_embeddings.weight",
    embeddings: "ernie.embeddings",
    layer: "ernie.encoder.layer.{}",
    ..super::bert::NAMES
};
