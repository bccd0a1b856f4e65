//! All methods and targets on inputs that go through the model together: one forward pass, and one reverse pass a target.

pub mod desk;
pub mod likeness;
mod links;
pub mod maps;
pub mod pages;
pub mod pairs;
pub mod past;
pub mod places;
pub mod plan;
pub mod rows;
pub mod tokens;
mod windows;

use crate::error::{Error, Result};
use crate::explanation::{Explanation, RowRequest};
use crate::guard::guarded;
use crate::input::prepare::by_size;
use crate::input::{Ready, Shape};
use crate::method::{all, in_every_layer, parse, parse_list, usual, Configured};
use crate::model::{Checkpoint, Model, Task};
use crate::render::json::About;
use crate::render::names::target_part;
use crate::render::page::Links;
use crate::run::{Batch, Memory, Noise, Reads};
use crate::target::{Output, Request, Target};
use std::sync::Arc;
use std::time::Instant;

/// What is asked of each input.
pub struct Asked<'a> {
    /// Of whom.
    pub model: &'a Model,
    /// By which methods.
    pub methods: &'a [Configured],
    /// About which outputs.
    pub requests: &'a [Request],
    /// Of which output token; none: what the classifier reads.
    pub row: Option<&'a RowRequest>,
    /// Of methods that draw random numbers.
    pub seed: u64,
    /// What the passes may take; none: whatever they need.
    pub memory: Option<Memory>,
    /// Bytes of attention between tokens that are wanted beside, where the model has it.
    pub links: usize,
}

/// One explanation.
pub struct Answer {
    /// The input's place in its batch.
    pub place: usize,
    /// The target's number.
    pub request: usize,
    /// The method's number.
    pub method: usize,
    /// What was found.
    pub explanation: Explanation,
    /// Logits of the input.
    pub logits: Vec<f32>,
    /// How long it took; of an input's first with its share of the forward pass.
    pub ms: f64,
    /// An earlier target means this output too, and files of the same name.
    pub again: bool,
    /// Attention between the input's tokens, where it was wanted.
    pub links: Option<Arc<Links>>,
}

/// A target that means no output of an input, such as `above:0.5` where nothing is above.
pub struct Nothing {
    /// The input's place in its batch.
    pub place: usize,
    /// The target's number.
    pub request: usize,
    /// Why.
    pub note: String,
}

/// What came of it, target by target.
#[derive(Default)]
pub struct Answers {
    /// By target, output, method and input, in this order.
    pub made: Vec<Answer>,
    /// Targets that mean nothing.
    pub nothing: Vec<Nothing>,
}

/// Inputs that went through the model together, and what came of them; an error is that of all.
pub type Group<S> = (Vec<(S, Ready)>, Result<Answers>);

/// Is told of the steps of slow methods as a [`crate::run::Watch`] is.
pub type Steps<'a> = dyn Fn(usize, usize) -> bool + Send + Sync + 'a;

