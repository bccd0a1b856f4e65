//! Takes requests from the queue, those that are there together, explains those that ask alike in one pass, and answers each.

use super::answer::{Asking, Teller};
use super::intake::{Intake, Job, Waiting};
use super::request::{parse, Limits, Order};
use super::room::{Queue, Room};
use super::{Failure, Kind, Root};
use crate::error::{Error, Result};
use crate::explain::desk::lanes;
use crate::explain::{methods, requests, Asked};
use crate::guard::guarded;
use crate::input::{Preparer, Ready, Shape};
use crate::model::{Checkpoint, Modality, Model};
use crate::render::save::Swept;
use crate::render::Style;
use crate::run::Memory;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Kinds of questions that are remembered: reading a method is quick, and no client may fill the memory with names.
const KNOWN: usize = 256;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Methods of requests that name none, as [`methods`] reads them.
    pub method: Vec<String>,
    /// Targets of requests that name none, as [`requests`] reads them.
    pub target: Vec<String>,
    /// How large the model sees an input.
    pub shape: Shape,
    /// Of methods that draw random numbers.
    pub seed: u64,
    /// What the passes may take; none: whatever they need.
    pub memory: Option<Memory>,
    /// Requests that may go through the model together.
    pub together: usize,
    /// How long the first of them waits for others.
    pub max_wait: Duration,
    /// Requests in the house.
    pub queue: usize,
    /// Bytes of those.
    pub bytes: usize,
    /// How large each may be.
    pub limits: Limits,
    /// How long one may take; none: as long as it takes.
    pub time: Option<Duration>,
    /// Where files may be named.
    pub root: Option<Root>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            method: Vec::new(),
            target: vec!["predicted".into()],
            shape: Shape::default(),
            seed: 0,
            memory: None,
            together: 4,
            max_wait: Duration::from_millis(5),
            queue: 64,
            bytes: 256 << 20,
            limits: Limits::default(),
            time: None,
            root: None,
        }
    }
}

impl Settings {
    /// Finds mistakes in what requests ask for by default, which needs no weights.
    ///
    /// # Errors
    /// As [`methods`] and [`requests`].
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        asking(checkpoint, &self.method, &self.target).map(drop)
    }
}

/// A request that is ready for the model.
struct Begun {
    order: Order,
    late: Option<Instant>,
    waiting: Waiting,
}

/// Methods and targets, as they were named.
type Names = (Vec<String>, Vec<String>);

/// Requests that ask alike.
type Group = (Arc<Asking>, Vec<(Begun, Ready)>);

/// A model with its queue.
pub struct Engine<'m> {
    model: &'m Model,
    settings: Settings,
    usual: Arc<Asking>,
    known: Mutex<HashMap<Names, Arc<Asking>>>,
    intake: Arc<Intake>,
    lanes: usize,
    style: Style,
    swept: Swept,
    going: &'m (dyn Fn() -> bool + Sync),
}

impl<'m> Engine<'m> {
    /// For a model, as long as `going` says so.
    ///
    /// # Errors
    /// As [`methods`] and [`requests`].
    pub fn new(model: &'m Model, mut settings: Settings, going: &'m (dyn Fn() -> bool + Sync)) -> Result<Self> {
        let usual = Arc::new(asking(&model.checkpoint, &settings.method, &settings.target)?);
        let asked = asked(model, &usual, settings.seed, settings.memory);
        let lanes = lanes(&asked, settings.shape, settings.together);
        settings.memory = settings.memory.map(|memory| memory.shared_by(lanes));
        let room = Room::new(settings.queue, settings.bytes);
        let intake = Arc::new(Intake::new(room, settings.limits, settings.time));
        let (known, style, swept) = (Mutex::default(), Style::default(), Swept::default());
        Ok(Engine { model, settings, usual, known, intake, lanes, style, swept, going })
    }

    /// Where requests come in.
    pub fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Whether to go on.
    pub fn going(&self) -> bool {
        (self.going)()
    }

