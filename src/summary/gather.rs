//! The pass over the data: inputs are read and explained side by side, and added in their order.

use super::{About, One, Settings, Summary};
use crate::abreast::abreast;
use crate::error::{Error, Result};
use crate::evaluate::labelled::Labelled;
use crate::evaluate::questions::{self, Explained};
use crate::explain::desk::lanes;
use crate::explain::{methods, Answer, Asked};
use crate::explanation::{Explanation, Layout};
use crate::input::image::Remark;
use crate::input::resize::{resize, Filter};
use crate::input::{Processor, Ready};
use crate::method::Configured;
use crate::model::{Checkpoint, Model};
use crate::target::{right, Request, Said, Scale, Target};
use image::{imageops, RgbImage};
use std::collections::BTreeSet;

/// Pixels along the longer side of a mean picture.
const SIDE: usize = 96;

/// What is summarised, and how.
pub struct Gathering<'a> {
    /// The model that is explained.
    pub model: &'a Model,
    /// Its inputs.
    pub data: &'a Labelled,
    /// The method.
    pub method: &'a [Configured; 1],
    /// How.
    pub settings: Settings,
    /// Whether to go on.
    pub going: &'a (dyn Fn() -> bool + Sync),
}

/// What came of an input, beside what is summed up.
#[derive(Debug, Default)]
pub struct Came {
    /// Its place in the data.
    pub number: usize,
    /// What of it was left out.
    pub notes: Vec<String>,
    /// Why it is not in the summary.
    pub failure: Option<String>,
    /// What is to be said of how a picture was read.
    pub remarks: Vec<Remark>,
    numeric: bool,
    logits: Vec<f32>,
    found: Vec<Explanation>,
    picture: Option<RgbImage>,
}

/// The one method of a summary, as [`methods`] reads it.
///
/// # Errors
/// As [`methods`]; [`Error::Usage`] for several, and for whole matrices, which have no value a token.
pub fn one_method(texts: &[String], checkpoint: &Checkpoint) -> Result<[Configured; 1]> {
    let found: [Configured; 1] = methods(texts, checkpoint)?.try_into().map_err(|all: Vec<Configured>| {
        let names: Vec<&str> = all.iter().take(4).map(|m| m.spec.as_str()).collect();
        let more = if all.len() > 4 { ", ..." } else { "" };
        let (number, names) = (all.len(), names.join(", "));
        Error::Usage(format!(
            "a summary is of one method, and --method names {number} ({names}{more}); run it once for each"
        ))
    })?;
    if found[0].params.get("matrix").is_some_and(|matrix| *matrix == true) {
        return Err(Error::Usage(format!(
            "--method {}: a summary needs one value a token, not a matrix",
            found[0].spec
        )));
    }
    Ok(found)
}

