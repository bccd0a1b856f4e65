//! SigLIP (Zhai et al., ICCV 2023) and SigLIP 2 of fixed size: a picture tower without a class token, whose head attends with a query of
//! its own, beside a text tower that reads padding and pools the last token. Texts are its classes, each with a probability of its
//! own, or a linear classifier reads the mean of all tokens.

use super::clip::{classifier, texts, tower, vision};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{
    Beside, EmbeddingSpec, Family, LinearSpec, Modality, Names, Part, Pooling, ProbeSpec, Spec, StepSpec,
};
use crate::nn::Reach;
use crate::scale::Scale;

/// `model_type: siglip`
pub const FAMILY: Family = Family {
    name: "siglip",
    title: "SigLIP",
    modality: Modality::Image,
    architectures: &["SiglipModel", "SiglipForImageClassification", "SiglipVisionModel"],
    example: "google/siglip-base-patch16-224",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let own = vision(c)?;
    let mut spec = tower(&own, NAMES, ("gelu_pytorch_tanh", 1e-6))?;
    if let EmbeddingSpec::Patches { class, .. } = &mut spec.embedding {
        *class = false;
    }
    let attends = own.flag_or("vision_use_head", true)?;
    if classifier(c) || !attends {
        spec.pooling = Pooling::PatchMean;
        return Ok(spec);
    }
    spec.pooling = Pooling::Probe;
    spec.probe = probe(&spec);
    if let (Some(_), width) = (c.get("text_config"), spec.width) {
        spec.steps = vec![StepSpec::Unit];
        let c = c.part("text_config")?;
        let c = c.with_default("hidden_size", 768).with_default("num_attention_heads", 12);
        let c = c.with_default("intermediate_size", 3072).with_default("vocab_size", 32000);
        let c = c.with_default("max_position_embeddings", 64).with_default("layer_norm_eps", 1e-6);
        let mut texts = texts(&c.with_default("hidden_act", "gelu_pytorch_tanh"), width, Reach::All)?;
        texts.steps =
            vec![StepSpec::Linear(LinearSpec::whole("text_model.head", (width, texts.width), true)), StepSpec::Unit];
        for spelling in &mut texts.spellings {
            spelling.names.apart = &["vision_model.", "logit_scale", "logit_bias"];
        }
        let (scale, bias, logits) = ("logit_scale", Some("logit_bias"), Scale::Sigmoid);
        spec.beside = Some(Box::new(Beside { spec: texts, width, scale, bias, logits, filled: true }));
    }
    Ok(spec)
}

/// The query, and around it a layer like the others, whose projections torch stores as one.
fn probe(spec: &Spec) -> Option<Box<ProbeSpec>> {
    let mut layer = spec.layers().first()?.clone();
    let at = |name: &str| format!("vision_model.head.{name}");
    for (which, projection) in layer.projections.iter_mut().take(3).enumerate() {
        let part = Some(Part::Block { which, of: 3 });
        *projection = LinearSpec { name: at("attention.in_proj"), part, between: '_', ..projection.clone() };
    }
    layer.projections[3].name = at("attention.out_proj");
    layer.norms = [None, Some(spec.norm.named(at("layernorm")))];
    layer.into[0].name = at("mlp.fc1");
    layer.out.name = at("mlp.fc2");
    Some(Box::new(ProbeSpec { query: at("probe"), layer }))
}

const NAMES: Names = Names {
    final_norm: Some("vision_model.post_layernorm"),
    apart: &["text_model.", "logit_scale", "logit_bias", "vision_model.head."],
    ..super::clip::NAMES
};
