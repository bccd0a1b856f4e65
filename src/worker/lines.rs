//! Requests a line each, answers as lines: what a pipe carries.

use super::answer::Told;
use super::engine::Engine;
use super::room::Place;
use super::{Failure, Kind};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often it is looked whether to go on while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Whole(Vec<u8>),
    /// Its beginning was dropped.
    TooLong,
}

/// Answers on their way out.
struct Writer<W> {
    write: W,
    /// In the order of the requests; else as they come.
    ordered: bool,
    next: usize,
    waiting: BTreeMap<usize, (String, Place)>,
    failed: Option<Error>,
}

impl<W: FnMut(&[u8]) -> Result<()>> Writer<W> {
    /// Takes the answer to the request of this number. Its place is free once it is written: who does not read answers is
    /// not asked for more.
    fn take(&mut self, number: usize, text: String, place: Place) {
        if self.failed.is_some() {
            return;
        }
        let ready: Vec<(String, Place)> = if self.ordered {
            self.waiting.insert(number, (text, place));
            std::iter::from_fn(|| {
                let next = self.waiting.remove(&self.next)?;
                self.next += 1;
                Some(next)
            })
            .collect()
        } else {
            vec![(text, place)]
        };
        for (text, place) in ready {
            if let Err(e) = (self.write)(text.as_bytes()) {
                self.failed = Some(e);
                self.waiting.clear();
                return;
            }
            drop(place);
        }
    }
}

/// Answers the lines of `input` with lines that are handed to `write`, in the order of the requests unless told otherwise. Ends when
/// the input has ended and all is answered, or when the engine is no longer going.
///
/// # Errors
/// What `write` and reading report.
pub fn serve(
    engine: &Engine<'_>,
    input: impl BufRead + Send + 'static,
    write: impl FnMut(&[u8]) -> Result<()> + Send + 'static,
    ordered: bool,
) -> Result<()> {
    let writer = Writer { write, ordered, next: 0, waiting: BTreeMap::new(), failed: None };
    let writer = Arc::new(Mutex::new(writer));
    let failed = || writer.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
    let read = engine.open(|| bring(engine, input, &writer, &|| engine.going() && !broken(&writer)));
    failed().map_or(read, Err)
}

fn broken<W>(writer: &Mutex<Writer<W>>) -> bool {
    writer.lock().unwrap_or_else(PoisonError::into_inner).failed.is_some()
}

/// Brings the lines of the input into the house, one place each.
fn bring<W: FnMut(&[u8]) -> Result<()> + Send + 'static>(
    engine: &Engine<'_>,
    input: impl BufRead + Send + 'static,
    writer: &Arc<Mutex<Writer<W>>>,
    going: &dyn Fn() -> bool,
) -> Result<()> {
    let (send, receive) = mpsc::sync_channel(1);
    let limit = engine.intake().limits.line;
    // Nobody can wake a thread that waits for a line: it is left behind when the worker is stopped.
    std::thread::spawn(move || {
        let mut input = input;
        while let Some(line) = next(&mut input, limit).transpose() {
            let last = line.is_err();
            if send.send(line).is_err() || last {
                return;
            }
        }
    });
    let (mut number, mut asked) = (0, 0);
    while going() {
        let line = match receive.recv_timeout(LOOK) {
            Ok(line) => line.map_err(|e| Error::Input(format!("the requests cannot be read: {e}")))?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        number += 1;
        let bytes = match &line {
            Came::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
            Came::Whole(line) => line.len(),
            Came::TooLong => 0,
        };
        let Some(place) = engine.intake().room.enter(bytes, going) else { break };
        let (own, writer) = (asked, Arc::clone(writer));
        asked += 1;
        let then = Box::new(move |told: Told, place: Place| {
            writer.lock().unwrap_or_else(PoisonError::into_inner).take(own, told.text, place);
        });
        match line {
            Came::Whole(line) => engine.intake().submit((line, number), place, Default::default(), then),
            Came::TooLong => {
                let said = format!("the line has more than {limit} bytes");
                engine.intake().unread(number, place, Failure { kind: Kind::Request, said }, then);
            }
        }
    }
    Ok(())
}

/// The next line without its end; of one that is too long only that it is.
fn next(input: &mut impl BufRead, limit: usize) -> std::io::Result<Option<Came>> {
    let mut line = Vec::new();
    input.by_ref().take(limit as u64 + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && line.len() > limit {
        drop(line);
        skip(input)?;
        return Ok(Some(Came::TooLong));
    }
    while line.last().is_some_and(|end| b"\r\n".contains(end)) {
        line.pop();
    }
    Ok(Some(Came::Whole(line)))
}

/// Drops what is left of a line.
fn skip(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let (used, ended) = match input.fill_buf()? {
            [] => return Ok(()),
            buffer => match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), false),
            },
        };
        input.consume(used);
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_long_ones_are_skipped() {
        let mut input = std::io::Cursor::new(b"one\r\n\n0123456789012345\ntwo\n01234567\nend".to_vec());
        let all: Vec<Came> = std::iter::from_fn(|| next(&mut input, 8).unwrap()).collect();
        let whole = |text: &str| Came::Whole(text.into());
        assert_eq!(all, [whole("one"), whole(""), Came::TooLong, whole("two"), whole("01234567"), whole("end")]);
    }

    #[test]
    fn answers_keep_their_order_and_places_until_they_are_written() {
        let room = super::super::room::Room::new(9, 9);
        let place = || room.try_enter(0).unwrap();
        let written = Arc::new(Mutex::new(String::new()));
        let own = Arc::clone(&written);
        let write = move |bytes: &[u8]| {
            own.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            if bytes == b"3" {
                Err(Error::Input("full".into()))
            } else {
                Ok(())
            }
        };
        let mut writer = Writer { write, ordered: true, next: 0, waiting: BTreeMap::new(), failed: None };
        for number in [1, 2, 0, 4, 5] {
            writer.take(number, number.to_string(), place());
        }
        assert!(*written.lock().unwrap() == "012" && room.inside() == 2);
        writer.take(3, "3".into(), place());
        assert!(*written.lock().unwrap() == "0123" && room.inside() == 0 && writer.failed.is_some());
    }
}
