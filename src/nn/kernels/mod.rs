//! CPU fast paths for f32. Each is an optimisation of a composed-ops path that every device runs, and a test holds them equal;
//! `VITX_KERNELS=off` runs without them. Nothing outside of `nn` knows that they exist.
//!
//! # To add a kernel
//!
//! 1. Measure first: a profile that shows the composed path, and a bench under `benches/` that will show the difference.
//! 2. A file here with a function of the composed path's signature. It takes the fast way for the devices and dtypes it knows
//!    (mostly f32 on the CPU) and the composed one for all others, in the same function: callers do not choose.
//! 3. The loop is a `memory::Row`: it writes one row of a new tensor, and `memory::by_rows` runs rows side by side. Plain code
//!    over `lanes` is enough: it is compiled for the widest instructions (`wide::dispatch`), as far as everything in it is
//!    `#[inline(always)]`. The reverse pass is ours, a function of its own beside the forward one.
//! 4. An example's numbers must not depend on its batch or on the number of threads, to the last bit: chunks are cut by
//!    position and never by thread, sums within a row stay in one order. `lanes` sums in 16 lanes whatever the registers, so
//!    that all instruction sets give the same bits.
//! 5. A table test at the foot that holds it equal to the composed path over ordinary, huge and tiny values, with the tolerance
//!    it promises; machines differ in the last bits, so the tolerance is not 0.
//! 6. The operation's file in `src/nn/` calls it; finite differences there go through the f64 path as before.

mod curve;
mod heads;
mod lanes;
mod memory;
mod norm;
mod once;
mod pack;
mod product;
mod softmax;
mod tile;
mod wide;

pub use curve::{activate, activate_gate, activate_vjp};
pub use heads::{add, mean_heads, mean_products, merge_heads, split_heads};
pub use norm::{norm, norm_vjp};
pub use once::once;
pub use product::{matmul, matmul_activated, matmul_heads, Order};
pub use softmax::{softmax, softmax_vjp};
pub use wide::instructions;
