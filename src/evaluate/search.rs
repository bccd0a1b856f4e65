//! A search for settings over labelled inputs: on one part of them by a [`Race`], and measured on the others.

use super::candidates::Candidate;
use super::contract::{Configured, Score};
use super::figures::explained;
use super::judge::{judge, Waiting};
use super::paper::{self, Cell, Column, Number};
use super::study::{Prepared, Study};
use super::table::{gain, pooled};
use super::tune::{Choice, Grid, Race};
use crate::error::{Error, Result};
use crate::guard::guarded;
use crate::render::columns::aligned;
use crate::render::grid;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{json, Value};

/// How a search is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// About how many explanations may be judged.
    pub budget: Option<usize>,
    /// Share of the inputs that the search does not see.
    pub held_out: f64,
    /// Settings to list, and to measure on the held-out inputs.
    pub top: usize,
}

/// Scores on several inputs, each with the input's number.
type Scores = Vec<(usize, Score)>;

/// What happened to one input.
pub enum Step<'n> {
    /// What of it was left out.
    Notes(&'n [String]),
    /// Why it could not be judged.
    Failed(&'n Error),
    /// It is done.
    Done,
}

/// One setting in the table. Gains are over the baseline.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    rank: usize,
    method: String,
    search: f64,
    judged: usize,
    gain: Option<[f64; 2]>,
    held_out: f64,
    held_out_gain: Option<[f64; 2]>,
    baseline: bool,
    chosen: bool,
}

/// What a search found.
pub struct Outcome<'a> {
    study: Study<'a>,
    metric: &'a Configured,
    race: Race,
    choice: Choice,
    /// The best, the chosen one and the baseline among them.
    pub lines: Vec<Line>,
    /// Inputs that were searched, and those that were measured.
    pub inputs: (usize, usize),
    settings: usize,
}

/// Inputs to search on and inputs to measure on, shuffled by the seed.
fn split(inputs: usize, held_out: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..inputs).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for i in (1..inputs).rev() {
        order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    let kept = ((inputs as f64 * held_out).round() as usize).clamp(1, inputs.saturating_sub(1).max(1));
    let measure = order.split_off(inputs.saturating_sub(kept));
    (order, measure)
}

/// Searches a study's candidates by its first metric. Candidate `kept` is the baseline; the `settings` of the grids come
/// first. `each` is told of every input.
///
/// # Errors
/// [`Error::Interrupted`]; fewer than two inputs; a metric without a figure; what `each` reports.
pub fn search<'a, E: From<Error>>(
    study: Study<'a>,
    (settings, kept): (usize, usize),
    plan: Plan,
    mut each: impl FnMut(usize, Step<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<Outcome<'a>, E> {
    let (inputs, seed) = (study.data.inputs.len(), study.settings.seed);
    if inputs < 2 {
        return Err(
            Error::Usage("one input cannot be split into a part to search on and a part to measure on".into()).into()
        );
    }
    let metric = study.metrics.first().ok_or_else(|| Error::Usage("a search needs a metric".into()))?;
    let (searched, held_out) = split(inputs, plan.held_out, seed);
    let mut race = Race::new(study.candidates.len(), searched.len(), plan.budget, kept, metric.entry);
    let mut scores_of = |input: usize, alive: &[usize]| -> std::result::Result<Option<Vec<Vec<Score>>>, E> {
        let mut notes = Vec::new();
        let scores = guarded(|| judged(&study, input, alive, metric, &mut notes));
        each(input, Step::Notes(&notes))?;
        let scores = match scores {
            Err(Error::Interrupted) => return Err(Error::Interrupted.into()),
            Err(e) => each(input, Step::Failed(&e)).map(|()| None)?,
            Ok(scores) => Some(scores),
        };
        each(input, Step::Done)?;
        Ok(scores)
    };
    for &input in &searched {
        let alive = race.alive().to_vec();
        let scores = scores_of(input, &alive)?;
        race.add(input, scores.unwrap_or_else(|| vec![Vec::new(); alive.len()]));
    }
    let gains = race.gains(seed);
    let choice = race.choice(&gains).ok_or_else(|| {
        Error::Usage(format!(
            "metric `{}` has no figure on the inputs that were searched: all of them failed or have no score",
            metric.spec
        ))
    })?;
    let ranked = race.ranked();
    let mut finalists: Vec<usize> = ranked.iter().copied().take(plan.top.max(1)).collect();
    for setting in [choice.chosen, kept] {
        if !finalists.contains(&setting) {
            finalists.push(setting);
        }
    }
    let mut measured = vec![Scores::new(); finalists.len()];
    for &input in &held_out {
        for (all, own) in measured.iter_mut().zip(scores_of(input, &finalists)?.unwrap_or_default()) {
            all.extend(own.into_iter().map(|score| (input, score)));
        }
    }
    let base = finalists.iter().zip(&measured).find(|(s, _)| **s == kept).map_or(&[][..], |(_, own)| own);
    let line = |(&s, own): (&usize, &Scores)| Line {
        rank: ranked.iter().position(|&r| r == s).map_or(0, |r| r + 1),
        method: study.candidates.get(s).map_or("", Candidate::name).to_string(),
        search: race.value(s),
        judged: race.scores(s).len(),
        gain: gains.get(s).copied().flatten().filter(|_| s != kept),
        held_out: pooled(own, metric.entry.pool),
        held_out_gain: gain(own, base, metric.entry, seed).filter(|_| s != kept),
        baseline: s == kept,
        chosen: s == choice.chosen,
    };
    let lines = finalists.iter().zip(&measured).map(line).collect();
    Ok(Outcome { study, metric, race, choice, lines, inputs: (searched.len(), held_out.len()), settings })
}

