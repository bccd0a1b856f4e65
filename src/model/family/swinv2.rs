//! Swin v2 (Liu et al., CVPR 2022): Swin whose norms stand behind each operation, whose scores are cosines, and whose numbers for relative
//! positions a small network makes, so that they reach windows of other sizes.

use super::swin::{staged, window};
use crate::encoder::{Order, Wiring};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{CosineSpec, Family, Modality, Names, ScoresSpec, Spec};
use crate::nn::{Reach, Windowing};

/// `model_type: swinv2`
pub const FAMILY: Family = Family {
    name: "swinv2",
    title: "Swin v2",
    modality: Modality::Image,
    architectures: &["Swinv2ForImageClassification"],
    example: "microsoft/swinv2-tiny-patch4-window8-256",
    spec,
};

fn spec(c: &Config) -> Result<Spec> {
    let (most, image, patch) = (window(c)?, c.pair_or("image_size", 224)?, c.pair_or("patch_size", 4)?);
    let trained = c.numbers_or("pretrained_window_sizes", &[])?;
    staged(c, &NAMES, Wiring::ResPost, |name, (stage, number), own| {
        // Windows are no larger than the grid of the pictures it was trained on, and one that covers it is not shifted.
        let rows = (image.0 / patch.0) >> stage;
        let side = most.min(rows).max(1);
        let trained = trained.get(stage).copied().filter(|side| *side > 0);
        own.scores = ScoresSpec::Cosine(CosineSpec { name: format!("{name}.attention.self"), side, trained });
        let shift = if number % 2 == 1 && rows > side { most / 2 } else { 0 };
        own.reach = Reach::Windows(Windowing { side, shift, fixed: true });
        own.projections[1].bias = false;
        Order::MapFirst
    })
}

const NAMES: Names = Names {
    first: "swinv2.embeddings.patch_embeddings.projection.weight",
    embeddings: "swinv2.embeddings",
    layer: "swinv2.encoder.layers.0.blocks.{}",
    attention: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    final_norm: Some("swinv2.layernorm"),
    ..super::vit::NAMES
};
