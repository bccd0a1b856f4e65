//! What each token attends to, layer by layer and head by head, as a page shows it: small, and rounded.

use super::Asked;
use crate::error::Result;
use crate::method::parse;
use crate::render::page::Links;
use crate::run::Run;
use candle_core::DType;

/// Which layers fit into so many bytes, one a value, and whether each head does; none where not even one matrix fits.
fn fitting(bytes: usize, (layers, heads): (usize, usize), tokens: usize) -> Option<(Vec<usize>, bool)> {
    let each = (tokens * tokens).max(1);
    let all = || (0..layers).collect();
    match bytes / each {
        most if most >= layers * heads => Some((all(), true)),
        most if most >= layers => Some((all(), false)),
        0 => None,
        // Evenly through the depth, the last among them.
        most => Some(((1..=most).map(|n| n * layers / most - 1).collect(), false)),
    }
}

impl Asked<'_> {
    /// Which layers of a model fit that holds attention of all tokens for all, and whether each head does; none of other models.
    pub(super) fn fitting(&self, tokens: usize) -> Option<(Vec<usize>, bool)> {
        let facts = self.model.checkpoint.facts();
        let own = fitting(self.links, (facts.layers, facts.heads), tokens)?;
        parse("attention").is_ok_and(|method| method.check(&facts).is_ok()).then_some(own)
    }

    /// The attention of an input's tokens; none of models whose layers hold no attention of all for all, and where it would be too much.
    pub(super) fn links_of(&self, run: &Run<'_>) -> Result<Option<Links>> {
        let (tokens, prefix) = (run.layout().len(), run.layout().prefix());
        let Some((layers, each)) = self.fitting(tokens) else { return Ok(None) };
        let heads = if each { self.model.checkpoint.facts().heads } else { 1 };
        let (mut greatest, mut values) = (Vec::new(), Vec::new());
        for &layer in &layers {
            let attention = run.attention(layer)?.to_dtype(DType::F32)?; // [H,T,T]
            let attention = if each { attention } else { attention.mean_keepdim(0)? };
            for matrix in attention.flatten_from(1)?.to_vec2::<f32>()? {
                let most = matrix.iter().copied().fold(0.0, f32::max);
                let step = |v: &f32| if most > 0.0 { ((v / most).max(0.0).sqrt() * 255.0).round() as u8 } else { 0 };
                values.extend(matrix.iter().map(step));
                greatest.push(most);
            }
        }
        Ok(Some(Links { layers, heads, averaged: !each, tokens, prefix, greatest, values }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_averaged_and_thinned() {
        assert_eq!(fitting(800_000, (12, 12), 20), Some(((0..12).collect(), true)));
        assert_eq!(fitting(800_000, (12, 12), 197), Some(((0..12).collect(), false)));
        assert_eq!(fitting(800_000, (12, 12), 400), Some((vec![1, 3, 6, 8, 11], false)));
        assert_eq!(fitting(800_000, (12, 12), 2000), None);
    }
}
