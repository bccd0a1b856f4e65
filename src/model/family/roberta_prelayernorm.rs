//! RoBERTa with norms in front (Ott et al. 2019, fairseq): each branch reads a normed state, and a norm stands behind the last layer.

use super::roberta::counted;
use crate::encoder::Wiring;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{Family, Modality, Names, Spec};

/// `model_type: roberta-prelayernorm`
pub const FAMILY: Family = Family {
    name: "roberta-prelayernorm",
    title: "RoBERTa with norms in front",
    modality: Modality::Text,
    architectures: &["RobertaPreLayerNormForSequenceClassification"],
    example: "andreasmadsen/efficient_mlm_m0.40 (fine-tuned)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    Ok(Spec { wiring: Wiring::Pre, ..counted(c, NAMES)? })
}

const NAMES: Names = Names {
    first: "roberta_prelayernorm.embeddings.word_embeddings.weight",
    embeddings: "roberta_prelayernorm.embeddings",
    layer: "roberta_prelayernorm.encoder.layer.{}",
    norms: ["attention.LayerNorm", "intermediate.LayerNorm"],
    final_norm: Some("roberta_prelayernorm.LayerNorm"),
    ..super::roberta::NAMES
};
