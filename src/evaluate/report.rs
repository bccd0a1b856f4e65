//! The HTML report of an evaluation: one file that needs nothing else, in the style of the pages of `explain`. Curves are SVG, pictures
//! are inside, and nothing in it is a script.

use super::contract::{Configured, Direction};
use super::paper::{best, DAGGER};
use super::plot::{Curves, Plot};
use super::table::Figure;
use crate::error::Result;
use crate::render::day::today;
use crate::render::page::{filled, STYLE};
use base64::Engine;
use minijinja::value::Serde;
use minijinja::{context, Value};
use serde::{Deserialize, Serialize};

const TEMPLATE: &str = include_str!("report/report.html");
/// Behind the style of all pages.
const OWN_STYLE: &str = include_str!("report/report.css");

/// What a report shows.
pub struct Report<'a> {
    /// Above everything.
    pub title: String,
    /// How it was made: name and value, a line each.
    pub setup: Vec<(String, String)>,
    /// The metrics, a column each.
    pub metrics: &'a [Configured],
    /// The candidates, a row each.
    pub rows: Vec<Row>,
    /// Mean curves of the metrics that have them.
    pub curves: Vec<Curves>,
    /// Rank correlations of the sanity checks, if they were made: stages, and a row a candidate.
    pub sanity: Option<Sanity>,
    /// Single inputs.
    pub inputs: Vec<Input>,
    /// Inputs that could not be used, with the reason.
    pub failures: Vec<(String, String)>,
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// The candidate.
    pub name: String,
    /// Whether it is a control, which is never the best.
    pub control: bool,
    /// One a metric.
    pub figures: Vec<Option<Figure>>,
}

/// Rank correlations between maps of the trained and of randomised models.
#[derive(Debug, Clone, Default)]
pub struct Sanity {
    /// What was randomised, and all before it.
    pub stages: Vec<String>,
    /// Of each candidate, a mean correlation a stage; none where a map was constant.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

/// One input with its maps.
pub struct Input {
    /// Its name, label and prediction.
    pub heading: String,
    /// A map of each candidate.
    pub maps: Vec<Map>,
}

/// One map.
pub struct Map {
    /// The candidate.
    pub name: String,
    /// What it looks like.
    pub shown: Shown,
    /// A score a metric.
    pub scores: Vec<Option<f64>>,
}

/// How a map is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Shown {
    /// A PNG, in base64.
    Png(String),
    /// Part of a page.
    Html(String),
}

impl Shown {
    /// From the bytes of a PNG file.
    pub fn png(bytes: &[u8]) -> Self {
        Shown::Png(base64::engine::general_purpose::STANDARD.encode(bytes))
    }
}

/// The page.
///
/// # Errors
/// [`crate::Error::Fault`] where vitx itself fails.
pub fn html(report: &Report<'_>) -> Result<Vec<u8>> {
    let metric = |m: &Configured| {
        let better = if m.entry.direction == Direction::Higher { "higher" } else { "lower" };
        let (arrow, how, paper) = (m.entry.direction.arrow(), m.convention(), m.entry.paper);
        context! { name => m.spec.as_str(), arrow, better, how, paper }
    };
    let row = |row: &Row| {
        let figures = row.figures.iter().enumerate();
        let cells: Vec<Option<Value>> = figures.map(|(m, figure)| cell(report, row, m, figure.as_ref())).collect();
        context! { name => row.name.as_str(), cells }
    };
    let sanity = report.sanity.as_ref().map(|sanity| {
        let written = |value: &Option<f64>| value.map(|v| format!("{v:.2}"));
        let row = |(name, values): &(String, Vec<Option<f64>>)| {
            context! { name, cells => values.iter().map(written).collect::<Vec<_>>() }
        };
        context! { stages => Serde(&sanity.stages), rows => sanity.rows.iter().map(row).collect::<Vec<_>>() }
    });
    let inputs: Vec<Value> = report.inputs.iter().map(|input| shown(report, input)).collect();
    let values = context! {
        title => report.title.as_str(),
        setup => Serde(&report.setup),
        metrics => report.metrics.iter().map(metric).collect::<Vec<_>>(),
        rows => report.rows.iter().map(row).collect::<Vec<_>>(),
        plots => report.curves.iter().map(|c| Serde(Plot::of(c))).collect::<Vec<_>>(),
        sanity,
        inputs,
        failures => Serde(&report.failures),
        dagger => DAGGER.to_string(),
        day => today(),
        version => env!("CARGO_PKG_VERSION"),
        style => STYLE,
        own_style => OWN_STYLE,
    };
    filled(TEMPLATE, values)
}

