//! DeBERTa of the first version (He et al., ICLR 2021): queries, keys and values are stored head by head in one map, and only queries and
//! values have a bias; places are counted one by one.

use super::deberta_v2::{base, kinds, span};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{DisentangledSpec, Family, LinearSpec, Modality, Names, Part, ScoresSpec, Spec};

/// `model_type: deberta`
pub const FAMILY: Family = Family {
    name: "deberta",
    title: "DeBERTa, version 1",
    modality: Modality::Text,
    architectures: &["DebertaForSequenceClassification"],
    example: "microsoft/deberta-base-mnli",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let relative = c.flag_or("relative_attention", false)?;
    let kinds = kinds(c)?;
    if c.flag_or("talking_head", false)? || (!relative && !kinds.is_empty()) {
        return Err(Error::Model(
            "config.json: `talking_head`, or `pos_att_type` without `relative_attention`, is not supported".into(),
        ));
    }
    let mut spec = base(c, NAMES)?;
    let width = spec.width;
    for layer in spec.spellings.iter_mut().flat_map(|spelling| &mut spelling.layers) {
        let before = layer.projections[0].name.trim_end_matches("in_proj").to_string();
        for (which, projection) in layer.projections.iter_mut().take(3).enumerate() {
            projection.part = Some(Part::OfHeads { which, of: 3, heads: layer.heads });
            projection.bias = which != 1;
            projection.bias_name = Some(format!("{before}{}", if which == 0 { "q_bias" } else { "v_bias" }));
        }
        if relative {
            let own = |name: &str, bias| LinearSpec::whole(format!("{before}{name}"), (width, width), bias);
            layer.scores = ScoresSpec::Disentangled(Box::new(DisentangledSpec {
                places: "deberta.encoder.rel_embeddings.weight".into(),
                span: span(c)?,
                norm: None,
                keys: kinds.contains(&"c2p").then(|| own("pos_proj", false)),
                queries: kinds.contains(&"p2c").then(|| own("pos_q_proj", true)),
                buckets: None,
            }));
        }
    }
    Ok(spec)
}

const NAMES: Names = Names {
    attention: ["attention.self.in_proj", "attention.self.in_proj", "attention.self.in_proj", "attention.output.dense"],
    ..super::deberta_v2::NAMES
};
