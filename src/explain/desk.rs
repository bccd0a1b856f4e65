//! What is done with inputs side by side: reading, explaining and drawing. Nothing here writes a file or says a word.

use super::pages::Place;
use super::{maps, Answer, Answers, Asked, Group, Nothing, Steps};
use crate::abreast::{relay, Passed};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::guard::guarded;
use crate::identity::Identity;
use crate::input::image::Remark;
use crate::input::{Preparer, Ready, Shape, Source};
use crate::method::Configured;
use crate::render::figure::{lacking, unseen, Kind};
use crate::render::json::{Done, Record};
use crate::render::page::{self, Panel};
use crate::render::scale::{Range, Span};
use crate::render::{find, Draws, Renderer, Scene, Style};
use crate::target::{Output, Request};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What a front end decides of each result.
pub trait Front: Sync {
    /// Where it goes, format by format.
    fn places(
        &self,
        source: &Source,
        asked: (&Request, &Configured),
        output: Output,
    ) -> Vec<(&'static Renderer, PathBuf)>;

    /// What it depends on, beside the contents of its input; none where nothing states it.
    fn identity(&self, source: &Source, contents: &str, asked: (&Request, &Configured)) -> Option<Identity>;

    /// Whether anything states what results depend on: inputs are then read for it.
    fn states(&self) -> bool;

    /// Whether a text's tokens are drawn for the terminal.
    fn shows(&self) -> bool;

    /// Whether the maps of a run go into one array.
    fn gathers(&self) -> bool;

    /// Where the page of an input goes, if one is made.
    fn page(&self, source: &Source) -> Option<Place>;
}

/// What everything that goes on at a time shares.
pub struct Desk<'a> {
    asked: Asked<'a>,
    shape: Shape,
    style: &'a Style,
    front: &'a dyn Front,
    lanes: usize,
    /// Those that nobody uses now; each keeps the array that it read last.
    preparers: Mutex<Vec<Preparer<'a>>>,
}

/// An input on its way through the model.
#[derive(Clone)]
pub struct Going<'a> {
    /// Its place in the run.
    pub number: usize,
    /// Where it is read.
    pub source: &'a Source,
    /// What is wanted of it, by request and method.
    pub left: Vec<bool>,
    /// What was in it before it was read.
    pub contents: Option<String>,
}

/// One explanation, and of which input.
pub struct Item<'a> {
    /// The input.
    pub going: Going<'a>,
    /// The explanation.
    pub answer: Answer,
}

/// What was read of an input: what of it was cut off and what is to be said of it, or why it cannot be used.
pub type Read<'a> = (&'a Source, Result<(Option<String>, Vec<Remark>)>);

/// Inputs that are read.
struct Prepared<'a> {
    chunk: Vec<Going<'a>>,
    read: Vec<Read<'a>>,
    ready: Vec<(Going<'a>, Ready)>,
}

/// Inputs that are explained.
struct Explained<'a> {
    chunk: Vec<Going<'a>>,
    read: Vec<Read<'a>>,
    groups: Vec<Group<Going<'a>>>,
}

/// What the pool did first with some inputs.
enum Begun<'a> {
    Read(Prepared<'a>),
    All(Came<'a>),
}

/// What came of some inputs.
pub struct Came<'a> {
    /// The inputs.
    pub chunk: Vec<Going<'a>>,
    /// How reading them went.
    pub read: Vec<Read<'a>>,
    /// What came of them then; nothing of those that were interrupted.
    pub parts: Vec<Part<'a>>,
}

