//! ViT trained by masked siamese networks (Assran et al., ECCV 2022): ViT's blocks and head.

use super::vit;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{Family, Modality, Names, Spec};

/// `model_type: vit_msn`
pub const FAMILY: Family = Family {
    name: "vit_msn",
    title: "ViT-MSN",
    modality: Modality::Image,
    architectures: &["ViTMSNForImageClassification"],
    example: "facebook/vit-msn-base (fine-tuned)",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let mut spec = vit::spec(c)?;
    spec.spellings.extend(vit::image_spec(c, FRONTLESS, FRONTLESS)?.spellings.pop());
    Ok(spec)
}

/// As `save_pretrained` of transformers 5 writes layers: without the base model's name, which all else has.
const FRONTLESS: Names = Names { layer: "encoder.layer.{}", ..vit::NAMES };
