//! Where requests come in, whatever brings them: what front ends share, on plain types.

use super::answer::Told;
use super::metrics::Metrics;
use super::request::{Id, Limits};
use super::room::{Place, Queue, Room};
use super::{Failure, Kind};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is done with an answer; its place is free again when it is dropped.
pub type Then = Box<dyn FnOnce(Told, Place) + Send>;

/// Who waits for an answer. One is given whatever happens.
pub struct Waiting {
    since: Instant,
    then: Option<(Then, Place)>,
    metrics: Arc<Metrics>,
    /// Its line.
    pub number: usize,
    /// What the request is called, once it is known.
    pub id: Id,
}

impl Waiting {
    /// Answers.
    pub fn tell(&mut self, told: Told) {
        if let Some((then, place)) = self.then.take() {
            self.metrics.answered(told.failure.as_ref().map(|f| f.kind), self.since.elapsed());
            then(told, place);
        }
    }

    /// Answers with why there is no explanation.
    pub fn fail(&mut self, input: Option<&str>, failure: Failure) {
        let told = Told::failed((&self.id, self.number), input, failure);
        self.tell(told);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.then.is_some() {
            let said = "the worker was stopped before this was answered".into();
            self.fail(None, Failure { kind: Kind::Stopped, said });
        }
    }
}

/// A request that has come.
pub struct Job {
    /// As it came.
    pub line: Vec<u8>,
    /// When it is too late for an answer; none: to be counted from when it is taken.
    pub late: Option<Instant>,
    /// Nobody waits for it any more.
    pub gone: Arc<AtomicBool>,
    /// Who does.
    pub waiting: Waiting,
}

/// The queue, how much may be in the house, and what was counted.
pub struct Intake {
    pub(super) queue: Queue<Job>,
    pub(super) metrics: Arc<Metrics>,
    /// Places for requests.
    pub room: Arc<Room>,
    /// How large each may be.
    pub limits: Limits,
    /// How long one may take; none: as long as it takes.
    pub time: Option<Duration>,
}

impl Intake {
    /// An empty one.
    pub fn new(room: Arc<Room>, limits: Limits, time: Option<Duration>) -> Self {
        Intake { queue: Queue::default(), metrics: Arc::default(), room, limits, time }
    }

    /// What was counted, as Prometheus reads it.
    pub fn metrics(&self) -> String {
        self.metrics.text(self.queue.len(), self.room.inside())
    }

    /// Nothing comes any more, and those that wait are told so.
    pub fn abandon(&self) {
        drop(self.queue.abandon());
    }

    /// A request was turned away unread.
    pub fn refused(&self) {
        self.metrics.refused();
    }

    /// Takes in the request of a line (by its number), which has its place; `late` and `gone` are for those who do not wait for ever.
    pub fn submit(
        &self,
        (line, number): (Vec<u8>, usize),
        place: Place,
        late: (Option<Instant>, Arc<AtomicBool>),
        then: Then,
    ) {
        let (since, metrics) = (Instant::now(), Arc::clone(&self.metrics));
        let waiting = Waiting { since, then: Some((then, place)), metrics, number, id: Id::default() };
        let (late, gone) = late;
        drop(self.queue.push(Job { line, late, gone, waiting })); // of a closed queue it is told so
    }

    /// An answer to a line that was not read whole.
    pub fn unread(&self, number: usize, place: Place, failure: Failure, then: Then) {
        let (since, metrics) = (Instant::now(), Arc::clone(&self.metrics));
        Waiting { since, then: Some((then, place)), metrics, number, id: Id::default() }.fail(None, failure);
    }
}