/// Something that came of an input.
pub enum Part<'a> {
    /// Nothing but an error.
    Failed(&'a Source, Error),
    /// A target that means no output of it.
    Nothing(Going<'a>, Nothing),
    /// Explanations that wait for the scale of the whole run.
    Waiting(Vec<Item<'a>>),
    /// Its explanations.
    Drawn(Sheets<'a>),
}

/// All explanations of an input, drawn; up to the first that failed.
pub struct Sheets<'a> {
    /// The input.
    pub going: Going<'a>,
    /// Those that were drawn.
    pub drawn: Vec<Sheet>,
    /// Files that hold all of them.
    pub whole: Vec<(PathBuf, Vec<u8>)>,
    /// Request and method of all that were to be drawn.
    pub asked: Vec<(usize, usize)>,
    /// Why there are not more.
    pub failure: Option<Error>,
}

/// One explanation in every format.
pub struct Sheet {
    /// The target's number.
    pub request: usize,
    /// The method's number.
    pub method: usize,
    /// What is noted of it.
    pub record: Record,
    /// It in a line.
    pub headline: String,
    /// What to beware of.
    pub warnings: Vec<String>,
    /// An earlier sheet of the input has these files.
    pub again: bool,
    /// Places and contents.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// A text's tokens for the terminal.
    pub tokens: Option<Vec<u8>>,
    /// What goes into an array of the run.
    pub map: Option<maps::Map>,
}

/// How many groups of so many inputs may go through a model side by side: as many as the memory and the threads allow; another
/// device takes one at a time.
pub fn lanes(asked: &Asked<'_>, shape: Shape, together: usize) -> usize {
    let each = asked.bytes(shape) * together;
    let fitting = asked.memory.map_or(usize::MAX, |m| m.kept / each.max(1));
    let threads = if asked.model.encoder.device().is_cpu() { rayon::current_num_threads() } else { 1 };
    threads.min(fitting).max(1)
}

impl<'a> Desk<'a> {
    /// For pictures of a shape, so many of which go `together`. What passes may take is divided among as many of those as it and
    /// the threads allow; another device takes one at a time, while others are read and drawn.
    pub fn new(asked: Asked<'a>, (shape, together): (Shape, usize), style: &'a Style, front: &'a dyn Front) -> Self {
        let lanes = lanes(&asked, shape, together);
        let asked = Asked { memory: asked.memory.map(|m| m.shared_by(lanes)), ..asked };
        Desk { asked, shape, style, front, lanes, preparers: Mutex::default() }
    }

    /// How many chunks may be worked on at a time.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Explains inputs, so many `together`, by all methods for all targets, but what stands; draws what was found unless it must wait
    /// for the scale of the whole run; and hands it to `each` in order, which answers whether to go on.
    ///
    /// # Errors
    /// Those of `each`, and [`Error::Fault`] where vitx itself fails.
    pub fn work<E: From<Error>>(
        &self,
        (goings, together): (&[Going<'a>], usize),
        watch: &Steps<'_>,
        each: impl FnMut(Came<'a>) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        let begin = |chunk: &[Going<'a>]| match self.prepared(chunk.to_vec()) {
            read if self.lanes == 1 => Begun::Read(read),
            read => Begun::All(self.drawn(self.explained(read, watch))),
        };
        let here = |begun| match begun {
            Begun::Read(read) => Passed::On(self.explained(read, watch)),
            Begun::All(came) => Passed::Done(came),
        };
        relay(goings.chunks(together.max(1)), self.lanes, (begin, here, |explained| self.drawn(explained)), each)
    }

    fn prepared(&self, chunk: Vec<Going<'a>>) -> Prepared<'a> {
        let (mut read, mut ready) = (Vec::new(), Vec::new());
        for going in chunk.iter().filter(|going| going.left.contains(&true)) {
            let contents = if self.front.states() { going.source.contents() } else { None };
            match self.ready(going.source) {
                Ok(own) => {
                    read.push((going.source, Ok((own.truncated(), own.remarks().to_vec()))));
                    ready.push((Going { contents, ..going.clone() }, own));
                }
                Err(e) => read.push((going.source, Err(e))),
            }
        }
        Prepared { chunk, read, ready }
    }

    fn ready(&self, source: &Source) -> Result<Ready> {
        let free = self.preparers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let new = || Preparer::new(&self.asked.model.checkpoint.processor, self.shape);
        let mut preparer = free.unwrap_or_else(new);
        let ready = source.prepare(&mut preparer);
        self.preparers.lock().unwrap_or_else(PoisonError::into_inner).push(preparer);
        ready
    }

    fn explained(&self, prepared: Prepared<'a>, watch: &Steps<'_>) -> Explained<'a> {
        let Prepared { chunk, read, ready } = prepared;
        let methods = self.asked.methods.len();
        let wanted = |going: &Going<'a>, r: usize, m: usize| going.left.get(r * methods + m) == Some(&true);
        Explained { chunk, read, groups: self.asked.explain_all(ready, watch, &wanted) }
    }

    fn drawn(&self, explained: Explained<'a>) -> Came<'a> {
        let Explained { chunk, read, groups } = explained;
        let parts = groups.into_iter().flat_map(|(same, answers)| match answers {
            Err(Error::Interrupted) => Vec::new(), // the run ends; nothing of these inputs is written
            Err(e) => same.first().map(|(going, _)| Part::Failed(going.source, e)).into_iter().collect(),
            Ok(answers) => self.parts(same, answers),
        });
        Came { chunk, read, parts: parts.collect() }
    }

    fn parts(&self, same: Vec<(Going<'a>, Ready)>, answers: Answers) -> Vec<Part<'a>> {
        let going = |place: usize| same.get(place).map(|(going, _)| going.clone());
        let nothing = answers.nothing.into_iter().filter_map(|n| Some(Part::Nothing(going(n.place)?, n)));
        let mut parts: Vec<_> = nothing.collect();
        let item = |answer: Answer| Some(Item { going: going(answer.place)?, answer });
        let items: Vec<Item<'a>> = answers.made.into_iter().filter_map(item).collect();
        if self.style.scale == Span::Shared {
            parts.push(Part::Waiting(items));
            return parts;
        }
        for (going, ready) in &same {
            let own: Vec<_> = items.iter().filter(|i| i.going.number == going.number).collect();
            parts.push(Part::Drawn(self.sheets(going, &own, ready, &BTreeMap::new())));
        }
        parts
    }

    /// Draws what waited for the scale of the whole run, one range a method.
    pub fn drawn_late(&self, items: &[Item<'a>], ranges: &BTreeMap<usize, Range>) -> Option<Part<'a>> {
        let going = &items.first()?.going;
        Some(match self.ready(going.source) {
            Ok(ready) => Part::Drawn(self.sheets(going, &items.iter().collect::<Vec<_>>(), &ready, ranges)),
            Err(e) => Part::Failed(going.source, e),
        })
    }

    fn sheets(
        &self,
        going: &Going<'a>,
        items: &[&Item<'a>],
        ready: &Ready,
        ranges: &BTreeMap<usize, Range>,
    ) -> Sheets<'a> {
        let asked = items.iter().map(|i| (i.answer.request, i.answer.method)).collect();
        let mut sheets = Sheets { going: going.clone(), drawn: Vec::new(), whole: Vec::new(), asked, failure: None };
        for item in items {
            match guarded(|| self.sheet(item, ready, ranges.get(&item.answer.method).copied())) {
                Ok(sheet) => sheets.drawn.push(sheet),
                Err(e) => {
                    sheets.failure = Some(e);
                    break;
                }
            }
        }
        let place = self.front.page(going.source).filter(|_| sheets.failure.is_none() && !items.is_empty());
        match place.map(|place| guarded(|| self.whole(place, items, &sheets.drawn, ready, ranges))).transpose() {
            Ok(whole) => sheets.whole = whole.unwrap_or_default(),
            Err(e) => sheets.failure = Some(e),
        }
        sheets
    }

    /// The page of an input, and a small picture for the index.
    fn whole(
        &self,
        place: Place,
        items: &[&Item<'a>],
        sheets: &[Sheet],
        ready: &Ready,
        ranges: &BTreeMap<usize, Range>,
    ) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let layout = items.first().map(|item| &item.answer.explanation.layout);
        let row = self.asked.row.zip(layout).map(|(row, layout)| row.token(layout)).transpose()?;
        let scene = Scene { row, ..Scene::of(ready, self.style) };
        let drawn: Vec<_> = items.iter().map(|item| self.style.evidence.of(&item.answer.explanation)).collect();
        let mut panels = Vec::new();
        for (drawn, sheet) in drawn.iter().zip(sheets).filter(|(_, sheet)| !sheet.again) {
            let Some(method) = self.asked.methods.get(sheet.method) else { continue };
            panels.push(Panel {
                explanation: drawn,
                shared: ranges.get(&sheet.method).copied(),
                method: &method.spec,
                headline: &sheet.headline,
                record: &sheet.record,
                warnings: &sheet.warnings,
            });
        }
        let links = items.first().and_then(|item| item.answer.links.as_deref());
        let mut files = vec![(place.page, page::html(&scene, &panels, links)?)];
        if let (Some(file), Some(first), Some(_)) = (place.thumbnail, panels.first(), scene.picture) {
            let scene = Scene { shared: first.shared, ..scene.clone() };
            files.push((file, page::thumbnail(&scene, first.explanation)?));
        }
        Ok(files)
    }

    /// Draws one explanation in every format.
    fn sheet(&self, item: &Item<'a>, ready: &Ready, shared: Option<Range>) -> Result<Sheet> {
        let start = Instant::now();
        let (Asked { model, requests, methods, seed, .. }, answer) = (&self.asked, &item.answer);
        let (Some(request), Some(method)) = (requests.get(answer.request), methods.get(answer.method)) else {
            return Err(Error::Fault("an answer to what was not asked".into()));
        };
        let (source, asked, output) = (item.going.source, (request, method), answer.explanation.output);
        let mut done = Done::new(&source.name, &(*model).into(), &answer.logits, &answer.explanation, *seed);
        done.size = matches!(ready, Ready::Picture(_)).then(|| ready.size());
        let contents = item.going.contents.as_deref();
        done.identity = contents.and_then(|contents| self.front.identity(source, contents, asked));
        let said = output.said(&answer.logits, model.checkpoint.scale);
        let headline = match &done.target {
            Some(target) => format!("{} {said} ({}, {})", target.label, output.which(), method.spec),
            None => method.spec.clone(),
        };
        let places = self.front.places(source, asked, output);
        for (format, path) in &places {
            done.outputs.insert(format.name.into(), Value::from(path.display().to_string()));
        }
        if let Some(place) = self.front.page(source) {
            done.outputs.insert("html".into(), Value::from(place.page.display().to_string()));
        }
        let mut warnings = if answer.again { Vec::new() } else { done.warnings(&method.spec) };
        let fixed = |format: &Renderer| matches!(Kind::of(format.name), Some(Kind::Pdf | Kind::Png));
        if let (Layout::Text(text), true) = (&answer.explanation.layout, places.iter().any(|(format, _)| fixed(format)))
        {
            warnings.extend(unseen(&lacking(&text.texts, &self.style.print)?));
        }
        let ms = answer.ms + start.elapsed().as_secs_f64() * 1e3;
        let mut record = Record::Ok(Box::new(done)); // files hold no time: made again they are the same
        let (caption, drawn) = (headline.clone(), self.style.evidence.of(&answer.explanation));
        let row = self.asked.row.map(|row| row.token(&answer.explanation.layout)).transpose()?;
        let scene = Scene { caption, shared, row, record: Some(&record), ..Scene::of(ready, self.style) };
        let draw = |(format, path): (&Renderer, PathBuf)| match answer.again {
            true => Ok((path, Vec::new())),
            false if format.draws > Draws::Numbers => (format.render)(&scene, &drawn).map(|bytes| (path, bytes)),
            false => (format.render)(&scene, &answer.explanation).map(|bytes| (path, bytes)),
        };
        let files = places.into_iter().map(draw).collect::<Result<_>>()?;
        let shown = self.front.shows() && !answer.again;
        let tokens = shown.then(|| (find("ansi")?.render)(&scene, &drawn)).transpose()?;
        let (request, method, again) = (answer.request, answer.method, answer.again);
        record.took(ms);
        let map = if self.front.gathers() && !again { maps::Map::of(&answer.explanation) } else { None };
        Ok(Sheet { request, method, record, headline, warnings, again, files, tokens, map })
    }
}
