//! Pictures and texts, prepared exactly as the checkpoint's own processor prepares them.

pub mod array;
mod classes;
pub mod decode;
pub mod formats;
mod geometry;
pub mod image;
pub mod prepare;
mod processor;
pub mod resize;
pub mod source;
pub mod text;
mod tiff;
mod timm;
mod tokenizer;

pub use prepare::{Input, Preparer, Processor, Ready, Shape};
pub use source::Source;
