//! Curves as a page draws them: where each line, tick and point lies. The page's template writes the SVG, so that names are
//! escaped as everywhere, and its style gives the colours, one for light and one for dark ground.

use super::contract::Axes;
use serde::Serialize;

/// Mean curves under one metric.
pub struct Curves {
    /// The metric.
    pub metric: String,
    /// What its axes are.
    pub axes: Axes,
    /// One a candidate.
    pub lines: Vec<Line>,
}

/// The mean curve of a candidate.
pub struct Line {
    /// The candidate.
    pub name: String,
    /// Drawn in grey: what it shows is where nothing is explained.
    pub control: bool,
    /// Points (share, value).
    pub points: Vec<(f64, f64)>,
}

/// Of the drawing, whose letters can be read on a phone too: there it is about three quarters as wide.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
/// Left, top, right and bottom of what the axes enclose. The upright axis has its title above it, where there is room.
const LEFT: f64 = 46.0;
const TOP: f64 = 32.0;
const RIGHT: f64 = WIDTH - 26.0;
const BOTTOM: f64 = HEIGHT - 46.0;
/// About so many steps along an axis.
const STEPS: f64 = 5.0;
/// Colours and dashes of the page's style. They have no common divisor: thirty lines are told apart, by dashes also where colours
/// are not seen.
const COLOURS: usize = 6;
const DASHES: usize = 5;

/// A drawing in numbers, for the template.
#[derive(Debug, Clone, Serialize)]
pub struct Plot {
    metric: String,
    /// Its axes as a title and for those who hear the page.
    x: String,
    y: String,
    width: f64,
    height: f64,
    frame: Frame,
    across: Vec<Tick>,
    up: Vec<Tick>,
    lines: Vec<Drawn>,
}

/// What the axes enclose.
#[derive(Debug, Clone, Serialize)]
struct Frame {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// A place on an axis.
#[derive(Debug, Clone, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

/// A line as it is drawn.
#[derive(Debug, Clone, Serialize)]
struct Drawn {
    name: String,
    /// Classes of the style: its colour and dash.
    class: String,
    /// `x,y x,y ...`
    path: String,
    points: Vec<(f64, f64)>,
}

impl Plot {
    /// Of curves: x is the share that was hidden or shown, from 0 to the largest, y the metric's value, from 0 to 1 at least.
    pub fn of(curves: &Curves) -> Self {
        let finite = |line: &Line| -> Vec<(f64, f64)> {
            line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
        };
        let points: Vec<Vec<(f64, f64)>> = curves.lines.iter().map(finite).collect();
        let (low, high) = points.iter().flatten().fold((0f64, 1f64), |(low, high), (_, v)| (low.min(*v), high.max(*v)));
        let end = points.iter().flatten().map(|(at, _)| *at).fold(0f64, f64::max);
        let end = if end > 0.0 { end } else { 1.0 };
        let x = |share: f64| tenth(LEFT + (RIGHT - LEFT) * share / end);
        let y = |value: f64| tenth(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low));
        let (mut methods, mut controls) = (0, 0);
        let mut class = |line: &Line| {
            let number = if line.control { &mut controls } else { &mut methods };
            *number += 1;
            match (line.control, *number - 1) {
                (true, n) => format!("grey d{}", 1 + n % 2),
                (false, n) => format!("c{} d{}", n % COLOURS, n % DASHES),
            }
        };
        let drawn = |(line, points): (&Line, Vec<(f64, f64)>)| {
            let points: Vec<(f64, f64)> = points.into_iter().map(|(at, value)| (x(at), y(value))).collect();
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
            Drawn { name: line.name.clone(), class: class(line), path: path.join(" "), points }
        };
        Plot {
            metric: curves.metric.clone(),
            x: curves.axes.x.clone(),
            y: curves.axes.y.clone(),
            width: WIDTH,
            height: HEIGHT,
            frame: Frame { left: LEFT, top: TOP, right: RIGHT, bottom: BOTTOM },
            across: ticks(0.0, 100.0 * end, " %")
                .into_iter()
                .map(|(v, label)| Tick { at: x(v / 100.0), label })
                .collect(),
            up: ticks(low, high, "").into_iter().map(|(v, label)| Tick { at: y(v), label }).collect(),
            lines: curves.lines.iter().zip(points).map(drawn).collect(),
        }
    }
}

