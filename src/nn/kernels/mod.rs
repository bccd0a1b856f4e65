//! CPU fast paths. Each is an optimisation of a composed-ops path that every device runs, and a test holds them equal.

mod gelu;

pub use gelu::{gelu, gelu_gate, gelu_vjp};
