//! All metrics on many explanations at once: the perturbed inputs of several explanations and inputs go through the model
//! together, under a memory budget.
//!
//! Each metric is asked twice: the first time the variants it wants are noted (see [`Tape`]) and answered with zeros, the
//! second time with the model's logits. What a metric asks for must not depend on earlier answers. An example's logits do
//! not depend on its neighbours in a batch, so scores are those of judging each explanation by itself.

use super::candidates::Candidate;
use super::contract::{Case, Configured, Score, Truth};
use crate::encoder::{Encoder, Inputs};
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use crate::nn::numbers;
use crate::run::tape::{Logits, Tape};
use crate::run::Batch;
use crate::target::Output;
use candle_core::Tensor;

/// Values of variants that are held at once.
const HELD: usize = 64 << 20;
/// Variants that go through the model together.
const TOGETHER: usize = 64;

/// One explanation waiting to be judged.
pub struct Waiting<'a, 'm> {
    /// Its input, a batch of one.
    pub batch: &'a Batch<'m>,
    /// What it explains.
    pub output: Output,
    /// The explanation.
    pub explanation: Explanation,
    /// What is known of the input.
    pub truth: &'a Truth,
    /// What made it.
    pub candidate: &'a Candidate,
}

impl Waiting<'_, '_> {
    fn score(&self, metric: &Configured) -> Result<Option<Score>> {
        let pass = self.batch.pass(vec![self.output])?;
        let run = pass.run(0);
        let case = Case { run: &run, explanation: &self.explanation, truth: self.truth, candidate: self.candidate };
        metric.metric.score(&case)
    }
}

/// The scores of each explanation under each metric.
///
/// # Errors
/// [`Error::Interrupted`], and what fails for all; a metric's failure on one explanation is its own result.
pub fn judge(
    encoder: &Encoder,
    waiting: &[Waiting<'_, '_>],
    metrics: &[Configured],
) -> Result<Vec<Vec<Result<Option<Score>>>>> {
    let mut scores: Vec<Vec<Result<Option<Score>>>> =
        waiting.iter().map(|_| metrics.iter().map(|_| Ok(None)).collect()).collect();
    let mut noted: Vec<(usize, usize, Vec<Inputs>)> = Vec::new();
    let mut held = 0;
    for (w, one) in waiting.iter().enumerate() {
        for (m, metric) in metrics.iter().enumerate() {
            one.batch.set_tape(Tape::Record(Vec::new()));
            let first = one.score(metric);
            let Tape::Record(jobs) = one.batch.set_tape(Tape::Off) else { continue };
            match first {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                // Nothing was asked of the model: this is the score already.
                other if jobs.is_empty() || other.is_err() => scores[w][m] = other,
                _ => {
                    held += jobs.iter().map(size).sum::<usize>();
                    noted.push((w, m, jobs));
                }
            }
            if held > HELD {
                flush(encoder, waiting, metrics, std::mem::take(&mut noted), &mut scores)?;
                held = 0;
            }
        }
    }
    flush(encoder, waiting, metrics, noted, &mut scores)?;
    Ok(scores)
}

/// Values in a batch of variants.
fn size(inputs: &Inputs) -> usize {
    match inputs {
        Inputs::Pixels(values) | Inputs::Words { rows: values, .. } => values.elem_count(),
        Inputs::Tokens { ids, .. } => ids.elem_count(),
    }
}