    /// Runs what brings requests, and answers them beside it; ends when all that it brought are answered. When it is no longer going,
    /// those that wait are told so.
    pub fn open<T>(&self, serve: impl FnOnce() -> T) -> T {
        struct Closing<'q>(&'q Queue<Job>, &'q (dyn Fn() -> bool + Sync));
        impl Drop for Closing<'_> {
            fn drop(&mut self) {
                if (self.1)() {
                    self.0.close();
                } else {
                    drop(self.0.abandon());
                }
            }
        }
        std::thread::scope(|scope| {
            let closing = Closing(&self.intake.queue, self.going);
            for _ in 0..self.lanes {
                scope.spawn(|| self.work());
            }
            let served = serve();
            drop(closing);
            served
        })
    }

    /// What one thread does until the queue is closed.
    fn work(&self) {
        while let Some(jobs) = self.intake.queue.take(self.settings.together, self.settings.max_wait) {
            if !self.going() {
                drop(jobs);
                drop(self.intake.queue.abandon());
                continue;
            }
            let jobs: Vec<Job> = jobs.into_iter().filter(|job| !job.gone.load(Ordering::Relaxed)).collect();
            if jobs.is_empty() {
                continue;
            }
            self.intake.metrics.batch(jobs.len());
            // A panic loses no answer: whoever waits is told when what he waits for is dropped.
            drop(guarded(|| {
                self.answer(jobs);
                Ok(())
            }));
        }
    }

    /// Reads, groups, explains and answers.
    fn answer(&self, jobs: Vec<Job>) {
        let mut groups: Vec<Group> = Vec::new();
        let mut preparer = Preparer::new(&self.model.checkpoint.processor, self.settings.shape);
        for job in jobs {
            let Some((asking, begun, ready)) = self.begun(job, &mut preparer) else { continue };
            match groups.iter_mut().find(|(own, _)| Arc::ptr_eq(own, &asking)) {
                Some((_, all)) => all.push((begun, ready)),
                None => groups.push((asking, vec![(begun, ready)])),
            }
        }
        for (asking, ready) in groups {
            self.explained(&asking, ready);
        }
    }

    /// A request that is ready for the model; none where it has been answered with why it is not.
    fn begun(&self, job: Job, preparer: &mut Preparer<'_>) -> Option<(Arc<Asking>, Begun, Ready)> {
        let Job { line, late, mut waiting, .. } = job;
        let late = late.or_else(|| self.settings.time.map(|limit| Instant::now() + limit));
        let texts = self.model.checkpoint.modality() == Modality::Text;
        let (root, limits) = (self.settings.root.as_ref(), &self.settings.limits);
        let read = guarded(|| Ok(parse(&line, texts, root, limits)));
        drop(line);
        let order = match read {
            Ok((id, order)) => {
                waiting.id = id;
                order
            }
            Err(e) => Err(e.into()),
        };
        let order = match order {
            Ok(order) => order,
            Err(failure) => {
                waiting.fail(None, failure);
                return None;
            }
        };
        let ready = guarded(|| {
            if late.is_some_and(|late| Instant::now() > late) {
                return Err(Error::Interrupted);
            }
            let asking = self.asking(&order)?;
            if let (Some(m), Some(f)) = (asking.methods.iter().find(|m| m.matrix()), order.formats.drawn()) {
                return Err(Error::Usage(format!(
                    "method `{}` gives a matrix, which `{}` cannot draw",
                    m.spec, f.name
                )));
            }
            let mut ready = order.source.prepare(preparer)?;
            if let Ready::Picture(picture) = &mut ready {
                // Nothing is drawn on it: others have its memory.
                if order.formats.files.is_empty() {
                    picture.upright = Default::default();
                }
            }
            Ok((asking, ready))
        });
        match ready {
            Ok((asking, ready)) => Some((asking, Begun { order, late, waiting }, ready)),
            Err(e) => {
                waiting.fail(Some(&order.source.name), self.failure(e, late));
                None
            }
        }
    }

    /// Methods and targets of a request.
    fn asking(&self, order: &Order) -> Result<Arc<Asking>> {
        if order.methods.is_none() && order.targets.is_none() {
            return Ok(Arc::clone(&self.usual));
        }
        let own = |named: &Option<Vec<String>>, usual: &Vec<String>| named.clone().unwrap_or_else(|| usual.clone());
        let key = (own(&order.methods, &self.settings.method), own(&order.targets, &self.settings.target));
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(known));
        }
        let asking = Arc::new(asking(&self.model.checkpoint, &key.0, &key.1)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.clear();
        }
        // Another thread may have read the same meanwhile: whoever asks alike shares one.
        Ok(Arc::clone(known.entry(key).or_insert(asking)))
    }

    /// Explains inputs of which the same is asked.
    fn explained(&self, asking: &Asking, ready: Vec<(Begun, Ready)>) {
        let late: Option<Vec<Instant>> = ready.iter().map(|(begun, _)| begun.late).collect();
        let latest = late.and_then(|all| all.into_iter().max());
        let watch = |_: usize, _: usize| self.going() && latest.is_none_or(|latest| Instant::now() < latest);
        let asked = asked(self.model, asking, self.settings.seed, self.settings.memory);
        let (root, seed) = (self.settings.root.as_ref(), self.settings.seed);
        let teller = Teller { model: self.model, asking, style: &self.style, root, swept: &self.swept, seed };
        for (same, answers) in asked.explain_all(ready, &watch, &|_, _, _| true) {
            let mut failed = None;
            let answers = answers.unwrap_or_else(|e| {
                failed = Some(self.failure(e, latest));
                Default::default()
            });
            for (place, (mut begun, ready)) in same.into_iter().enumerate() {
                let Begun { order, late, waiting } = &mut begun;
                if let Some(failure) = &failed {
                    waiting.fail(Some(&order.source.name), failure.clone());
                    continue;
                }
                let made: Vec<_> = answers.made.iter().filter(|a| a.place == place).collect();
                let nothing: Vec<_> = answers.nothing.iter().filter(|n| n.place == place).collect();
                match guarded(|| teller.told((&waiting.id, order), &ready, &made, &nothing)) {
                    Ok(told) => waiting.tell(told),
                    Err(e) => waiting.fail(Some(&order.source.name), self.failure(e, *late)),
                }
            }
        }
    }

    /// What is said of an error; of one that was interrupted, by whom.
    fn failure(&self, e: Error, late: Option<Instant>) -> Failure {
        match (&e, late) {
            (Error::Interrupted, Some(late)) if Instant::now() >= late && self.going() => {
                Failure { kind: Kind::Time, said: "took longer than the time limit of a request".into() }
            }
            _ => e.into(),
        }
    }
}

fn asking(checkpoint: &Checkpoint, method: &[String], target: &[String]) -> Result<Asking> {
    let (methods, requests) = (methods(method, checkpoint)?, requests(target, checkpoint)?);
    Ok(Asking { methods, requests })
}

fn asked<'a>(model: &'a Model, asking: &'a Asking, seed: u64, memory: Option<Memory>) -> Asked<'a> {
    Asked { model, methods: &asking.methods, requests: &asking.requests, row: None, seed, memory, links: 0 }
}
