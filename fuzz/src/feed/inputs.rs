//! Inputs: pictures, arrays, and the tokenizers that texts go through.

use super::{parts, scratch, sound};
use vitx::input::array;
use vitx::input::image::{Fit, ImageProcessor, Window};
use vitx::input::prepare::Shape;
use vitx::input::text::{Tables, Text, TextProcessor, Tokenised};
use vitx::input::{Input, Preparer, Processor};

/// Pixels that a picture may have here.
pub const MOST_PIXELS: u64 = 1 << 20;

/// A picture's file.
pub fn picture(data: &[u8]) {
    let processor = Processor::Image(ImageProcessor::plain((32, 24), 3));
    let usual = Shape { max_pixels: Some(MOST_PIXELS), ..Shape::default() };
    let read = |shape: Shape| Preparer::new(&processor, shape).prepare(&Input::Bytes(data.to_vec()));
    if sound(read(Shape { fit: Some(Fit::Crop), ..usual })).is_none() {
        // Floats are read under a window alone.
        sound(read(Shape { window: Some(Window { low: 0.0, high: 255.0 }), ..usual }));
    }
}

/// An array's file.
pub fn npy(data: &[u8]) {
    let path = scratch().join("array.npy");
    std::fs::write(&path, data).expect("a file that is fed");
    sound(array::shape(&path));
    sound(array::vector(&path));
    let examples = Input::Array(path, None).examples();
    for channels in [3, 1] {
        let processor = Processor::Image(ImageProcessor::plain((8, 8), channels));
        let mut preparer = Preparer::new(&processor, Shape::default());
        for example in examples.iter().take(2).chain(examples.last()) {
            sound(preparer.prepare(example));
        }
    }
}

/// The files of a tokenizer in this order, a NUL between them; a text behind them.
const FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];

/// The letter of a family, the files of its tokenizer, a text.
pub fn tokenizer(data: &[u8]) {
    let Some((letter, files)) = data.split_first() else { return };
    let family = match letter {
        b'b' => "bert",
        b'r' => "roberta",
        b'x' => "xlm-roberta",
        b'd' => "deberta-v2",
        b'm' => "mpnet",
        b'c' => "clip",
        _ => "modernbert",
    };
    let parts = parts(files);
    let file = |name: &str| {
        let part = FILES.iter().position(|own| *own == name).and_then(|place| parts.get(place));
        Ok(part.filter(|part| !part.is_empty()).map(|part| part.to_vec()))
    };
    let tables = Tables { positions: 32, vocabulary: 1 << 16, types: 2 };
    let Some(processor) = sound(TextProcessor::read(&file, family, tables)) else { return };
    let own = parts.get(FILES.len()).map(|part| String::from_utf8_lossy(part).into_owned()).unwrap_or_default();
    let texts = [
        "It's a good, good film! 42",
        "H\u{e9}llo\u{301} \u{4f60}\u{597d} \u{1f600}\u{200d}x\u{ad} \t\n<s> [MASK]",
        &own,
    ];
    for text in texts.map(|text| Text { first: text.into(), second: None }) {
        known(sound(processor.apply(&text)), &text);
        known(sound(processor.in_windows(&text, 2)), &text);
    }
    let pair = Text { first: texts[0].into(), second: Some(own) };
    known(sound(processor.apply(&pair)), &pair);
    sound(processor.filling_up().apply(&pair));
}

/// Tokens lie in their text.
fn known(tokenised: Option<Tokenised>, text: &Text) {
    for token in tokenised.iter().flat_map(|t| &t.layout.tokens) {
        let own = if token.text == 0 { Some(&text.first) } else { text.second.as_ref() };
        let characters = own.map_or(0, |own| own.chars().count());
        assert!(token.start <= token.end && token.end <= characters, "{token:?} in {characters} characters");
    }
}
