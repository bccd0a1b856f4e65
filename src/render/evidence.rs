//! Which part of a map is drawn.

use super::scale::percent;
use crate::error::{Error, Result};
use crate::explanation::{Explanation, PixelMap};
use std::borrow::Cow;

/// Which values are drawn: `--evidence`. Raw numbers are written as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Evidence {
    /// All of them.
    #[default]
    All,
    /// What speaks for the output: nothing below 0.
    Positive,
    /// The size of each value.
    Absolute,
    /// The greatest so many percent, of what speaks for the output.
    Top(f32),
}

impl Evidence {
    /// Names on the command line; those that take a percentage end in a colon.
    pub const NAMES: &'static [&'static str] = &["all", "positive", "absolute", "top:"];

    /// Reads `all`, `positive`, `absolute` or `top:P`.
    ///
    /// # Errors
    /// [`Error::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match (text, text.strip_prefix("top:").and_then(percent)) {
            ("all", _) => Evidence::All,
            ("positive", _) => Evidence::Positive,
            ("absolute", _) => Evidence::Absolute,
            (_, Some(percent)) => Evidence::Top(percent),
            _ => {
                return Err(Error::Usage(format!(
                    "--evidence {text}: expected all, positive, absolute, or top:P with P percent of the values"
                )))
            }
        })
    }

    /// An explanation as it is drawn: its values one by one, pieces of words before they are joined.
    pub fn of(self, e: &Explanation) -> Cow<'_, Explanation> {
        if self == Evidence::All {
            return Cow::Borrowed(e);
        }
        let kept = |values: &[f32], shown: &[f32]| -> Vec<f32> {
            let least = self.least(shown);
            let one = |v: &f32| match self {
                Evidence::All => *v,
                Evidence::Absolute => v.abs(),
                Evidence::Positive | Evidence::Top(_) if *v < least => 0.0,
                Evidence::Positive | Evidence::Top(_) => v.max(0.0),
            };
            values.iter().map(one).collect()
        };
        let content: Vec<f32> = e.of_content().collect();
        let pixels = e.pixels.as_ref().map(|map| PixelMap { values: kept(&map.values, &map.values), ..map.clone() });
        let relevance = kept(&e.relevance, &content);
        Cow::Owned(Explanation { relevance, pixels, signed: false, ..e.clone() })
    }

    /// The least value that is kept.
    fn least(self, shown: &[f32]) -> f32 {
        let Evidence::Top(percent) = self else { return f32::NEG_INFINITY };
        let mut sorted = shown.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let wanted = ((sorted.len() as f32 * percent / 100.0).ceil() as usize).max(1);
        sorted.get(wanted - 1).copied().unwrap_or(f32::INFINITY)
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Evidence::All => f.write_str("all"),
            Evidence::Positive => f.write_str("positive"),
            Evidence::Absolute => f.write_str("absolute"),
            Evidence::Top(percent) => write!(f, "top:{percent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::{ImageLayout, Layout};
    use crate::target::Output;

    #[test]
    fn what_is_drawn_is_a_part_of_what_was_found() {
        let e = Explanation {
            method: "test",
            params: Default::default(),
            pixels: None,
            checks: Default::default(),
            output: Output::of(0),
            relevance: vec![-3.0, -1.0, 0.5, 2.0],
            layout: Layout::Image(ImageLayout { prefix: vec![], grid: (2, 2), patch: (1, 1) }),
            matrix: false,
            signed: true,
        };
        for (text, want) in [
            ("all", [-3.0, -1.0, 0.5, 2.0]),
            ("positive", [0.0, 0.0, 0.5, 2.0]),
            ("absolute", [3.0, 1.0, 0.5, 2.0]),
            ("top:25", [0.0, 0.0, 0.0, 2.0]),
            ("top:75", [0.0, 0.0, 0.5, 2.0]),
        ] {
            let evidence = Evidence::parse(text).unwrap();
            assert_eq!(evidence.of(&e).relevance, want, "{text}");
            assert_eq!((evidence.of(&e).signed, evidence.to_string()), (text == "all", text.into()));
        }
        assert!(Evidence::parse("top:0").is_err() && Evidence::parse("half").is_err());
    }
}
