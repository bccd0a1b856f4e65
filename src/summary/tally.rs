//! What is kept of explanations: sums.

use super::{MeanMap, Shares, Words};
use crate::explanation::Explanation;
use image::RgbImage;

/// One explanation with what is known beside it.
#[derive(Debug, Clone, Copy)]
pub struct One<'a> {
    /// The explanation.
    pub explanation: &'a Explanation,
    /// The probability of its class, or the value.
    pub said: f32,
    /// Whether the model is right; none without a label, and of values.
    pub right: Option<bool>,
    /// What the model saw, small.
    pub picture: Option<&'a RgbImage>,
}

/// Sums over explanations.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many there are.
    pub explained: usize,
    /// Those of which it is known whether the model is right.
    pub labelled: usize,
    /// Those of which it is.
    pub right: usize,
    /// Sum of probabilities or values.
    said: f64,
    /// Of images.
    pub map: MeanMap,
    /// How relevance is spread.
    pub shares: Shares,
}

impl Tally {
    /// Adds an explanation; its map is left out of the mean unless it `fits` the others.
    pub(super) fn add(&mut self, one: &One<'_>, fits: bool) {
        self.explained += 1;
        self.labelled += usize::from(one.right.is_some());
        self.right += usize::from(one.right == Some(true));
        self.said += f64::from(one.said);
        self.map.add(one, fits);
        self.shares.add(one.explanation);
    }

    /// The mean probability, or value; none of nothing.
    pub fn said(&self) -> Option<f64> {
        (self.explained > 0).then(|| self.said / self.explained as f64)
    }
}

/// What is kept of a class.
#[derive(Debug, Clone, Default)]
pub struct Class {
    /// Its explanations.
    pub tally: Tally,
    /// Words of texts.
    pub words: Words,
}
