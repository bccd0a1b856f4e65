//! Tokenizer files, byte-level text and pairs, with transformers' tokens. What stands here as right was read off transformers 5.24; where its
//! 4.57 gives something else, vitx refuses.

use serde_json::{json, Map, Value};
use std::path::Path;
use vitx::explanation::{Explanation, Layout, TextLayout};
use vitx::input::image::View;
use vitx::input::text::{Text, Tokenised};
use vitx::model::{Access, Checkpoint, Processor};
use vitx::render::scale::SharedRanges;
use vitx::render::table::{self, Group};
use vitx::render::{Scene, Style};
use vitx::target::Output;

const WORDS: [&str; 21] = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "good",
    "bad",
    "the",
    "film",
    "is",
    "was",
    "Film",
    "GOOD",
    "covid",
    "##19",
    "19",
    "c",
    "##a",
    "##f",
    "cafe",
    "caf\u{e9}",
];

const MERGES: [&str; 9] = ["g o", "o d", "go od", "\u{120} good", "\u{120} b", "a d", "\u{120}b ad", "b a", "b ad"];

/// A checkpoint's small files.
struct Files {
    config: Value,
    files: Vec<(&'static str, String)>,
}

fn bert(files: Vec<(&'static str, String)>) -> Files {
    let config = json!({"model_type": "bert", "max_position_embeddings": 16, "vocab_size": 24, "type_vocab_size": 2});
    Files { config, files }
}

fn roberta(mut files: Vec<(&'static str, String)>) -> Files {
    if files.iter().all(|(name, _)| *name != "tokenizer.json") {
        let own = [("vocab.json", json!(byte_words()).to_string()), ("merges.txt", MERGES.join("\n"))];
        files.splice(0..0, own);
    }
    let config = json!({"model_type": "roberta", "max_position_embeddings": 18, "vocab_size": 272, "type_vocab_size": 1, "pad_token_id": 1});
    Files { config, files }
}

/// GPT-2's bytes as characters, and a few merges.
fn byte_words() -> Map<String, Value> {
    let plain = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut next = 255;
    let bytes = (0..256u32).map(|b| {
        next += u32::from(!plain(b));
        char::from_u32(if plain(b) { b } else { next }).unwrap().to_string()
    });
    let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"].map(String::from);
    let merged = MERGES.iter().map(|m| m.replace(' ', ""));
    let order = ["go", "od", "good", "\u{120}good", "\u{120}b", "ad", "\u{120}bad", "ba", "bad"];
    assert_eq!(merged.collect::<Vec<_>>(), order);
    let all = special.into_iter().chain(bytes).chain(order.map(String::from));
    all.enumerate().map(|(i, w)| (w, json!(i))).collect()
}

fn vocab() -> (&'static str, String) {
    ("vocab.txt", WORDS.join("\n"))
}

fn config(value: Value) -> (&'static str, String) {
    ("tokenizer_config.json", value.to_string())
}

/// `tokenizer.json` of a BERT, with parts of it replaced.
fn word_json(words: &[&str], change: &[(&str, Value)]) -> (&'static str, String) {
    let piece = |token: &str, t: u32| json!({"SpecialToken": {"id": token, "type_id": t}});
    let text = |id: &str, t: u32| json!({"Sequence": {"id": id, "type_id": t}});
    let special = |token: &str, id: u32| json!({"id": token, "ids": [id], "tokens": [token]});
    let added = |(id, content): (usize, &&str)| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": words.iter().take(5).enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0)],
            "pair": [piece("[CLS]", 0), text("A", 0), piece("[SEP]", 0), text("B", 1), piece("[SEP]", 1)],
            "special_tokens": {"[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3)},
        },
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": words.iter().enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect::<Map<_, _>>()},
    });
    change.iter().for_each(|(pointer, value)| *json.pointer_mut(pointer).unwrap() = value.clone());
    ("tokenizer.json", json.to_string())
}

/// `tokenizer.json` of a RoBERTa, with parts of it replaced.
fn byte_json(change: &[(&str, Value)]) -> (&'static str, String) {
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": false},
        "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": byte_words(), "merges": MERGES},
    });
    change.iter().for_each(|(pointer, value)| *json.pointer_mut(pointer).unwrap() = value.clone());
    ("tokenizer.json", json.to_string())
}

