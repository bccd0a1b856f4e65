//! Context mixing: what of each token is in the vectors that others send?

mod alti;
mod norms;
mod value_zeroing;
mod vectors;

use super::contract::Group;

/// The methods of this kind.
pub(super) const GROUP: Group = Group {
    name: "context mixing",
    question: "what of each token is in the vectors that others send?",
    notice: None,
    methods: &[norms::NORM, norms::NORM_RES, norms::NORM_RESLN, norms::GLOBENC, alti::ENTRY, value_zeroing::ENTRY],
};
