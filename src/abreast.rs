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
    mut each: impl FnMut(R) -> std::result::Result<bool, E>,
) -> std::result::Result<(), E> {
    let mut things = things.into_iter().fuse();
    let work = &work;
    rayon::in_place_scope(|scope| {
        let (send, receive) = mpsc::channel::<(usize, Result<R>)>();
        let (mut begun, mut ended, mut handed) = (0, 0, 0);
        let mut early = BTreeMap::new();
        loop {
            while begun - ended < most.max(1) && begun - handed < WAITING * most.max(1) {
                let Some(thing) = things.next() else { break };
                let (send, number) = (send.clone(), begun);
                // Nobody receives any more when `each` has ended the work.
                scope.spawn(move |_| drop(send.send((number, caught(|| work(thing))))));
                begun += 1;
            }
            if let Some(result) = early.remove(&handed) {
                handed += 1;
                if !each(result?)? {
                    return Ok(());
                }
                continue;
            }
            if begun == ended {
                return Ok(());
            }
            let lost = |_| Error::Fault("work that had begun was lost".into());
            let (number, result) = receive.recv().map_err(lost)?;
            early.insert(number, result);
            ended += 1;
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
