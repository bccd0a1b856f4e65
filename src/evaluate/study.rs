//! A study: candidates and metrics over labelled inputs of one model, group by group.

use super::candidates::Candidate;
use super::contract::{Configured, Score, Truth};
use super::journal::{Journal, Judged, Scored};
use super::judge::{judge, Waiting};
use super::labelled::Labelled;
use super::questions::{Explained, Question};
use super::report::Shown;
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use crate::guard::guarded;
use crate::identity::Identity;
use crate::input::image::Remark;
use crate::input::{Ready, Shape};
use crate::model::Model;
use crate::render::{scale::Span, sheet, table, Scene, Style};
use crate::run::{Batch, Noise, Reads, Watch};
use crate::target::{ranked, right, Output};
use candle_core::DType;
use std::path::Path;

/// How a study is made.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Which class is explained.
    pub explained: Explained,
    /// How large the model sees pictures.
    pub shape: Shape,
    /// Of controls, stochastic methods, confidence intervals and splits.
    pub seed: u64,
    /// Inputs whose perturbed copies go through the model together.
    pub together: usize,
    /// Inputs whose maps are kept to be shown, from the first on.
    pub shown: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { explained: Explained::Label, shape: Shape::default(), seed: 0, together: 4, shown: 0 }
    }
}

/// Whom a study tells how it goes.
pub trait Listen {
    /// What is to be said of how a picture was read.
    fn remarks(&self, _input: &str, _remarks: &[Remark]) {}
    /// What the user should know.
    fn note(&self, _text: &str) {}
}

/// Nobody.
impl Listen for () {}

/// What is judged, by what.
#[derive(Clone, Copy)]
pub struct Study<'a> {
    /// The model that is explained.
    pub model: &'a Model,
    /// Its inputs.
    pub data: &'a Labelled,
    /// Methods and controls.
    pub candidates: &'a [Candidate],
    /// What they are judged by.
    pub metrics: &'a [Configured],
    /// How.
    pub settings: Settings,
    /// Whom it tells.
    pub listener: &'a dyn Listen,
    /// Whether to go on.
    pub going: &'a (dyn Fn() -> bool + Sync),
}

/// One input with its forward pass and what is asked of it.
pub struct Prepared<'m> {
    /// As the model reads it.
    pub ready: Ready,
    /// A batch of its own.
    pub batch: Batch<'m>,
    /// The likeliest class.
    pub predicted: u32,
    /// Logits of the input as it is.
    pub logits: Vec<f32>,
    /// What is explained, with what is known of it; in the order of the input's questions.
    pub questions: Vec<(Output, Truth)>,
    /// What of the input was left out.
    pub notes: Vec<String>,
}

impl<'a> Study<'a> {
    /// A study with the usual settings, of which nobody is told.
    pub fn new(model: &'a Model, data: &'a Labelled, candidates: &'a [Candidate], metrics: &'a [Configured]) -> Self {
        let settings = Settings::default();
        Study { model, data, candidates, metrics, settings, listener: &(), going: &|| true }
    }

    /// What tells it from studies that do not give the same figures, with weights of this precision; the first `limit` inputs
    /// of `data` are judged. Contents of inputs stand in [`Labelled::identities`].
    ///
    /// # Errors
    /// As [`crate::model::Checkpoint::identity`].
    pub fn stated(&self, dtype: DType, data: &Path, limit: Option<usize>) -> Result<Identity> {
        let (checkpoint, settings) = (&self.model.checkpoint, &self.settings);
        let of = checkpoint.stated("evaluate", (dtype, self.model.encoder.device()), settings.shape)?;
        let metrics: Vec<&str> = self.metrics.iter().map(|m| m.spec.as_str()).collect();
        let of = Identity { target: vec![settings.explained.name().into()], seed: settings.seed, ..of }
            .with("id", vec![checkpoint.id.clone(), checkpoint.revision.clone().unwrap_or_default()])
            .with("head", checkpoint.scale.name())
            .with("data", data.to_string_lossy())
            .with("limit", limit)
            .with("batch_size", settings.together)
            .with("shown", settings.shown)
            .with("metrics", metrics);
        Ok(self.candidates.iter().fold(of, |of, candidate| match candidate {
            Candidate::Method(method) => of.by(&method.spec, &method.params),
            control => of.by(control.name(), &Default::default()),
        }))
    }