impl Asked<'_> {
    /// Explains inputs, those of one size together; should that fail, each alone, so that one cannot spoil the others. What is
    /// not `wanted` (of an input the target's and the method's number) is left out.
    pub fn explain_all<S>(
        &self,
        ready: Vec<(S, Ready)>,
        watch: &Steps<'_>,
        wanted: &dyn Fn(&S, usize, usize) -> bool,
    ) -> Vec<Group<S>> {
        by_size(ready).into_iter().flat_map(|same| self.together(same, watch, wanted)).collect()
    }

    fn together<S>(
        &self,
        same: Vec<(S, Ready)>,
        watch: &Steps<'_>,
        wanted: &dyn Fn(&S, usize, usize) -> bool,
    ) -> Vec<Group<S>> {
        let (own, ready): (Vec<S>, Vec<Ready>) = same.into_iter().unzip();
        let of = |place: usize, request, method| own.get(place).is_some_and(|own| wanted(own, request, method));
        let answers = guarded(|| self.explain(&ready, watch, &of));
        let same = own.into_iter().zip(ready).collect::<Vec<_>>();
        match answers {
            Err(e) if same.len() > 1 && !matches!(e, Error::Interrupted) => {
                same.into_iter().flat_map(|one| self.together(vec![one], watch, wanted)).collect()
            }
            answers => vec![(same, answers)],
        }
    }

    /// Explains inputs of one size. What is not `wanted` (by the input's place, the target's and the method's number) is left
    /// out; `watch` is told of the steps of slow methods.
    ///
    /// # Errors
    /// The methods' own, and what the passes report; one input's error is that of all.
    pub fn explain(
        &self,
        ready: &[Ready],
        watch: &Steps<'_>,
        wanted: &dyn Fn(usize, usize, usize) -> bool,
    ) -> Result<Answers> {
        let windowed = |one: &Ready| !windows::parts(one).is_empty();
        match ready {
            [Ready::Text(text)] if !text.windows.is_empty() => {
                return self.explain_windows(text, watch, &|request, method| wanted(0, request, method))
            }
            several if several.iter().any(windowed) => return self.one_by_one(several, watch, wanted),
            _ => {}
        }
        if let Some(own) = self.model.hypotheses() {
            return self.explain_pairs(own, ready, watch, wanted);
        }
        if self.model.checkpoint.spec.task != Task::Whole {
            return self.explain_tokens(ready, watch, wanted);
        }
        let start = Instant::now();
        let (inputs, layouts) = self.model.inputs(ready)?;
        let links = self.links > 0 && layouts.first().is_some_and(|layout| self.fitting(layout.len()).is_some());
        let row = |layout| self.row.map(|r| r.token(layout)).transpose();
        let rows = layouts.iter().map(row).collect::<Result<Vec<_>>>()?;
        let batch = Batch::new(&self.model.encoder, inputs, layouts)?.watched(Box::new(watch)).within(self.memory);
        let reads = if links { reads(self.methods).max(Reads::Attention) } else { reads(self.methods) };
        let alone = ready.len() == 1 && self.methods.len() == 1 && !links && self.methods[0].method.top_down();
        let batch = batch.with_noise(Noise::seeded(self.seed)).reading(reads).top_down(alone);
        let logits = batch.logits()?;
        let mut shared_ms = start.elapsed().as_secs_f64() * 1e3 / ready.len() as f64;
        let links = if links { self.links_between(&batch, ready.len())? } else { Vec::new() };
        let mut answers = Answers::default();
        for (number, request) in self.requests.iter().enumerate() {
            let outputs: Vec<Vec<Output>> = logits.iter().map(|l| request.resolve(l)).collect();
            for place in (0..outputs.len()).filter(|p| outputs[*p].is_empty()) {
                if (0..self.methods.len()).any(|m| wanted(place, number, m)) {
                    answers.nothing.push(Nothing { place, request: number, note: self.why(request, &logits[place]) });
                }
            }
            for slot in 0..outputs.iter().map(Vec::len).max().unwrap_or(0) {
                // An input with fewer outputs goes along with some class, and is not asked about.
                let of = |own: &Vec<Output>| own.get(slot).copied().unwrap_or(Output::of(0));
                let pass = batch.pass(outputs.iter().map(of).collect())?.with_rows(rows.clone())?;
                for (m, method) in self.methods.iter().enumerate() {
                    for (place, own) in outputs.iter().enumerate() {
                        let Some(&output) = own.get(slot).filter(|_| wanted(place, number, m)) else { continue };
                        let explained = || method.explain(&pass.run(place));
                        let logits = (&logits[place][..], std::mem::take(&mut shared_ms));
                        self.answer(&mut answers, (place, number, m), output, logits, explained)?;
                    }
                }
            }
        }
        answers.made.iter_mut().for_each(|answer| answer.links = links.get(answer.place).cloned().flatten());
        Ok(answers)
    }

    /// Attention between the tokens of each input.
    fn links_between(&self, batch: &Batch<'_>, inputs: usize) -> Result<Vec<Option<Arc<Links>>>> {
        let pass = batch.pass(vec![Output::of(0); inputs])?;
        (0..inputs).map(|place| Ok(self.links_of(&pass.run(place))?.map(Arc::new))).collect()
    }

    /// Inputs that share no pass.
    fn one_by_one(
        &self,
        ready: &[Ready],
        watch: &Steps<'_>,
        wanted: &dyn Fn(usize, usize, usize) -> bool,
    ) -> Result<Answers> {
        let mut all = Answers::default();
        for (place, one) in ready.iter().enumerate() {
            let of = |_: usize, request, method| wanted(place, request, method);
            let Answers { made, nothing } = self.explain(std::slice::from_ref(one), watch, &of)?;
            all.made.extend(made.into_iter().map(|answer| Answer { place, ..answer }));
            all.nothing.extend(nothing.into_iter().map(|nothing| Nothing { place, ..nothing }));
        }
        Ok(all)
    }

    /// Adds an answer, whose explanation is made unless an earlier target has asked for the same; with the logits it belongs to, and
    /// milliseconds that it is charged beside its own.
    fn answer(
        &self,
        answers: &mut Answers,
        (place, request, method): (usize, usize, usize),
        output: Output,
        (logits, more_ms): (&[f32], f64),
        explained: impl FnOnce() -> Result<Explanation>,
    ) -> Result<()> {
        let start = Instant::now();
        let known = answers.made.iter().find(|a| self.same(a, (place, request, method), output));
        let again = known.is_some();
        let explanation = match known {
            Some(answer) => answer.explanation.clone(),
            None => Explanation { output, ..explained()? },
        };
        let (logits, ms) = (logits.to_vec(), start.elapsed().as_secs_f64() * 1e3 + more_ms);
        answers.made.push(Answer { place, request, method, explanation, logits, ms, again, links: None });
        Ok(())
    }

    /// Whether an earlier target has asked an input for this output too, and for its files.
    fn same(&self, answer: &Answer, (place, request, method): (usize, usize, usize), output: Output) -> bool {
        let part = |r: usize| target_part(&self.requests[r], output, &self.model.checkpoint.labels);
        (answer.place, answer.method, answer.explanation.output) == (place, method, output)
            && part(answer.request) == part(request)
    }

    fn why(&self, request: &Request, logits: &[f32]) -> String {
        request.nothing(logits, &self.model.checkpoint.labels, self.model.checkpoint.scale)
    }
}

