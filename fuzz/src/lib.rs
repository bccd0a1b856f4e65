//! The fuzz targets' common part.

mod feed;
mod memory;

pub use feed::{config, npy, pickle, picture, safetensors, tokenizer, worker_line};

use std::collections::HashSet;
use std::sync::Mutex;

/// Panics of vitx end the process before anything catches them. Those of other crates are vitx's business where it does not
/// catch them; where it does, they are told of once.
pub fn watched() {
    static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        if !place.contains("/registry/") {
            return abort(info);
        }
        let mut seen = SEEN.lock().unwrap_or_else(|e| e.into_inner());
        if seen.get_or_insert_with(HashSet::new).insert(place) {
            eprintln!("panic of another crate: {info}");
        }
    }));
}
