//! Models that say something of each token: which entity it is part of, or how well an answer begins and ends there. Each output is
//! explained by the same model with a head that reads that token alone.

use super::pairs::logits;
use super::windows::whole;
use super::{reads, Answers, Asked, Nothing, Steps};
use crate::encoder::{Encoder, Head, Keep, Reading};
use crate::error::{Error, Result};
use crate::explanation::{Layout, TextLayout};
use crate::input::Ready;
use crate::labels::Labels;
use crate::model::{Model, Task};
use crate::nn::Linear;
use crate::render::json::{predictions, Prediction};
use crate::run::{self, Batch, Memory, Noise};
use crate::scale::softmax;
use crate::target::{ranked, Output, Request, Target};
use serde::Serialize;
use serde_json::{json, Value};

/// Most tokens of an answer, as in transformers' pipeline.
const LONGEST_ANSWER: usize = 15;

/// A stretch of a text that a model marks: an entity, or an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// `PER` of `B-PER` and `I-PER`; `answer`.
    pub label: String,
    /// The characters it spans.
    pub text: String,
    /// The first one, counted in characters.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// The first and the last token.
    pub tokens: [usize; 2],
    /// Of an entity the mean of its tokens' probabilities, of an answer the product of those of its ends.
    pub score: f64,
}

/// What a model says of an input.
pub enum Said {
    /// Its likeliest classes.
    Classes(Vec<Prediction>),
    /// What it marks.
    Found(Vec<Found>),
}

impl Said {
    /// Of inputs of one size, at most so many classes of each, where the passes may take so much `memory`.
    ///
    /// # Errors
    /// As [`logits`], [`found`] and [`Memory::holds`].
    pub fn of(model: &Model, ready: &[Ready], (top, memory): (usize, Option<Memory>)) -> Result<Vec<Self>> {
        let tokens = ready.first().map_or(0, |one| model.tokens(one));
        if let Some(memory) = memory {
            memory.holds(ready.len() * model.encoder.least_bytes(tokens), tokens)?;
        }
        match model.checkpoint.spec.task {
            Task::Whole => {
                let classes = |logits: Vec<f32>| Said::Classes(predictions(&model.into(), &logits, top));
                Ok(logits(model, ready)?.into_iter().map(classes).collect())
            }
            Task::Tokens | Task::Spans => ready.iter().map(|one| Ok(Said::Found(found(model, one)?))).collect(),
        }
    }

