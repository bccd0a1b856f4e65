//! Perturbation: what happens to the output when parts of the input are covered?

pub mod leave_one_out;
mod occlusion;
pub mod rise;
pub mod vit_cx;

use super::contract::Group;

/// The methods of this kind.
pub(super) const GROUP: Group = Group {
    name: "perturbation",
    question: "what happens to the output when parts of the input are covered?",
    notice: None,
    methods: &[vit_cx::ENTRY, occlusion::ENTRY, rise::ENTRY, leave_one_out::ENTRY],
};
