//! Sanity checks of a study: its maps against those of the model with random weights, and of another class.

use super::candidates::Candidate;
use super::contract::{Case, Configured, Needs, Score, Truth};
use super::randomisation::{randomise, stage_name, stages};
use super::report::{Row, Sanity};
use super::study::Study;
use super::table::{rank_correlation, Scores};
use crate::encoder::{Encoder, Inputs};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::guard::guarded;
use crate::model::Model;
use crate::render::columns::aligned;
use crate::run::Batch;
use crate::target::Output;
use serde_json::{json, Map, Value};

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

/// An input as a model reads it, prepared once for all stages.
struct Kept {
    number: usize,
    /// None where it cannot be read, which was reported before.
    batch: Option<(Inputs, Vec<Layout>)>,
    /// Labelled classes, and what is known of each; none where a mask or rationale cannot be read.
    questions: Vec<(u32, Option<Truth>)>,
}

/// Runs the checks on the first `inputs` of a study. Classes are those of the labels throughout. `permuted` reads a model of
/// the same shape that was trained on permuted labels.
///
/// # Errors
/// [`Error::Interrupted`], and whatever building or reading a model reports.
pub fn check(study: &Study<'_>, inputs: usize, permuted: Option<&dyn Fn() -> Result<Model>>) -> Result<Found> {
    let trained = study.model;
    let kept = kept(study, trained, inputs);
    let (own, _) = maps(study, &trained.encoder, &kept, None)?;
    let mut correlations = Sanity::default();
    let mut columns: Vec<Vec<Option<f64>>> = Vec::new();
    let mut stage = |name: String, maps: &Maps| {
        correlations.stages.push(name);
        columns.push(compared(&own, maps, study.candidates.len()));
    };
    if trained.encoder.classes() > 1 {
        let (other, _) = maps(study, &trained.encoder, &kept, Some(study.settings.seed))?;
        stage("other class".into(), &other);
    }
    if let Some(read) = permuted {
        let model = read()?;
        let (classes, own) = (model.encoder.classes(), trained.encoder.classes());
        if classes != own {
            let id = &model.checkpoint.id;
            return Err(Error::Usage(format!("--permuted-labels {id}: it has {classes} classes, not {own}")));
        }
        let kept = self::kept(study, &model, inputs); // by its own processor
        stage("permuted labels".into(), &maps(study, &model.encoder, &kept, None)?.0);
    }
    // A copy whose weights are given up one part after another: never more than one model beside the trained one.
    let mut encoder = trained.encoder.clone();
    let mut scores = Scores::default();
    for part in 0..stages(&encoder) {
        randomise(&mut encoder, part, study.settings.seed)?;
        let (random, found) = maps(study, &encoder, &kept, None)?;
        stage(stage_name(&encoder, part), &random);
        scores = found;
    }
    let row = |(c, candidate): (usize, &Candidate)| {
        let values = columns.iter().map(|column| column.get(c).copied().flatten()).collect();
        (candidate.name().to_string(), values)
    };
    let methods = study.candidates.iter().enumerate().filter(|(_, c)| !c.is_control());
    correlations.rows = methods.map(row).collect();
    let random = Candidate::random(study.candidates);
    let seed = study.settings.seed;
    let localised = |(c, candidate): (usize, &Candidate)| Row {
        name: candidate.name().to_string(),
        control: candidate.is_control(),
        figures: of_masks(study.metrics).map(|(m, metric)| scores.figure(c, m, metric, random, seed)).collect(),
    };
    let localisation = study.candidates.iter().enumerate().map(localised).collect();
    let metrics = of_masks(study.metrics).map(|(_, metric)| metric.spec.clone()).collect();
    Ok(Found { correlations, localisation, metrics })
}

/// Metrics that compare a map with a mask, with their numbers.
fn of_masks(metrics: &[Configured]) -> impl Iterator<Item = (usize, &Configured)> {
    metrics.iter().enumerate().filter(|(_, m)| m.entry.needs == Needs::Mask)
}

/// The first inputs of a study, as a model reads them.
fn kept(study: &Study<'_>, model: &Model, inputs: usize) -> Vec<Kept> {
    let read = |number: usize, input: &super::questions::Asked| {
        let prepared = guarded(|| {
            let ready = input.ready(model, study.settings.shape)?;
            let batch = model.inputs(std::slice::from_ref(&ready))?;
            Ok((ready, batch))
        });
        let truth = |q: &super::questions::Question| {
            let (ready, (_, layouts)) = prepared.as_ref().ok()?;
            Some(q.truth(ready, layouts.first()?).ok()?.0)
        };
        let questions = input.questions.iter().map(|q| (q.class, truth(q))).collect();
        Kept { number, questions, batch: prepared.ok().map(|(_, batch)| batch) }
    };
    study.data.inputs.iter().take(inputs).enumerate().map(|(number, input)| read(number, input)).collect()
}

