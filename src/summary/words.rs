//! The words of a class with the relevance that all their occurrences have together.

use crate::explanation::Explanation;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a word.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    /// How often it occurs.
    pub count: usize,
    /// In how many inputs.
    pub texts: usize,
    /// Sum of the signed relevance of its occurrences.
    pub sum: f64,
}

impl Count {
    /// The relevance of an occurrence.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// Words in small letters, with what is known of each.
#[derive(Debug, Clone, Default)]
pub struct Words(BTreeMap<String, Count>);

/// Words that are told: for a class, and against it.
pub type Told<'a> = (Vec<(&'a str, Count)>, Vec<(&'a str, Count)>);

impl Words {
    /// Adds the words of a text; punctuation is none.
    pub fn add(&mut self, e: &Explanation) {
        let mut seen = BTreeSet::new();
        for word in e.words().into_iter().filter(|word| !word.text.chars().all(is_punctuation)) {
            let text = word.text.to_lowercase();
            let known = self.0.entry(text.clone()).or_default();
            known.count += 1;
            known.sum += f64::from(word.relevance);
            known.texts += usize::from(seen.insert(text));
        }
    }

    /// How many different words there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many different words occur less often.
    pub fn rarer(&self, min_count: usize) -> usize {
        self.0.values().filter(|word| word.count < min_count).count()
    }

    /// Of words that occur so often the `top` with the greatest sums above 0, and with the least below.
    pub fn ranked(&self, top: usize, min_count: usize) -> Told<'_> {
        let often = self.0.iter().filter(|(_, word)| word.count >= min_count);
        let (mut own, mut against): (Vec<_>, Vec<_>) =
            often.map(|(text, word)| (text.as_str(), *word)).filter(|(_, w)| w.sum != 0.0).partition(|w| w.1.sum > 0.0);
        for words in [&mut own, &mut against] {
            // Words of one sum stay in their alphabetical order.
            words.sort_by(|a, b| b.1.sum.abs().total_cmp(&a.1.sum.abs()));
            words.truncate(top);
        }
        (own, against)
    }
}

/// ASCII punctuation, and that of other scripts; not emoji, which mean something.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
        || c.is_whitespace()
        || matches!(c, '\u{a1}'..='\u{bf}' if !c.is_alphanumeric())
        || matches!(c, '\u{2000}'..='\u{206f}' | '\u{2e00}'..='\u{2e7f}' | '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{3020}')
        || matches!(c, '\u{fe10}'..='\u{fe1f}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff01}'..='\u{ff0f}')
        || matches!(c, '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}

#[cfg(test)]
mod tests {
    use super::super::tests::text;
    use super::*;

    #[test]
    fn words_are_counted_whatever_their_case_and_ranked_by_sign() {
        let mut words = Words::default();
        words.add(&text(0, &[("Good", 0.5), (",", 9.0), ("good", 0.25), ("bad", -1.0), ("…", 9.0)], [8.0, 8.0]));
        words.add(&text(0, &[("GOOD", 0.25), ("plot", -2.0), ("\u{1f44d}", 0.75), ("nil", 0.0)], [8.0, 8.0]));
        let good = Count { count: 3, texts: 2, sum: 1.0 };
        let (own, against) = words.ranked(20, 1);
        assert_eq!(own, [("good", good), ("\u{1f44d}", Count { count: 1, texts: 1, sum: 0.75 })]);
        let one = |sum| Count { count: 1, texts: 1, sum };
        assert_eq!(against, [("plot", one(-2.0)), ("bad", one(-1.0))]);
        assert!((good.mean() - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(
            (words.ranked(1, 1).1, words.ranked(20, 2)),
            (vec![("plot", one(-2.0))], (vec![("good", good)], vec![]))
        );
        assert_eq!((words.len(), words.rarer(2), words.is_empty()), (5, 4, false));
    }

    #[test]
    fn words_of_other_scripts_are_words() {
        let punctuation = |text: &str| text.chars().all(is_punctuation);
        for word in ["été", "電影", "½", "3", "\u{2764}", "c++", "ｇ"] {
            assert!(!punctuation(word), "{word}");
        }
        for mark in ["...", "«", "—", "。", "、", "！", "¿", "“", "「"] {
            assert!(punctuation(mark), "{mark}");
        }
    }
}
