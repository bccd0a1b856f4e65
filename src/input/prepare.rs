//! From an input, wherever it comes from, to what a model reads.

use super::array::{self, Array};
use super::formats;
use super::image::{decode_within, Decoded, Fit, ImageProcessor, Prepared, Remark, View, Window};
use super::text::{Text, TextProcessor, Tokenised};
use crate::error::{Error, Result};
use crate::guard::guarded;
use crate::identity;
use image::RgbImage;
use std::path::{Path, PathBuf};

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// A picture file.
    Picture(PathBuf),
    /// The bytes of a picture file.
    Bytes(Vec<u8>),
    /// One example of an array `[C,H,W]` or `[B,C,H,W]` of pixel values: its number, or the first.
    Array(PathBuf, Option<usize>),
    /// A text, or a pair of texts.
    Text(Text),
    /// A file that holds one text.
    TextFile(PathBuf),
}

impl Input {
    /// What a file is by its ending; none for other endings.
    pub fn of_file(path: &Path) -> Option<Self> {
        match formats::ending(path).as_str() {
            "txt" => Some(Input::TextFile(path.to_path_buf())),
            "npy" => Some(Input::Array(path.to_path_buf(), None)),
            _ if formats::is_picture(path) => Some(Input::Picture(path.to_path_buf())),
            _ => None,
        }
    }

    /// The examples of an array `[B,C,H,W]`; everything else as it is.
    pub fn examples(self) -> Vec<Self> {
        if let Input::Array(path, None) = &self {
            // Reading it says what is wrong with an array of no shape.
            let shape = path.is_file().then(|| array::shape(path).ok()).flatten();
            if let Some([examples, (1..), (1..), (1..)]) = shape.as_deref() {
                return (0..*examples as usize).map(|b| Input::Array(path.clone(), Some(b))).collect();
            }
        }
        vec![self]
    }

    /// Whether it needs a text model.
    pub fn is_text(&self) -> bool {
        match self {
            Input::Text(_) | Input::TextFile(_) => true,
            Input::Picture(_) | Input::Bytes(_) | Input::Array(..) => false,
        }
    }

    /// The file it is read from.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Input::Picture(path) | Input::Array(path, _) | Input::TextFile(path) => Some(path),
            Input::Text(_) | Input::Bytes(_) => None,
        }
    }

    /// What tells its contents from others, whatever it is called; see [`crate::identity`].
    ///
    /// # Errors
    /// As [`identity::of_file`].
    pub fn contents(&self) -> Result<String> {
        self.contents_by(&|path| identity::of_file(path))
    }

    /// The same, given what tells the contents of its file.
    ///
    /// # Errors
    /// Those of `of`.
    pub fn contents_by(&self, of: &dyn Fn(&Path) -> Result<String>) -> Result<String> {
        Ok(match self {
            Input::Picture(path) | Input::TextFile(path) => of(path)?,
            Input::Array(path, number) => format!("{}[{}]", of(path)?, number.unwrap_or(0)),
            Input::Text(text) => {
                identity::of_bytes(serde_json::json!([text.first, text.second]).to_string().as_bytes())
            }
            Input::Bytes(bytes) => format!("sha256:{}", identity::of_bytes(bytes)),
        })
    }
}

/// How large the model sees a picture, and what of its values; how much it sees of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// Height and width; none: the processor's own.
    pub size: Option<(usize, usize)>,
    /// How pictures of another shape meet them; none: as the processor does it.
    pub fit: Option<Fit>,
    /// Values that become black and white; none: the picture's own.
    pub window: Option<Window>,
    /// A text that is too long is read in windows, of which neighbours share so many tokens; none: it is cut off.
    pub stride: Option<usize>,
    /// Pixels of a picture file, at most; none: as [`super::image::decode`] has it.
    pub max_pixels: Option<u64>,
}

/// A size as it is typed: `HxW` or `N`.
///
/// # Errors
/// [`Error::Usage`] for anything else.
pub fn size(text: &str) -> Result<(usize, usize)> {
    let side = |s: &str| s.trim().parse::<usize>().ok().filter(|n| (1..=8192).contains(n));
    let pair = match text.split_once(['x', 'X']) {
        Some((h, w)) => side(h).zip(side(w)),
        None => side(text).map(|n| (n, n)),
    };
    let expected = "expected HxW or N in pixels, such as 224x336 (height first), at most 8192";
    pair.ok_or_else(|| Error::Usage(expected.into()))
}

