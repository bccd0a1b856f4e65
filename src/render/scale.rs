//! From relevance to the unit interval.

use crate::error::{Error, Result};
use crate::explanation::{Explanation, Units};

/// A share as it is typed: `20` or `20%`, more than nothing and less than all.
pub(super) fn percent(text: &str) -> Option<f32> {
    text.trim_end_matches('%').parse().ok().filter(|p: &f32| *p > 0.0 && *p < 100.0)
}

/// The percentile of [`Span::Auto`] for pixel maps.
const OUTLIERS: f32 = 99.5;

/// Which values of a map become the ends of its colours: `--normalize`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Span {
    /// [`Span::MinMax`] for maps on the token grid, the 99.5th percentile for maps of single pixels, of which a few
    /// always stand far out.
    Auto,
    /// Least value to 0, greatest to 1.
    MinMax,
    /// 0 to 0, greatest to 1; negative values are cut off unless the method is signed.
    Max,
    /// As [`Span::MinMax`] between the lowest and the highest `100 - P` percent.
    Percentile(f32),
    /// Values are taken as they are, cut off at 0 and 1 (signed: -1 and 1).
    None,
    /// One [`Span::MinMax`] over the whole run.
    Shared,
}

/// The values that become 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Becomes 0.
    pub low: f32,
    /// Becomes 1.
    pub high: f32,
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Span::Auto => f.write_str("auto"),
            Span::MinMax => f.write_str("minmax"),
            Span::Max => f.write_str("max"),
            Span::Percentile(p) => write!(f, "percentile:{p}"),
            Span::None => f.write_str("none"),
            Span::Shared => f.write_str("shared"),
        }
    }
}

impl Span {
    /// Reads `auto`, `minmax`, `max`, `percentile:P`, `none` or `shared`.
    ///
    /// # Errors
    /// [`Error::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => Span::Auto,
            "minmax" => Span::MinMax,
            "max" => Span::Max,
            "none" => Span::None,
            "shared" => Span::Shared,
            _ => match text.strip_prefix("percentile:").and_then(|p| p.parse::<f32>().ok()) {
                Some(p) if p > 50.0 && p <= 100.0 => Span::Percentile(p),
                _ => {
                    return Err(Error::Usage(format!(
                        "--normalize {text}: expected auto, minmax, max, percentile:P with P from 50 to 100, none or shared"
                    )))
                }
            },
        })
    }

    /// The range of one explanation. Signed relevance is scaled symmetrically, so that 0 is the colour map's middle.
    pub fn range(self, e: &Explanation, units: Units) -> Range {
        let shown = e.shown(units);
        let least_and_most = || {
            let fold = |(low, high): (f32, f32), v: &f32| (low.min(*v), high.max(*v));
            shown.iter().fold((f32::INFINITY, f32::NEG_INFINITY), fold)
        };
        let scale = match self {
            Span::Auto if e.drawn_pixels().is_some() => Span::Percentile(OUTLIERS),
            Span::Auto => Span::MinMax,
            other => other,
        };
        let (low, high) = match scale {
            _ if shown.is_empty() => (0.0, 0.0),
            Span::None => (0.0, 1.0),
            Span::Percentile(p) => percentiles(&shown, p),
            Span::Max if !e.signed => (0.0, least_and_most().1),
            Span::Max | Span::MinMax | Span::Shared | Span::Auto => least_and_most(),
        };
        if !e.signed {
            return Range { low, high };
        }
        let reach = low.abs().max(high.abs());
        Range { low: -reach, high: reach }
    }
}

/// The values below which `100 - p` and `p` percent of the shown values lie (linear interpolation, as numpy's).
fn percentiles(shown: &[f32], p: f32) -> (f32, f32) {
    let mut values = shown.to_vec();
    values.sort_by(f32::total_cmp);
    let at = |percent: f32| -> f32 {
        let place = percent / 100.0 * (values.len().saturating_sub(1)) as f32;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let value = |i: usize| values.get(i).copied().unwrap_or(0.0);
        value(below) + (place - place.floor()) * (value(above) - value(below))
    };
    (at(100.0 - p), at(p))
}