impl Files {
    fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn write(&self, to: &Path) {
        std::fs::write(to.join("config.json"), self.config.to_string()).unwrap();
        self.files.iter().for_each(|(name, text)| std::fs::write(to.join(name), text).unwrap());
    }

    fn open(&self) -> vitx::Result<Checkpoint> {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        Checkpoint::open(dir.path().to_str().unwrap(), &Access::default())
    }

    fn apply(&self, texts: &[&str]) -> vitx::Result<Tokenised> {
        let checkpoint = self.open()?;
        let Processor::Text(processor) = &checkpoint.processor else { panic!("no text model") };
        processor.apply(&Text { first: texts[0].into(), second: texts.get(1).map(|t| t.to_string()) })
    }

    /// Ids and types of a text that must work.
    fn ids(&self, texts: &[&str]) -> (Vec<u32>, Vec<u32>) {
        let t = self.apply(texts).unwrap_or_else(|e| panic!("{texts:?}: {e}"));
        (t.ids, t.types)
    }

    fn refused(&self, texts: &[&str], parts: &[&str]) {
        let error = self.apply(texts).expect_err(texts[0]).to_string();
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    }
}

#[test]
fn tokenizer_config_counts_more_than_tokenizer_json() {
    let normaliser = |key: &'static str, value: Value| (["/normalizer/", key].concat(), value);
    let (lower, chinese) = (normaliser("lowercase", json!(false)), normaliser("handle_chinese_chars", json!(false)));
    let chinese_words = [&WORDS[..], &["\u{859b}", "\u{859b}\u{5b9a}"]].concat();
    let table: [(Files, &str, &[u32]); 8] = [
        (bert(vec![vocab(), config(json!({"do_lower_case": false}))]), "the Film is GOOD", &[2, 7, 11, 9, 12, 3]),
        (
            bert(vec![word_json(&WORDS, &[]), config(json!({"do_lower_case": false}))]),
            "the Film is GOOD",
            &[2, 7, 11, 9, 12, 3],
        ),
        (bert(vec![word_json(&WORDS, &[(&lower.0, lower.1)])]), "the Film GOOD caf\u{e9}", &[2, 7, 8, 5, 19, 3]),
        (
            bert(vec![word_json(&WORDS, &[]), config(json!({"do_lower_case": false, "strip_accents": true}))]),
            "caf\u{e9} Film GOOD",
            &[2, 19, 11, 12, 3],
        ),
        (
            bert(vec![word_json(&chinese_words, &[]), config(json!({"tokenize_chinese_chars": false}))]),
            "\u{859b}\u{5b9a} good",
            &[2, 22, 5, 3],
        ),
        (
            bert(vec![word_json(&chinese_words, &[(&chinese.0, chinese.1)])]),
            "\u{859b}\u{859b} good",
            &[2, 21, 21, 5, 3],
        ),
        (bert(vec![word_json(&WORDS, &[("/post_processor", Value::Null)])]), "good", &[2, 5, 3]),
        (bert(vec![("vocab.txt", WORDS.join(" \r\n"))]), "good caf\u{e9} bad", &[2, 5, 19, 6, 3]),
    ];
    for (files, text, want) in table {
        assert_eq!(files.ids(&[text]).0, want, "{text}");
    }
}

