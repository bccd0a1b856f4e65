//! ELECTRA (Clark et al., ICLR 2020): BERT's blocks, narrower tables behind which a linear map stands, and a head of its own on the
//! first token: dense, GELU, classifier.

use super::bert::text_spec;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{dense_and, EmbeddingSpec, Family, LinearSpec, Modality, Names, Spec};
use crate::nn::Activation;

/// `model_type: electra`
pub const FAMILY: Family = Family {
    name: "electra",
    title: "ELECTRA",
    modality: Modality::Text,
    architectures: &["ElectraForSequenceClassification"],
    example: "bhadresh-savani/electra-base-emotion",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = text_spec(c, NAMES, "classifier.dense")?;
    spec.steps = dense_and("classifier.dense", spec.width, Activation::Gelu);
    let inner = c.size_or("embedding_size", 128)?;
    if let (EmbeddingSpec::Words { narrow, .. }, true) = (&mut spec.embedding, inner != spec.width) {
        *narrow = Some(LinearSpec::whole("electra.embeddings_project", (spec.width, inner), true));
    }
    Ok(spec)
}

const NAMES: Names = Names {
    first: "electra.embeddings.word_embeddings.weight",
    embeddings: "electra.embeddings",
    layer: "electra.encoder.layer.{}",
    classifiers: &["classifier.out_proj"],
    ..super::bert::NAMES
};
