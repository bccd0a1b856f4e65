//! What one line asks for, read strictly: a key that is not known, two inputs, or an input that is too large is an error that names it.

use super::root::Root;
use super::{Failure, Kind};
use crate::error::{Error, Result};
use crate::input::text::Text;
use crate::input::{formats, Input, Source};
use crate::render::{chosen, Draws, Renderer};
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::Engine as _;
use serde::de::IgnoredAny;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How large the parts of a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a line, or of a body.
    pub line: usize,
    /// Bytes of a picture, or of another file.
    pub picture: usize,
    /// Bytes of a text: cutting it into tokens cannot be interrupted.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { line: 64 << 20, picture: 32 << 20, text: 1 << 20 }
    }
}

/// What a request is called, as it came.
#[derive(Debug, Clone)]
pub struct Id(pub Box<RawValue>);

impl Default for Id {
    fn default() -> Self {
        Id(RawValue::NULL.to_owned())
    }
}

/// The keys of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    /// Read as [`Named`].
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(borrow)]
    path: Option<&'a RawValue>,
    #[serde(borrow)]
    image: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    pair: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    target: Option<&'a RawValue>,
    #[serde(borrow)]
    formats: Option<&'a RawValue>,
    #[serde(borrow)]
    out: Option<&'a RawValue>,
    #[serde(borrow)]
    overwrite: Option<&'a RawValue>,
}

/// The one key that is read of a request whose others are wrong.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

/// A name or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(Vec<String>),
}

/// A string, borrowed where it has no escapes: a picture is large.
#[derive(Deserialize)]
struct Letters<'a>(#[serde(borrow)] Cow<'a, str>);

/// What is to be answered with.
#[derive(Debug, Clone, Default)]
pub struct Formats {
    /// Numbers in the answer.
    pub values: bool,
    /// An array of NumPy in the answer.
    pub npy: bool,
    /// Files of these formats.
    pub files: Vec<&'static Renderer>,
}

/// A request that was read.
#[derive(Debug, Clone)]
pub struct Order {
    /// What records call the input, and what it is.
    pub source: Source,
    /// Methods as they were named; none: the usual ones.
    pub methods: Option<Vec<String>>,
    /// Targets as they were named; none: the usual ones.
    pub targets: Option<Vec<String>>,
    /// What is to be answered with.
    pub formats: Formats,
    /// Where files go, relative to the root, without method, target and ending; none: into the answer.
    pub out: Option<PathBuf>,
    /// Files that stand may be replaced.
    pub overwrite: bool,
}

/// Names in a list, and characters of a name: those of methods are compared with all that are known.
const NAMES: usize = 256;
const LETTERS: usize = 1000;

fn wrong(said: String) -> Failure {
    // What was wrong may be part of it, and that may be long.
    let short = said.chars().count() <= LETTERS;
    let said = if short { said } else { said.chars().take(LETTERS).chain("...".chars()).collect() };
    Failure { kind: Kind::Request, said }
}

fn of_key(key: &str) -> impl Fn(Error) -> Failure + '_ {
    move |e| {
        let failure = Failure::from(e);
        Failure { said: format!("{key}: {}", failure.said), ..failure }
    }
}

/// The value of a key.
fn read<'a, T: Deserialize<'a>>(
    key: &str,
    expected: &str,
    raw: Option<&'a RawValue>,
) -> std::result::Result<Option<T>, Failure> {
    let value = raw.map(|raw| serde_json::from_str(raw.get())).transpose();
    value.map_err(|_| wrong(format!("{key}: expected {expected}")))
}

fn names(key: &str, raw: Option<&RawValue>) -> std::result::Result<Option<Vec<String>>, Failure> {
    let read: Option<Names> = read(key, "a name or a list of names", raw)?;
    let all = match read {
        None => return Ok(None),
        Some(Names::One(name)) => vec![name],
        Some(Names::Several(names)) => names,
    };
    if all.len() > NAMES || all.iter().any(|name| name.len() > LETTERS) {
        return Err(wrong(format!("{key}: at most {NAMES} names of at most {LETTERS} bytes are read")));
    }
    Ok(Some(all))
}

/// Reads a request, and its name, which is known also of many that are wrong.
pub fn parse(
    line: &[u8],
    texts: bool,
    root: Option<&Root>,
    limits: &Limits,
) -> (Id, std::result::Result<Order, Failure>) {
    let line = match std::str::from_utf8(line) {
        Ok(line) => line,
        Err(_) => return (Id::default(), Err(wrong("is not UTF-8 text".into()))),
    };
    // A list would be read as the values of the keys in their order.
    if !line.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(line).is_ok() {
        let expected = "expected an object, such as {\"id\": 1, \"path\": \"cat.jpg\"}";
        return (Id::default(), Err(wrong(expected.into())));
    }
    let id = match serde_json::from_str::<Named<'_>>(line) {
        Ok(named) => named.id.map(owned).unwrap_or_default(),
        Err(e) => return (Id::default(), Err(wrong(unread(&e)))),
    };
    (id, order(line, texts, root, limits))
}