#[test]
fn a_space_before_the_first_word_is_the_config_s_to_add() {
    let json_true = || byte_json(&[("/pre_tokenizer/add_prefix_space", json!(true))]);
    let stated = |b: bool| config(json!({"add_prefix_space": b}));
    let (bare, spaced) = ([0, 263, 267, 2], [0, 264, 267, 2]);
    for (files, want) in [
        (vec![byte_json(&[])], bare),
        (vec![json_true()], bare),
        (vec![byte_json(&[]), stated(true)], spaced),
        (vec![json_true(), stated(true)], spaced),
        (vec![stated(true)], spaced),
        (vec![stated(false)], bare),
    ] {
        assert_eq!(roberta(files).ids(&["good bad"]).0, want);
    }
    let pair = roberta(vec![stated(true)]).ids(&["good", "bad"]).0;
    assert_eq!(pair, [0, 264, 2, 2, 267, 2]);
}

#[test]
fn added_tokens_come_from_every_file() {
    let decoder = |normalized: bool| json!({"added_tokens_decoder": {"21": {"content": "Covid19", "normalized": normalized, "lstrip": false, "rstrip": false, "single_word": false, "special": false}}});
    let added = |id: u32| ("added_tokens.json", json!({"covid19": id}).to_string());
    let list = ("added_tokens.json", json!({"[ENT]": 21}).to_string());
    let map = ("special_tokens_map.json", json!({"additional_special_tokens": ["[ENT]"]}).to_string());
    let table: [(Files, &str, &[u32]); 6] = [
        (bert(vec![vocab(), added(21)]), "covid19 is bad", &[2, 21, 9, 6, 3]),
        (bert(vec![word_json(&WORDS, &[]), added(21)]), "covid19 is bad", &[2, 21, 9, 6, 3]),
        (roberta(vec![("added_tokens.json", json!({"covid19": 270}).to_string())]), "covid19 bad", &[0, 270, 267, 2]),
        (bert(vec![vocab(), config(decoder(true))]), "covid19 COVID19 is bad", &[2, 21, 21, 9, 6, 3]),
        (bert(vec![vocab(), config(decoder(false))]), "covid19 Covid19 is bad", &[2, 13, 14, 21, 9, 6, 3]),
        (bert(vec![vocab(), list, map]), "good [ENT] bad", &[2, 5, 21, 6, 3]),
    ];
    for (files, text, want) in table {
        assert_eq!(files.ids(&[text]).0, want, "{text}");
    }
    bert(vec![vocab(), added(23)]).refused(&["covid19"], &["added_tokens.json", "`covid19`", "token 23", "token 21"]);
    bert(vec![vocab(), ("added_tokens.json", "{\"a\": -1}".into())])
        .refused(&["a"], &["added_tokens.json", "`a` is -1"]);
    let beyond = bert(vec![vocab(), added(21)]).with("vocab_size", json!(21));
    assert_eq!(beyond.ids(&["good"]).0, [2, 5, 3]);
    beyond.refused(&["covid19 bad"], &["token `covid19` has id 21", "ids 0 to 20", "vocab_size 21"]);
}

