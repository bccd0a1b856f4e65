//! What labelled data ask of a model: inputs, the classes that are to be explained of them, and what is known of each.

use super::args::ShapeArgs;
use super::labelled::TargetArg;
use super::prepare::{Preparer, Ready};
use super::sources::{Kind, Source};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use vitx::evaluate::dataset::{rationale_tokens, Content, MaskFile, Sample};
use vitx::evaluate::mask::{useless, Useless};
use vitx::evaluate::Truth;
use vitx::explanation::Layout;
use vitx::identity;
use vitx::model::{Checkpoint, Model};
use vitx::target::{Output, Reading, Scale};
use vitx::Error;

/// One input, and what is to be explained of it.
#[derive(Debug)]
pub struct Input {
    pub name: String,
    pub content: Content,
    /// Which example of an array.
    example: Option<usize>,
    pub questions: Vec<Question>,
}

/// One explanation to judge.
#[derive(Debug)]
pub struct Question {
    /// The labelled class.
    pub class: u32,
    /// Its name.
    pub label: String,
    pub mask: Option<MaskFile>,
    pub rationale: Option<String>,
}

/// The class that a written label means. Of a model with one value any number is its true value.
fn class_of(text: &str, checkpoint: &Checkpoint) -> vitx::Result<(u32, Reading)> {
    let read = checkpoint.labels.read(text);
    let one_value = checkpoint.scale == Scale::Value && checkpoint.labels.len() == 1;
    if read.is_err() && one_value && text.trim().parse::<f64>().is_ok_and(f64::is_finite) {
        return Ok((0, Reading::Number));
    }
    read
}

/// How many different labels of the data were found by name, how many by number, and how many not.
pub struct Readings {
    names: usize,
    pub numbers: usize,
    unknown: usize,
}

impl Readings {
    /// Of all labels, each once.
    pub fn of(samples: &[Sample], checkpoint: &Checkpoint) -> Self {
        let written: BTreeSet<&str> = samples.iter().map(|s| s.label.as_str()).collect();
        let mut all = Readings { names: 0, numbers: 0, unknown: 0 };
        for text in written {
            match class_of(text, checkpoint) {
                Ok((_, Reading::Name)) => all.names += 1,
                Ok((_, Reading::Number)) => all.numbers += 1,
                Err(_) => all.unknown += 1,
            }
        }
        all
    }

    /// As it is printed.
    pub fn told(&self, folders: bool) -> String {
        let what = if folders { "class folders" } else { "labels" };
        let unknown = if self.unknown > 0 { format!(", {} by neither", self.unknown) } else { String::new() };
        format!("{what}: {} matched by name, {} by number{unknown}", self.names, self.numbers)
    }
}

/// Samples of one picture stand together, so that it goes through the model once.
pub fn group(samples: Vec<Sample>, checkpoint: &Checkpoint) -> (Vec<Input>, Vec<(String, String)>) {
    let (mut inputs, mut failures): (Vec<Input>, Vec<(String, String)>) = (Vec::new(), Vec::new());
    let mut known: HashMap<(Content, Option<usize>), usize> = HashMap::new();
    for sample in samples {
        let class = match class_of(&sample.label, checkpoint) {
            Ok((class, _)) => class,
            Err(e) => {
                failures.push((sample.name, e.to_string()));
                continue;
            }
        };
        for example in examples(&sample.content) {
            let (mask, rationale) = (sample.mask.clone(), sample.rationale.clone());
            let question = Question { class, label: checkpoint.labels.name(class), mask, rationale };
            let at = *known.entry((sample.content.clone(), example)).or_insert_with(|| {
                let name = example.map_or(sample.name.clone(), |b| format!("{}[{b}]", sample.name));
                inputs.push(Input { name, content: sample.content.clone(), example, questions: Vec::new() });
                inputs.len() - 1
            });
            inputs[at].questions.push(question);
        }
    }
    (inputs, failures)
}

/// The examples of an array `[B,3,H,W]`; one for everything else.
fn examples(content: &Content) -> Vec<Option<usize>> {
    let Content::Array(path) = content else { return vec![None] };
    match (path.is_file(), vitx::input::array::shape(path)) {
        (true, Ok(shape)) if shape.len() == 4 => (0..shape[0] as usize).map(Some).collect(),
        _ => vec![None], // reading it says what is wrong
    }
}

impl Input {
    /// Reads and prepares it for a model.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn ready(&self, model: &Model, shape: ShapeArgs) -> vitx::Result<Ready> {
        self.check()?;
        Preparer::shaped(&model.checkpoint.processor, shape).prepare(&self.source())
    }

    /// As the rest of the command line names inputs.
    fn source(&self) -> Source {
        let kind = match &self.content {
            Content::Picture(path) => Kind::Picture(path.clone()),
            Content::Array(path) => Kind::Array(path.clone(), self.example),
            Content::Text(text) => Kind::Text(text.clone()),
            Content::TextFile(path) => Kind::TextFile(path.clone()),
        };
        Source { name: self.name.clone(), stem: PathBuf::new(), kind }
    }

    /// Refuses what could be waited on for ever.
    fn check(&self) -> vitx::Result<()> {
        match self.content.path() {
            Some(path) if path.exists() && !path.is_file() => {
                Err(Error::Input("is no regular file (a folder, a pipe or a device)".into()))
            }
            _ => Ok(()),
        }
    }

    /// The files it is made of: its own and those of its masks.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let masks = self.questions.iter().filter_map(|q| Some(q.mask.as_ref()?.path.as_path()));
        self.content.path().into_iter().chain(masks)
    }

    /// What tells it from others, given the contents of its files: picture or text, masks, labels and rationales.
    pub fn identity(&self, files: &HashMap<PathBuf, String>) -> String {
        let of = |path: &Path| files.get(path).cloned().unwrap_or_default();
        let content = match &self.content {
            Content::Text(text) => json!([text.first, text.second]),
            Content::Picture(path) | Content::Array(path) | Content::TextFile(path) => json!([of(path), self.example]),
        };
        let question = |q: &Question| {
            let mask = q.mask.as_ref().map(|m| json!([of(&m.path), m.object]));
            json!([q.class, mask, q.rationale])
        };
        let questions: Vec<_> = self.questions.iter().map(question).collect();
        identity::of_parts([
            ("content", content.to_string()),
            ("name", self.name.clone()),
            ("questions", json!(questions).to_string()),
        ])
    }
}

impl Question {
    /// Mask and rationale as metrics read them, and what is to be said of them. A mask without object or background is left
    /// out: nothing can be judged by it.
    pub fn truth(&self, ready: &Ready, layout: &Layout) -> vitx::Result<(Truth, Option<String>)> {
        let mut note = None;
        let mask = match (&self.mask, ready) {
            (Some(file), Ready::Picture(picture)) => {
                let mask = file.read()?;
                let places = mask.at_input(picture.0.dimensions(), &picture.1);
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

    /// What is explained.
    pub fn output(&self, target: TargetArg, logits: &[f32]) -> Output {
        let class = match target {
            TargetArg::Label => self.class,
            TargetArg::Predicted => vitx::target::ranked(logits)[0],
        };
        Output::of(class)
    }
}
