//! What is told of a study's scores: the table, records, the CSV, the page.

use super::candidates::Candidate;
use super::contract::{Axes, Configured, Direction, Score};
use super::journal::{Judged, Scored};
use super::paper::{self, Cell, Column, Number};
use super::plot::{Curves, Line};
use super::report::{html, Input, Map, Report, Row, Sanity, Shown};
use super::study::Study;
use super::table::{Figure, Scores};
use crate::error::{Error, Result};
use crate::render::columns::aligned;
use crate::target::Scale;
use serde_json::{json, Value};

/// The figures of a study.
pub struct Figures<'a> {
    study: &'a Study<'a>,
    judged: &'a [Judged],
    scores: Scores,
    /// Candidates, best first by the first metric with figures; controls last.
    rows: Vec<Row>,
    /// How they were made: name and value, a line each.
    setup: Vec<(String, String)>,
}

impl<'a> Figures<'a> {
    /// Of what was judged.
    pub fn of(study: &'a Study<'a>, judged: &'a [Judged]) -> Self {
        let mut scores = Scores::default();
        for (input, scored) in judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j.input, q))) {
            for (candidate, own) in scored.scores.iter().enumerate() {
                for (metric, score) in own.iter().enumerate() {
                    if let Some(score) = score {
                        scores.add(candidate, metric, input, score.clone());
                    }
                }
            }
        }
        let rows = rows(study, &scores);
        Figures { study, judged, scores, rows, setup: setup(study, judged) }
    }

    /// As text: the setup, the table, and how each metric computes.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = self.setup.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        lines.push(self.table());
        lines.extend(self.study.metrics.iter().map(explained));
        lines.push(
            "(in brackets: 95 % bootstrap interval over inputs; `!`: not better than the random control)".to_string(),
        );
        lines.join("\n")
    }

    /// A row a candidate, a column a metric.
    pub fn table(&self) -> String {
        let head = self.study.metrics.iter().map(|m| format!("{} {}", m.spec, m.entry.direction.arrow()));
        let row = |row: &Row| {
            let cells = row.figures.iter().map(|f| match f {
                None => "-".to_string(),
                Some(f) => {
                    let mark = if f.beats_random == Some(false) { " !" } else { "" };
                    format!("{:.3} [{:.3}, {:.3}]{mark}", f.value, f.low, f.high)
                }
            });
            std::iter::once(row.name.clone()).chain(cells).collect()
        };
        let head: Vec<String> = std::iter::once("method".to_string()).chain(head).collect();
        aligned(&head, &self.rows.iter().map(row).collect::<Vec<_>>())
    }

    /// The same for LaTeX and Markdown.
    pub fn paper(&self) -> paper::Table {
        let column = |m: &Configured| Column { name: m.spec.clone(), better: Some(m.entry.direction) };
        let cell = |figure: &Option<Figure>| match figure {
            None => Cell::Words("-".into()),
            Some(f) => Cell::Figure(Number {
                value: f.value,
                digits: 3,
                interval: Some([f.low, f.high]),
                weak: f.beats_random == Some(false),
                rival: true,
            }),
        };
        let row = |row: &Row| {
            let name = if row.control { Cell::Words(row.name.clone()) } else { Cell::Name(row.name.clone()) };
            let cells = std::iter::once(name).chain(row.figures.iter().map(cell)).collect();
            paper::Row { cells, control: row.control }
        };
        let weak = self.rows.iter().flat_map(|r| &r.figures).flatten().any(|f| f.beats_random == Some(false));
        let weak = weak.then(|| format!("{}: not better than the random control.", paper::DAGGER));
        let read = "In brackets: 95 % bootstrap intervals over inputs. Bold: the best method.".to_string();
        let setup = self.setup.iter().map(|(name, value)| format!("{name}: {value}"));
        paper::Table {
            columns: std::iter::once(Column::plain("method")).chain(self.study.metrics.iter().map(column)).collect(),
            rows: self.rows.iter().map(row).collect(),
            notes: std::iter::once(read).chain(weak).collect(),
            about: paper::made_by("evaluate").chain(setup).chain(self.study.metrics.iter().map(explained)).collect(),
        }
    }

    /// A record a candidate and metric.
    pub fn records(&self) -> Vec<Value> {
        let record = |row: &Row, metric: &Configured, figure: usize| {
            let figure = row.figures.get(figure).and_then(Option::as_ref);
            let mut record = json!({
                "status": "ok", "method": row.name, "metric": metric.spec,
                "direction": metric.entry.direction, "convention": metric.convention(), "figure": figure,
            });
            if figure.is_none() {
                record["status"] = "error".into();
                record["error"] = "no input has a score of it".into();
            }
            record
        };
        let metrics = || self.study.metrics.iter().enumerate();
        self.rows.iter().flat_map(|row| metrics().map(move |(m, metric)| record(row, metric, m))).collect()
    }

    /// Every score, a line each.
    ///
    /// # Errors
    /// None that a table in memory has.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let failed = |e: &dyn std::fmt::Display| Error::Input(format!("scores cannot be written as CSV: {e}"));
        let head = ["input", "label", "class", "predicted", "method", "metric", "value"];
        writer.write_record(head).map_err(|e| failed(&e))?;
        for (judged, q) in self.judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j, q))) {
            let name = self.study.data.name(judged.input);
            for (candidate, own) in self.study.candidates.iter().zip(&q.scores) {
                for (metric, score) in self.study.metrics.iter().zip(own) {
                    let Some(score) = score else { continue };
                    let (class, predicted, value) =
                        (q.class.to_string(), q.predicted.to_string(), score.value.to_string());
                    let record = [name, &q.label, &class, &predicted, candidate.name(), &metric.spec, &value];
                    writer.write_record(record).map_err(|e| failed(&e))?;
                }
            }
        }
        writer.into_inner().map_err(|e| failed(&e))
    }

    /// The page.
    ///
    /// # Errors
    /// As [`html`].
    pub fn page(&self, sanity: Option<&Sanity>) -> Result<Vec<u8>> {
        let shown = self.judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j.input, q)));
        let inputs = shown.filter(|(_, q)| !q.maps.is_empty()).map(|(input, q)| self.shown(input, q)).collect();
        let failed = self
            .judged
            .iter()
            .flat_map(|j| j.failures.iter().map(|f| (self.study.data.name(j.input).to_string(), f.clone())));
        html(&Report {
            title: format!("{} on {}", self.study.model.checkpoint.id, self.study.data.name),
            setup: self.setup.clone(),
            metrics: self.study.metrics,
            rows: self.rows.clone(),
            curves: self.curves(),
            sanity: sanity.cloned(),
            inputs,
            failures: self.study.data.failures.iter().cloned().chain(failed).collect(),
        })
    }

    /// Mean curves of metrics that have them; curves with points at other places than the first are left out.
    fn curves(&self) -> Vec<Curves> {
        let mean = |c: usize, m: usize| -> Option<Vec<(f64, f64)>> {
            let own = self.scores.of(c, m);
            let at = &own.first()?.1.at;
            let same: Vec<&Vec<f64>> = own.iter().filter(|(_, s)| s.at == *at).map(|(_, s)| &s.curve).collect();
            let height = |k: usize| same.iter().filter_map(|c| c.get(k)).sum::<f64>() / same.len() as f64;
            (at.len() > 1).then(|| at.iter().enumerate().map(|(k, x)| (*x, height(k))).collect())
        };
        let of = |(m, metric): (usize, &Configured)| {
            let line = |(c, candidate): (usize, &Candidate)| {
                Some(Line { name: candidate.name().into(), control: candidate.is_control(), points: mean(c, m)? })
            };
            let lines: Vec<_> = self.study.candidates.iter().enumerate().filter_map(line).collect();
            let axes: Axes = metric.axes()?;
            (!lines.is_empty()).then(|| Curves { metric: metric.spec.clone(), axes, lines })
        };
        self.study.metrics.iter().enumerate().filter_map(of).collect()
    }

    /// One class of an input with all its maps.
    fn shown(&self, input: usize, scored: &Scored) -> Input {
        let map = |((candidate, shown), scores): ((&Candidate, &Option<Shown>), &Vec<Option<Score>>)| {
            let scores = scores.iter().map(|s| s.as_ref().map(|s| s.value)).collect();
            Some(Map { name: candidate.name().to_string(), shown: shown.clone()?, scores })
        };
        let maps = self.study.candidates.iter().zip(&scored.maps).zip(&scored.scores).filter_map(map).collect();
        let checkpoint = &self.study.model.checkpoint;
        let said = match checkpoint.scale {
            Scale::Value => String::new(), // the greatest of several values is no prediction
            Scale::Softmax | Scale::Sigmoid => format!(" (predicted: {})", checkpoint.labels.name(scored.predicted)),
        };
        Input { heading: format!("{}: {}{said}", self.study.data.name(input), scored.label), maps }
    }
}

