//! How much is in the house: so many requests, from being read to being answered, and so many bytes of them. Who wants to bring more
//! waits or is turned away, so that no flood of requests fills the memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often those who wait look whether they should still.
const LOOK: Duration = Duration::from_millis(50);

/// What is taken of a room.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    places: usize,
    bytes: usize,
}

/// Places for requests and their bytes.
#[derive(Debug)]
pub struct Room {
    places: usize,
    bytes: usize,
    taken: Mutex<Taken>,
    freed: Condvar,
}

/// A part of a room, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    own: Taken,
}

/// The lock's content, also where another thread has panicked: what is held here is whole at every step.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// For so many requests of so many bytes in all.
    pub fn new(places: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Room { places: places.max(1), bytes, taken: Mutex::default(), freed: Condvar::new() })
    }

    /// A place for a request of so many bytes, once there is one; none when `going` says no meanwhile.
    pub fn enter(self: &Arc<Self>, bytes: usize, going: &dyn Fn() -> bool) -> Option<Place> {
        let own = Taken { places: 1, bytes };
        let mut taken = held(&self.taken);
        while !self.fits(*taken, own) {
            if !going() {
                return None;
            }
            taken = self.freed.wait_timeout(taken, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(self.take(&mut taken, own))
    }

    /// The same; none when there is no place now.
    pub fn try_enter(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        self.try_take(Taken { places: 1, bytes })
    }

    /// Bytes alone, of a request that is still on its way.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        self.try_take(Taken { places: 0, bytes })
    }

    /// Requests in the house.
    pub fn inside(&self) -> usize {
        held(&self.taken).places
    }

    fn try_take(self: &Arc<Self>, own: Taken) -> Option<Place> {
        let mut taken = held(&self.taken);
        self.fits(*taken, own).then(|| self.take(&mut taken, own))
    }

    /// One request may be larger than the whole room, alone: how large is for other limits to say.
    fn fits(&self, taken: Taken, own: Taken) -> bool {
        taken.places + own.places <= self.places && (taken.bytes == 0 || taken.bytes + own.bytes <= self.bytes)
    }

    fn take(self: &Arc<Self>, taken: &mut Taken, own: Taken) -> Place {
        *taken = Taken { places: taken.places + own.places, bytes: taken.bytes + own.bytes };
        Place { room: Arc::clone(self), own }
    }
}

impl Place {
    /// Takes so many bytes more, if they fit in.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = Taken { places: 0, bytes };
        let mut taken = held(&self.room.taken);
        let fits = self.room.fits(*taken, more);
        if fits {
            (taken.bytes, self.own.bytes) = (taken.bytes + bytes, self.own.bytes + bytes);
        }
        fits
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = held(&self.room.taken);
        taken.places = taken.places.saturating_sub(self.own.places);
        taken.bytes = taken.bytes.saturating_sub(self.own.bytes);
        drop(taken);
        self.room.freed.notify_all();
    }
}

/// Things that wait for somebody who takes several at once. How many there may be is for a [`Room`] to say.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    more: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<(Instant, T)>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { state: Mutex::new(State { waiting: VecDeque::new(), closed: false }), more: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds one at the end; gives it back when the queue is closed.
    ///
    /// # Errors
    /// The thing itself.
    pub fn push(&self, thing: T) -> Result<(), T> {
        let mut state = held(&self.state);
        if state.closed {
            return Err(thing);
        }
        state.waiting.push_back((Instant::now(), thing));
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    /// Takes up to so many, once there are as many or the first has waited so long; none when the queue is closed and empty.
    pub fn take(&self, most: usize, wait: Duration) -> Option<Vec<T>> {
        let mut state = held(&self.state);
        loop {
            let Some((since, _)) = state.waiting.front() else {
                if state.closed {
                    return None;
                }
                state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = wait.saturating_sub(since.elapsed());
            if state.closed || state.waiting.len() >= most || left.is_zero() {
                let number = state.waiting.len().min(most.max(1));
                return Some(state.waiting.drain(..number).map(|(_, thing)| thing).collect());
            }
            state = self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing comes any more; what waits is still taken.
    pub fn close(&self) {
        held(&self.state).closed = true;
        self.more.notify_all();
    }

    /// The same; what waits is given up.
    pub fn abandon(&self) -> Vec<T> {
        let mut state = held(&self.state);
        state.closed = true;
        let left = state.waiting.drain(..).map(|(_, thing)| thing).collect();
        drop(state);
        self.more.notify_all();
        left
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        held(&self.state).waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_room_turns_away_until_a_place_is_free() {
        let room = Room::new(2, 100);
        let (first, second) = (room.try_enter(60).unwrap(), room.try_enter(30).unwrap());
        assert!(room.try_enter(1).is_none() && room.enter(1, &|| false).is_none());
        drop(second);
        assert!(room.try_enter(50).is_none(), "its bytes do not fit in");
        let mut on_its_way = room.hold(30).unwrap();
        assert!(room.hold(20).is_none() && !on_its_way.grow(20) && on_its_way.grow(10));
        drop(on_its_way);
        drop(first);
        assert_eq!(room.inside(), 0);
        let large = room.try_enter(1000).unwrap();
        assert!(room.try_enter(1).is_none());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| room.enter(1, &|| true).is_some());
            drop(large);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn things_are_taken_together_and_in_order() {
        let queue = Queue::default();
        (0..5).for_each(|n| queue.push(n).unwrap());
        assert_eq!(queue.take(3, Duration::from_secs(60)), Some(vec![0, 1, 2]));
        let start = Instant::now();
        assert_eq!(queue.take(3, Duration::from_millis(30)), Some(vec![3, 4]));
        assert!(start.elapsed() < Duration::from_secs(30));
        queue.push(5).unwrap();
        queue.close();
        assert_eq!(queue.push(6), Err(6));
        assert_eq!(queue.take(3, Duration::from_secs(60)), Some(vec![5]));
        assert_eq!(queue.take(3, Duration::from_secs(60)), None);
        let queue = Queue::default();
        queue.push(1).unwrap();
        assert!(queue.abandon() == [1] && queue.is_empty() && queue.take(1, Duration::ZERO).is_none());
    }

    #[test]
    fn those_who_wait_are_told_of_the_end() {
        let queue: Queue<u8> = Queue::default();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| queue.take(3, Duration::from_secs(60)));
            queue.close();
            assert_eq!(waits.join().unwrap(), None);
        });
    }
}
