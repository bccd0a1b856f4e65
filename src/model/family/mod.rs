//! One file a model family: its config read into a spec, and the names of its tensors.

pub(super) mod bert;
pub(super) mod deit;
pub(super) mod dinov2;
pub(super) mod dinov2_with_registers;
pub(super) mod dinov3_vit;
pub(super) mod distilbert;
pub(super) mod modernbert;
pub(super) mod roberta;
pub(super) mod vit;