/// A number as it is typed: `100M`, `1.5G`, `500k` or `100000000`.
///
/// # Errors
/// [`Error::Usage`] for anything else, and for 0.
pub fn number(text: &str) -> Result<u64> {
    let (digits, unit) = match text.trim().to_lowercase().as_bytes() {
        [.., b'k'] => (1, 1e3),
        [.., b'm'] => (1, 1e6),
        [.., b'g'] => (1, 1e9),
        _ => (0, 1.0),
    };
    let text = text.trim();
    let number = text.get(..text.len() - digits).and_then(|digits| digits.parse::<f64>().ok()).map(|n| n * unit);
    let valid = number.filter(|n| *n >= 1.0 && *n <= 1e15).map(|n| n as u64);
    valid.ok_or_else(|| Error::Usage("expected a number, such as 100M or 250000000".into()))
}

/// A window as it is typed: `LO,HI`.
///
/// # Errors
/// [`Error::Usage`] for anything else.
pub fn window(text: &str) -> Result<Window> {
    let number = |s: &str| s.trim().parse::<f32>().ok().filter(|n| n.is_finite());
    let pair = text.split_once(',').and_then(|(low, high)| Some((number(low)?, number(high)?)));
    let valid = pair.filter(|(low, high)| low < high).map(|(low, high)| Window { low, high });
    let expected = "expected LO,HI, the values that become black and white, such as 0,4095";
    valid.ok_or_else(|| Error::Usage(expected.into()))
}

/// How inputs are prepared, by modality.
pub enum Processor {
    /// Pictures.
    Image(ImageProcessor),
    /// Texts.
    Text(Box<TextProcessor>),
}

impl Processor {
    /// Whether inputs have the size that their pictures happen to have.
    pub fn varies(&self) -> bool {
        matches!(self, Processor::Image(p) if p.input_size().is_none())
    }
}

/// An input ready for the model.
#[derive(Debug, Clone)]
pub enum Ready {
    /// A picture.
    Picture(Box<Picture>),
    /// A tokenised text.
    Text(Tokenised),
}

/// A picture, and what the model reads of it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Upright, at its own size.
    pub upright: RgbImage,
    /// What the model reads.
    pub prepared: Prepared,
    /// What is to be said of how it was read.
    pub remarks: Vec<Remark>,
}

/// Prepares inputs for one model.
pub struct Preparer<'a> {
    how: How<'a>,
    /// What was asked for beside the processor's own.
    shape: Shape,
    /// The array read last: a file `[B,C,H,W]` is listed as B inputs.
    array: Option<(PathBuf, Array)>,
}

enum How<'a> {
    Image(ImageProcessor),
    Text(&'a TextProcessor),
}

impl<'a> Preparer<'a> {
    /// For this processor.
    pub fn new(processor: &'a Processor, shape: Shape) -> Self {
        let how = match processor {
            Processor::Image(p) => How::Image(p.clone().adapted(shape.size, shape.fit)),
            Processor::Text(p) => How::Text(p),
        };
        Preparer { how, shape, array: None }
    }

    /// Reads and prepares one input.
    ///
    /// # Errors
    /// Why it cannot be used; a panic in a decoder is one more reason.
    pub fn prepare(&mut self, input: &Input) -> Result<Ready> {
        guarded(|| self.read(input))
    }

    fn read(&mut self, input: &Input) -> Result<Ready> {
        let read = |path: &Path| std::fs::read(path).map_err(|e| Error::Input(format!("cannot be read: {e}")));
        match (input, &self.how) {
            (Input::Picture(path), How::Image(processor)) => picture(&read(path)?, processor, self.shape),
            (Input::Bytes(bytes), How::Image(processor)) => picture(bytes, processor, self.shape),
            (Input::Array(path, index), How::Image(_)) => self.array(path, index.unwrap_or(0)),
            (Input::Text(text), How::Text(processor)) => self.text(text, processor),
            (Input::TextFile(path), How::Text(processor)) => {
                let text = String::from_utf8(read(path)?).map_err(|_| Error::Input("is not UTF-8 text".into()))?;
                self.text(&Text { first: text.trim().to_string(), second: None }, processor)
            }
            (Input::Picture(_) | Input::Bytes(_) | Input::Array(..), How::Text(_)) => {
                Err(Error::Input("is an image, but the model reads texts".into()))
            }
            (Input::Text(_) | Input::TextFile(_), How::Image(_)) => {
                Err(Error::Input("is a text, but the model reads images".into()))
            }
        }
    }

    fn text(&self, text: &Text, processor: &TextProcessor) -> Result<Ready> {
        let read = match self.shape.stride {
            Some(shared) => processor.in_windows(text, shared),
            None => processor.apply(text),
        };
        Ok(Ready::Text(read?))
    }

