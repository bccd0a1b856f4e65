//! A panic is a fault of the program. It is made the error of the input it happened on, so that it never ends a run.

use crate::error::{Error, Result};
use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};
use std::sync::Mutex;

/// What the last panic said, and where; on whatever thread it was.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Panics are kept for the error that [`guarded`] makes of them, and not printed; with `RUST_BACKTRACE` they are. For programs:
/// a library that is part of another leaves that program's panics alone.
pub fn keep_panics() {
    let usual = take_hook();
    set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
        let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
        if let Ok(mut last) = LAST.lock() {
            *last = Some(format!("{text}{place}"));
        }
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
            usual(info);
        }
    }));
}

/// The result of `work`, or what a panic in it said.
///
/// # Errors
/// [`Error::Fault`] for a panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T> {
    // What the work has borrowed is dropped or only read after a panic: an input that failed is not looked at again.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        let said = LAST.lock().ok().and_then(|mut last| last.take()).unwrap_or_else(|| "panic".into());
        Error::Fault(format!("vitx itself failed here: {said}; please report it, with this input"))
    })
}

/// The result of work on one input, with a panic as its error.
///
/// # Errors
/// The work's own, and [`Error::Fault`].
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(work)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_next_input_goes_on() {
        let at = |values: &[f32], i: usize| guarded(|| Ok(values[i]));
        let error = at(&[1.0], 3).unwrap_err().to_string();
        assert!(error.contains("vitx itself failed"), "{error}");
        assert_eq!(at(&[1.0], 0).unwrap(), 1.0);
        assert!(guarded(|| Err::<(), _>(Error::Input("own".into()))).unwrap_err().to_string() == "own");
    }
}
