//! `vitx evaluate --sanity`: maps against those of models with random weights, and of another class.

use super::guard::guarded;
use super::labelled::{batch, DataArgs, Labelled};
use super::prepare::Ready;
use super::questions::Question;
use super::report::{interrupted, Reporter};
use super::{devices, job};
use anyhow::{bail, Result};
use serde_json::{json, Value};
use vitx::evaluate::randomisation::{randomise, stage_name, stages};
use vitx::evaluate::report::{Row, Sanity};
use vitx::evaluate::table::{rank_correlation, Scores};
use vitx::evaluate::{Candidate, Case, Configured, Needs, Score};
use vitx::model::Model;
use vitx::run::Batch;
use vitx::target::Output;

/// What is checked.
pub struct Subject<'a> {
    pub labelled: &'a Labelled,
    pub candidates: &'a [Candidate],
    pub metrics: &'a [Configured],
    pub inputs: usize,
}

/// What was found.
pub struct Found {
    /// Rank correlations by candidate and stage.
    pub correlations: Sanity,
    /// Localisation of the maps of a model without any trained weight.
    localisation: Vec<Row>,
    metrics: Vec<String>,
}

/// Content relevance by input and question, then candidate.
type Maps = Vec<Vec<Option<Vec<f32>>>>;

/// Runs the checks. Classes are those of the labels throughout.
///
/// # Errors
/// Whatever building or reading a model reports.
pub fn check(subject: &Subject<'_>, permuted: Option<&str>, data: &DataArgs, report: &Reporter) -> Result<Found> {
    report.note(&format!("sanity checks on {} inputs", subject.inputs));
    let trained = &subject.labelled.model;
    let (own, _) = maps(subject, trained, data, report, None)?;
    let mut correlations = Sanity::default();
    let mut columns: Vec<Vec<Option<f64>>> = Vec::new();
    let mut stage = |name: String, maps: &Maps| {
        correlations.stages.push(name);
        columns.push(compared(&own, maps, subject.candidates.len()));
    };
    if trained.encoder.classes() > 1 {
        let (other, _) = maps(subject, trained, data, report, Some(data.seed))?;
        stage("other class".into(), &other);
    }
    if let Some(id) = permuted {
        let checkpoint =
            job::open(id, &data.model, super::args::ReportArgs { json: false, quiet: true, verbose: false })?;
        let model = checkpoint.load(devices::dtype(data.model.dtype), trained.encoder.device())?;
        if model.encoder.classes() != trained.encoder.classes() {
            bail!(
                "--permuted-labels {id}: it has {} classes, not {}",
                model.encoder.classes(),
                trained.encoder.classes()
            );
        }
        stage("permuted labels".into(), &maps(subject, &model, data, report, None)?.0);
    }
    // A model of its own, whose weights are given up one part after another: never more than one beside the trained one.
    let mut model = reopened(trained, data)?;
    let mut scores = Scores::default();
    for part in 0..stages(&model.encoder) {
        randomise(&mut model.encoder, part, data.seed)?;
        let (random, found) = maps(subject, &model, data, report, None)?;
        stage(stage_name(&model.encoder, part), &random);
        scores = found;
        if interrupted() {
            break;
        }
    }
    let row = |(c, candidate): (usize, &Candidate)| {
        (candidate.name().to_string(), columns.iter().map(|column| column[c]).collect::<Vec<_>>())
    };
    let methods = subject.candidates.iter().enumerate().filter(|(_, c)| !c.is_control());
    correlations.rows = methods.map(row).collect();
    let random = subject.candidates.iter().position(|c| matches!(c, Candidate::Random)).unwrap_or(0);
    let wanted: Vec<usize> = (0..subject.metrics.len()).filter(|&m| of_masks(&subject.metrics[m])).collect();
    let localised = |(c, candidate): (usize, &Candidate)| Row {
        name: candidate.name().to_string(),
        figures: wanted.iter().map(|&m| scores.figure(c, m, &subject.metrics[m], random, data.seed)).collect(),
    };
    let localisation = subject.candidates.iter().enumerate().map(localised).collect();
    let metrics = wanted.iter().map(|&m| subject.metrics[m].spec.clone()).collect();
    Ok(Found { correlations, localisation, metrics })
}

fn of_masks(metric: &Configured) -> bool {
    metric.entry.needs == Needs::Mask
}

/// The same checkpoint, read again.
fn reopened(model: &Model, data: &DataArgs) -> Result<Model> {
    let quiet = super::args::ReportArgs { json: false, quiet: true, verbose: false };
    let checkpoint = job::open(&model.checkpoint.id, &data.model, quiet)?;
    Ok(checkpoint.load(devices::dtype(data.model.dtype), model.encoder.device())?)
}

