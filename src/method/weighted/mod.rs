//! Gradient-weighted attention: which of its looks speak for the explained class?

mod aggregate;
mod attcat;
mod attention_gradcam;
mod beyond_intuition;
mod gae;
mod grad_attention;
mod grad_rollout;
mod iia2;
mod legrad;
mod tokentm;

use super::contract::Group;

/// The methods of this kind.
pub(super) const GROUP: Group = Group {
    name: "gradient-weighted attention",
    question: "which of its looks speak for the explained class?",
    notice: None,
    methods: &[
        gae::ENTRY,
        grad_rollout::ENTRY,
        attention_gradcam::ENTRY,
        grad_attention::ENTRY,
        aggregate::ENTRY,
        tokentm::ENTRY,
        beyond_intuition::ENTRY,
        iia2::ENTRY,
        legrad::ENTRY,
        attcat::ENTRY,
    ],
};
