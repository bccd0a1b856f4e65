//! What each fuzz target does with the bytes it is given. The tests of the main package feed the kept corpora to the same functions,
//! with the stable compiler.
//!
//! Whatever comes in, an error that says what is wrong is fine. A panic is not, caught or not; nor is a block of memory that the
//! limits of the README beside this do not allow, nor a wait.

mod checkpoints;
mod inputs;
mod requests;

pub use checkpoints::{config, pickle, safetensors};
pub use inputs::{npy, picture, tokenizer};
pub use requests::worker_line;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;
use vitx::{Error, Result};

/// What came of it; a fault of vitx, which its guard makes an error, is a panic again.
fn sound<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Fault(said)) => panic!("{said}"),
        Err(error) => {
            let _ = error.to_string();
            None
        }
    }
}

/// Files that were given as one: the first up to the first NUL, and so on.
fn parts(data: &[u8]) -> Vec<&[u8]> {
    data.split(|byte| *byte == 0).collect()
}

/// A folder of this process, in memory where the system has such a one.
fn scratch() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let made = || {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        folder.expect("a folder for files that are fed")
    };
    FOLDER.get_or_init(made).path()
}

/// The tiny models of the tests.
fn fixtures() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if own.join("fuzz_targets").is_dir() { own.parent().unwrap_or(own) } else { own };
    root.join("tests/fixtures")
}
