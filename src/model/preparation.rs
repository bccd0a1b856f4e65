//! How the inputs of a checkpoint are prepared, as its files say it.

use super::checkpoint::Files;
use super::config::Config;
use super::family;
use super::sentence::Sentence;
use super::spec::{EmbeddingSpec, Family, Spec, StepSpec};
use super::towers::{Classes, ZeroShot};
use crate::error::{Error, Result};
use crate::input::image::{ImageProcessor, Origin};
use crate::input::text::{Tables, TextProcessor};

/// The image processor of a checkpoint, and what is to be said of it. As in transformers, `image_processor` in
/// `processor_config.json` stands before `preprocessor_config.json`.
pub(super) fn image_processor(
    (files, config): (&Files, &Config),
    family: &Family,
    spec: &Spec,
    notes: &mut Vec<String>,
) -> Result<ImageProcessor> {
    const OWN: &str = "preprocessor_config.json";
    const JOINED: &str = "processor_config.json";
    let EmbeddingSpec::Patches { image, channels, table, .. } = spec.embedding else {
        return Err(Error::Model("an image family without patches".into()));
    };
    if let Some(timm) = config.get("pretrained_cfg").filter(|_| family.name == family::timm::FAMILY.name) {
        return ImageProcessor::from_timm(timm, channels);
    }
    let joined = files.json(JOINED)?.and_then(|json| json.get("image_processor").filter(|v| !v.is_null()).cloned());
    let (json, file) = match joined {
        Some(json) => (Some(json), JOINED),
        None => (files.json(OWN)?, OWN),
    };
    let Some(json) = json else {
        if !files.known_absent(OWN)? {
            return Err(Error::Model(format!("{OWN} is not in the cache, which is not the same as not existing: run once without --offline, so that it is fetched or known not to exist")));
        }
        notes.push(format!(
            "{OWN} is missing: pictures are resized to {}x{} (bilinear) and normalised with mean 0.5 and deviation 0.5 instead; transformers would refuse. Put the file of the model's training beside config.json",
            image.0, image.1
        ));
        return Ok(ImageProcessor::plain(image, channels));
    };
    let (processor, own) = ImageProcessor::from_json(&json, Origin { file, family: family.name, channels })?;
    notes.extend(own);
    let elsewhere = match table {
        Some(_) => "its position embeddings are interpolated",
        None => "the places of its patches are relative to the picture",
    };
    let trained = format!("the model was trained at {}x{}; {elsewhere}", image.0, image.1);
    match processor.input_size() {
        Some(size) if size == image => {}
        Some((h, w)) => notes.push(format!("{file} makes pictures of {h}x{w}, {trained}")),
        None => notes.push(format!("{file} makes pictures whose size depends on their own, {trained}")),
    }
    Ok(processor)
}

/// The text side of a model that compares pictures with texts.
pub(super) fn zero_shot((files, family): (&Files, &Family), classes: &Classes, spec: &mut Spec) -> Result<ZeroShot> {
    let Some(beside) = spec.beside.as_deref() else {
        return Err(Error::Usage(format!(
            "--classes names classes for models that compare pictures with texts, such as CLIP; this one ({}) {}",
            family.title,
            if spec.headless { "has no text tower" } else { "has its own" }
        )));
    };
    spec.headless = false;
    let processor = TextProcessor::read(&|name| files.read(name), family.name, tables(&beside.spec)?)?;
    let processor = if beside.filled { processor.filling_up() } else { processor };
    ZeroShot::new(classes, beside.clone(), &processor)
}

/// What the embedding of a text model holds.
pub(super) fn tables(spec: &Spec) -> Result<Tables> {
    match (&spec.embedding, spec.max_tokens()) {
        (EmbeddingSpec::Words { vocabulary, types, .. }, Some(positions)) => {
            Ok(Tables { positions, vocabulary: *vocabulary, types: *types })
        }
        _ => Err(Error::Model("a text family without words".into())),
    }
}

/// The text processor of a checkpoint; folders of sentence-transformers say how long texts may be, and what of a backbone is pooled.
pub(super) fn text_processor(files: &Files, family: &Family, spec: &mut Spec) -> Result<TextProcessor> {
    let mut tables = tables(spec)?;
    if spec.headless {
        spec.steps = Vec::new(); // a pooler is no part of the backbone
        if let Some(sentence) = Sentence::read(files)? {
            spec.pooling = sentence.pooling;
            spec.steps.extend(sentence.unit.then_some(StepSpec::Unit));
            tables.positions = sentence.limit.map_or(tables.positions, |n| n.min(tables.positions));
        }
    }
    TextProcessor::read(&|name| files.read(name), family.name, tables)
}
