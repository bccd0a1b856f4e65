//! Checkpoints: headers, pickles, configs.

use super::{fixtures, parts, scratch, sound};
use candle_core::{DType, Device};
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use vitx::encoder::Keep;
use vitx::input::prepare::{size, Shape};
use vitx::input::text::Text;
use vitx::model::{Access, Checkpoint, Classes, Files, Model, Outputs, Processor};
use vitx::run::Batch;
use vitx::target::Target;

/// `H` and a header, which is given the data that it asks for; anything else is a file.
pub fn safetensors(data: &[u8]) {
    let file = match data {
        [b'H', header @ ..] => headed(header),
        _ => data.to_vec(),
    };
    weights("model.safetensors", &file);
}

/// A header with its length before and as many zeros behind as its tensors take, within reason.
fn headed(header: &[u8]) -> Vec<u8> {
    let end = |tensor: &Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let parsed: Value = serde_json::from_slice(header).unwrap_or_default();
    let ends = parsed.as_object().into_iter().flat_map(|all| all.values().filter_map(end));
    let data = vec![0; ends.max().unwrap_or(0).min(1 << 16) as usize];
    [&(header.len() as u64).to_le_bytes(), header, &data].concat()
}

/// `Z` and the pickle of an archive, `L` and a legacy file without its first three pickles; anything else is a file.
pub fn pickle(data: &[u8]) {
    let file = match data {
        [b'Z', pickle @ ..] => archive(pickle),
        [b'L', rest @ ..] => {
            [&b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}."[..], rest]
                .concat()
        }
        _ => data.to_vec(),
    };
    weights("pytorch_model.bin", &file);
}

/// What torch.save makes of a pickle and two storages.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[0; 256]), ("a/data/1", &[1; 40])] {
        let written = zip.start_file(name, stored).map(|()| zip.write_all(bytes));
        assert!(matches!(written, Ok(Ok(()))), "an archive in memory");
    }
    zip.finish().map(Cursor::into_inner).unwrap_or_default()
}

/// Reads every tensor of a file.
fn weights(name: &str, bytes: &[u8]) {
    let folder = scratch().join(name.replace('.', "-"));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(name), bytes));
    written.expect("a file that is fed");
    let Some(weights) = sound(Files::Directory(folder).weights()) else { return };
    let _ = (weights.notes(), weights.parameters());
    for (name, entry) in weights.entries().iter().take(64) {
        sound(weights.get(name, &entry.shape, DType::F32, &Device::Cpu));
    }
}

/// The files of a folder in this order, a NUL between them, and a `--size` behind the first two. Other files are those of the tiny
/// model that the config names as its `fixture`.
const FILES: &[&str] = &[
    "config.json",
    "preprocessor_config.json",
    "",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
];

/// Opens a checkpoint, says all that is known of it, loads it, and explains an input.
pub fn config(data: &[u8]) {
    let parts = parts(data);
    let folder = folder(parts.first().unwrap_or(&&b""[..]));
    for (part, name) in parts.iter().zip(FILES).filter(|(part, name)| !name.is_empty() && !part.is_empty()) {
        let file = folder.join(name);
        // Over a link the fixture itself would be written.
        let _ = std::fs::remove_file(&file);
        std::fs::write(file, part).expect("a file that is fed");
    }
    let text = parts.get(2).map(|part| String::from_utf8_lossy(part)).unwrap_or_default();
    let shape = Shape { size: sound(size(&text)), ..Shape::default() };
    opened(&folder, shape, Outputs::default());
    let classes = Classes { names: vec!["a".into(), "b".into()], template: Some("a {}".into()) };
    opened(&folder, shape, Outputs { classes: Some(classes), head: None });
}

/// A folder with the files of the fixture, but the config.
fn folder(config: &[u8]) -> PathBuf {
    let folder = scratch().join("checkpoint");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("1_Pooling")).expect("a folder for files that are fed");
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let named = config.get("fixture").and_then(Value::as_str).unwrap_or("vit-square");
    let model = fixtures().join(named.replace("..", "")).join("model");
    for file in std::fs::read_dir(model).into_iter().flatten().flatten() {
        let _ = std::os::unix::fs::symlink(file.path(), folder.join(file.file_name()));
    }
    folder
}

fn opened(folder: &Path, shape: Shape, outputs: Outputs) {
    let id = folder.to_string_lossy();
    let Some(checkpoint) = sound(Checkpoint::open_as(&id, &Access::default(), &outputs)) else { return };
    let _ = (checkpoint.facts(), checkpoint.structure());
    if let Some(demand) = sound(checkpoint.demand()) {
        let _ = checkpoint.record(demand);
    }
    sound(checkpoint.check_shape(shape));
    sound(checkpoint.naming());
    let Some(()) = sound(checkpoint.check_weights()).map(drop) else { return };
    if let Some(model) = sound(checkpoint.load(DType::F32, &Device::Cpu)) {
        explained(&model, shape);
    }
}

/// Explains a small input, where the model would see few tokens.
fn explained(model: &Model, shape: Shape) {
    let tokens = model.checkpoint.tokens(shape);
    let _ = (model.encoder.bytes(tokens, Keep::Layers), model.encoder.least_bytes(tokens));
    let made = match &model.checkpoint.processor {
        Processor::Image(processor) => {
            let processor = processor.clone().adapted(shape.size, shape.fit);
            let picture = RgbImage::from_fn(20, 24, |x, y| Rgb([x as u8, y as u8, 200]));
            let pixels = processor.input_size().map_or(0, |(h, w)| h.saturating_mul(w));
            if (1 << 19..=1 << 25).contains(&pixels) {
                return; // allowed, and slow
            }
            let Some(prepared) = sound(processor.apply(&picture)) else { return };
            if prepared.pixels.len() > 1 << 18 {
                return;
            }
            sound(model.image_inputs(&[prepared]))
        }
        Processor::Text(processor) => {
            let text = Text { first: "a good film".into(), second: None };
            let Some(ready) = sound(processor.apply(&text)) else { return };
            sound(model.text_inputs(&[ready]))
        }
    };
    let Some((inputs, layouts)) = made else { return };
    if layouts.iter().any(|layout| layout.len() > 512) {
        return;
    }
    let Some(batch) = sound(Batch::new(&model.encoder, inputs, layouts)) else { return };
    let Some(logits) = sound(batch.logits()) else { return };
    let Some(method) = sound(vitx::method::parse("gae")) else { return };
    let outputs = logits.first().map(|logits| Target::Predicted.resolve(logits)).unwrap_or_default();
    if let Some(pass) = sound(batch.pass(outputs)) {
        sound(method.explain(&pass.run(0)));
    }
}
