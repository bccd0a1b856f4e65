//! XLM-R (Conneau et al., ACL 2020): RoBERTa over a hundred languages, with a SentencePiece tokenizer.

use super::roberta::spec;
use crate::model::spec::{Family, Modality};

/// `model_type: xlm-roberta`
pub const FAMILY: Family = Family {
    name: "xlm-roberta",
    title: "XLM-RoBERTa",
    modality: Modality::Text,
    architectures: &["XLMRobertaForSequenceClassification"],
    example: "cardiffnlp/twitter-xlm-roberta-base-sentiment",
    spec,
};
