//! The one integration-test binary: candle is linked once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests fail by panicking

#[path = "all/support.rs"]
mod support;

#[path = "all/golden.rs"]
mod golden;
