//! Chinese CLIP (Yang et al., 2022): CLIP's picture tower beside a BERT, whose first token is projected.

use super::bert::text_spec;
use super::clip::{pictures, projected};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{Beside, Family, LinearSpec, Modality, Names, Spec, StepSpec};
use crate::scale::Scale;

/// `model_type: chinese_clip`
pub const FAMILY: Family = Family {
    name: "chinese_clip",
    title: "Chinese CLIP",
    modality: Modality::Image,
    architectures: &["ChineseCLIPModel"],
    example: "OFA-Sys/chinese-clip-vit-base-patch16",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = pictures(c)?;
    let width = c.size_or("projection_dim", 512)?;
    spec.steps = projected(&spec, width);
    let mut texts = text_spec(&c.part("text_config")?, TEXTS, "")?;
    texts.steps =
        vec![StepSpec::Linear(LinearSpec::whole("text_projection", (width, texts.width), false)), StepSpec::Unit];
    texts.headless = true;
    let (scale, logits) = ("logit_scale", Scale::Softmax);
    spec.beside = Some(Box::new(Beside { spec: texts, width, scale, bias: None, logits, filled: false }));
    Ok(spec)
}

const TEXTS: Names = Names {
    first: "text_model.embeddings.word_embeddings.weight",
    embeddings: "text_model.embeddings",
    layer: "text_model.encoder.layer.{}",
    apart: &["vision_model.", "visual_projection.", "logit_scale"],
    ..super::bert::NAMES
};
