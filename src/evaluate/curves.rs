//! What perturbation metrics share: rankings, and areas under curves.

use super::contract::Case;
use crate::error::{Error, Result};
use crate::explanation::{Explanation, ImageLayout, Layout};
use crate::nn::numbers;
use crate::run::masking::{enlarged, Corners};
use candle_core::{Device, Tensor};

/// Indices by score; equal scores keep their order in both directions.
pub fn ranked(scores: &[f64], descending: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let compare = |a: f64, b: f64| if descending { b.total_cmp(&a) } else { a.total_cmp(&b) };
    order.sort_by(|&a, &b| compare(scores[a], scores[b]));
    order
}

/// The mean height of the line through equally spaced points.
pub fn trapezoid(curve: &[f64]) -> f64 {
    match curve {
        [] => f64::NAN,
        [one] => *one,
        [first, .., last] => (curve.iter().sum::<f64>() - (first + last) / 2.0) / (curve.len() - 1) as f64,
    }
}

/// The layout of an image.
///
/// # Errors
/// [`Error::Refused`] for texts.
pub fn image_layout(e: &Explanation) -> Result<&ImageLayout> {
    match &e.layout {
        Layout::Image(image) => Ok(image),
        Layout::Text(_) => Err(Error::Refused("this metric judges explanations of images".into())),
    }
}

/// Relevance of the patches, in f64.
pub fn patches(e: &Explanation) -> Vec<f64> {
    e.content().iter().map(|&r| f64::from(r)).collect()
}

/// Relevance of the pixels `[H*W]`: the map that pictures show, the patch grid enlarged bilinearly.
pub fn pixels(e: &Explanation, size: (usize, usize)) -> Result<Vec<f64>> {
    if let Some(map) = e.drawn_pixels() {
        return Ok(map.values.iter().map(|&v| f64::from(v)).collect());
    }
    let grid = image_layout(e)?.grid;
    let map = Tensor::from_vec(patches(e), (1, grid.0, grid.1), &Device::Cpu)?;
    numbers(&enlarged(&map, size, Corners::Free)?)
}

/// Ordinary tokens of a text, most or least relevant first.
pub fn ranked_tokens(case: &Case<'_, '_>, descending: bool) -> Vec<usize> {
    let layout = case.run.layout();
    let ordinary: Vec<usize> = (0..layout.len()).filter(|&t| layout.is_content(t)).collect();
    let relevance: Vec<f64> = ordinary.iter().map(|&t| f64::from(case.explanation.relevance[t])).collect();
    ranked(&relevance, descending).into_iter().map(|i| ordinary[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_keep_their_order_both_ways() {
        let scores = [0.5, 0.9, 0.5, 0.1];
        assert_eq!(ranked(&scores, true), [1, 0, 2, 3]);
        assert_eq!(ranked(&scores, false), [3, 0, 2, 1]);
    }

    #[test]
    fn areas_are_of_straight_lines() {
        assert_eq!(trapezoid(&[1.0, 0.5, 0.0]), 0.5);
        assert_eq!(trapezoid(&[2.0]), 2.0);
    }
}