#[test]
fn special_tokens_have_the_names_that_the_files_give_them() {
    let renamed = WORDS.map(|w| match w {
        "[CLS]" => "<s>",
        "[SEP]" => "</s>",
        "[UNK]" => "<unk>",
        other => other,
    });
    let names = json!({"cls_token": "<s>", "sep_token": {"content": "</s>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false}, "unk_token": "<unk>"});
    let words = ("vocab.txt", renamed.join("\n"));
    for place in ["tokenizer_config.json", "special_tokens_map.json"] {
        let files = bert(vec![words.clone(), (place, names.to_string())]);
        assert_eq!(files.ids(&["good zzz"]).0, [2, 5, 1, 3], "{place}");
        assert_eq!(files.ids(&["good", "bad"]), (vec![2, 5, 3, 6, 3], vec![0, 0, 0, 1, 1]), "{place}");
    }
    let split = |b: bool| bert(vec![vocab(), config(json!({"split_special_tokens": b}))]).ids(&["good [SEP] bad"]).0;
    assert_eq!((split(true), split(false)), (vec![2, 5, 1, 1, 1, 6, 3], vec![2, 5, 3, 6, 3]));
    let mask = json!({"__type": "AddedToken", "content": "<mask>", "lstrip": true, "normalized": false, "rstrip": false, "single_word": false});
    let files = roberta(vec![config(json!({"mask_token": mask}))]);
    assert_eq!(files.ids(&["good <mask> bad"]).0, [0, 263, 4, 267, 2]);
}

#[test]
fn long_texts_are_cut_where_the_files_say() {
    let cut = |settings: Value, positions: u32| {
        bert(vec![vocab(), config(settings)]).with("max_position_embeddings", json!(positions))
    };
    let whole = [2, 5, 6, 7, 8, 3];
    for limit in [json!(0), json!(-1), json!(1e30), json!(1000000000000000019884624838656u128 as f64), Value::Null] {
        assert_eq!(cut(json!({"model_max_length": limit}), 16).ids(&["good bad the film"]).0, whole, "{limit}");
    }
    for settings in [json!({"model_max_length": 5}), json!({"model_max_length": 5.0}), json!({"max_len": 5})] {
        assert_eq!(cut(settings, 16).ids(&["good bad the film"]).0, [2, 5, 6, 7, 3]);
    }
    let left = || json!({"truncation_side": "left"});
    let t = cut(left(), 5).apply(&["good bad the film"]).unwrap();
    assert_eq!(t.ids, [2, 6, 7, 8, 3]);
    assert_eq!(t.layout.truncation().unwrap(), "its first token was left out (up to character 4)");
    let t = cut(left(), 8).apply(&["good bad the film", "is was good bad"]).unwrap();
    assert_eq!((t.ids, t.types), (vec![2, 7, 8, 3, 10, 5, 6, 3], vec![0, 0, 0, 0, 1, 1, 1, 1]));
    let t = cut(json!({}), 8).apply(&["good", "is was bad the film good good"]).unwrap();
    assert_eq!(t.ids, [2, 5, 3, 9, 10, 6, 7, 3]);
    let said = t.layout.truncation().unwrap();
    assert_eq!(said, "the last 3 tokens of its second text were left out (from character 15 on)");
    cut(json!({"truncation_side": "middle"}), 8).refused(&["good"], &["`truncation_side`", "middle"]);
    cut(json!({"model_max_length": 2}), 8).refused(&["good"], &["model_max_length", "2 tokens"]);
    cut(json!({"model_max_length": "512"}), 8).refused(&["good"], &["`model_max_length` is \"512\""]);
}

#[test]
fn pairs_that_the_model_has_no_room_for_are_refused() {
    let small = |n: u32| bert(vec![vocab()]).with("max_position_embeddings", json!(n));
    assert_eq!(small(3).ids(&["good"]).0, [2, 5, 3]);
    small(3).refused(&["good", "bad"], &["3 positions hold no pair"]);
    small(4).refused(&["good", "bad"], &["4 positions hold no pair", "nothing would be left of the first text"]);
    assert_eq!(small(5).ids(&["good bad", "bad good"]).0, [2, 5, 3, 6, 3]);
    roberta(vec![]).with("max_position_embeddings", json!(6)).refused(&["good", "bad"], &["4 positions hold no pair"]);
}

#[test]
fn token_types_are_fed_where_transformers_feeds_them() {
    let with = |settings: Value| bert(vec![vocab(), config(settings)]);
    let pair = ["good", "bad"];
    let (fed, zero) = (vec![0, 0, 0, 1, 1], vec![0; 5]);
    let bare = json!(["input_ids", "attention_mask"]);
    assert_eq!(with(json!({})).ids(&pair).1, fed);
    assert_eq!(with(json!({"model_input_names": bare})).ids(&pair).1, zero);
    assert_eq!(with(json!({"tokenizer_class": "DistilBertTokenizerFast"})).ids(&pair).1, zero);
    let one = with(json!({})).with("type_vocab_size", json!(1));
    assert_eq!(one.ids(&["good"]).1, [0; 3]);
    one.refused(&pair, &["knows one token type", "type_vocab_size 1"]);
    // RoBERTa's tokenizer gives none, whatever the template says.
    let piece = |token: &str, t: u32| json!({"SpecialToken": {"id": token, "type_id": t}});
    let text = |id: &str, t: u32| json!({"Sequence": {"id": id, "type_id": t}});
    let template = json!({
        "type": "TemplateProcessing", "single": [piece("<s>", 0), text("A", 0), piece("</s>", 0)],
        "pair": [piece("<s>", 0), text("A", 0), piece("</s>", 0), piece("</s>", 1), text("B", 1), piece("</s>", 1)],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
    });
    let files = roberta(vec![byte_json(&[("/post_processor", template)])]);
    assert_eq!(files.ids(&pair), (vec![0, 263, 2, 2, 269, 2], vec![0; 6]));
    // transformers 4 and 5 differ for a class that says nothing.
    let fast = |names: Value| {
        let change = [("/normalizer", json!({"type": "Lowercase"})), ("/pre_tokenizer", json!({"type": "Whitespace"}))];
        let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names});
        bert(vec![word_json(&WORDS, &change), config(settings)])
    };
    assert_eq!(fast(Value::Null).ids(&["the Film GOOD"]), (vec![2, 7, 8, 5, 3], vec![0; 5]));
    fast(Value::Null).refused(&pair, &["model_input_names", "transformers 4", "transformers 5"]);
    assert_eq!(fast(bare).ids(&pair).1, zero);
    assert_eq!(fast(json!(["input_ids", "token_type_ids"])).ids(&pair).1, fed);
}

#[test]
fn a_tokenizer_class_is_honoured_or_refused() {
    let class = |name: &str| bert(vec![vocab(), config(json!({"tokenizer_class": name}))]);
    class("BertJapaneseTokenizer")
        .refused(&["good"], &["tokenizer_config.json", "tokenizer_class \"BertJapaneseTokenizer\""]);
    class("PreTrainedTokenizerFast").refused(&["good"], &["no tokenizer.json", "PreTrainedTokenizer"]);
    class("RobertaTokenizer").refused(&["good"], &["vocab.json"]);
    assert_eq!(class("ElectraTokenizerFast").ids(&["good"]).0, [2, 5, 3]);
    // The class may stand in config.json, and need not be the family's own.
    let other = roberta(vec![]).with("model_type", json!("bert")).with("tokenizer_class", json!("RobertaTokenizer"));
    assert_eq!(other.ids(&["good", "bad"]), (vec![0, 263, 2, 2, 269, 2], vec![0; 6]));
    // A tokenizer.json that the class would not have written.
    for (pointer, value, key) in [
        ("/normalizer", json!({"type": "Lowercase"}), "normalizer.type"),
        ("/pre_tokenizer", json!({"type": "Whitespace"}), "pre_tokenizer.type"),
        ("/model/max_input_chars_per_word", json!(4), "model.max_input_chars_per_word"),
        ("/post_processor/pair/4/SpecialToken/type_id", json!(0), "post_processor"),
        ("/post_processor/special_tokens/[SEP]/ids/0", json!(4), "post_processor"),
        ("/model/type", json!("BPE"), "BertTokenizer"),
    ] {
        bert(vec![word_json(&WORDS, &[(pointer, value)])]).refused(&["good"], &["tokenizer.json", key]);
    }
    let dropped = byte_json(&[("/model/dropout", json!(0.1))]);
    roberta(vec![dropped]).refused(&["good"], &["model.dropout", "0.1"]);
    let flag = roberta(vec![byte_json(&[]), config(json!({"add_prefix_space": "yes"}))]);
    flag.refused(&["good"], &["`add_prefix_space` is \"yes\""]);
}

#[test]
fn files_on_which_the_tokenizer_panics_are_errors() {
    let fast = || config(json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    let charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
    let merges =
        json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b", "ab ab"], "unk_token": "a"});
    for (pointer, value) in [("/normalizer", charsmap), ("/model", merges)] {
        let json = word_json(&WORDS, &[(pointer, value)]);
        assert!(bert(vec![json.clone()]).apply(&["x"]).is_err());
        assert!(bert(vec![json, fast()]).apply(&["x"]).is_err());
    }
    let cut = byte_json(&[("/model/merges", json!(["g o", "good bad"]))]);
    assert!(roberta(vec![cut]).apply(&["x"]).is_err());
    roberta(vec![("merges.txt", "g o\nx".into())]).refused(&["x"], &["merges.txt"]);
}

#[test]
fn byte_level_text_keeps_its_characters_and_words() {
    let t = roberta(vec![]).apply(&["good  bad caf\u{e9} \u{859b}"]).unwrap();
    let pieces: Vec<_> = t.layout.tokens.iter().map(|t| (t.start, t.end)).collect();
    assert_eq!(t.ids[..4], [0, 263, 37, 267]);
    let shared = pieces.iter().filter(|p| **p == (15, 16)).count();
    assert_eq!(shared, 3, "{pieces:?}"); // three bytes of one character
    let e = explained(t.layout);
    let words: Vec<String> = e.words().into_iter().map(|w| w.text).collect();
    assert_eq!(words, ["good", "bad", "caf\u{e9}", "\u{859b}"]);
    let style = Style { colour: true, ..Style::default() };
    let page = table::line(&e, style.range(&e), &style).unwrap();
    assert_eq!(page.matches('\u{859b}').count(), 1, "{page}");
    let view = View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 };
    let scene = Scene {
        picture: None,
        view,
        input: (0, 0),
        caption: String::new(),
        shared: None,
        row: None,
        record: None,
        style: &style,
    };
    let drawn = String::from_utf8((vitx::render::find("ansi").unwrap().render)(&scene, &e).unwrap()).unwrap();
    let mut text = String::new();
    for (i, part) in drawn.split("\x1b[").enumerate() {
        text.push_str(if i == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    assert_eq!(text, "good  bad caf\u{e9} \u{859b}\n");
}

/// Relevance 1 for every token.
fn explained(layout: TextLayout) -> Explanation {
    Explanation {
        method: "test",
        params: Default::default(),
        output: Output::of(0),
        relevance: vec![1.0; layout.tokens.len()],
        pixels: None,
        checks: Default::default(),
        layout: Layout::Text(layout),
        matrix: false,
        signed: false,
    }
}

#[test]
fn control_characters_of_a_text_are_escaped_when_it_is_drawn() {
    let t = bert(vec![vocab()]).apply(&["good \x1b]0;t\x07 film\u{9b}2J"]).unwrap();
    let e = explained(t.layout);
    let style = Style { colour: true, ..Style::default() };
    let lines = vec![("g\x1bae".to_string(), e)];
    let groups = [Group { heading: "a\x07".into(), lines, ranges: SharedRanges::default() }];
    let drawn = table::ansi(&groups, &style).unwrap();
    let own = drawn.matches('\x1b').count();
    assert_eq!(own, drawn.matches("\x1b[").count(), "{drawn:?}");
    assert!(!drawn.contains(['\u{9b}', '\x07']) && drawn.contains("\\u{9b}") && drawn.contains("\\x07"), "{drawn:?}");
}

#[test]
fn records_of_pairs_say_which_text_a_token_is_of() {
    let t = bert(vec![vocab()]).apply(&["good", "bad film"]).unwrap();
    assert_eq!(t.layout.texts, ["good", "bad film"]);
    let sides: Vec<_> = t.layout.tokens.iter().filter(|t| !t.special).map(|t| (t.text, t.start, t.end)).collect();
    assert_eq!(sides, [(0, 0, 4), (1, 0, 3), (1, 4, 8)]);
}
