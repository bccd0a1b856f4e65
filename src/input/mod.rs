//! Pictures and texts, prepared exactly as the checkpoint's own processor prepares them.

pub mod image;
pub mod resize;
pub mod text;
mod tokenizer;
