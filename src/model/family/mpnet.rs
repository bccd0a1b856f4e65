//! MPNet (Song et al., NeurIPS 2020): BERT's blocks, RoBERTa's positions and head, and T5's relative positions, one table for all
//! layers.

use super::roberta::counted;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{EmbeddingSpec, Family, Modality, Names, ScoresSpec, Spec};
use crate::nn::Offsets;

/// `model_type: mpnet`
pub const FAMILY: Family = Family {
    name: "mpnet",
    title: "MPNet",
    modality: Modality::Text,
    architectures: &["MPNetForSequenceClassification"],
    example: "microsoft/mpnet-base (fine-tuned)",
    spec,
};

/// transformers fixes these, whatever `relative_attention_num_buckets` says of the table's size.
const BUCKETS: usize = 32;
const FAR: usize = 128;
/// Positions count from here + 1, whatever `pad_token_id` says.
const PADDING: u32 = 1;

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = counted(c, NAMES)?;
    let entries = c.size_or("relative_attention_num_buckets", BUCKETS)?;
    if entries < BUCKETS {
        return Err(Error::Model(format!(
            "config.json: `relative_attention_num_buckets` is {entries}, and transformers reads {BUCKETS}"
        )));
    }
    let offsets = Offsets::Buckets { count: BUCKETS, most: FAR };
    for layer in spec.spellings.iter_mut().flat_map(|spelling| &mut spelling.layers) {
        layer.scores =
            ScoresSpec::Table { name: "mpnet.encoder.relative_attention_bias.weight".into(), entries, offsets };
    }
    if let EmbeddingSpec::Words { types, padding_id, .. } = &mut spec.embedding {
        (*types, *padding_id) = (0, Some(PADDING));
    }
    Ok(spec)
}

const NAMES: Names = Names {
    first: "mpnet.embeddings.word_embeddings.weight",
    embeddings: "mpnet.embeddings",
    layer: "mpnet.encoder.layer.{}",
    attention: ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"],
    norms: ["attention.LayerNorm", "output.LayerNorm"],
    ..super::roberta::NAMES
};