/// Maps of a model, and their localisation. `other`: of another class than the label's, drawn with this seed.
fn maps(
    subject: &Subject<'_>,
    model: &Model,
    data: &DataArgs,
    report: &Reporter,
    other: Option<u64>,
) -> Result<(Maps, Scores)> {
    let (mut all, mut scores) = (Vec::new(), Scores::default());
    let classes = model.encoder.classes() as u64;
    for (number, input) in subject.labelled.inputs[..subject.inputs].iter().enumerate() {
        let Ok(ready) = input.ready(model, data.shape) else { continue }; // reported before
        for (q, question) in input.questions.iter().enumerate() {
            let class = match other {
                None => question.class,
                Some(seed) => {
                    // Another class, each as likely: the seed and the input's number decide.
                    let step = 1 + (seed ^ (number as u64 * 7919 + q as u64 * 104_729)) % (classes - 1).max(1);
                    ((u64::from(question.class) + step) % classes) as u32
                }
            };
            let mut found = Vec::new();
            let own = guarded(|| {
                let batch = batch(model, &ready, data.seed, report)?;
                own_maps(subject, &batch, (question, &ready, class), &mut found)
            });
            all.push(match own {
                Err(vitx::Error::Interrupted) => return Err(vitx::Error::Interrupted.into()),
                Err(_) => vec![None; subject.candidates.len()], // random weights may blow up; a bad mask was reported before
                Ok(own) => own,
            });
            found.into_iter().for_each(|(c, m, score)| scores.add(c, m, number, score));
        }
    }
    Ok((all, scores))
}

/// The maps of all candidates of one class of an input; `found` takes their localisation: candidate, metric, score.
fn own_maps(
    subject: &Subject<'_>,
    batch: &Batch<'_>,
    (question, ready, class): (&Question, &Ready, u32),
    found: &mut Vec<(usize, usize, Score)>,
) -> vitx::Result<Vec<Option<Vec<f32>>>> {
    let pass = batch.pass(vec![Output::of(class)])?;
    let run = pass.run(0);
    let truth = question.truth(ready, run.layout())?.0;
    let mut own = Vec::new();
    for (c, candidate) in subject.candidates.iter().enumerate() {
        let Ok(explanation) = candidate.explain(&run) else {
            own.push(None); // random weights may blow a rule up
            continue;
        };
        for (m, metric) in subject.metrics.iter().enumerate().filter(|(_, m)| of_masks(m)) {
            let case = Case { run: &run, explanation: &explanation, truth: &truth, candidate };
            found.extend(metric.metric.score(&case)?.map(|score| (c, m, score)));
        }
        own.push(Some(explanation.of_content().collect()));
    }
    Ok(own)
}

/// The mean rank correlation of each candidate; none where no pair of maps has one.
fn compared(own: &Maps, other: &Maps, candidates: usize) -> Vec<Option<f64>> {
    let mean = |c: usize| {
        let pairs = own.iter().zip(other).filter_map(|(a, b)| rank_correlation(a[c].as_ref()?, b[c].as_ref()?));
        let all: Vec<f64> = pairs.collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    };
    (0..candidates).map(mean).collect()
}

impl Found {
    /// As tables.
    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(std::iter::once("sanity").chain(self.correlations.stages.iter().map(String::as_str)));
        for (name, values) in &self.correlations.rows {
            let cells = values.iter().map(|v| v.map_or("-".to_string(), |v| format!("{v:.2}")));
            table.add_row(std::iter::once(name.clone()).chain(cells));
        }
        let mut text = table.trim_fmt();
        text.push_str("\n(rank correlation of |relevance| with the trained model's map of the labelled class; weights are new from the head down to the part named)");
        if !self.metrics.is_empty() {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::NOTHING);
            table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
            table.set_header(std::iter::once("all weights random").chain(self.metrics.iter().map(String::as_str)));
            for row in &self.localisation {
                let cells =
                    row.figures.iter().map(|f| f.as_ref().map_or("-".to_string(), |f| format!("{:.3}", f.value)));
                table.add_row(std::iter::once(row.name.clone()).chain(cells));
            }
            text.push('\n');
            text.push_str(&table.trim_fmt());
        }
        text
    }

    /// As records.
    pub fn records(&self) -> Vec<Value> {
        let stages = &self.correlations.stages;
        let correlation = self.correlations.rows.iter().map(|(name, values)| {
            let by_stage: serde_json::Map<String, Value> =
                stages.iter().zip(values).map(|(s, v)| (s.clone(), json!(v))).collect();
            json!({"status": "ok", "method": name, "sanity": "rank-correlation", "stages": by_stage})
        });
        let localised = self.localisation.iter().map(|row| {
            let figures: serde_json::Map<String, Value> =
                self.metrics.iter().zip(&row.figures).map(|(m, f)| (m.clone(), json!(f))).collect();
            json!({"status": "ok", "method": row.name, "sanity": "all-weights-random", "figures": figures})
        });
        correlation.chain(localised).collect()
    }
}
