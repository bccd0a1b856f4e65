//! All metrics on many explanations at once: the perturbed inputs of several explanations and inputs go through the model
//! together, under a memory budget.
//!
//! What the metrics ask for is made a few variants at a time and waits until there is enough of its shape for a pass; a
//! metric scores as soon as all it asked for is answered. An example's logits do not depend on its neighbours in a batch, so
//! scores are those of judging each explanation by itself.

use super::candidates::Candidate;
use super::contract::{Case, Configured, Score, Truth};
use crate::encoder::{Encoder, Keep};
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use crate::run::{Ask, Batch, Logits, Run, Together};
use crate::target::Output;
use std::collections::BTreeMap;

/// Bytes of activations of one pass. Less than methods take for their own variants: many explanations wait, and passes that
/// are larger are no faster, since memory that is handed back and asked for again costs as much as they save.
const BUDGET: usize = 128 << 20;

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

/// The scores of each explanation under each metric.
///
/// # Errors
/// [`Error::Interrupted`], and what fails for all; a metric's failure on one explanation is its own result.
pub fn judge(
    encoder: &Encoder,
    waiting: &[Waiting<'_, '_>],
    metrics: &[Configured],
) -> Result<Vec<Vec<Result<Option<Score>>>>> {
    let passes = waiting.iter().map(|w| w.batch.pass(vec![w.output])).collect::<Result<Vec<_>>>()?;
    let runs: Vec<Run<'_>> = passes.iter().map(|p| p.run(0)).collect();
    let case = |(w, run)| {
        let w: &Waiting<'_, '_> = w;
        Case { run, explanation: &w.explanation, truth: w.truth, candidate: w.candidate }
    };
    let cases: Vec<Case<'_, '_>> = waiting.iter().zip(&runs).map(case).collect();
    let scores = cases.iter().map(|_| metrics.iter().map(|_| Ok(None)).collect()).collect();
    let mut judging = Judging { together: Together::new(encoder), open: BTreeMap::new(), scores };
    for (w, case) in cases.iter().enumerate() {
        for (m, metric) in metrics.iter().enumerate() {
            judging.begin(Question { place: (w, m), case, metric })?;
        }
    }
    while let Some(answers) = judging.together.answered()? {
        judging.settle(answers)?;
    }
    Ok(judging.scores)
}

/// One explanation under one metric.
#[derive(Clone, Copy)]
struct Question<'c, 'r> {
    place: (usize, usize),
    case: &'c Case<'c, 'r>,
    metric: &'c Configured,
}

/// What a metric still waits for.
struct Open<'c, 'r> {
    question: Question<'c, 'r>,
    answers: Vec<Logits>,
    left: usize,
}

/// Variants that wait: of which explanation and metric, of which ask, and the first of them.
type Part = ((usize, usize), usize, usize);

struct Judging<'c, 'r> {
    together: Together<'c, Part>,
    open: BTreeMap<(usize, usize), Open<'c, 'r>>,
    scores: Vec<Vec<Result<Option<Score>>>>,
}

impl<'c, 'r> Judging<'c, 'r> {
    /// Makes what a metric asks for, and lets it wait.
    fn begin(&mut self, question: Question<'c, 'r>) -> Result<()> {
        let asks = match question.metric.asks(question.case) {
            Ok(asks) => asks,
            Err(e) => return self.tell(question.place, Err(e)),
        };
        let answers: Vec<Logits> = asks.iter().map(|ask| vec![Vec::new(); ask.count]).collect();
        let left = asks.iter().map(|ask| ask.count).sum();
        if left == 0 {
            return self.tell(question.place, question.metric.metric.score(question.case, &answers));
        }
        self.open.insert(question.place, Open { question, answers, left });
        let most = match question.case.run.subject() {
            Ok(subject) => subject.fitting(Keep::Logits, BUDGET),
            Err(e) => return self.tell(question.place, Err(e)),
        };
        for (number, ask) in asks.iter().enumerate() {
            self.make(question.place, (number, ask), most)?;
        }
        Ok(())
    }

    /// Makes the variants of an ask, `most` of which may go through the model together.
    fn make(&mut self, place: (usize, usize), (number, ask): (usize, &Ask<'_>), most: usize) -> Result<()> {
        let mut from = 0;
        while from < ask.count && self.open.contains_key(&place) {
            let to = ask.count.min(from + self.together.room(most));
            let made = (ask.make)(from..to).and_then(|inputs| match inputs.batch()? == to - from {
                true => Ok(inputs),
                false => Err(Error::Usage(format!("{} variants were asked for, others were made", to - from))),
            });
            let inputs = match made {
                Ok(inputs) => inputs,
                Err(e) => return self.tell(place, Err(e)),
            };
            let answers = self.together.add((place, number, from), inputs, most)?;
            self.settle(answers)?;
            from = to;
        }
        Ok(())
    }

    /// Hands answers to those who wait for them; whoever has all of them scores.
    fn settle(&mut self, answers: Vec<(Part, Logits)>) -> Result<()> {
        for ((place, number, from), logits) in answers {
            let Some(open) = self.open.get_mut(&place) else { continue }; // it failed meanwhile
            open.left = open.left.saturating_sub(logits.len());
            let rows = open.answers.get_mut(number).into_iter().flatten().skip(from);
            rows.zip(logits).for_each(|(row, own)| *row = own);
            if open.left > 0 {
                continue;
            }
            if let Some(Open { question, answers, .. }) = self.open.remove(&place) {
                let finite = answers.iter().flatten().flatten().all(|l| l.is_finite());
                let score = match finite {
                    true => question.metric.metric.score(question.case, &answers),
                    false => Err(Error::Numeric("the logits of a perturbed input are not finite".into())),
                };
                self.tell(place, score)?;
                question.case.run.progress(0, 0)?;
            }
        }
        Ok(())
    }

    /// Notes a score or a failure, unless it is that of all: that the user stopped.
    fn tell(&mut self, place: (usize, usize), score: Result<Option<Score>>) -> Result<()> {
        self.open.remove(&place);
        if let Err(Error::Interrupted) = score {
            return Err(Error::Interrupted);
        }
        if let Some(own) = self.scores.get_mut(place.0).and_then(|metrics| metrics.get_mut(place.1)) {
            *own = score;
        }
        Ok(())
    }
}