impl Gathering<'_> {
    /// Explains all inputs, and tells `each` of every one in their order.
    ///
    /// # Errors
    /// [`Error::Interrupted`], what `each` reports, and what fails for all inputs; an input's own failure is counted.
    pub fn run<E: From<Error>>(
        &self,
        mut each: impl FnMut(&Came) -> std::result::Result<(), E>,
    ) -> std::result::Result<Summary, E> {
        let mut summary = Summary::new(self.about());
        let together = self.settings.together.max(1);
        let lanes = lanes(&self.asked(&[]), self.settings.shape, together);
        let memory = self.settings.memory.map(|memory| memory.shared_by(lanes));
        let all: Vec<usize> = (0..self.data.inputs.len()).collect();
        let work = |group: &[usize]| {
            let own = Gathering { settings: Settings { memory, ..self.settings }, ..*self };
            own.together(group)
        };
        summary.failures.extend(self.data.failures.iter().cloned());
        abreast(all.chunks(together), lanes, work, |came: Result<Vec<Came>>| {
            for one in came? {
                self.add(&mut summary, &one);
                each(&one)?;
            }
            Ok::<bool, E>((self.going)())
        })?;
        if (self.going)() {
            Ok(summary)
        } else {
            Err(Error::Interrupted.into())
        }
    }

    fn about(&self) -> About {
        let checkpoint = &self.model.checkpoint;
        About {
            model: (checkpoint.id.clone(), checkpoint.family.name.to_string()),
            method: self.method[0].spec.clone(),
            data: self.data.name.clone(),
            labels: checkpoint.labels.clone(),
            scale: checkpoint.scale,
            labelled: self.data.inputs.iter().any(|input| !input.questions.is_empty()),
            settings: self.settings,
        }
    }

    fn asked<'b>(&'b self, requests: &'b [Request]) -> Asked<'b> {
        let Settings { seed, memory, .. } = self.settings;
        Asked { model: self.model, methods: self.method, requests, row: None, seed, memory, links: 0 }
    }

    /// Reads and explains some inputs.
    fn together(&self, group: &[usize]) -> Result<Vec<Came>> {
        let mut came: Vec<Came> = group.iter().map(|&number| Came { number, ..Came::default() }).collect();
        let mut ready = Vec::new();
        for (place, own) in came.iter_mut().enumerate() {
            let read = self.input(own.number).and_then(|input| input.ready(self.model, self.settings.shape));
            match read {
                Ok(read) => {
                    own.notes.extend(read.truncated().map(|cut| format!("too long for the model; {cut}")));
                    own.remarks = read.remarks().to_vec();
                    ready.push((place, read));
                }
                Err(e) => own.failure = Some(e.to_string()),
            }
        }
        let asked = |place: &usize| came.get(*place).and_then(|own| self.input(own.number).ok());
        let classes: BTreeSet<u32> =
            ready.iter().filter_map(|(place, _)| asked(place)).flat_map(|i| &i.questions).map(|q| q.class).collect();
        let requests = self.requests(&classes);
        let numbers: Vec<usize> = came.iter().map(|own| own.number).collect();
        let wanted = |place: &usize, request: usize, _: usize| match requests.get(request).map(|r| r.target) {
            Some(Target::Class(class)) => {
                let input = numbers.get(*place).and_then(|number| self.input(*number).ok());
                input.is_some_and(|input| input.questions.iter().any(|q| q.class == class))
            }
            _ => true,
        };
        let going = self.going;
        let watch = move |_: usize, _: usize| going();
        for (same, answers) in self.asked(&requests).explain_all(ready, &watch, &wanted) {
            match answers {
                Ok(answers) => self.sort(&same, answers.made, &mut came)?,
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(e) => {
                    for (place, _) in &same {
                        let Some(own) = came.get_mut(*place) else { continue };
                        (own.numeric, own.failure) = (matches!(e, Error::Numeric(_)), Some(e.to_string()));
                    }
                }
            }
        }
        Ok(came)
    }

    fn input(&self, number: usize) -> Result<&questions::Asked> {
        let input = self.data.inputs.get(number);
        input.ok_or_else(|| Error::Fault(format!("the data have no input {number}")))
    }

    /// What is asked of inputs with labels of these classes.
    fn requests(&self, classes: &BTreeSet<u32>) -> Vec<Request> {
        let request = |target, text: String| Request { text, target, lowers: false };
        match self.settings.explained {
            Explained::Predicted => vec![request(Target::Predicted, "predicted".into())],
            Explained::Label => classes.iter().map(|c| request(Target::Class(*c), format!("id:{c}"))).collect(),
        }
    }

    /// Puts answers where they belong.
    fn sort(&self, same: &[(usize, Ready)], made: Vec<Answer>, came: &mut [Came]) -> Result<()> {
        for answer in made {
            let Some((place, ready)) = same.get(answer.place) else { continue };
            let Some(own) = came.get_mut(*place) else { continue };
            if own.picture.is_none() && self.settings.pictures {
                own.picture = self.small(ready, &answer.explanation.layout)?;
            }
            own.logits = answer.logits;
            own.found.push(answer.explanation);
        }
        Ok(())
    }

    /// What the model saw of a picture under its patches, small.
    fn small(&self, ready: &Ready, layout: &Layout) -> Result<Option<RgbImage>> {
        let (Ready::Picture(picture), Layout::Image(layout)) = (ready, layout) else { return Ok(None) };
        let Processor::Image(processor) = &self.model.checkpoint.processor else { return Ok(None) };
        let (height, width) = picture.prepared.size;
        let seen = processor.picture(&picture.prepared.pixels, height, width);
        let (down, across) = (layout.grid.0 * layout.patch.0, layout.grid.1 * layout.patch.1);
        let seen = imageops::crop_imm(&seen, 0, 0, across as u32, down as u32).to_image();
        let side = |pixels: usize| (SIDE * pixels / down.max(across).max(1)).max(1);
        resize(&seen, side(down), side(across), Filter::Box).map(Some)
    }

    /// Adds what came of an input.
    fn add(&self, summary: &mut Summary, came: &Came) {
        let name = self.data.name(came.number);
        if let Some(why) = &came.failure {
            return summary.failure(name, why.clone(), came.numeric);
        }
        let Ok(input) = self.input(came.number) else { return };
        let scale = self.model.checkpoint.scale;
        let logits: Vec<f64> = came.logits.iter().map(|l| f64::from(*l)).collect();
        summary.input(name, &came.logits);
        for explanation in &came.found {
            let said = match explanation.output.said(&came.logits, scale) {
                Said::Probability(said) | Said::Value(said) | Said::Difference(said) => said,
            };
            let class = explanation.output.class;
            let right = match self.settings.explained {
                _ if input.questions.is_empty() || scale == Scale::Value => None,
                Explained::Predicted => Some(input.questions.iter().any(|q| q.class == class)),
                Explained::Label => Some(right(class, &logits, scale)),
            };
            summary.explanation(name, &One { explanation, said, right, picture: came.picture.as_ref() });
        }
    }
}