/// Scores of some candidates on one input: a list over its labelled classes each, from one set of passes.
fn judged(
    study: &Study<'_>,
    number: usize,
    alive: &[usize],
    metric: &Configured,
    told: &mut Vec<String>,
) -> Result<Vec<Vec<Score>>> {
    let Prepared { batch, questions, notes, .. } = study.prepared(number)?;
    *told = notes;
    let candidates: Vec<&Candidate> = alive.iter().filter_map(|&c| study.candidates.get(c)).collect();
    let mut waiting = Vec::new();
    for (output, truth) in &questions {
        let pass = batch.pass(vec![*output])?;
        for candidate in &candidates {
            let explanation = candidate.explain(&pass.run(0))?;
            waiting.push(Waiting { batch: &batch, output: *output, explanation, truth, candidate });
        }
    }
    let mut all = vec![Vec::new(); candidates.len()];
    let judged = judge(&study.model.encoder, &waiting, std::slice::from_ref(metric))?;
    // One metric: as many scores as explanations.
    for (own, score) in (0..candidates.len()).cycle().zip(judged.into_iter().flatten()) {
        all[own].extend(score?);
    }
    Ok(all)
}

impl Outcome<'_> {
    /// The method to use.
    pub fn chosen(&self) -> &str {
        self.study.candidates.get(self.choice.chosen).map_or("", Candidate::name)
    }

    /// As records.
    pub fn records(&self) -> Vec<Value> {
        let record = |line: &Line| {
            let mut record =
                json!({"status": "ok", "metric": self.metric.spec, "direction": self.metric.entry.direction});
            if let (Some(all), Value::Object(own)) = (record.as_object_mut(), json!(line)) {
                all.extend(own);
            }
            record
        };
        self.lines.iter().map(record).collect()
    }

    /// As text.
    pub fn text(&self) -> String {
        let (searched, held_out) = self.inputs;
        let gain = |line: &Line, gain: Option<[f64; 2]>| match gain {
            Some([low, high]) => format!("[{low:+.4}, {high:+.4}]"),
            None if line.baseline => "(baseline)".to_string(),
            None => String::new(),
        };
        let row = |line: &Line| {
            vec![
                format!("{}{}", line.rank, if line.chosen { " *" } else { "" }),
                line.method.clone(),
                line.judged.to_string(),
                format!("{:.4}", line.search),
                gain(line, line.gain),
                format!("{:.4}", line.held_out),
                gain(line, line.held_out_gain),
            ]
        };
        let head = ["rank", "setting", "judged", "search", "gain", "held out", "gain"].map(String::from);
        let (settings, seed) = (self.settings, self.study.settings.seed);
        format!(
            "{settings} settings, searched on {searched} inputs, measured on {held_out} others, seed {seed}\n{}\n{}\n\
             (gain over the baseline, positive is better: 95 % bootstrap intervals paired by input, in the search for all settings \
             at once; *: the surest gain of the search, or the baseline)",
            explained(self.metric),
            aligned(&head, &self.lines.iter().map(row).collect::<Vec<_>>()),
        )
    }

    /// The same for LaTeX and Markdown. Of settings that were judged on fewer inputs, to spare, none is the best of the search.
    pub fn paper(&self) -> paper::Table {
        let (searched, held_out) = self.inputs;
        let (better, digits) = (Some(self.metric.entry.direction), 4);
        let most = self.lines.iter().map(|line| line.judged).max();
        let figure = |value: f64, rival: bool| match value.is_finite() {
            true => Cell::Figure(Number { value, digits, interval: None, weak: false, rival }),
            false => Cell::Words("-".into()),
        };
        let gain = |line: &Line, gain: Option<[f64; 2]>| match gain {
            Some(ends) => Cell::Interval(ends, digits),
            None => Cell::Words(if line.baseline { "(baseline)" } else { "" }.into()),
        };
        let row = |line: &Line| paper::Row {
            cells: vec![
                Cell::Words(format!("{}{}", line.rank, if line.chosen { " *" } else { "" })),
                Cell::Name(line.method.clone()),
                Cell::Words(line.judged.to_string()),
                figure(line.search, Some(line.judged) == most),
                gain(line, line.gain),
                figure(line.held_out, true),
                gain(line, line.held_out_gain),
            ],
            control: false,
        };
        let column = |name: &str, better| Column { name: name.into(), better };
        let (settings, study) = (self.settings, &self.study);
        let about = [
            format!("model: {}", study.model.checkpoint.id),
            format!("data: {}", study.data.name),
            format!(
                "{settings} settings, searched on {searched} inputs, measured on {held_out} others, seed {}",
                study.settings.seed
            ),
            explained(self.metric),
        ];
        paper::Table {
            columns: ["rank", "setting", "judged", "search", "gain", "held out", "gain"]
                .map(|name| column(name, better.filter(|_| ["search", "held out"].contains(&name))))
                .into(),
            rows: self.lines.iter().map(row).collect(),
            notes: vec![
                "Gains over the baseline: 95 % bootstrap intervals, positive is better.".into(),
                "*: the surest gain of the search, or the baseline. Bold: the best figure.".into(),
            ],
            about: paper::made_by("tune").chain(about).collect(),
        }
    }

    /// What speaks against the chosen setting, or for keeping the baseline.
    pub fn caution(&self) -> Option<String> {
        let name = |c: usize| self.study.candidates.get(c).map_or("", Candidate::name);
        let held_out = |wanted: &dyn Fn(&&Line) -> bool| self.lines.iter().find(wanted).map(|l| l.held_out);
        let (chosen, baseline) = (held_out(&|l| l.chosen), held_out(&|l| l.baseline));
        if self.lines.iter().any(|l| l.chosen && l.baseline) {
            return (self.choice.best != self.choice.chosen).then(|| {
                format!(
                    "note: `{}` scored best in the search, but no setting is better than `{}` beyond doubt: it is kept",
                    name(self.choice.best),
                    name(self.choice.chosen)
                )
            });
        }
        let worse = chosen.zip(baseline).is_some_and(|(c, b)| self.metric.entry.direction.prefers(b, c));
        worse.then(|| {
            "warning: the chosen setting is worse than the baseline on the held-out inputs: use more data, or keep the baseline"
                .to_string()
        })
    }

    /// The first of the grids with more than one value, its last axis across, as a PNG.
    ///
    /// # Errors
    /// [`Error::Usage`] when no grid has several values.
    pub fn picture(&self, grids: &[Grid]) -> Result<Vec<u8>> {
        let mut first = 0;
        for grid in grids {
            let Some(((_, across), down)) = grid.axes.split_last() else {
                first += grid.settings.len();
                continue;
            };
            let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
            for (i, setting) in grid.settings.iter().enumerate() {
                let Some((last, above)) = setting.place.split_last() else { continue };
                let name = if down.is_empty() { "all".to_string() } else { above.join(", ") };
                let value = Some(self.race.value(first + i)).filter(|v| v.is_finite());
                if !rows.iter().any(|(n, _)| *n == name) {
                    rows.push((name.clone(), vec![None; across.len()]));
                }
                let row = rows.iter_mut().find(|(n, _)| *n == name).map(|(_, row)| row);
                let at = across.iter().position(|v| v == last);
                if let Some(cell) = row.zip(at).and_then(|(row, at)| row.get_mut(at)) {
                    *cell = value;
                }
            }
            let axes: Vec<&str> = grid.axes.iter().map(|(k, _)| k.as_str()).collect();
            let title = format!("{} by {}", self.metric.spec, axes.join(" x "));
            return grid::Grid { title, columns: across.clone(), rows }.render();
        }
        Err(Error::Usage("--out: the grid has one setting only; offer several values, such as heads=mean|max".into()))
    }
}
