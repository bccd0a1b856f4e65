//! CamemBERT (Martin et al., ACL 2020): RoBERTa for French.

use super::roberta::spec;
use crate::model::spec::{Family, Modality};

/// `model_type: camembert`
pub const FAMILY: Family = Family {
    name: "camembert",
    title: "CamemBERT",
    modality: Modality::Text,
    architectures: &["CamembertForSequenceClassification"],
    example: "cmarkea/distilcamembert-base-sentiment",
    spec,
};
