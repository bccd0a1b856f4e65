//! An answer's lines: the record as `vitx explain --json` gives it, with the request's `id`, and what was found as numbers, as an array or
//! as files.

use super::request::{Formats, Id, Order};
use super::{Failure, Root};
use crate::error::{Error, Result};
use crate::explain::{Answer, Nothing};
use crate::explanation::Explanation;
use crate::input::Ready;
use crate::method::Configured;
use crate::model::Model;
use crate::render::json::{Done, Record};
use crate::render::names::target_part;
use crate::render::out::Out;
use crate::render::printable::json;
use crate::render::save::{self, Swept};
use crate::render::{find, Draws, Renderer, Scene, Style};
use crate::target::Request;
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::path::Path;

/// Everything that is told of a request, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Lines, each with its end.
    pub text: String,
    /// Why there is no explanation, where there is none.
    pub failure: Option<Failure>,
}

/// What a request asked for, in the model's words.
pub struct Asking {
    /// By which methods.
    pub methods: Vec<Configured>,
    /// About which outputs.
    pub requests: Vec<Request>,
}

/// Relevance in an answer.
#[derive(Serialize, Default)]
struct Values<'a> {
    /// `[gridH,gridW]` of pictures, `[T]` of texts, `[T,T]` of matrices.
    shape: Vec<usize>,
    /// Row by row.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<&'a [f32]>,
    /// The same as an `.npy` file in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    npy: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a RawValue,
    /// Which of the answer's lines it is, from 1.
    part: usize,
    parts: usize,
    #[serde(flatten)]
    record: &'a Record,
    /// What is to be said of how the input was read and of the method's own doubts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relevance_values: Option<Values<'a>>,
    /// Files in base64, by format.
    #[serde(skip_serializing_if = "Map::is_empty")]
    files: Map<String, Value>,
}

#[derive(Serialize)]
struct Failed<'a> {
    id: &'a RawValue,
    status: &'static str,
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a str>,
    kind: &'static str,
    error: &'a str,
}

fn line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|e| Error::Fault(format!("the answer cannot be written as JSON: {e}")))?;
    Ok(format!("{}\n", json(&text)))
}

impl Told {
    /// The answer to the request of a line that has no explanation.
    pub fn failed((id, number): (&Id, usize), input: Option<&str>, failure: Failure) -> Self {
        let (kind, error) = (failure.kind.name(), failure.said.as_str());
        let written = line(&Failed { id: &id.0, status: "error", line: number, input, kind, error });
        let plain = || format!("{{\"id\":null,\"status\":\"error\",\"line\":{number},\"kind\":\"fault\"}}\n");
        Told { text: written.unwrap_or_else(|_| plain()), failure: Some(failure) }
    }
}

/// Who tells what was found.
pub struct Teller<'a> {
    /// Of whom.
    pub model: &'a Model,
    /// What was asked of it.
    pub asking: &'a Asking,
    /// How things are drawn.
    pub style: &'a Style,
    /// Where files go.
    pub root: Option<&'a Root>,
    /// Where killed workers have left nothing.
    pub swept: &'a Swept,
    /// Of random numbers.
    pub seed: u64,
}

