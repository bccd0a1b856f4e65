//! The inputs that fuzzing kept, fed to the same functions: nothing panics, whatever comes in. See `fuzz/README.md`.

use crate::support::root;

#[path = "../../fuzz/src/feed/mod.rs"]
mod feed;

fn fed(target: &str, feed: fn(&[u8])) {
    let folder = root().join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{} holds {} files", folder.display(), files.len());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let result = std::panic::catch_unwind(|| feed(&bytes));
        assert!(result.is_ok(), "{} panics", file.display());
    }
}

#[test]
fn safetensors() {
    fed("safetensors", feed::safetensors);
}

#[test]
fn pickles() {
    fed("pickle", feed::pickle);
}

#[test]
fn configs() {
    fed("config", feed::config);
}

#[test]
fn pictures() {
    fed("picture", feed::picture);
}

#[test]
fn arrays() {
    fed("npy", feed::npy);
}

#[test]
fn tokenizers() {
    fed("tokenizer", feed::tokenizer);
}

#[test]
fn worker_lines() {
    fed("worker_line", feed::worker_line);
}