/// Why a line is no request.
fn unread(e: &serde_json::Error) -> String {
    match e.classify() {
        serde_json::error::Category::Data => e.to_string(),
        _ => format!("is not JSON: {e}"),
    }
}

/// A name that was given over several lines must not break the line of its answer; within its strings there are no line ends.
fn owned(id: &RawValue) -> Id {
    let text = id.get().replace(['\n', '\r'], " ");
    Id(RawValue::from_string(text).unwrap_or_else(|_| id.to_owned()))
}

fn order(line: &str, texts: bool, root: Option<&Root>, limits: &Limits) -> std::result::Result<Order, Failure> {
    let written: Written<'_> = serde_json::from_str(line).map_err(|e| wrong(unread(&e)))?;
    let source = source(&written, root, limits)?;
    let out: Option<String> = read("out", "a path", written.out)?;
    let formats = match names("formats", written.formats)? {
        Some(names) => Formats::named(&names, texts).map_err(of_key("formats"))?,
        None if out.is_some() => Formats::named(&["npy".into()], texts).map_err(of_key("formats"))?,
        None => Formats { values: true, ..Formats::default() },
    };
    let out = match (out, root) {
        (Some(_), None) => return Err(wrong("out: nothing is written without --root DIR".into())),
        (Some(out), Some(root)) => Some(root.stem(Path::new(&out)).map_err(of_key("out"))?),
        (None, _) => None,
    };
    Ok(Order {
        source,
        methods: names("method", written.method)?.filter(|names| !names.is_empty()),
        targets: names("target", written.target)?.filter(|names| !names.is_empty()),
        formats,
        out,
        overwrite: read("overwrite", "true or false", written.overwrite)?.unwrap_or(false),
    })
}

/// The one input.
fn source(written: &Written<'_>, root: Option<&Root>, limits: &Limits) -> std::result::Result<Source, Failure> {
    let given = [("path", written.path), ("image", written.image), ("text", written.text), ("pair", written.pair)];
    let given: Vec<(&str, &RawValue)> = given.into_iter().filter_map(|(key, raw)| Some((key, raw?))).collect();
    let (name, input) = match given[..] {
        [("path", raw)] => {
            let path: Option<String> = read("path", "a path", Some(raw))?;
            let path = path.unwrap_or_default();
            let root = root.ok_or_else(|| wrong("path: no file is read without --root DIR".into()))?;
            let input = root.file(Path::new(&path)).and_then(|file| opened(&file, limits)).map_err(of_key("path"))?;
            (path, input)
        }
        [("image", raw)] => {
            let letters: Option<Letters<'_>> = read("image", "base64 of a picture", Some(raw))?;
            let letters = letters.map(|letters| letters.0).unwrap_or_default();
            let bytes = decoded(&letters, limits).map_err(of_key("image"))?;
            ("image".into(), Input::Bytes(bytes))
        }
        [("text", raw)] => {
            let text: String = read("text", "a text", Some(raw))?.unwrap_or_default();
            (text.clone(), Input::Text(Text { first: text, second: None }))
        }
        [("pair", raw)] => {
            let pair: Option<(String, String)> = read("pair", "a list of two texts", Some(raw))?;
            let (first, second) = pair.unwrap_or_default();
            (first.clone(), Input::Text(Text { first, second: Some(second) }))
        }
        [] => return Err(wrong("expected one of `path`, `image`, `text`, `pair`".into())),
        ref several => {
            let keys: Vec<String> = several.iter().map(|(key, _)| format!("`{key}`")).collect();
            return Err(wrong(format!("expected one of `path`, `image`, `text`, `pair`, and got {}", keys.join(", "))));
        }
    };
    let key = given.first().map_or("", |(key, _)| *key);
    if let Input::Text(text) = &input {
        let bytes = text.first.len() + text.second.as_ref().map_or(0, String::len);
        if bytes > limits.text {
            return Err(wrong(format!("{key}: has {bytes} bytes; at most {} are read", limits.text)));
        }
    }
    Ok(Source { name, stem: PathBuf::new(), input: Ok(input) })
}

/// Bytes of a picture in base64, with the head of a `data:` address or without.
fn decoded(letters: &str, limits: &Limits) -> Result<Vec<u8>> {
    let letters = match letters.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((_, letters)) => letters,
        None => letters,
    };
    let letters = letters.trim();
    if letters.len() / 4 * 3 > limits.picture.saturating_add(3) {
        return Err(large(letters.len() / 4 * 3, limits));
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&STANDARD, config).decode(letters);
    let bytes = decoded.map_err(|e| Error::Usage(format!("is not base64: {e}")))?;
    if bytes.len() > limits.picture {
        return Err(large(bytes.len(), limits));
    }
    Ok(bytes)
}

fn large(bytes: usize, limits: &Limits) -> Error {
    Error::Usage(format!("has {bytes} bytes; at most {} are read", limits.picture))
}