    /// Its place and value in a record.
    pub fn value(&self) -> (&'static str, Value) {
        match self {
            Said::Classes(list) => ("predictions", json!(list)),
            Said::Found(list) => ("found", json!(list)),
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list: Vec<String> = match self {
            Said::Classes(list) => list.iter().map(|p| format!("{} {:.3}", p.label, p.figure())).collect(),
            Said::Found(list) if list.is_empty() => vec!["nothing".into()],
            Said::Found(list) => {
                let one = |x: &Found| {
                    format!("{} {} {:.3} (tokens {} to {})", x.text, x.label, x.score, x.tokens[0], x.tokens[1])
                };
                list.iter().map(one).collect()
            }
        };
        f.write_str(&list.join(", "))
    }
}

/// One output of one token, and who gives it.
struct Spot {
    output: Output,
    /// Of `encoder`.
    own: Output,
    encoder: Encoder,
    /// What the model says of the token.
    logits: Vec<f32>,
    found: Option<Found>,
}

/// What a model marks in a text.
///
/// # Errors
/// [`Error::Usage`] for a picture, and what the passes report.
pub fn found(model: &Model, ready: &Ready) -> Result<Vec<Found>> {
    let (rows, layout) = said(model, ready)?;
    Ok(match model.checkpoint.spec.task {
        Task::Whole => Vec::new(),
        Task::Tokens => entities(&rows, &layout, &model.checkpoint.labels),
        Task::Spans => answer(&rows, &layout).into_iter().collect(),
    })
}

/// Logits of each token `[T][C]`, and what the tokens are.
fn said(model: &Model, ready: &Ready) -> Result<(Vec<Vec<f32>>, TextLayout)> {
    let ready = whole(ready, "models that say something of each token")?;
    let (inputs, mut layouts) = model.inputs(std::slice::from_ref(ready))?;
    let Some(Layout::Text(layout)) = layouts.pop() else {
        return Err(Error::Usage("a model of tokens reads texts".into()));
    };
    let trace = model.encoder.forward(&inputs, Keep::Last)?;
    let states = model.encoder.normed(&trace.last)?.squeeze(0)?;
    Ok((run::logits(&model.encoder.head.each(&states)?)?, layout))
}

fn likeliest(logits: &[f32]) -> u32 {
    ranked(logits).first().copied().unwrap_or(0)
}

/// The tag of a label, and whether it begins an entity: `PER` of `B-PER`.
fn tag(label: &str) -> (&str, bool) {
    match label.split_once('-') {
        Some(("B", tag)) => (tag, true),
        Some(("I", tag)) => (tag, false),
        _ => (label, false),
    }
}

/// As transformers' pipeline groups them (`simple`): a token joins the one before it where their tags agree and it begins no
/// entity; special tokens are left out, and `O` is none.
fn entities(rows: &[Vec<f32>], layout: &TextLayout, labels: &Labels) -> Vec<Found> {
    let mut groups: Vec<(String, String, Vec<usize>, Vec<f64>)> = Vec::new(); // tag, name, tokens, probabilities
    for (token, row) in rows.iter().enumerate() {
        if layout.tokens.get(token).is_none_or(|t| t.special) {
            continue;
        }
        let class = likeliest(row);
        let (label, wide) = (labels.name(class), row.iter().map(|l| f64::from(*l)).collect::<Vec<_>>());
        let score = softmax(&wide).get(class as usize).copied().unwrap_or(0.0);
        let (tag, begins) = tag(&label);
        match groups.last_mut() {
            Some((known, _, tokens, scores)) if known == tag && !begins => {
                tokens.push(token);
                scores.push(score);
            }
            _ => {
                let name = label.split_once('-').map_or(&label[..], |(_, name)| name);
                groups.push((tag.to_string(), name.to_string(), vec![token], vec![score]));
            }
        }
    }
    groups.retain(|(tag, ..)| tag != "O");
    let entity = |(_, label, tokens, scores): (String, String, Vec<usize>, Vec<f64>)| {
        let ends = [*tokens.first()?, *tokens.last()?];
        Some(marked(label, ends, scores.iter().sum::<f64>() / scores.len() as f64, layout))
    };
    groups.into_iter().filter_map(entity).collect()
}

/// The stretch of tokens with the greatest product of the probabilities that the answer begins and that it ends there, each among the
/// tokens of the second text and the first special one (which says that there is none, and is no answer).
fn answer(rows: &[Vec<f32>], layout: &TextLayout) -> Option<Found> {
    let inside = |token: usize| layout.tokens.get(token).is_some_and(|t| !t.special && t.text == 1);
    let places: Vec<usize> = (0..rows.len()).filter(|token| *token == 0 || inside(*token)).collect();
    let among = |class: usize| {
        let logits: Vec<f64> = places.iter().map(|t| rows[*t].get(class).map_or(f64::NAN, |l| f64::from(*l))).collect();
        softmax(&logits)
    };
    let (starts, ends) = (among(0), among(1));
    let mut best: Option<(f64, [usize; 2])> = None;
    for (i, start) in places.iter().enumerate().filter(|(_, t)| inside(**t)) {
        for (j, end) in places.iter().enumerate().skip(i).take_while(|(_, end)| **end < start + LONGEST_ANSWER) {
            let score = starts[i] * ends[j];
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, [*start, *end]));
            }
        }
    }
    best.map(|(score, tokens)| marked("answer".into(), tokens, score, layout))
}

fn marked(label: String, tokens: [usize; 2], score: f64, layout: &TextLayout) -> Found {
    let of = |token: usize| layout.tokens.get(token);
    let (start, end) = (of(tokens[0]).map_or(0, |t| t.start), of(tokens[1]).map_or(0, |t| t.end));
    let text = of(tokens[0]).and_then(|t| layout.texts.get(t.text)).map(String::as_str).unwrap_or_default();
    let text = text.chars().skip(start).take(end.saturating_sub(start)).collect();
    Found { label, text, start, end, tokens, score }
}