/// Maps of an encoder, and their localisation. `other`: of another class than the label's, drawn with this seed.
fn maps(study: &Study<'_>, encoder: &Encoder, kept: &[Kept], other: Option<u64>) -> Result<(Maps, Scores)> {
    let (mut all, mut scores) = (Vec::new(), Scores::default());
    let classes = encoder.classes() as u64;
    for one in kept {
        let batch = one.batch.clone().and_then(|(inputs, layouts)| Batch::new(encoder, inputs, layouts).ok());
        let batch = batch.map(|batch| study.batch(batch));
        for (q, (class, truth)) in one.questions.iter().enumerate() {
            let class = match other {
                None => *class,
                Some(seed) => {
                    // Another class, each as likely: the seed and the input's number decide.
                    let step = 1 + (seed ^ (one.number as u64 * 7919 + q as u64 * 104_729)) % (classes - 1).max(1);
                    ((u64::from(*class) + step) % classes) as u32
                }
            };
            let mut found = Vec::new();
            let own = batch.as_ref().zip(truth.as_ref());
            let own = own.map(|(batch, truth)| guarded(|| own_maps(study, batch, (class, truth), &mut found)));
            all.push(match own {
                Some(Err(Error::Interrupted)) => return Err(Error::Interrupted),
                Some(Err(_)) | None => vec![None; study.candidates.len()], // random weights may blow up
                Some(Ok(own)) => own,
            });
            found.into_iter().for_each(|(c, m, score)| scores.add(c, m, one.number, score));
            if !(study.going)() {
                return Err(Error::Interrupted);
            }
        }
    }
    Ok((all, scores))
}

/// The maps of all candidates of one class of an input; `found` takes their localisation: candidate, metric, score.
fn own_maps(
    study: &Study<'_>,
    batch: &Batch<'_>,
    (class, truth): (u32, &Truth),
    found: &mut Vec<(usize, usize, Score)>,
) -> Result<Vec<Option<Vec<f32>>>> {
    let pass = batch.pass(vec![Output::of(class)])?;
    let run = pass.run(0);
    let mut own = Vec::new();
    for (c, candidate) in study.candidates.iter().enumerate() {
        let Ok(explanation) = candidate.explain(&run) else {
            own.push(None); // random weights may blow a rule up
            continue;
        };
        for (m, metric) in of_masks(study.metrics) {
            let case = Case { run: &run, explanation: &explanation, truth, candidate };
            found.extend(metric.score(&case)?.map(|score| (c, m, score)));
        }
        own.push(Some(explanation.of_content().collect()));
    }
    Ok(own)
}

/// The mean rank correlation of each candidate; none where no pair of maps has one.
fn compared(own: &Maps, other: &Maps, candidates: usize) -> Vec<Option<f64>> {
    let mean = |c: usize| {
        let of = |maps: &'_ [Option<Vec<f32>>]| maps.get(c).cloned().flatten();
        let pairs = own.iter().zip(other).filter_map(|(a, b)| rank_correlation(&of(a)?, &of(b)?));
        let all: Vec<f64> = pairs.collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    };
    (0..candidates).map(mean).collect()
}

impl Found {
    /// As tables.
    pub fn text(&self) -> String {
        let head = |first: &str, names: &[String]| -> Vec<String> {
            std::iter::once(first.to_string()).chain(names.iter().cloned()).collect()
        };
        let row = |name: &String, cells: &mut dyn Iterator<Item = Option<String>>| -> Vec<String> {
            std::iter::once(name.clone()).chain(cells.map(|c| c.unwrap_or_else(|| "-".into()))).collect()
        };
        let rows = self.correlations.rows.iter();
        let rows: Vec<_> =
            rows.map(|(name, values)| row(name, &mut values.iter().map(|v| v.map(|v| format!("{v:.2}"))))).collect();
        let mut text = aligned(&head("sanity", &self.correlations.stages), &rows);
        text.push_str("\n(rank correlation of |relevance| with the trained model's map of the labelled class; weights are new from the head down to the part named)");
        if !self.metrics.is_empty() {
            let value = |f: &Option<super::table::Figure>| f.as_ref().map(|f| format!("{:.3}", f.value));
            let rows: Vec<_> =
                self.localisation.iter().map(|r| row(&r.name, &mut r.figures.iter().map(value))).collect();
            text.push('\n');
            text.push_str(&aligned(&head("all weights random", &self.metrics), &rows));
        }
        text
    }

    /// As records.
    pub fn records(&self) -> Vec<Value> {
        let stages = &self.correlations.stages;
        let correlation = self.correlations.rows.iter().map(|(name, values)| {
            let by_stage: Map<String, Value> = stages.iter().zip(values).map(|(s, v)| (s.clone(), json!(v))).collect();
            json!({"status": "ok", "method": name, "sanity": "rank-correlation", "stages": by_stage})
        });
        let localised = self.localisation.iter().map(|row| {
            let figures: Map<String, Value> =
                self.metrics.iter().zip(&row.figures).map(|(m, f)| (m.clone(), json!(f))).collect();
            json!({"status": "ok", "method": row.name, "sanity": "all-weights-random", "figures": figures})
        });
        correlation.chain(localised).collect()
    }
}
