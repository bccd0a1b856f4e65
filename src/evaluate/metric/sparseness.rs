//! Sparseness: is relevance in few places?
//!
//! Chalasani et al., ICML 2020: the Gini index of `|relevance|` over the content tokens, 0 for a constant map, near 1 for a
//! single place. Higher is called better, but a wrong map can be sparse: read it beside the others.

use crate::error::Result;
use crate::evaluate::contract::{mean, Case, Direction, Entry, Metric, Needs, Score};
use crate::run::Logits;

pub(in crate::evaluate) const ENTRY: Entry = Entry {
    name: "sparseness",
    title: "is relevance in few places?",
    paper: "Chalasani et al., ICML 2020",
    direction: Direction::Higher,
    images: true,
    texts: true,
    needs: Needs::Nothing,
    default: true,
    build: |_| Ok(Box::new(Gini)),
    pool: mean,
};

struct Gini;

fn gini(mut sizes: Vec<f64>) -> f64 {
    sizes.sort_by(f64::total_cmp);
    let (n, sum) = (sizes.len() as f64, sizes.iter().sum::<f64>());
    if sum == 0.0 {
        return 0.0;
    }
    let weighted: f64 = sizes.iter().enumerate().map(|(k, s)| s * (n - k as f64 - 0.5)).sum();
    1.0 - 2.0 * weighted / (n * sum)
}

impl Metric for Gini {
    fn score(&self, case: &Case<'_, '_>, _: &[Logits]) -> Result<Option<Score>> {
        Ok(Some(gini(case.explanation.of_content().map(|r| f64::from(r).abs()).collect()).into()))
    }

    fn convention(&self) -> String {
        "Gini index of |relevance| over patches or words' tokens".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_sparse_and_a_constant_is_not() {
        assert!(gini(vec![1.0; 8]).abs() < 1e-12);
        assert!((gini(vec![0.0, 0.0, 0.0, 5.0]) - 0.75).abs() < 1e-12);
        assert_eq!(gini(vec![0.0; 3]), 0.0);
    }
}