    /// Judges what the journal does not have yet, and tells `each` of every group: its inputs, and what they gave.
    ///
    /// # Errors
    /// [`Error::Interrupted`], what `each` reports, and what fails for all inputs; an input's own failure is its result.
    pub fn run<E: From<Error>>(
        &self,
        journal: &mut Journal,
        mut each: impl FnMut(&[&Judged]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        // Groups are the same in a resumed run: on a GPU the last bits may differ with what goes through the model together.
        let all: Vec<usize> = (0..self.data.inputs.len()).collect();
        for group in all.chunks(self.settings.together.max(1)) {
            if !journal.has(group) {
                if let Some(note) = journal.add(self.judge(group)?)? {
                    self.listener.note(&note);
                }
            }
            each(&journal.of(group).collect::<Vec<_>>())?;
            if !(self.going)() {
                return Err(Error::Interrupted.into());
            }
        }
        Ok(())
    }

    /// Judges all inputs.
    ///
    /// # Errors
    /// As [`Study::run`].
    pub fn judged(&self) -> Result<Vec<Judged>> {
        let mut journal = Journal::off();
        self.run::<Error>(&mut journal, |_| Ok(()))?;
        Ok(journal.done)
    }

    /// All candidates and metrics on some inputs. What fails for all of them together, a panic included, is tried again one by
    /// one: it is the error of the input it happens on.
    fn judge(&self, group: &[usize]) -> Result<Vec<Judged>> {
        match (guarded(|| self.together(group)), group) {
            (Err(Error::Interrupted), _) => Err(Error::Interrupted),
            (Err(e), &[input]) => Ok(vec![Judged { input, failures: vec![e.to_string()], ..Judged::default() }]),
            (Err(_), _) => {
                let alone = group.iter().map(|n| self.judge(std::slice::from_ref(n)));
                Ok(alone.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
            (Ok(judged), _) => Ok(judged),
        }
    }

    /// One forward pass an input, shared reverse passes, and the perturbed inputs of all of them together.
    fn together(&self, group: &[usize]) -> Result<Vec<Judged>> {
        let mut all: Vec<Judged> = group.iter().map(|&input| Judged { input, ..Judged::default() }).collect();
        let mut prepared = Vec::new();
        for judged in &mut all {
            match self.prepared(judged.input) {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(e) => {
                    judged.failures.push(e.to_string());
                    prepared.push(None);
                }
                Ok(one) => {
                    judged.notes.clone_from(&one.notes);
                    prepared.push(Some(one));
                }
            }
        }
        let mut waiting = Waitings::default();
        for (place, (judged, one)) in all.iter_mut().zip(&prepared).enumerate() {
            if let Some(one) = one {
                self.explained(place, one, judged, &mut waiting)?;
            }
        }
        let scores = judge(&self.model.encoder, &waiting.list, self.metrics)?;
        for ((place, question, c), own) in waiting.places.into_iter().zip(scores) {
            for (m, score) in own.into_iter().enumerate() {
                match score {
                    Ok(score) => all[place].questions[question].scores[c][m] = score,
                    Err(e) => {
                        let (candidate, metric) = (self.candidates[c].name(), &self.metrics[m].spec);
                        all[place].failures.push(format!("{candidate}, {metric}: {e}"));
                    }
                }
            }
        }
        Ok(all)
    }

    /// The maps of all candidates for all questions of an input.
    fn explained<'p>(
        &self,
        place: usize,
        one: &'p Prepared<'a>,
        judged: &mut Judged,
        waiting: &mut Waitings<'p, 'a>,
    ) -> Result<()>
    where
        'a: 'p,
    {
        let shown = judged.input < self.settings.shown;
        let asked: &[Question] = self.data.inputs.get(judged.input).map_or(&[], |i| &i.questions);
        for (question, (asked, (output, truth))) in asked.iter().zip(&one.questions).enumerate() {
            let mut maps = vec![None; if shown { self.candidates.len() } else { 0 }];
            let pass = one.batch.pass(vec![*output])?;
            for (c, candidate) in self.candidates.iter().enumerate() {
                let explained = candidate.explain(&pass.run(0)).and_then(|e| {
                    let map = shown.then(|| picture(&one.ready, &e)).transpose()?;
                    Ok((e, map))
                });
                match explained {
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(e) => judged.failures.push(format!("{}: {e}", candidate.name())),
                    Ok((explanation, map)) => {
                        if let Some(own) = maps.get_mut(c) {
                            *own = map;
                        }
                        let (batch, output) = (&one.batch, *output);
                        waiting.list.push(Waiting { batch, output, explanation, truth, candidate });
                        waiting.places.push((place, question, c));
                    }
                }
            }
            let scores: Vec<Vec<Option<Score>>> = vec![vec![None; self.metrics.len()]; self.candidates.len()];
            let (class, predicted, label) = (output.class, one.predicted, asked.label.clone());
            let logits: Vec<f64> = one.logits.iter().map(|l| f64::from(*l)).collect();
            let right = right(class, &logits, self.model.checkpoint.scale);
            judged.questions.push(Scored { label, class, predicted, right, scores, maps });
        }
        Ok(())
    }

    /// Runs the model on one input.
    ///
    /// # Errors
    /// Whatever reading, preparing or the pass reports.
    pub fn prepared(&self, number: usize) -> Result<Prepared<'a>> {
        let input = self.data.inputs.get(number);
        let input = input.ok_or_else(|| Error::Usage(format!("the data have no input {number}")))?;
        let ready = input.ready(self.model, self.settings.shape)?;
        let cut = ready.truncated().map(|left_out| format!("too long for the model; {left_out}"));
        let mut notes: Vec<String> = cut.into_iter().collect();
        self.listener.remarks(&input.name, ready.remarks());
        let (inputs, layouts) = self.model.inputs(std::slice::from_ref(&ready))?;
        let batch = self.batch(Batch::new(&self.model.encoder, inputs, layouts)?);
        let logits = batch.logits()?.into_iter().next().unwrap_or_default();
        let predicted = *ranked(&logits).first().ok_or_else(|| Error::Numeric("the model has no output".into()))?;
        let asked = |q: &Question| -> Result<(Output, Truth)> {
            let (truth, note) = q.truth(&ready, batch.layout(0))?;
            notes.extend(note);
            Ok((q.output(self.settings.explained, &logits), truth))
        };
        let questions = input.questions.iter().map(asked).collect::<Result<Vec<_>>>()?;
        Ok(Prepared { ready, predicted, logits, batch, questions, notes })
    }

    /// A batch that can be stopped, with the study's random numbers.
    pub(super) fn batch<'b>(&self, batch: Batch<'b>) -> Batch<'b>
    where
        'a: 'b,
    {
        let going = self.going;
        let watch: Watch<'b> = Box::new(move |_, _| going());
        let reads = self.candidates.iter().map(Candidate::reads).max().unwrap_or(Reads::Logits);
        batch.watched(watch).with_noise(Noise::seeded(self.settings.seed)).reading(reads)
    }
}

/// Explanations that wait to be judged, and where each belongs: the input's place, question and candidate.
#[derive(Default)]
struct Waitings<'p, 'm> {
    list: Vec<Waiting<'p, 'm>>,
    places: Vec<(usize, usize, usize)>,
}

/// What an explanation looks like on the report.
fn picture(ready: &Ready, e: &Explanation) -> Result<Shown> {
    let style = Style::default();
    match ready {
        Ready::Picture(_) => Ok(Shown::png(&sheet::thumbnail(&Scene::of(ready, &style), e, 168)?)),
        Ready::Text(_) => Ok(Shown::Html(table::line(e, Span::Auto.range(e, style.units), &style)?)),
    }
}