impl Asked<'_> {
    /// Explains what is said of tokens.
    pub(super) fn explain_tokens(
        &self,
        ready: &[Ready],
        watch: &Steps<'_>,
        wanted: &dyn Fn(usize, usize, usize) -> bool,
    ) -> Result<Answers> {
        let mut answers = Answers::default();
        for (place, one) in ready.iter().enumerate() {
            let (rows, layout) = said(self.model, one)?;
            for (number, request) in self.requests.iter().enumerate() {
                let methods: Vec<usize> = (0..self.methods.len()).filter(|m| wanted(place, number, *m)).collect();
                let spots = self.spots(request, &rows, &layout)?;
                if spots.is_empty() && !methods.is_empty() {
                    let note = "no token is said to be part of one".to_string();
                    answers.nothing.push(Nothing { place, request: number, note });
                }
                for spot in spots {
                    let (inputs, layouts) = self.model.inputs(std::slice::from_ref(one))?;
                    let batch = Batch::new(&spot.encoder, inputs, layouts.clone())?.within(self.memory);
                    let batch = batch.watched(Box::new(watch)).with_noise(Noise::seeded(self.seed));
                    let batch = batch.reading(reads(self.methods));
                    let row = layouts.iter().map(|layout| self.row.map(|row| row.token(layout)).transpose());
                    let pass = batch.pass(vec![spot.own])?.with_rows(row.collect::<Result<_>>()?)?;
                    for &method in &methods {
                        let explained = || {
                            let mut explanation = self.methods[method].explain(&pass.run(0))?;
                            let found = spot.found.as_ref().map(|found| ("found".to_string(), json!(found)));
                            explanation.checks.extend(found);
                            Ok(explanation)
                        };
                        let at = (place, number, method);
                        self.answer(&mut answers, at, spot.output, (&spot.logits, 0.0), explained)?;
                    }
                }
            }
        }
        Ok(answers)
    }

    /// The outputs that a target means.
    fn spots(&self, request: &Request, rows: &[Vec<f32>], layout: &TextLayout) -> Result<Vec<Spot>> {
        let task = self.model.checkpoint.spec.task;
        let other = || {
            let these = match task {
                Task::Spans => "answer, start, end or token:I/start",
                _ => "entities, a label, or token:I/LABEL",
            };
            Error::Refused(format!(
                "target `{}`: of a model that says something of each token ask for {these}",
                request.text
            ))
        };
        let at = |number: u32, class: Option<u32>| match rows.get(number as usize) {
            Some(row) => Ok(self.at_token(number, class.unwrap_or_else(|| likeliest(row)), row, request.lowers)),
            None => {
                Err(Error::Input(format!("target `{}`: the text has tokens 0 to {}", request.text, rows.len() - 1)))
            }
        };
        match (task, request.target) {
            (Task::Tokens, Target::Predicted | Target::Entities | Target::Class(_)) => {
                let mut spots = Vec::new();
                for found in entities(rows, layout, &self.model.checkpoint.labels) {
                    let spot = Spot { found: Some(found.clone()), ..at(found.tokens[0] as u32, None)? };
                    let wanted = !matches!(request.target, Target::Class(class) if class != spot.output.class);
                    spots.extend(Some(spot).filter(|_| wanted));
                }
                Ok(spots)
            }
            (Task::Tokens, Target::Token { number, class }) => Ok(vec![at(number, class)?]),
            (Task::Spans, Target::Token { number, class: Some(class @ (0 | 1)) }) => Ok(vec![at(number, Some(class))?]),
            (Task::Spans, Target::Predicted | Target::Class(_)) => {
                let Some(found) = answer(rows, layout) else {
                    return Err(Error::Input(
                        "there is no context to find an answer in; pass --text-pair QUESTION CONTEXT".into(),
                    ));
                };
                let [start, end] = found.tokens;
                let spot = match request.target {
                    Target::Class(0) => at(start as u32, Some(0))?,
                    Target::Class(1) => at(end as u32, Some(1))?,
                    _ => self.both_ends([start, end], rows, request.lowers)?,
                };
                Ok(vec![Spot { found: Some(found), ..spot }])
            }
            _ => Err(other()),
        }
    }

    fn at_token(&self, number: u32, class: u32, row: &[f32], lowers: bool) -> Spot {
        let mut encoder = self.model.encoder.clone();
        encoder.head = encoder.head.at(number as usize);
        let own = Output { lowers, ..Output::of(class) };
        Spot { output: Output { token: Some(number), ..own }, own, encoder, logits: row.to_vec(), found: None }
    }

    /// The sum of what says that the answer begins at one token and ends at another: the mean of two readings, each doubled.
    fn both_ends(&self, ends: [usize; 2], rows: &[Vec<f32>], lowers: bool) -> Result<Spot> {
        let mut encoder = self.model.encoder.clone();
        let mut readings = Vec::new();
        for (class, token) in ends.into_iter().enumerate() {
            for reading in encoder.head.at(token).readings {
                let Linear { weight, bias } = &reading.classifier;
                let weight = (weight.narrow(0, class, 1)?.contiguous()? * 2.0)?;
                let bias = bias.as_ref().map(|bias| bias.narrow(0, class, 1)?.contiguous()? * 2.0).transpose()?;
                readings.push(Reading { classifier: Linear { weight, bias }, ..reading });
            }
        }
        encoder.head = Head { readings, scale: encoder.head.scale };
        let of = |token: usize, class: usize| rows[token].get(class).copied().unwrap_or(f32::NAN);
        let (start, end) = (of(ends[0], 0), of(ends[1], 1));
        let own = Output { lowers, ..Output::of(0) };
        let output = Output { class: 2, token: Some(ends[0] as u32), ..own };
        Ok(Spot { output, own, encoder, logits: vec![start, end, start + end], found: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_follows_b_and_i() {
        assert_eq!(
            (tag("B-PER"), tag("I-LOC"), tag("O"), tag("x-y")),
            (("PER", true), ("LOC", false), ("O", false), ("x-y", false))
        );
    }
}