fn rows(study: &Study<'_>, scores: &Scores) -> Vec<Row> {
    let random = Candidate::random(study.candidates);
    let figure = |c: usize, (m, metric): (usize, &Configured)| scores.figure(c, m, metric, random, study.settings.seed);
    let row = |(c, candidate): (usize, &Candidate)| Row {
        name: candidate.name().to_string(),
        control: candidate.is_control(),
        figures: study.metrics.iter().enumerate().map(|metric| figure(c, metric)).collect(),
    };
    let all = || study.candidates.iter().enumerate();
    let mut rows: Vec<Row> = all().filter(|(_, c)| !c.is_control()).map(row).collect();
    let of = |row: &Row, m: usize| row.figures.get(m).and_then(|f| f.as_ref().map(|f| f.value));
    let first = study.metrics.iter().enumerate().find(|(m, _)| rows.iter().any(|r| of(r, *m).is_some()));
    if let Some((m, metric)) = first {
        let direction = metric.entry.direction;
        let key = |r: &Row| of(r, m).map_or(f64::INFINITY, |value| direction.loss(value));
        rows.sort_by(|a, b| key(a).total_cmp(&key(b)));
    }
    rows.extend(all().filter(|(_, c)| c.is_control()).map(row));
    rows
}

fn setup(study: &Study<'_>, judged: &[Judged]) -> Vec<(String, String)> {
    let questions = judged.iter().flat_map(|j| &j.questions);
    let (right, all) = questions.fold((0, 0), |(r, n), q| (r + usize::from(q.right), n + 1));
    let used = judged.iter().filter(|j| !j.questions.is_empty()).count();
    let checkpoint = &study.model.checkpoint;
    let kind = if checkpoint.facts().text { "text" } else { "image" };
    let counted = |n: usize, what: &str, many: &str| format!("{n} {what}{}", if n == 1 { "" } else { many });
    let line = |name: &str, value: String| (name.to_string(), value);
    let said = match checkpoint.scale {
        Scale::Softmax => format!("{right} of {all} are the prediction"),
        Scale::Sigmoid => format!("{right} of {all} have a probability above 0.5"),
        Scale::Value => "the model gives values".to_string(),
    };
    let noted = judged.iter().filter(|j| !j.notes.is_empty()).count();
    let masks = study.data.masks.line().map(|m| line("masks", m));
    let cut =
        (noted > 0).then(|| line("left out", format!("a part of {} (see the warnings)", counted(noted, kind, "s"))));
    let (used, classes) = (counted(used, kind, "s"), counted(all, "explained class", "es"));
    let mut setup = vec![
        line("model", checkpoint.id.clone()),
        line("data", format!("{}: {used}, {classes}", study.data.name)),
        line("explained", format!("the {} class ({said})", study.settings.explained.name())),
        line("seed", study.settings.seed.to_string()),
    ];
    setup.extend(masks.into_iter().chain(cut));
    setup
}

/// `name (higher is better): how`
pub fn explained(metric: &Configured) -> String {
    let better = if metric.entry.direction == Direction::Higher { "higher" } else { "lower" };
    format!("{} ({better} is better): {}", metric.spec, metric.convention())
}