/// A figure as the table shows it: the best of methods stands out, and so does what is not better than random.
fn cell(report: &Report<'_>, row: &Row, metric: usize, figure: Option<&Figure>) -> Option<Value> {
    let f = figure?;
    let written = |value: f64| format!("{value:.3}");
    let all = report.rows.iter().filter(|row| !row.control);
    let all = all.filter_map(|row| Some(row.figures.get(metric)?.as_ref()?.value));
    let best = best(all, report.metrics.get(metric)?.entry.direction).map(written);
    let (value, weak) = (written(f.value), f.beats_random == Some(false));
    let best = !row.control && best.as_ref() == Some(&value);
    let of = format!("{} explanations of {} inputs", f.n, f.images);
    Some(context! { value, low => written(f.low), high => written(f.high), best, weak, of })
}

/// One input with its maps and their scores.
fn shown(report: &Report<'_>, input: &Input) -> Value {
    let map = |map: &Map| {
        let (png, text) = match &map.shown {
            Shown::Png(data) => (Some(data), None),
            Shown::Html(text) => (None, Some(text)),
        };
        let score =
            |(metric, score): (&Configured, &Option<f64>)| Some((metric.spec.clone(), format!("{:.3}", (*score)?)));
        let scores: Vec<(String, String)> = report.metrics.iter().zip(&map.scores).filter_map(score).collect();
        context! { name => map.name.as_str(), png, text, scores }
    };
    context! { heading => input.heading.as_str(), maps => input.maps.iter().map(map).collect::<Vec<_>>() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::plot::Line;
    use crate::evaluate::{parse, Axes};

    #[test]
    fn a_report_holds_everything_and_escapes_it() {
        let metrics = [parse("pointing-game").unwrap(), parse("deletion").unwrap()];
        let figure = |value: f64| Figure {
            value,
            low: value - 0.125,
            high: value + 0.125,
            n: 3,
            images: 2,
            beats_random: Some(false),
            gain_over_random: None,
        };
        let row =
            |name: &str, control, value| Row { name: name.into(), control, figures: vec![Some(figure(value)), None] };
        let report = Report {
            title: "a <b>".into(),
            setup: vec![("model".into(), "x&y".into())],
            metrics: &metrics,
            rows: vec![row("gae", false, 0.5), row("rollout", false, 0.25), row("(random)", true, 0.75)],
            curves: vec![Curves {
                metric: "deletion".into(),
                axes: Axes { x: "share of patches".into(), y: "probability".into() },
                lines: vec![Line { name: "gae".into(), control: false, points: vec![(0.0, 1.0), (0.5, 0.2)] }],
            }],
            sanity: Some(Sanity { stages: vec!["head".into()], rows: vec![("gae".into(), vec![Some(0.25)])] }),
            inputs: vec![Input {
                heading: "one".into(),
                maps: vec![
                    Map { name: "gae".into(), shown: Shown::png(&[1, 2]), scores: vec![Some(1.0), None] },
                    Map { name: "lrp".into(), shown: Shown::Html("<span>x</span>".into()), scores: vec![None; 2] },
                ],
            }],
            failures: vec![("two".into(), "<script>".into())],
        };
        let page = String::from_utf8(html(&report).unwrap()).unwrap();
        for part in [
            "<h1>a &lt;b&gt;</h1>",
            "x&amp;y",
            "<td class=\"weak\" title=\"3 explanations of 2 inputs\"><strong>0.500</strong>",
            "<td class=\"weak\" title=\"3 explanations of 2 inputs\">0.750",
            "<small>0.375 to 0.625</small>",
            "<td>-</td>",
            "pointing-game&nbsp;↑",
            "role=\"img\" aria-label=\"deletion: probability over share of patches",
            "points=\"46,32 414,",
            "src=\"data:image/png;base64,AQI=\"",
            "<p class=\"words\" dir=\"auto\"><span>x</span></p>",
            "two: &lt;script&gt;",
            "<td>0.25</td>",
            "<meta name=\"viewport\"",
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'\"",
            concat!("vitx ", env!("CARGO_PKG_VERSION"), ", <time"),
        ] {
            assert!(page.contains(part), "{part} is missing from\n{page}");
        }
        assert_eq!(page.matches("<strong>").count(), 1, "a control is never the best");
        assert!(
            !page.contains("<script") && !page.contains("http:") && !page.contains("https:"),
            "it asks for nothing"
        );
        let cells = page.split("<th").skip(1).filter(|th| !th.starts_with("ead"));
        assert!(cells.clone().count() > 5 && cells.clone().all(|th| th.starts_with(" scope=")), "{page}");
    }
}
