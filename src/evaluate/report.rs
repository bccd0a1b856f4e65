//! The HTML report of an evaluation: one file that needs nothing else. Curves are SVG, pictures are inside.

use super::contract::{Axes, Configured};
use super::table::Figure;
use crate::error::{Error, Result};
use crate::render::table::escaped;
use base64::Engine;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

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
    /// One a metric.
    pub figures: Vec<Option<Figure>>,
}

/// Mean curves under one metric.
pub struct Curves {
    /// The metric.
    pub metric: String,
    /// What its axes are.
    pub axes: Axes,
    /// Of each candidate, points (share, value).
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
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
/// [`Error::Input`] when a plot cannot be drawn.
pub fn html(report: &Report<'_>) -> Result<String> {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let title = escaped(&report.title);
    let _ = write!(out, "<title>{title}</title>\n{STYLE}</head><body>\n<h1>{title}</h1>\n<dl>"); // a String takes it all
    for (name, value) in &report.setup {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
    }
    out.push_str("</dl>\n");
    figures(&mut out, report);
    for curves in &report.curves {
        let _ = write!(out, "<h2>{}</h2>\n{}\n", escaped(&curves.metric), plot(curves)?);
    }
    if let Some(sanity) = &report.sanity {
        correlations(&mut out, sanity);
    }
    drill_down(&mut out, report);
    if !report.failures.is_empty() {
        out.push_str("<h2>Not used</h2><ul>");
        for (name, reason) in &report.failures {
            let _ = write!(out, "<li>{}: {}</li>", escaped(name), escaped(reason));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</body></html>\n");
    Ok(out)
}

fn figures(out: &mut String, report: &Report<'_>) {
    out.push_str("<table class=\"figures\"><tr><th>method</th>");
    for metric in report.metrics {
        let (name, arrow) = (escaped(&metric.spec), metric.entry.direction.arrow());
        let _ = write!(out, "<th title=\"{}\">{name} {arrow}</th>", escaped(&metric.convention()));
    }
    out.push_str("</tr>\n");
    for row in &report.rows {
        let _ = write!(out, "<tr><th>{}</th>", escaped(&row.name));
        for figure in &row.figures {
            match figure {
                Some(f) => {
                    let class = if f.beats_random == Some(false) { " class=\"weak\"" } else { "" };
                    let (value, low, high) = (f.value, f.low, f.high);
                    let title = format!("{} explanations of {} inputs", f.n, f.images);
                    let _ = write!(
                        out,
                        "<td{class} title=\"{title}\">{value:.3} <small>{low:.3} to {high:.3}</small></td>"
                    );
                }
                None => out.push_str("<td>-</td>"),
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n<p>Below each figure its 95 % bootstrap interval over inputs. Grey: not better than the random control.</p>\n<ul>");
    for metric in report.metrics {
        let better = if metric.entry.direction == super::Direction::Higher { "higher" } else { "lower" };
        let (name, how) = (escaped(&metric.spec), escaped(&metric.convention()));
        let _ = write!(out, "<li><b>{name}</b> ({better} is better): {how}. {}</li>", escaped(metric.entry.paper));
    }
    out.push_str("</ul>\n");
}

/// Curves as SVG: x is the share that was hidden or shown, from 0 to the largest, y the metric's value.
fn plot(curves: &Curves) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Input(format!("the curves cannot be drawn: {e}"));
    let all = || curves.lines.iter().flat_map(|(_, l)| l.iter().copied());
    let (low, high) = all().fold((0f64, 1f64), |(low, high), (_, v)| (low.min(v), high.max(v)));
    let end = all().map(|(at, _)| at).fold(0f64, f64::max);
    let end = if end > 0.0 { end } else { 1.0 };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (860, 380)).into_drawing_area();
        let (left, legend) = area.split_horizontally(560);
        let mut chart = ChartBuilder::on(&left)
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0f64..end, low..high)
            .map_err(|e| failed(&e))?;
        let percent = |x: &f64| format!("{:.0} %", 100.0 * x);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(&curves.axes.x)
            .y_desc(&curves.axes.y)
            .x_label_formatter(&percent)
            .draw()
            .map_err(|e| failed(&e))?;
        for (i, (name, line)) in curves.lines.iter().enumerate() {
            let colour = Palette99::pick(i).to_rgba();
            let series = LineSeries::new(line.iter().copied(), colour.stroke_width(2)).point_size(2);
            chart.draw_series(series).map_err(|e| failed(&e))?;
            let y = 14 + 15 * i as i32;
            legend
                .draw(&PathElement::new(vec![(4, y + 5), (24, y + 5)], colour.stroke_width(2)))
                .and_then(|()| legend.draw(&Text::new(name.clone(), (30, y), ("sans-serif", 12))))
                .map_err(|e| failed(&e))?;
        }
        area.present().map_err(|e| failed(&e))?;
    }
    Ok(svg)
}

fn correlations(out: &mut String, sanity: &Sanity) {
    out.push_str(
        "<h2>Sanity: rank correlation with the trained model's maps</h2>\n<table class=\"figures\"><tr><th>method</th>",
    );
    sanity.stages.iter().for_each(|s| {
        let _ = write!(out, "<th>{}</th>", escaped(s));
    });
    out.push_str("</tr>\n");
    for (name, row) in &sanity.rows {
        let _ = write!(out, "<tr><th>{}</th>", escaped(name));
        for value in row {
            match value {
                Some(v) => {
                    let _ = write!(out, "<td>{v:.2}</td>");
                }
                None => out.push_str("<td>-</td>"),
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n<p>Weights of the head, then of each layer down to the one named, are new.</p>\n");
}

fn drill_down(out: &mut String, report: &Report<'_>) {
    if !report.inputs.is_empty() {
        out.push_str("<h2>Inputs</h2>\n");
    }
    for input in &report.inputs {
        let _ = write!(out, "<details><summary>{}</summary><div class=\"maps\">", escaped(&input.heading));
        for map in &input.maps {
            let _ = write!(out, "<figure>");
            match &map.shown {
                Shown::Png(data) => {
                    let _ = write!(out, "<img alt=\"\" src=\"data:image/png;base64,{data}\">");
                }
                Shown::Html(text) => {
                    let _ = write!(out, "<p>{text}</p>");
                }
            }
            let _ = write!(out, "<figcaption><b>{}</b>", escaped(&map.name));
            for (metric, score) in report.metrics.iter().zip(&map.scores) {
                if let Some(score) = score {
                    let _ = write!(out, "<br>{} {score:.3}", escaped(&metric.spec));
                }
            }
            out.push_str("</figcaption></figure>");
        }
        out.push_str("</div></details>\n");
    }
}

const STYLE: &str = "<style>body{font:15px/1.5 sans-serif;margin:2em;max-width:90em}h1{font-size:1.3em}h2{font-size:1.1em;margin-top:2em}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1em}dd{margin:0}table.figures{border-collapse:collapse}\
.figures th,.figures td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}\
.figures td small{display:block;color:#777}td.weak{color:#999}.maps{display:flex;flex-wrap:wrap;gap:1em}\
figure{margin:0;max-width:30em}figcaption{font-size:.8em}summary{cursor:pointer}</style>\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::parse;

    #[test]
    fn a_report_holds_everything_and_escapes_it() {
        let metrics = [parse("pointing-game").unwrap()];
        let figure = Figure {
            value: 0.5,
            low: 0.4,
            high: 0.6,
            n: 3,
            images: 2,
            beats_random: Some(false),
            gain_over_random: None,
        };
        let report = Report {
            title: "a <b>".into(),
            setup: vec![("model".into(), "x&y".into())],
            metrics: &metrics,
            rows: vec![Row { name: "gae".into(), figures: vec![Some(figure)] }],
            curves: vec![Curves {
                metric: "deletion".into(),
                axes: Axes { x: "share of patches".into(), y: "probability".into() },
                lines: vec![("gae".into(), vec![(0.0, 1.0), (0.5, 0.2)])],
            }],
            sanity: Some(Sanity { stages: vec!["head".into()], rows: vec![("gae".into(), vec![Some(0.25)])] }),
            inputs: vec![Input {
                heading: "one".into(),
                maps: vec![Map { name: "gae".into(), shown: Shown::png(&[1, 2]), scores: vec![Some(1.0)] }],
            }],
            failures: vec![("two".into(), "broken".into())],
        };
        let page = html(&report).unwrap();
        for part in
            ["a &lt;b&gt;", "x&amp;y", "class=\"weak\"", "<svg", "data:image/png;base64,AQI=", "two: broken", "0.25"]
        {
            assert!(page.contains(part), "{part} is missing");
        }
    }

    /// Where the points of the curves are marked.
    fn points(svg: &str) -> Vec<f64> {
        let marks = svg.split("<circle").skip(1).map(|c| c.split("cx=\"").nth(1).unwrap().split('"').next().unwrap());
        marks.map(|x| x.parse().unwrap()).collect()
    }

    #[test]
    fn points_lie_at_their_shares_and_axes_have_names() {
        let shares = [0.01, 0.05, 0.1, 0.2, 0.5];
        let axes = Axes { x: "share of tokens cut out".into(), y: "fall of the probability".into() };
        let lines = vec![("gae".into(), shares.iter().map(|s| (*s, 1.0 - s)).collect())];
        let svg = plot(&Curves { metric: "m".into(), axes, lines }).unwrap();
        for part in ["share of tokens cut out", "fall of the probability", "50 %"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        let points = points(&svg);
        assert_eq!(points.len(), 5);
        let width = (points[4] - points[0]) / 0.49; // of a share of 1
        for (point, share) in points.iter().zip(shares) {
            let want = points[0] + (share - 0.01) * width;
            assert!((point - want).abs() <= 1.0, "{points:?}");
        }
        // The axis begins at 0: the first point lies a hundredth of a share to its right.
        assert!((points[0] - 64.0 - 0.01 * width).abs() <= 1.5, "{points:?}");
    }
}
