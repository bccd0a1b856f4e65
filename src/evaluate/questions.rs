//! What labelled data ask of a model: inputs, the classes that are to be explained of them, and what is known of each.

use super::contract::Truth;
use super::dataset::{rationale_tokens, MaskFile, Sample};
use super::mask::{useless, Useless};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::identity;
use crate::input::{Input, Preparer, Ready, Shape};
use crate::model::{Checkpoint, Model};
use crate::target::{ranked, Output, Reading, Scale};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Which class of an input is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Explained {
    /// The class the data say.
    #[default]
    Label,
    /// The class the model says.
    Predicted,
}

impl Explained {
    /// Names on the command line, and what they mean.
    pub const NAMES: &'static [(&'static str, &'static str, Explained)] = &[
        ("label", "The class the data says", Explained::Label),
        ("predicted", "The class the model says", Explained::Predicted),
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Explained::Label => "label",
            Explained::Predicted => "predicted",
        }
    }
}

/// One input, and what is to be explained of it.
#[derive(Debug)]
pub struct Asked {
    /// As reports name it.
    pub name: String,
    /// What it is.
    pub input: Input,
    /// What is explained of it.
    pub questions: Vec<Question>,
}

/// One explanation to judge.
#[derive(Debug)]
pub struct Question {
    /// The labelled class.
    pub class: u32,
    /// Its name.
    pub label: String,
    /// A mask of the object.
    pub mask: Option<MaskFile>,
    /// The reason that people marked, as written.
    pub rationale: Option<String>,
}

/// The class that a written label means. Of a model with one value any number is its true value.
fn class_of(text: &str, checkpoint: &Checkpoint) -> Result<(u32, Reading)> {
    let read = checkpoint.labels.read(text);
    let one_value = checkpoint.scale == Scale::Value && checkpoint.labels.len() == 1;
    if read.is_err() && one_value && text.trim().parse::<f64>().is_ok_and(f64::is_finite) {
        return Ok((0, Reading::Number));
    }
    read
}

/// How many different labels of the data were found by name, how many by number, and how many not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readings {
    names: usize,
    /// By number.
    pub numbers: usize,
    unknown: usize,
}

impl Readings {
    /// Whether there are labels, and the model has none of them.
    pub fn strange(&self) -> bool {
        self.unknown > 0 && self.names + self.numbers == 0
    }

    /// Of all labels, each once.
    pub fn of(samples: &[Sample], checkpoint: &Checkpoint) -> Self {
        let written: BTreeSet<&str> = samples.iter().filter_map(|s| s.label.as_deref()).collect();
        let mut all = Readings::default();
        for text in written {
            match class_of(text, checkpoint) {
                Ok((_, Reading::Name)) => all.names += 1,
                Ok((_, Reading::Number)) => all.numbers += 1,
                Err(_) => all.unknown += 1,
            }
        }
        all
    }

    /// In a line.
    pub fn told(&self, folders: bool) -> String {
        let what = if folders { "class folders" } else { "labels" };
        let unknown = if self.unknown > 0 { format!(", {} by neither", self.unknown) } else { String::new() };
        format!("{what}: {} matched by name, {} by number{unknown}", self.names, self.numbers)
    }
}

/// Samples of one picture stand together, so that it goes through the model once; and samples whose label the model does not
/// have, with the reason. Of samples without a label nothing is asked.
pub fn group(samples: Vec<Sample>, checkpoint: &Checkpoint) -> (Vec<Asked>, Vec<(String, String)>) {
    let (mut all, mut failures): (Vec<Asked>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    let mut known: HashMap<Input, usize> = HashMap::new();
    for sample in samples {
        let class = match sample.label.as_ref().map(|label| class_of(label, checkpoint)).transpose() {
            Ok(class) => class.map(|(class, _)| class),
            Err(e) => {
                failures.push((sample.name, e.to_string()));
                continue;
            }
        };
        for (name, input) in examples(&sample) {
            let (mask, rationale) = (sample.mask.clone(), sample.rationale.clone());
            let question = |class| Question { class, label: checkpoint.labels.name(class), mask, rationale };
            let question = class.map(question);
            match known.get(&input).and_then(|at| all.get_mut(*at)) {
                Some(asked) => asked.questions.extend(question),
                None => {
                    known.insert(input.clone(), all.len());
                    all.push(Asked { name, input, questions: question.into_iter().collect() });
                }
            }
        }
    }
    (all, failures)
}

/// The examples of a sample, by name.
fn examples(sample: &Sample) -> Vec<(String, Input)> {
    let name = |input: &Input| match input {
        Input::Array(_, Some(b)) => format!("{}[{b}]", sample.name),
        _ => sample.name.clone(),
    };
    sample.content.clone().examples().into_iter().map(|input| (name(&input), input)).collect()
}

impl Asked {
    /// Reads and prepares it for a model.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn ready(&self, model: &Model, shape: Shape) -> Result<Ready> {
        if self.input.path().is_some_and(|path| path.exists() && !path.is_file()) {
            // It could be waited on for ever.
            return Err(Error::Input("is no regular file (a folder, a pipe or a device)".into()));
        }
        Preparer::new(&model.checkpoint.processor, shape).prepare(&self.input)
    }

    /// The files it is made of: its own and those of its masks.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let masks = self.questions.iter().filter_map(|q| Some(q.mask.as_ref()?.path.as_path()));
        self.input.path().into_iter().chain(masks)
    }

    /// What tells it from others, given the contents of its files: picture or text, masks, labels and rationales.
    pub fn identity(&self, files: &HashMap<PathBuf, String>) -> String {
        let of = |path: &Path| files.get(path).cloned().unwrap_or_default();
        let content = self.input.contents_by(&|path| Ok(of(path))).unwrap_or_default(); // files were read before
        let question = |q: &Question| {
            let mask = q.mask.as_ref().map(|m| json!([of(&m.path), m.object]));
            json!([q.class, mask, q.rationale])
        };
        let questions: Vec<_> = self.questions.iter().map(question).collect();
        identity::of_parts([
            ("content", content),
            ("name", self.name.clone()),
            ("questions", json!(questions).to_string()),
        ])
    }
}

impl Question {
    /// Mask and rationale as metrics read them, and what is to be said of them. A mask without object or background is left
    /// out: nothing can be judged by it.
    ///
    /// # Errors
    /// A mask or a rationale that cannot be read.
    pub fn truth(&self, ready: &Ready, layout: &Layout) -> Result<(Truth, Option<String>)> {
        let mut note = None;
        let mask = match (&self.mask, ready) {
            (Some(file), Ready::Picture(picture)) => {
                let mask = file.read()?;
                let places = mask.at_input(picture.upright.dimensions(), &picture.prepared);
                match (mask.useless(), useless(&places)) {
                    (None, None) => Some(places),
                    (Some(_), _) => None, // told before, of all masks at once
                    (None, Some(why)) => {
                        let what = if why == Useless::Empty { "object" } else { "background" };
                        note = Some(format!(
                            "the mask's {what} lies outside of what the model sees: the mask is left out"
                        ));
                        None
                    }
                }
            }
            _ => None,
        };
        let rationale = match (&self.rationale, layout) {
            (Some(rationale), Layout::Text(text)) => Some(rationale_tokens(rationale, text)?),
            _ => None,
        };
        Ok((Truth { mask, rationale }, note))
    }

    /// What is explained, given the input's logits.
    pub fn output(&self, explained: Explained, logits: &[f32]) -> Output {
        Output::of(match explained {
            Explained::Label => self.class,
            Explained::Predicted => ranked(logits).first().copied().unwrap_or(self.class), // there is no model of no class
        })
    }
}
