//! How relevance is spread over kinds of tokens: patches or words, and those that are no part of the input.

use crate::explanation::{Explanation, Layout, Prefix};
use std::collections::BTreeMap;

/// Mean shares of the relevance by size, by kind of token.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// Sums of shares.
    kinds: BTreeMap<String, f64>,
    /// Maps that are not 0 everywhere.
    maps: usize,
}

/// What a token is called.
fn kind(layout: &Layout, token: usize) -> &str {
    match layout {
        Layout::Image(image) => match image.prefix.get(token) {
            Some(Prefix::Class) => "class token",
            Some(Prefix::Distillation) => "distillation token",
            Some(Prefix::Register) => "register tokens",
            None => "patches",
        },
        Layout::Text(text) => match text.tokens.get(token) {
            Some(own) if own.special => &own.piece,
            _ => "words",
        },
    }
}

impl Shares {
    /// Adds a map. One that is 0 everywhere has no shares.
    pub fn add(&mut self, e: &Explanation) {
        let sizes = || e.relevance.iter().map(|r| f64::from(r.abs()));
        let all: f64 = sizes().sum();
        for (token, size) in sizes().enumerate() {
            let share = if all > 0.0 { size / all } else { 0.0 };
            match self.kinds.get_mut(kind(&e.layout, token)) {
                Some(sum) => *sum += share,
                None => drop(self.kinds.insert(kind(&e.layout, token).to_string(), share)),
            }
        }
        self.maps += usize::from(all > 0.0);
    }

    /// Each kind with its mean share; none where no map has relevance on any such token.
    pub fn means(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        let mean = |sum: f64| (sum > 0.0).then(|| sum / self.maps as f64);
        self.kinds.iter().map(move |(kind, sum)| (kind.as_str(), mean(*sum)))
    }

    /// The mean share of a kind; none where no map has relevance on any such token.
    pub fn of(&self, kind: &str) -> Option<f64> {
        self.means().find(|(own, _)| *own == kind)?.1
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{image, text};
    use super::*;

    #[test]
    fn shares_are_by_size_and_nothing_is_none() {
        let mut shares = Shares::default();
        shares.add(&text(0, &[("a", -1.0), ("b", 2.0)], [4.0, -1.0]));
        shares.add(&text(0, &[("a", 1.0), ("b", 1.0)], [0.0, 0.0]));
        shares.add(&text(0, &[("a", 0.0), ("b", 0.0)], [0.0, 0.0])); // has no shares
        let all: Vec<_> = shares.means().collect();
        assert_eq!(all, [("[CLS]", Some(0.25)), ("[SEP]", Some(0.0625)), ("words", Some(0.6875))]);
        let mut shares = Shares::default();
        shares.add(&image(0, 0.0, &[1.0, 2.0]));
        assert_eq!((shares.of("class token"), shares.of("patches")), (None, Some(1.0)));
    }
}
