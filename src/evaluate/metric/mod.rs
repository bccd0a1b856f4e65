//! One file a metric, or a pair of metrics that differ in a sign.

pub(super) mod deletion;
pub(super) mod eraser;
mod filling;
pub(super) mod perturbation;
pub(super) mod pointing;
pub(super) mod rationale;
pub(super) mod road;
pub(super) mod segmentation;
pub(super) mod sensitivity;
pub(super) mod sparseness;
pub(super) mod srg;
