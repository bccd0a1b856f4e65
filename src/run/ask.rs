//! Variants of an input that somebody wants the model to see: how many, and how some of them are made.

use crate::encoder::Inputs;
use crate::error::Result;
use std::ops::Range;

/// Logits of variants, `[C]` each.
pub type Logits = Vec<Vec<f64>>;

/// Variants of one shape. They are made a few at a time, so that never all of them have to be held.
pub struct Ask<'a> {
    /// How many there are.
    pub count: usize,
    /// Makes those of a range, a batch of as many.
    pub make: Box<dyn Fn(Range<usize>) -> Result<Inputs> + 'a>,
}

impl<'a> Ask<'a> {
    /// `count` variants that `make` builds.
    pub fn new(count: usize, make: impl Fn(Range<usize>) -> Result<Inputs> + 'a) -> Self {
        Ask { count, make: Box::new(make) }
    }
}