/// Reads methods and refuses what a model cannot do; with `all`, such methods are left out. None named: the usual one.
///
/// # Errors
/// As [`parse_list`], and a method's own refusal.
pub fn methods(texts: &[String], checkpoint: &Checkpoint) -> Result<Vec<Configured>> {
    let every = texts.iter().any(|t| t.split(',').any(|p| p.trim().eq_ignore_ascii_case("all")));
    let facts = checkpoint.facts();
    let mut methods = match texts {
        [] => parse_list(&[usual(&facts)])?,
        named => parse_list(&in_every_layer(named, facts.layers))?,
    };
    if every {
        methods.retain(|m| m.check(&facts).is_ok());
    }
    for m in &methods {
        if let Err(e) = m.check(&facts) {
            let hint = if facts.headless { format!("; {}", checkpoint.without_classes()) } else { String::new() };
            return Err(Error::Refused(format!("method `{}` with model `{}`: {e}{hint}", m.spec, checkpoint.id)));
        }
    }
    Ok(methods)
}

/// The same; where none is named, those of `usual` that the model has, and at least the one that explains it where none is named.
///
/// # Errors
/// As [`methods`].
pub fn methods_or(texts: &[String], usual: &str, checkpoint: &Checkpoint) -> Result<Vec<Configured>> {
    let facts = checkpoint.facts();
    let mut own = if texts.is_empty() { parse_list(&[usual])? } else { Vec::new() };
    own.retain(|m| m.check(&facts).is_ok());
    if own.is_empty() {
        return methods(texts, checkpoint);
    }
    Ok(own)
}

/// Methods that a model refuses, and why.
pub fn refused(checkpoint: &Checkpoint) -> Vec<(&'static str, Error)> {
    let facts = checkpoint.facts();
    let why = |name: &str| parse(name).and_then(|m| m.check(&facts)).err();
    all().filter_map(|entry| Some((entry.name, why(entry.name)?))).collect()
}

/// Reads targets; of a backbone there is none to choose.
///
/// # Errors
/// As [`Request::parse_list`], and [`Error::Refused`] for a target of a backbone.
pub fn requests(texts: &[String], checkpoint: &Checkpoint) -> Result<Vec<Request>> {
    if checkpoint.spec.headless && texts.iter().any(|text| text != "predicted") {
        return Err(Error::Refused(format!(
            "there is no class to explain, and methods that ask for none go without --target: {}",
            checkpoint.without_classes()
        )));
    }
    let requests = Request::parse_list(texts, &checkpoint.labels, checkpoint.scale)?;
    let of_tokens = |r: &&Request| matches!(r.target, Target::Entities | Target::Token { .. });
    match requests.iter().find(of_tokens).filter(|_| checkpoint.spec.task == Task::Whole) {
        Some(request) => Err(Error::Refused(format!(
            "target `{}`: the model says one thing of a whole input, and nothing of each token",
            request.text
        ))),
        None => Ok(requests),
    }
}

impl Asked<'_> {
    /// Bytes that the passes over one input take; of a text as long as the model reads.
    pub fn bytes(&self, shape: Shape) -> usize {
        let tokens = self.model.checkpoint.tokens(shape);
        let linked = self.links > 0 && self.fitting(tokens).is_some();
        let reads = if linked { reads(self.methods).max(Reads::Attention) } else { reads(self.methods) };
        self.model.encoder.bytes(tokens, reads.keep())
    }
}

/// The most that one of them reads.
fn reads(methods: &[Configured]) -> Reads {
    methods.iter().map(|m| m.method.reads()).max().unwrap_or(Reads::Logits)
}

/// What is to be said of methods that will take long on a model; texts are short.
pub fn patience(checkpoint: &Checkpoint, methods: &[Configured], shape: Shape) -> Vec<String> {
    let (tokens, layers) = (checkpoint.tokens(shape), checkpoint.spec.layers().len());
    let pictures = methods.iter().filter(|_| checkpoint.input_size(shape).is_some());
    pictures.filter_map(|m| m.method.patience(tokens, layers)).collect()
}

impl<'a> From<&'a Model> for About<'a> {
    fn from(model: &'a Model) -> Self {
        let c = &model.checkpoint;
        let (id, revision) = (c.id.as_str(), c.revision.as_deref());
        let instructions = model.instructions();
        let (labels, scale, headless) = (&c.labels, c.scale, c.spec.headless);
        About { id, revision, family: c.family.name, labels, scale, headless, instructions }
    }
}