    /// One example of an array of pixel values, with the picture they were made from.
    fn array(&mut self, path: &Path, index: usize) -> Result<Ready> {
        let How::Image(processor) = &self.how else {
            return Err(Error::Input("is an array of pixel values, but the model reads texts".into()));
        };
        let (height, width, pixels) = match &self.array {
            Some((known, array)) if known == path => example(array, index, processor.channels)?,
            _ => {
                let array = array::read(path, processor.channels)?;
                let own = example(&array, index, processor.channels)?;
                self.array = Some((path.to_path_buf(), array));
                own
            }
        };
        let Shape { size, fit, window, .. } = self.shape;
        if fit.is_some() || window.is_some() || size.is_some_and(|s| s != (height, width)) {
            return Err(Error::Input(format!(
                "is an array of prepared values of {height}x{width} pixels, which has its own size: --size, --fit and --window are for pictures"
            )));
        }
        let picture = processor.picture(&pixels, height, width);
        let view = View { x: 0.0, y: 0.0, width: width as f64, height: height as f64 };
        let prepared = Prepared { pixels, size: (height, width), view };
        Ok(Ready::Picture(Box::new(Picture { upright: picture, prepared, remarks: Vec::new() })))
    }
}

fn picture(bytes: &[u8], processor: &ImageProcessor, shape: Shape) -> Result<Ready> {
    let Decoded { picture, remarks } = decode_within(bytes, shape.window, shape.max_pixels)?;
    let prepared = processor.apply(&picture)?;
    Ok(Ready::Picture(Box::new(Picture { upright: picture, prepared, remarks })))
}

/// Height, width and values of an example.
fn example(array: &Array, index: usize, channels: usize) -> Result<(usize, usize, Vec<f32>)> {
    let (height, width) = array.size();
    Ok((height, width, array.example(index, channels)?))
}

/// Inputs in groups that go through the model together: pictures of one size, texts of one length. Without padding an
/// input's numbers are the same to the last bit whatever its batch.
pub fn by_size<S>(mut ready: Vec<(S, Ready)>) -> Vec<Vec<(S, Ready)>> {
    let mut groups = Vec::new();
    while let Some(size) = ready.first().map(|(_, r)| r.size()) {
        let (same, rest) = ready.into_iter().partition(|(_, r)| r.size() == size);
        groups.push(same);
        ready = rest;
    }
    groups
}

impl Ready {
    /// Height and width of what the model reads of a picture; 1 and the number of tokens of a text. Inputs of one batch agree
    /// in it.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Ready::Picture(p) => p.prepared.size,
            Ready::Text(t) => (1, t.ids.len()),
        }
    }

    /// What is to be said of a picture.
    pub fn remarks(&self) -> &[Remark] {
        match self {
            Ready::Picture(p) => &p.remarks,
            Ready::Text(_) => &[],
        }
    }

    /// What of a text was cut off, in a sentence.
    pub fn truncated(&self) -> Option<String> {
        match self {
            Ready::Picture(_) => None,
            Ready::Text(t) => t.layout.truncation(),
        }
    }
}

/// Reads `I/N`: the I-th of N parts of a run.
///
/// # Errors
/// What was expected.
pub fn shard(text: &str) -> std::result::Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let valid = parts.filter(|(i, n): &(usize, usize)| *i >= 1 && i <= n);
    valid.ok_or_else(|| "expected I/N with I from 1 to N, such as 1/4".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_windows_and_shards_are_checked() {
        assert_eq!(shard("2/3"), Ok((2, 3)));
        assert!(shard("0/3").is_err() && shard("4/3").is_err() && shard("1").is_err());
        assert_eq!((size("224x336").unwrap(), size("64").unwrap()), ((224, 336), (64, 64)));
        assert!(size("0x3").is_err() && size("x").is_err() && size("9999999").is_err());
        assert_eq!(["100M", "1.5g", "2k", "7"].map(|n| number(n).unwrap()), [100_000_000, 1_500_000_000, 2000, 7]);
        assert!(["", "0", "M", "x", "-1k", "1e99"].iter().all(|n| number(n).is_err()));
        assert_eq!(window("0,4095").unwrap(), Window { low: 0.0, high: 4095.0 });
        assert_eq!(window("-1.5, 1").unwrap(), Window { low: -1.5, high: 1.0 });
        assert!(window("1").is_err() && window("1,1").is_err() && window("0,inf").is_err());
    }
}
