//! Attention: where does the model look?

mod flow;
mod raw;
mod rollout;

use super::contract::Group;

/// The methods of this kind.
pub(super) const GROUP: Group = Group {
    name: "attention",
    question: "where does the model look?",
    notice: None,
    methods: &[raw::ENTRY, rollout::ENTRY, flow::ENTRY],
};