/// A file by its ending, read now where it is small enough.
fn opened(path: &Path, limits: &Limits) -> Result<Input> {
    let failed = |e: std::io::Error| Error::Input(format!("cannot be read: {e}"));
    let file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > limits.picture as u64 {
        return Err(large(size as usize, limits));
    }
    if formats::ending(path) == "npy" {
        return Ok(Input::Array(path.to_path_buf(), None));
    }
    let mut bytes = Vec::new();
    file.take(limits.picture as u64).read_to_end(&mut bytes).map_err(failed)?;
    if formats::ending(path) == "txt" {
        let text = String::from_utf8(bytes).map_err(|_| Error::Input("is not UTF-8 text".into()))?;
        return Ok(Input::Text(Text { first: text.trim().to_string(), second: None }));
    }
    Ok(Input::Bytes(bytes))
}

impl Formats {
    /// By their names: `values`, and those of the renderers.
    ///
    /// # Errors
    /// As [`chosen`].
    pub fn named(names: &[String], texts: bool) -> Result<Self> {
        let mut own = Formats::default();
        for name in names {
            match name.as_str() {
                "values" => own.values = true,
                "npy" => own.npy = true,
                _ => {
                    let known = chosen(std::slice::from_ref(name), texts)?;
                    let new = known.into_iter().filter(|format| !own.files.iter().any(|f| f.name == format.name));
                    own.files.extend(new.collect::<Vec<_>>());
                }
            }
        }
        Ok(own)
    }

    /// One that draws more than numbers, which a matrix cannot have.
    pub fn drawn(&self) -> Option<&'static Renderer> {
        self.files.iter().copied().find(|format| format.draws > Draws::Numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> (String, String) {
        let (id, order) = parse(line.as_bytes(), false, None, &Limits { picture: 40, ..Limits::default() });
        (id.0.get().to_string(), order.map_or_else(|f| f.said, |o| o.source.name))
    }

    #[test]
    fn mistakes_are_named_and_ids_are_kept() {
        for (line, id, part) in [
            (r#"{"id": 1, "text": "a"}"#, "1", "a"),
            (
                r#"{"id": {"z": [1.50, 12345678901234567890123]}, "text": "a"}"#,
                r#"{"z": [1.50, 12345678901234567890123]}"#,
                "a",
            ),
            (r#"{"id": "\u00e9", "txt": "a"}"#, r#""\u00e9""#, "unknown field `txt`, expected one of `id`, `path`"),
            (
                r#"{"id": 2, "path": "a", "image": "b"}"#,
                "2",
                "expected one of `path`, `image`, `text`, `pair`, and got `path`, `image`",
            ),
            (r#"{"id": 3}"#, "3", "expected one of `path`"),
            (r#"{"id": 3, "text": null}"#, "3", "expected one of `path`"),
            (r#"{"id": 4, "text": 5}"#, "4", "text: expected a text"),
            (r#"{"id": 4, "pair": ["a"]}"#, "4", "pair: expected a list of two texts"),
            (r#"{"id": 4, "text": "a", "method": 7}"#, "4", "method: expected a name or a list of names"),
            (r#"{"id": 4, "text": "a", "formats": "gif"}"#, "4", "formats: unknown format `gif`"),
            (r#"{"id": 4, "text": "a", "out": "x"}"#, "4", "out: nothing is written without --root"),
            (r#"{"id": 5, "path": "a"}"#, "5", "path: no file is read without --root"),
            (r#"{"id": 6, "image": "a!"}"#, "6", "image: is not base64"),
            (r#"{"id": 6, "image": "data:image/png;base64,AAAA"}"#, "6", "image"),
            (r#"{"id": 6, "image": "AAA\/"}"#, "6", "image"),
            (r#"{"id": 6, "text": "a", "text": "b"}"#, "6", "duplicate field `text`"),
            ("{\"id\": 7", "null", "is not JSON: EOF"),
            ("[1]", "null", "expected an object"),
            ("17", "null", "expected an object"),
            ("nonsense", "null", "is not JSON"),
            ("", "null", "is not JSON"),
        ] {
            let (got, text) = said(line);
            assert!(got == id && text.contains(part), "{line}: {got}, {text}");
        }
        let (_, large) = said(&format!(r#"{{"image": "{}"}}"#, "A".repeat(400)));
        assert_eq!(large, "image: has 300 bytes; at most 40 are read");
        let long = |key: &str, n| said(&format!("{{\"id\": 1, \"text\": \"a\", \"{key}\": \"{}\"}}", "m".repeat(n))).1;
        assert!(long("method", 1001).contains("at most 256 names") && long("method", 1000) == "a");
        assert!(long(&"k".repeat(5000), 1).len() < 1010);
        assert_eq!(
            said(&format!("{{\"text\": \"{}\"}}", "m".repeat(1 << 21))).1,
            "text: has 2097152 bytes; at most 1048576 are read"
        );
        let bytes = parse(b"{\"text\": \"\xff\"}", true, None, &Limits::default()).1;
        assert_eq!(bytes.map_or_else(|f| f.said, |_| String::new()), "is not UTF-8 text");
    }

    #[test]
    fn an_id_of_several_lines_becomes_one() {
        assert_eq!(said("{\"id\": [1,\n 2.50], \"text\": \"a\"}").0, "[1,  2.50]");
    }
}