/// Finer than that no screen is.
fn tenth(place: f64) -> f64 {
    (10.0 * place).round() / 10.0
}

/// Round numbers between two ends, one, two or five times a power of ten apart, as they are written.
fn ticks(low: f64, high: f64, unit: &str) -> Vec<(f64, String)> {
    let rough = (high - low) / STEPS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|s| *s >= 0.999 * rough).unwrap_or(rough);
    let digits = (-(step * 1.001).log10().floor()).max(0.0) as usize;
    let (first, last) = ((low / step - 0.001).ceil() as i64, (high / step + 0.001).floor() as i64);
    (first..=last).map(|n| (n as f64 * step, format!("{:.digits$}{unit}", n as f64 * step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, whether it is a control, and points.
    type Plain<'a> = (&'a str, bool, Vec<(f64, f64)>);

    fn curves(lines: Vec<Plain<'_>>) -> Curves {
        let axes = Axes { x: "share of tokens cut out".into(), y: "fall of the probability".into() };
        let line = |(name, control, points): Plain<'_>| Line { name: name.into(), control, points };
        Curves { metric: "m".into(), axes, lines: lines.into_iter().map(line).collect() }
    }

    #[test]
    fn points_lie_at_their_shares_and_the_axis_begins_at_0() {
        let shares = [0.01, 0.05, 0.1, 0.2, 0.5];
        let plot = Plot::of(&curves(vec![("gae", false, shares.iter().map(|s| (*s, 1.0 - s)).collect())]));
        let points = &plot.lines[0].points;
        assert_eq!(points.len(), 5);
        for ((x, y), share) in points.iter().zip(shares) {
            assert!((x - (LEFT + (RIGHT - LEFT) * share / 0.5)).abs() <= 0.06, "{points:?}");
            assert!((y - (TOP + (BOTTOM - TOP) * share)).abs() <= 0.06, "{points:?}");
        }
        let labels: Vec<&str> = plot.across.iter().map(|t| t.label.as_str()).collect();
        assert_eq!(labels, ["0 %", "10 %", "20 %", "30 %", "40 %", "50 %"]);
        assert_eq!((plot.across[0].at, plot.across[5].at), (LEFT, RIGHT));
    }

    #[test]
    fn ticks_are_round_and_lie_within() {
        let written = |low, high| ticks(low, high, "").into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(written(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(written(-0.31, 1.0), ["0.0", "0.5", "1.0"]);
        assert_eq!(written(-2.0, 13.0), ["0", "5", "10"]);
        assert_eq!(written(0.0, 3.0), ["0", "1", "2", "3"]);
        assert_eq!(written(0.0, 0.05), ["0.00", "0.01", "0.02", "0.03", "0.04", "0.05"]);
    }

    #[test]
    fn thirty_methods_are_told_apart_and_controls_are_grey() {
        let names: Vec<String> = (0..30).map(|i| i.to_string()).collect();
        let mut lines: Vec<_> = names.iter().map(|n| (n.as_str(), false, vec![(0.0, 1.0)])).collect();
        lines.push(("(random)", true, vec![(0.0, f64::NAN), (0.5, 0.5)]));
        let plot = Plot::of(&curves(lines));
        let mut classes: Vec<&str> = plot.lines.iter().map(|l| l.class.as_str()).collect();
        assert_eq!(classes.pop(), Some("grey d1"));
        assert_eq!(plot.lines[30].points.len(), 1, "what is no number is no point");
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), 30);
    }
}
