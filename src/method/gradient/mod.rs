//! Gradients: which small changes of the input change the output?

mod fullgrad;
mod gradient_x_input;
pub mod integrated_gradients;
mod plain;
pub mod smoothgrad;

use super::contract::Group;

/// The methods of this kind.
pub(super) const GROUP: Group = Group {
    name: "gradients",
    question: "which small changes of the input change the output?",
    notice: None,
    methods: &[
        plain::ENTRY,
        gradient_x_input::ENTRY,
        smoothgrad::SMOOTHGRAD,
        smoothgrad::SMOOTHGRAD_SQUARED,
        smoothgrad::VARGRAD,
        integrated_gradients::ENTRY,
        fullgrad::FULLGRAD,
        fullgrad::FULLGRAD_PLUS,
    ],
};
