//! Differentiable operations: each file holds one operation's forward, its vector-Jacobian product (`vjp`), the rules
//! its reverse pass may follow, and its tests. Nothing here knows about models.
//!
//! candle's own autograd is not used (fused softmax and layer norm cut its graph silently); it is a test oracle.

pub mod activation;
mod around;
pub mod attention;
mod kernels;
pub mod linear;
pub mod norm;
mod numbers;
mod principal;
pub mod relevance;
pub mod resample;
pub mod residual;
pub mod rules;
pub mod scores;
mod windows;

#[cfg(test)]
pub(crate) mod check;

pub use activation::Activation;
pub use around::{Around, Places, Reach};
pub use kernels::{instructions, once};
pub use linear::Linear;
pub use norm::{Centre, Norm};
pub use numbers::{numbers, widened};
pub use principal::principal;
pub use rules::Rules;
pub use scores::{Cosine, Disentangled, Offsets, Pairs, Relative, Rotary, Scores, Steps};
pub use windows::{Windowing, Windows};