/// Answers what was noted and asks the metrics again.
fn flush(
    encoder: &Encoder,
    waiting: &[Waiting<'_, '_>],
    metrics: &[Configured],
    noted: Vec<(usize, usize, Vec<Inputs>)>,
    scores: &mut [Vec<Result<Option<Score>>>],
) -> Result<()> {
    let jobs: Vec<&Inputs> = noted.iter().flat_map(|(_, _, jobs)| jobs).collect();
    let mut answers = answered(encoder, &jobs)?.into_iter();
    for (w, m, jobs) in &noted {
        let own: Vec<Logits> = answers.by_ref().take(jobs.len()).collect();
        scores[*w][*m] = if own.iter().flatten().flatten().all(|l| l.is_finite()) {
            waiting[*w].batch.set_tape(Tape::Replay(own.into()));
            let score = waiting[*w].score(&metrics[*m]);
            waiting[*w].batch.set_tape(Tape::Off);
            score
        } else {
            Err(Error::Numeric("the logits of a perturbed input are not finite".into()))
        };
        waiting[*w].batch.progress()?;
    }
    Ok(())
}

/// The logits of each job; jobs of one shape go through the model together.
fn answered(encoder: &Encoder, jobs: &[&Inputs]) -> Result<Vec<Logits>> {
    let mut answers: Vec<Logits> = vec![Vec::new(); jobs.len()];
    let mut open: Vec<usize> = (0..jobs.len()).collect();
    while let Some(&first) = open.first() {
        let (same, others): (Vec<usize>, Vec<usize>) = open.into_iter().partition(|&j| alike(jobs[first], jobs[j]));
        open = others;
        let mut rest = &same[..];
        while !rest.is_empty() {
            let mut count = 0;
            let fits = |&&j: &&usize| {
                count += jobs[j].batch().unwrap_or(TOGETHER);
                count <= TOGETHER
            };
            let n = rest.iter().take_while(fits).count().max(1); // a larger job goes alone
            let (now, later) = rest.split_at(n);
            rest = later;
            let parts: Vec<&Inputs> = now.iter().map(|&j| jobs[j]).collect();
            let logits = encoder.logits(&joined(&parts)?)?;
            let classes = logits.dim(1)?;
            let flat = numbers(&logits)?;
            let mut rows = flat.chunks(classes).map(<[f64]>::to_vec);
            for &j in now {
                answers[j] = rows.by_ref().take(jobs[j].batch()?).collect();
            }
        }
    }
    Ok(answers)
}

/// Whether two batches can be one.
fn alike(a: &Inputs, b: &Inputs) -> bool {
    match (a, b) {
        (Inputs::Pixels(a), Inputs::Pixels(b)) => a.dims()[1..] == b.dims()[1..],
        (Inputs::Words { rows: a, .. }, Inputs::Words { rows: b, .. }) => a.dims()[1..] == b.dims()[1..],
        (Inputs::Tokens { ids: a, .. }, Inputs::Tokens { ids: b, .. }) => a.dims()[1..] == b.dims()[1..],
        _ => false,
    }
}

/// Batches of one shape as one.
fn joined(parts: &[&Inputs]) -> Result<Inputs> {
    let all = |pick: &dyn Fn(&Inputs) -> Option<Tensor>| -> Result<Tensor> {
        let tensors: Vec<Tensor> = parts.iter().filter_map(|p| pick(p)).collect();
        Ok(Tensor::cat(&tensors, 0)?)
    };
    match parts[0] {
        Inputs::Pixels(_) => {
            Ok(Inputs::Pixels(all(&|p| if let Inputs::Pixels(t) = p { Some(t.clone()) } else { None })?))
        }
        Inputs::Tokens { .. } => {
            let field = |i: usize| {
                all(&move |p| match p {
                    Inputs::Tokens { ids, types, mask } => Some([ids, types, mask][i].clone()),
                    _ => None,
                })
            };
            Ok(Inputs::Tokens { ids: field(0)?, types: field(1)?, mask: field(2)? })
        }
        Inputs::Words { .. } => {
            let field = |i: usize| {
                all(&move |p| match p {
                    Inputs::Words { rows, positions, types, mask } => Some([rows, positions, types, mask][i].clone()),
                    _ => None,
                })
            };
            Ok(Inputs::Words { rows: field(0)?, positions: field(1)?, types: field(2)?, mask: field(3)? })
        }
    }
}
