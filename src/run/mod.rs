//! What methods and metrics are given: inputs that went through the model, one of them by itself to be varied, and the
//! options users set.

mod ask;
pub mod baseline;
mod batch;
mod interpolate;
pub mod masking;
pub mod modes;
mod noise;
mod options;
mod pick;
pub mod point;
pub mod removal;
mod together;
mod variants;
mod view;

pub use ask::{Ask, Logits};
pub use batch::{logits, Batch, Memory, Pass, Reads, Reversed, Seed, Watch};
pub use noise::Noise;
pub use options::{Measured, Param, Params};
pub use pick::{Heads, Layer, Pick, Row, Rows};
pub use together::Together;
pub use variants::{Score, Subject};
pub use view::Run;