impl Teller<'_> {
    /// All that was found of one input, a line each.
    ///
    /// # Errors
    /// What drawing and writing files report.
    pub fn told(
        &self,
        (id, order): (&Id, &Order),
        ready: &Ready,
        made: &[&Answer],
        nothing: &[&Nothing],
    ) -> Result<Told> {
        let parts = made.len() + nothing.len();
        if parts == 0 {
            return Err(Error::Fault("nothing came of what was asked".into()));
        }
        let mut text = String::new();
        for (part, answer) in made.iter().enumerate() {
            text += &self.part(id, order, ready, answer, (part + 1, parts))?;
        }
        for (number, nothing) in nothing.iter().enumerate() {
            let target = self.asking.requests.get(nothing.request).map(|r| r.text.clone()).unwrap_or_default();
            let record = Record::Nothing { input: order.source.name.clone(), target, note: nothing.note.clone() };
            let part = made.len() + number + 1;
            let (notes, files) = (Vec::new(), Map::new());
            text += &line(&Line { id: &id.0, part, parts, record: &record, notes, relevance_values: None, files })?;
        }
        Ok(Told { text, failure: None })
    }

    fn part(
        &self,
        id: &Id,
        order: &Order,
        ready: &Ready,
        answer: &Answer,
        (part, parts): (usize, usize),
    ) -> Result<String> {
        let (Some(method), Some(request)) =
            (self.asking.methods.get(answer.method), self.asking.requests.get(answer.request))
        else {
            return Err(Error::Fault("an answer to what was not asked".into()));
        };
        let e = &answer.explanation;
        let mut done = Done::new(&order.source.name, &self.model.into(), &answer.logits, e, self.seed);
        done.size = matches!(ready, Ready::Picture(_)).then(|| ready.size());
        let formats = self.formats(order, method);
        let target = target_part(request, e.output, &self.model.checkpoint.labels);
        if let Some(stem) = &order.out {
            for format in &formats {
                let path = Out::Folder("".into()).path(stem, &method.spec, &target, format);
                done.outputs.insert(format.name.into(), path.display().to_string().into());
            }
        }
        let caption = done.target.as_ref().map_or(method.spec.clone(), |t| format!("{} ({})", t.label, method.spec));
        let remarks = ready.remarks().iter().map(ToString::to_string);
        let notes = remarks.chain(done.warnings(&method.spec)).collect();
        let mut record = Record::Ok(Box::new(done));
        let scene = Scene { caption, record: Some(&record), ..Scene::of(ready, self.style) };
        let drawn = self.style.evidence.of(e);
        let mut files = Map::new();
        for format in formats {
            let shown = if format.draws > Draws::Numbers { &drawn } else { e };
            let bytes = (format.render)(&scene, shown)?;
            match (&order.out, self.root) {
                (Some(stem), Some(root)) if !answer.again => {
                    let path = Out::Folder(root.folder().into()).path(stem, &method.spec, &target, format);
                    self.swept.before(&path);
                    saved(&path, &bytes, order.overwrite, root)?;
                }
                (Some(_), _) => {}
                (None, _) => drop(files.insert(format.name.into(), STANDARD.encode(bytes).into())),
            }
        }
        let relevance_values = values(&order.formats, order.out.is_none(), &scene, e)?;
        record.took(answer.ms);
        line(&Line { id: &id.0, part, parts, record: &record, notes, relevance_values, files })
    }

    /// Formats that become files of a method.
    fn formats(&self, order: &Order, method: &Configured) -> Vec<&'static Renderer> {
        let pixels = method.method.pixels(&self.model.checkpoint.facts());
        let array = (order.formats.npy && order.out.is_some()).then(|| find("npy").ok()).flatten();
        let files = order.formats.files.iter().copied().filter(|format| format.suits(pixels));
        array.into_iter().chain(files).collect()
    }
}

/// Numbers in the answer, as they were asked for.
fn values<'e>(formats: &Formats, inline: bool, scene: &Scene<'_>, e: &'e Explanation) -> Result<Option<Values<'e>>> {
    let npy = formats.npy && inline;
    let array = || Ok::<_, Error>(STANDARD.encode((find("npy")?.render)(scene, e)?));
    let values = formats.values.then(|| e.content());
    Ok(match npy || formats.values {
        true => Some(Values { shape: e.shape(), values, npy: npy.then(array).transpose()? }),
        false => None,
    })
}

/// Writes a file; what is told of failures names it as the client knows it.
fn saved(path: &Path, bytes: &[u8], overwrite: bool, root: &Root) -> Result<()> {
    let shown = path.strip_prefix(root.folder()).unwrap_or(path).display();
    if !overwrite && path.exists() {
        return Err(Error::Usage(format!("out: {shown} exists; pass \"overwrite\": true to replace it")));
    }
    save::save(path, bytes, overwrite).map_err(|e| match e {
        Error::Io { said, .. } => Error::Input(format!("out: {shown} cannot be written: {said}")),
        _ => Error::Usage(format!("out: {shown} exists; pass \"overwrite\": true to replace it")),
    })
}
