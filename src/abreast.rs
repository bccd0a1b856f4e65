//! Work on many things, some at a time, each on a thread of the pool; what comes of it is handed on in order.

use crate::error::{Error, Result};
use crate::guard::caught;
use std::collections::BTreeMap;
use std::sync::mpsc;

/// Results that wait for an earlier one, for each thing that is worked on at a time.
const WAITING: usize = 3;

/// Does `work` on each of `things`, at most so many at a time, and hands the results to `each` in the order of the things. Both run
/// beside each other: `each` on this thread, which need not be quick. It answers whether to go on; what has begun is ended first.
/// Work that waits for the pool's other threads may do other work meanwhile: it must hold no lock then.
///
/// # Errors
/// Those of `each`, and [`Error::Fault`] for a panic in `work`.
pub fn abreast<T: Send, R: Send, E: From<Error>>(
    things: impl IntoIterator<Item = T>,
    most: usize,
    work: impl Fn(T) -> R + Sync,
    each: impl FnMut(R) -> std::result::Result<bool, E>,
) -> std::result::Result<(), E> {
    relay(things, most, (work, Passed::Done, |never: std::convert::Infallible| match never {}), each)
}

/// What becomes of a thing when the calling thread has had it.
pub enum Passed<Q, R> {
    /// It is worked on further.
    On(Q),
    /// It is done.
    Done(R),
}

/// What comes from the pool.
enum Event<P, R> {
    Before(Result<P>),
    After(Result<R>),
}

/// As [`abreast`], with work in three parts: the second one on this thread, in the order of the things, while the pool does the
/// first of later ones and the third of earlier ones.
///
/// # Errors
/// As [`abreast`].
pub fn relay<T: Send, P: Send, Q: Send, R: Send, E: From<Error>>(
    things: impl IntoIterator<Item = T>,
    most: usize,
    (before, mut here, after): (impl Fn(T) -> P + Sync, impl FnMut(P) -> Passed<Q, R>, impl Fn(Q) -> R + Sync),
    mut each: impl FnMut(R) -> std::result::Result<bool, E>,
) -> std::result::Result<(), E> {
    let mut things = things.into_iter().fuse();
    let (before, after, most) = (&before, &after, most.max(1));
    rayon::in_place_scope(|scope| {
        let (send, receive) = mpsc::channel::<(usize, Event<P, R>)>();
        let (mut begun, mut ended, mut passed, mut handed) = (0, 0, 0, 0);
        let (mut waiting, mut done) = (BTreeMap::new(), BTreeMap::new());
        let mut blocked = None;
        loop {
            for (number, event) in blocked.take().into_iter().chain(receive.try_iter()) {
                match event {
                    Event::Before(result) => {
                        waiting.insert(number, result);
                        ended += 1;
                    }
                    Event::After(result) => drop(done.insert(number, result)),
                }
            }
            while begun - ended < most && begun - handed < WAITING * most {
                let Some(thing) = things.next() else { break };
                let (send, number) = (send.clone(), begun);
                // Nobody receives any more when `each` has ended the work.
                scope.spawn(move |_| drop(send.send((number, Event::Before(caught(|| before(thing)))))));
                begun += 1;
            }
            if let Some(result) = done.remove(&handed) {
                handed += 1;
                if !each(result?)? {
                    return Ok(());
                }
            } else if let Some(result) = waiting.remove(&passed) {
                match here(result?) {
                    Passed::Done(result) => drop(done.insert(passed, Ok(result))),
                    Passed::On(thing) => {
                        let (send, number) = (send.clone(), passed);
                        scope.spawn(move |_| drop(send.send((number, Event::After(caught(|| after(thing)))))));
                    }
                }
                passed += 1;
            } else if handed == begun {
                return Ok(());
            } else {
                let lost = |_| Error::Fault("work that had begun was lost".into());
                blocked = Some(receive.recv().map_err(lost)?);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn results_come_in_order_and_few_are_begun_at_a_time() -> Result<()> {
        let (going, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |n: u64| {
            most.fetch_max(going.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros((n * 7919) % 900));
            going.fetch_sub(1, Ordering::SeqCst);
            n * n
        };
        let mut seen = Vec::new();
        abreast(0..60, 3, work, |square| {
            seen.push(square);
            Ok::<_, Error>(true)
        })?;
        assert_eq!(seen, (0..60).map(|n| n * n).collect::<Vec<u64>>());
        assert!(most.into_inner() <= 3);
        Ok(())
    }

    #[test]
    fn a_relay_s_second_part_runs_here_and_in_order() -> Result<()> {
        let (here, mut seen, mut handed) = (std::thread::current().id(), Vec::new(), Vec::new());
        let pause = |n: u64| std::thread::sleep(Duration::from_micros((n * 7919) % 900));
        let before = |n: u64| (pause(n), n).1;
        let second = |n: u64| {
            assert_eq!(std::thread::current().id(), here);
            seen.push(n);
            if n.is_multiple_of(3) {
                Passed::Done(n)
            } else {
                Passed::On(n)
            }
        };
        let after = |n: u64| (pause(n + 1), assert_ne!(std::thread::current().id(), here), n).2;
        relay(0..60, 2, (before, second, after), |n| {
            handed.push(n);
            Ok::<_, Error>(true)
        })?;
        assert!(seen == handed && handed == (0..60).collect::<Vec<u64>>());
        let failed = relay(0..9, 2, (|n| n, Passed::<i32, i32>::On, |_| panic!("no")), |_| Ok::<_, Error>(true));
        assert!(failed.is_err_and(|e| e.to_string().contains("vitx itself failed")));
        Ok(())
    }

    #[test]
    fn it_ends_where_it_is_told_and_where_it_fails() {
        let begun = AtomicUsize::new(0);
        let mut seen = 0;
        let work = |n: usize| (begun.fetch_add(1, Ordering::SeqCst), n).1;
        let ended = abreast(0..1000, 2, work, |n| {
            seen = n;
            Ok::<_, Error>(n < 5)
        });
        assert!(ended.is_ok() && seen == 5 && begun.into_inner() <= 5 + 1 + 2 * WAITING);
        let failed = abreast(0..9, 2, |n| n, |n| if n == 3 { Err(Error::Input("no".into())) } else { Ok(true) });
        assert!(failed.is_err_and(|e| e.to_string().contains("no")));
        let numbers = [1];
        let failed = abreast(0..9, 2, |n| numbers[n], |_| Ok::<_, Error>(true));
        assert!(failed.is_err_and(|e| e.to_string().contains("vitx itself failed")));
    }
}