impl Range {
    /// The smallest range that holds both.
    pub fn union(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// Place of a value, 0 to 1. In an empty range everything has the place of "nothing": 0, of signed values the middle.
    pub fn place(self, value: f32, signed: bool) -> f32 {
        if self.high > self.low {
            ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        } else if signed {
            0.5
        } else {
            0.0
        }
    }
}

/// One scale for several maps: one for the unsigned among them, and one for the signed, symmetric around 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SharedRanges {
    unsigned: Option<Range>,
    signed: Option<Range>,
}

impl SharedRanges {
    /// The smallest scales that hold all these maps.
    pub fn over<'e>(maps: impl IntoIterator<Item = &'e Explanation>, units: Units) -> Self {
        let mut ranges = SharedRanges::default();
        for e in maps {
            let own = Span::Shared.range(e, units);
            let range = if e.signed { &mut ranges.signed } else { &mut ranges.unsigned };
            *range = Some(range.map_or(own, |r| r.union(own)));
        }
        ranges
    }

    /// The scale of one of the maps; none where each map has its own.
    pub fn of(&self, e: &Explanation) -> Option<Range> {
        if e.signed {
            self.signed
        } else {
            self.unsigned
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::{ImageLayout, Layout, Prefix};
    use crate::target::Output;

    fn explanation(relevance: &[f32], signed: bool) -> Explanation {
        let layout = ImageLayout { prefix: vec![Prefix::Class], grid: (1, relevance.len()), patch: (1, 1) };
        Explanation {
            method: "test",
            params: Default::default(),
            pixels: None,
            checks: Default::default(),
            output: Output::of(0),
            relevance: [&[99.0], relevance].concat(),
            layout: Layout::Image(layout),
            matrix: false,
            signed,
        }
    }

    #[test]
    fn scales_ignore_special_tokens_and_keep_zero_in_the_middle() {
        let range = |s: &str, values: &[f32], signed| {
            let r = Span::parse(s).unwrap().range(&explanation(values, signed), Units::default());
            (r.low, r.high)
        };
        let values = [0.2, 0.4, 1.2];
        assert_eq!(range("minmax", &values, false), (0.2, 1.2));
        assert_eq!(range("max", &values, false), (0.0, 1.2));
        assert_eq!(range("none", &values, false), (0.0, 1.0));
        assert_eq!(range("percentile:75", &[0.0, 1.0, 2.0, 3.0, 4.0], false), (1.0, 3.0));
        assert_eq!(range("minmax", &[-0.5, 0.25], true), (-0.5, 0.5));
        assert_eq!(range("none", &[-0.5, 0.25], true), (-1.0, 1.0));
        for name in ["auto", "minmax", "max", "percentile:99.5", "none", "shared"] {
            assert_eq!(Span::parse(name).unwrap().to_string(), name);
        }
        assert!(Span::parse("percentile:0").is_err() && Span::parse("mean").is_err());
    }

    #[test]
    fn signed_and_unsigned_maps_share_among_themselves() {
        let maps = [explanation(&[0.1, 0.4], false), explanation(&[0.2, 0.9], false), explanation(&[-0.5, 0.2], true)];
        let ranges = SharedRanges::over(&maps, Units::default());
        assert_eq!(ranges.of(&maps[0]), Some(Range { low: 0.1, high: 0.9 }));
        assert_eq!(ranges.of(&maps[2]), Some(Range { low: -0.5, high: 0.5 }));
        assert_eq!(SharedRanges::default().of(&maps[0]), None);
    }

    #[test]
    fn a_constant_map_has_no_colour_but_no_nan() {
        let e = explanation(&[0.0, 0.0], false);
        assert_eq!(Span::MinMax.range(&e, Units::default()).place(0.0, false), 0.0);
        // All-zero evidence for and against is neutral, not the strongest evidence against.
        let e = explanation(&[0.0, 0.0], true);
        assert_eq!(Span::MinMax.range(&e, Units::default()).place(0.0, true), 0.5);
    }
}
