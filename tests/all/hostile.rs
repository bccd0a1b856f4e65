//! Files that were made to break a reader: refused with a sentence, before anything is made room for, and without a wait.

use serde_json::json;
use std::time::{Duration, Instant};
use vitx::input::array;
use vitx::input::image::{decode_within, ImageProcessor, Pad};
use vitx::input::text::{Tables, TextProcessor};
use vitx::input::Input;

/// A TIFF of little-endian bytes: entries of tag, kind, count and value, and where the next directory stands.
fn tiff(entries: &[(u16, u16, u32, u32)], next: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = [b"II*\0", &8u32.to_le_bytes()[..], &(entries.len() as u16).to_le_bytes()].concat();
    for (tag, kind, count, value) in entries {
        bytes
            .extend([&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    [&bytes[..], &next.to_le_bytes(), data].concat()
}

#[test]
fn tiffs_that_lie() {
    let palette = |bits, more: &[_]| {
        let usual = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, bits), (262, 3, 1, 3), (320, 3, 3, 0)];
        tiff(&[&usual[..], more].concat(), 0, &[0; 64])
    };
    let many = vec![(65000u16, 3u16, 1u32, 0u32); 60_000];
    for (file, part) in [
        // Seven bits do not lie within bytes.
        (palette(7, &[]), "other than 1, 2, 4 or 8 bits"),
        (palette(0, &[]), "other than 1, 2, 4 or 8 bits"),
        (tiff(&[(256, 4, 1, 8), (257, 4, 1, 8), (279, 4, 8_000_000, 8)], 0, &[]), "8000000 values of tag 279"),
        // A directory that is followed by itself, again and again.
        (tiff(&many, 8, &[]), "Tiff"),
    ] {
        let start = Instant::now();
        let error = decode_within(&file, None, Some(1 << 20)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn arrays_that_lie() {
    let file = |header: &str| {
        let file = tempfile::Builder::new().suffix(".npy").tempfile().unwrap();
        let length = (header.len() as u16).to_le_bytes();
        std::fs::write(file.path(), [b"\x93NUMPY\x01\0", &length[..], header.as_bytes()].concat()).unwrap();
        file
    };
    let shaped = |shape: &str| file(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n"));
    // Examples without a pixel would be as many inputs.
    let examples = shaped("(1000000000000, 0, 1, 1)");
    assert_eq!(Input::Array(examples.path().into(), None).examples().len(), 1);
    let twice = "{'descr': '<f4', 'fortran_order': False, 'shape': (0,), \"shape\": (4294967296, 4294967296), }\n";
    for (file, part) in [
        (examples, "expected pixel values"),
        (shaped("(0, 3, 1099511627776, 1099511627776)"), "more than 2^64"),
        (shaped("(0, 3, 4, 4)"), "expected pixel values"),
        (file(twice), "a key twice"),
    ] {
        let error = array::read(file.path(), 3).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn processors_that_cut_out_the_moon() {
    let plain = || ImageProcessor::plain((8, 8), 3);
    let picture = image::RgbImage::new(8, 8);
    let padded = Some(Pad { size: (8192, 8192), centred: true });
    for (processor, size) in [
        // A crop of the size that is asked for, times the share of the first to the last.
        (ImageProcessor { crops: vec![(300, 300), (1, 1)], ..plain() }, Some((8192, 8192))),
        (ImageProcessor { crops: vec![(8192, 8192), (4, 4)], ..plain() }, None),
        (ImageProcessor { pad: padded, ..plain() }, None),
    ] {
        let error = processor.adapted(size, None).apply(&picture).unwrap_err().to_string();
        assert!(error.contains("would become"), "{error}");
    }
}

#[test]
fn tokenizers_that_do_not_fit_together() {
    let vocabulary = json!({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let named = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let longer = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"});
    let frame = |single: serde_json::Value| json!({"type": "TemplateProcessing", "single": single, "pair": [text], "special_tokens": {}});
    for (normalizer, post, part) in [
        (json!(null), frame(json!([named("[CSL]"), text])), "files are damaged: the tokenizer broke off"),
        (json!(null), frame(json!([text, text])), "repeats the text"),
        (
            json!({"type": "Sequence", "normalizers": vec![longer; 12]}),
            json!(null),
            "make 1000000000000 characters of one",
        ),
    ] {
        let json = json!({"version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": null, "post_processor": post,
            "decoder": null, "model": {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]"}});
        let file = |name: &str| Ok((name == "tokenizer.json").then(|| json.to_string().into_bytes()));
        let tables = Tables { positions: 16, vocabulary: 6, types: 2 };
        let error = TextProcessor::read(&file, "bert", tables).map(drop).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
