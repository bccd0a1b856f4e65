//! stub
pub mod encoder;
pub mod error;
pub mod explanation;
pub mod input;
pub mod method;
pub mod model;
pub mod nn;
pub mod render;
pub mod target;
pub mod trace;
pub use error::{Error, Result};
