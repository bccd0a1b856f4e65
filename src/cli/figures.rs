//! What `evaluate` tells of its scores: the table, records, the CSV, the page.

use super::evaluate::Work;
use super::journal::{Judged, Scored};
use super::labelled::data_name;
use super::report::Reporter;
use super::sanity;
use anyhow::Result;
use serde_json::json;
use vitx::evaluate::report::{html, Curves, Input as ReportInput, Map, Report, Row, Sanity, Shown};
use vitx::evaluate::table::Scores;
use vitx::evaluate::{Axes, Candidate, Configured, Direction, Score};
use vitx::render::save;
use vitx::target::Scale;

impl Work<'_> {
    fn random(&self) -> usize {
        self.candidates.iter().position(|c| matches!(c, Candidate::Random)).unwrap_or(0)
    }

    fn scores(&self, judged: &[Judged]) -> Scores {
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
        scores
    }

    /// Candidates, best first by the first metric with figures; controls last.
    fn rows(&self, scores: &Scores) -> Vec<Row> {
        let (random, seed) = (self.random(), self.args.data.seed);
        let figure = |c: usize, m: usize| scores.figure(c, m, &self.metrics[m], random, seed);
        let row = |(c, candidate): (usize, &Candidate)| Row {
            name: candidate.name().to_string(),
            figures: (0..self.metrics.len()).map(|m| figure(c, m)).collect(),
        };
        let mut rows: Vec<Row> = self.candidates.iter().enumerate().map(row).collect();
        let controls = rows.split_off(self.candidates.iter().filter(|c| !c.is_control()).count());
        let first = (0..self.metrics.len()).find(|&m| rows.iter().any(|r| r.figures[m].is_some()));
        if let Some(m) = first {
            let direction = self.metrics[m].entry.direction;
            let key = |r: &Row| r.figures[m].as_ref().map_or(f64::INFINITY, |f| direction.loss(f.value));
            rows.sort_by(|a, b| key(a).total_cmp(&key(b)));
        }
        rows.into_iter().chain(controls).collect()
    }

    pub fn tell(&self, judged: &[Judged], sanity: Option<&sanity::Found>, report: &Reporter) -> Result<()> {
        let scores = self.scores(judged);
        let rows = self.rows(&scores);
        let setup = self.setup(judged);
        if report.json() {
            self.tell_json(&rows, sanity, report)?;
        } else {
            setup.iter().try_for_each(|(name, value)| report.line(&format!("{name}: {value}")))?;
            report.line(&text_table(&rows, self.metrics))?;
            self.metrics.iter().try_for_each(|m| report.line(&explained(m)))?;
            report
                .line("(in brackets: 95 % bootstrap interval over inputs; `!`: not better than the random control)")?;
            if let Some(found) = sanity {
                report.line(&found.text())?;
            }
        }
        if let Some(path) = &self.args.csv {
            save::save(path, &self.csv(judged)?, self.args.overwrite)?;
        }
        if let Some(path) = &self.args.report {
            let page = self.page(judged, rows, setup, sanity.map(|s| s.correlations.clone()))?;
            save::save(path, page.as_bytes(), self.args.overwrite)?;
            report.note(&format!("report: {}", path.display()));
        }
        Ok(())
    }

    fn setup(&self, judged: &[Judged]) -> Vec<(String, String)> {
        let questions = judged.iter().flat_map(|j| &j.questions);
        let (right, all) = questions.fold((0, 0), |(r, n), q| (r + usize::from(q.right), n + 1));
        let used = judged.iter().filter(|j| !j.questions.is_empty()).count();
        let kind = if self.labelled.facts.text { "text" } else { "image" };
        let counted = |n: usize, what: &str, many: &str| format!("{n} {what}{}", if n == 1 { "" } else { many });
        let line = |name: &str, value: String| (name.to_string(), value);
        let said = match self.labelled.model.checkpoint.scale {
            Scale::Softmax => format!("{right} of {all} are the prediction"),
            Scale::Sigmoid => format!("{right} of {all} have a probability above 0.5"),
            Scale::Value => "the model gives values".to_string(),
        };
        let noted = judged.iter().filter(|j| !j.notes.is_empty()).count();
        let masks = self.labelled.masks.line().map(|m| line("masks", m));
        let cut = (noted > 0)
            .then(|| line("left out", format!("a part of {} (see the warnings)", counted(noted, kind, "s"))));
        let mut setup = vec![
            line("model", self.labelled.model.checkpoint.id.clone()),
            line(
                "data",
                format!(
                    "{}: {}, {}",
                    data_name(&self.args.data.data),
                    counted(used, kind, "s"),
                    counted(all, "explained class", "es")
                ),
            ),
            line("explained", format!("the {} class ({said})", self.args.data.target.name())),
            line("seed", self.args.data.seed.to_string()),
        ];
        setup.extend(masks.into_iter().chain(cut));
        setup
    }

    fn tell_json(&self, rows: &[Row], sanity: Option<&sanity::Found>, report: &Reporter) -> Result<()> {
        for row in rows {
            for (metric, figure) in self.metrics.iter().zip(&row.figures) {
                let mut record = json!({
                    "status": "ok", "method": row.name, "metric": metric.spec,
                    "direction": metric.entry.direction, "convention": metric.convention(), "figure": figure,
                });
                if figure.is_none() {
                    record["status"] = "error".into();
                    record["error"] = "no input has a score of it".into();
                }
                report.json_line(&record)?;
            }
        }
        sanity.map_or(Ok(()), |found| found.records().iter().try_for_each(|r| report.json_line(r)))
    }

    fn csv(&self, judged: &[Judged]) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["input", "label", "class", "predicted", "method", "metric", "value"])?;
        for (judged, q) in judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j, q))) {
            let name = &self.labelled.inputs[judged.input].name;
            for (candidate, own) in self.candidates.iter().zip(&q.scores) {
                for (metric, score) in self.metrics.iter().zip(own) {
                    let Some(score) = score else { continue };
                    let (class, predicted, value) =
                        (q.class.to_string(), q.predicted.to_string(), score.value.to_string());
                    let record = [name, &q.label, &class, &predicted, candidate.name(), &metric.spec, &value];
                    writer.write_record(record)?;
                }
            }
        }
        Ok(writer.into_inner()?)
    }

    fn page(
        &self,
        judged: &[Judged],
        rows: Vec<Row>,
        setup: Vec<(String, String)>,
        sanity: Option<Sanity>,
    ) -> Result<String> {
        let shown = judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j.input, q)));
        let inputs = shown.filter(|(_, q)| !q.maps.is_empty()).map(|(input, q)| self.shown(input, q)).collect();
        let failed = judged
            .iter()
            .flat_map(|j| j.failures.iter().map(|f| (self.labelled.inputs[j.input].name.clone(), f.clone())));
        let page = Report {
            title: format!("{} on {}", self.labelled.model.checkpoint.id, data_name(&self.args.data.data)),
            setup,
            metrics: self.metrics,
            rows,
            curves: self.curves(judged),
            sanity,
            inputs,
            failures: self.labelled.failures.iter().cloned().chain(failed).collect(),
        };
        Ok(html(&page)?)
    }

    /// Mean curves of metrics that have them; curves with points at other places than the first are left out.
    fn curves(&self, judged: &[Judged]) -> Vec<Curves> {
        let scores = self.scores(judged);
        let mean = |c: usize, m: usize| -> Option<Vec<(f64, f64)>> {
            let own = scores.of(c, m);
            let at = &own.first()?.1.at;
            let same: Vec<&Vec<f64>> = own.iter().filter(|(_, s)| s.at == *at).map(|(_, s)| &s.curve).collect();
            let height = |k: usize| same.iter().map(|c| c[k]).sum::<f64>() / same.len() as f64;
            (at.len() > 1).then(|| at.iter().enumerate().map(|(k, x)| (*x, height(k))).collect())
        };
        let of = |(m, metric): (usize, &Configured)| {
            let line = |(c, candidate): (usize, &Candidate)| Some((candidate.name().to_string(), mean(c, m)?));
            let lines: Vec<_> = self.candidates.iter().enumerate().filter_map(line).collect();
            let axes: Axes = metric.axes()?;
            (!lines.is_empty()).then(|| Curves { metric: metric.spec.clone(), axes, lines })
        };
        self.metrics.iter().enumerate().filter_map(of).collect()
    }

    /// One class of an input with all its maps.
    fn shown(&self, input: usize, scored: &Scored) -> ReportInput {
        let map = |((candidate, shown), scores): ((&Candidate, &Option<Shown>), &Vec<Option<Score>>)| {
            let scores = scores.iter().map(|s| s.as_ref().map(|s| s.value)).collect();
            Some(Map { name: candidate.name().to_string(), shown: shown.clone()?, scores })
        };
        let maps = self.candidates.iter().zip(&scored.maps).zip(&scored.scores).filter_map(map).collect();
        let predicted = self.labelled.model.checkpoint.labels.name(scored.predicted);
        let name = &self.labelled.inputs[input].name;
        let said = match self.labelled.model.checkpoint.scale {
            Scale::Value => String::new(), // the greatest of several values is no prediction
            Scale::Softmax | Scale::Sigmoid => format!(" (predicted: {predicted})"),
        };
        ReportInput { heading: format!("{name}: {}{said}", scored.label), maps }
    }
}

/// `name (higher is better): how`
pub fn explained(metric: &Configured) -> String {
    let better = if metric.entry.direction == Direction::Higher { "higher" } else { "lower" };
    format!("{} ({better} is better): {}", metric.spec, metric.convention())
}

/// The aligned table: a row a candidate, a column a metric.
pub fn text_table(rows: &[Row], metrics: &[Configured]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    let head = metrics.iter().map(|m| format!("{} {}", m.spec, m.entry.direction.arrow()));
    table.set_header(std::iter::once("method".to_string()).chain(head));
    for row in rows {
        let cells = row.figures.iter().map(|f| match f {
            None => "-".to_string(),
            Some(f) => {
                let mark = if f.beats_random == Some(false) { " !" } else { "" };
                format!("{:.3} [{:.3}, {:.3}]{mark}", f.value, f.low, f.high)
            }
        });
        table.add_row(std::iter::once(row.name.clone()).chain(cells));
    }
    table.trim_fmt()
}
