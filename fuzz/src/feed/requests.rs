//! Lines that come in at a worker.

use super::{fixtures, scratch};
use candle_core::{DType, Device};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use vitx::input::Shape;
use vitx::model::{Access, Checkpoint, Model};
use vitx::run::Memory;
use vitx::worker::{lines, Engine, Limits, Root, Settings};

/// `T` and lines for a model of texts; anything else is lines for a model of pictures.
pub fn worker_line(data: &[u8]) {
    static PICTURES: OnceLock<Engine<'static>> = OnceLock::new();
    static TEXTS: OnceLock<Engine<'static>> = OnceLock::new();
    let (engine, lines) = match data {
        [b'T', lines @ ..] => (TEXTS.get_or_init(|| engine("heads/bert-nli")), lines),
        lines => (PICTURES.get_or_init(|| engine("families/timm-vit")), lines),
    };
    served(engine, lines);
}

/// Files that requests may name.
const GIVEN: [&str; 2] = ["a.txt", "a.png"];

fn engine(fixture: &str) -> Engine<'static> {
    let folder = fixtures().join(fixture).join("model");
    let checkpoint = Checkpoint::open(&folder.to_string_lossy(), &Access::default());
    let loaded = checkpoint.and_then(|c| c.load(DType::F32, &Device::Cpu));
    let model: &Model = Box::leak(Box::new(loaded.expect("a fixture")));
    let root = scratch().join("root");
    std::fs::create_dir_all(&root).expect("a folder for files that are fed");
    std::fs::write(root.join(GIVEN[0]), "a good film").expect("a file that is fed");
    let picture = image::RgbImage::from_pixel(9, 7, image::Rgb([9, 99, 199]));
    picture.save(root.join(GIVEN[1])).expect("a file that is fed");
    let settings = Settings {
        shape: Shape { max_pixels: Some(1 << 16), ..Shape::default() },
        memory: Some(Memory { kept: 64 << 20, most: 64 << 20 }),
        limits: Limits { line: 1 << 16, picture: 1 << 15, text: 1 << 12 },
        time: Some(Duration::from_secs(1)),
        root: Some(Root::new(&root).expect("a folder that was made")),
        ..Settings::default()
    };
    Engine::new(model, settings, &|| true).expect("the usual settings")
}

/// Every line that is not blank has an answer, and every answer is lines of JSON.
fn served(engine: &Engine<'_>, input: &[u8]) {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&answers);
    let write = move |bytes: &[u8]| {
        own.lock().unwrap_or_else(|e| e.into_inner()).extend_from_slice(bytes);
        Ok(())
    };
    let served = lines::serve(engine, Cursor::new(input.to_vec()), write, true);
    served.expect("lines in memory are read and written");
    let answers = answers.lock().unwrap_or_else(|e| e.into_inner());
    let mut answered = 0;
    for line in answers.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // Names of requests are as they came, and may be deep.
        let answer: HashMap<String, &RawValue> = serde_json::from_slice(line).expect("an answer is JSON");
        let error = answer.get("error").map_or("", |error| error.get());
        assert!(!error.contains("vitx itself failed"), "{error}");
        answered += usize::from(answer.get("part").is_none_or(|part| part.get() == "1"));
    }
    let asked = input.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)).count();
    assert!(answered == asked, "{asked} lines, {answered} answers");
    for made in std::fs::read_dir(scratch().join("root")).into_iter().flatten().flatten() {
        if !GIVEN.contains(&made.file_name().to_string_lossy().as_ref()) {
            let _ = std::fs::remove_dir_all(made.path()).or_else(|_| std::fs::remove_file(made.path()));
        }
    }
}
