//! Texts whose classes are hypotheses: of each class a pair goes through the model, and its entailment is the class's logit.

use super::windows::{mean, parts, whole};
use super::{Answers, Asked};
use crate::error::{Error, Result};
use crate::input::prepare::by_size;
use crate::input::Ready;
use crate::model::{Hypotheses, Model};
use crate::run::{self, Batch, Noise};
use crate::target::Output;

/// Pairs that go through the model together.
const TOGETHER: usize = 16;

/// Logits of inputs of one size: the model's, or of each the entailments of its classes.
///
/// # Errors
/// As [`Model::inputs`] and [`Model::pairs`], and what the passes report.
pub fn logits(model: &Model, ready: &[Ready]) -> Result<Vec<Vec<f32>>> {
    match model.hypotheses() {
        Some(own) => {
            ready.iter().map(|one| entailments(model, own, &model.pairs(own, whole(one, "hypotheses")?)?)).collect()
        }
        None if ready.iter().any(|one| !parts(one).is_empty()) => {
            ready.iter().map(|one| over_windows(model, one)).collect()
        }
        None => run::logits(&model.encoder.logits(&model.inputs(ready)?.0)?),
    }
}

/// The mean over the windows of an input, which may be one.
fn over_windows(model: &Model, one: &Ready) -> Result<Vec<f32>> {
    let windows: Vec<Ready> = parts(one).iter().map(|window| Ready::Text(window.part.clone())).collect();
    let windows = if windows.is_empty() { vec![one.clone()] } else { windows };
    let rows = windows.iter().map(|window| {
        let rows = run::logits(&model.encoder.logits(&model.inputs(std::slice::from_ref(window))?.0)?)?;
        Ok(rows.into_iter().next().unwrap_or_default())
    });
    Ok(mean(&rows.collect::<Result<Vec<_>>>()?))
}

/// How far each pair's first text entails the second.
fn entailments(model: &Model, own: &Hypotheses, pairs: &[Ready]) -> Result<Vec<f32>> {
    let mut found = vec![f32::NAN; pairs.len()];
    for same in by_size(pairs.iter().cloned().enumerate().collect()) {
        for some in same.chunks(TOGETHER) {
            let ready: Vec<Ready> = some.iter().map(|(_, pair)| pair.clone()).collect();
            let rows = run::logits(&model.encoder.logits(&model.inputs(&ready)?.0)?)?;
            for ((number, _), row) in some.iter().zip(rows) {
                found[*number] = row.get(own.entailment as usize).copied().unwrap_or(f32::NAN);
            }
        }
    }
    Ok(found)
}

impl Asked<'_> {
    /// Explains the entailment of the pair of each class that is meant.
    pub(super) fn explain_pairs(
        &self,
        own: &Hypotheses,
        ready: &[Ready],
        watch: &super::Steps<'_>,
        wanted: &dyn Fn(usize, usize, usize) -> bool,
    ) -> Result<Answers> {
        let mut answers = Answers::default();
        for (place, one) in ready.iter().enumerate() {
            let pairs = self.model.pairs(own, one)?;
            let logits = entailments(self.model, own, &pairs)?;
            for (number, request) in self.requests.iter().enumerate() {
                let methods: Vec<usize> = (0..self.methods.len()).filter(|m| wanted(place, number, *m)).collect();
                let outputs = request.resolve(&logits);
                if outputs.is_empty() && !methods.is_empty() {
                    answers.nothing.push(super::Nothing { place, request: number, note: self.why(request, &logits) });
                }
                for output in outputs {
                    if output.against.is_some() {
                        return Err(Error::Refused(format!(
                            "target `{}`: each class is read beside the text by itself, and the difference of two is no output of one input",
                            request.text
                        )));
                    }
                    let pair = pairs.get(output.class as usize).cloned().into_iter().collect::<Vec<_>>();
                    let (inputs, layouts) = self.model.inputs(&pair)?;
                    let row = layouts.iter().map(|layout| self.row.map(|r| r.token(layout)).transpose());
                    let rows = row.collect::<Result<Vec<_>>>()?;
                    let batch = Batch::new(&self.model.encoder, inputs, layouts)?.within(self.memory);
                    let batch = batch.watched(Box::new(watch)).with_noise(Noise::seeded(self.seed));
                    let batch = batch.reading(super::reads(self.methods));
                    let pass = batch.pass(vec![Output { class: own.entailment, ..output }])?.with_rows(rows)?;
                    for &method in &methods {
                        let explained = || self.methods[method].explain(&pass.run(0));
                        self.answer(&mut answers, (place, number, method), output, (&logits, 0.0), explained)?;
                    }
                }
            }
        }
        Ok(answers)
    }
}
