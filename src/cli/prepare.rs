//! From a source to what the model reads.

use super::args::{FitArg, ShapeArgs};
use super::guard::guarded;
use super::sources::{Kind, Source};
use image::RgbImage;
use std::path::{Path, PathBuf};
use vitx::encoder::Inputs;
use vitx::explanation::Layout;
use vitx::input::array::{self, Array};
use vitx::input::image::{decode_with, Decoded, Fit, ImageProcessor, Prepared, Remark, View, Window};
use vitx::input::text::{Text, TextProcessor, Tokenised};
use vitx::model::{Model, Processor};
use vitx::{Error, Result};

/// An input ready for the model.
pub enum Ready {
    /// The upright picture, and what the model reads of it.
    Picture(Box<(RgbImage, Prepared, Vec<Remark>)>),
    /// A tokenised text.
    Text(Tokenised),
}

/// Prepares inputs for one model.
pub struct Preparer<'a> {
    how: How<'a>,
    /// What was asked for beside the processor's own size and fit.
    asked: (Option<(usize, usize)>, Option<FitArg>),
    window: Option<Window>,
    /// The array read last: a file `[B,C,H,W]` is listed as B inputs.
    array: Option<(PathBuf, Array)>,
}

enum How<'a> {
    Image(ImageProcessor),
    Text(&'a TextProcessor),
}

impl From<FitArg> for Fit {
    fn from(fit: FitArg) -> Self {
        match fit {
            FitArg::Resize => Fit::Resize,
            FitArg::Crop => Fit::Crop,
            FitArg::Pad => Fit::Pad,
        }
    }
}

impl<'a> Preparer<'a> {
    /// For this processor, with `--size` and `--fit` applied.
    pub fn new(processor: &'a Processor, size: Option<(usize, usize)>, fit: Option<FitArg>) -> Self {
        let how = match processor {
            Processor::Image(p) => How::Image(p.clone().adapted(size, fit.map(Fit::from))),
            Processor::Text(p) => How::Text(p),
        };
        Preparer { how, asked: (size, fit), window: None, array: None }
    }

    /// For this processor, with all that says how large the model sees a picture.
    pub fn shaped(processor: &'a Processor, shape: ShapeArgs) -> Self {
        Preparer { window: shape.window, ..Self::new(processor, shape.size, shape.fit) }
    }

    /// Reads and prepares one input.
    ///
    /// # Errors
    /// Why it cannot be used; a panic in a decoder is one more reason.
    pub fn prepare(&mut self, source: &Source) -> Result<Ready> {
        guarded(|| self.read(source))
    }

    fn read(&mut self, source: &Source) -> Result<Ready> {
        let read = |path: &Path| std::fs::read(path).map_err(|e| Error::Input(format!("cannot be read: {e}")));
        match (&source.kind, &self.how) {
            (Kind::Unreadable(why), _) => Err(Error::Input(why.clone())),
            (Kind::Picture(path), How::Image(processor)) => {
                let Decoded { picture, remarks } = decode_with(&read(path)?, self.window)?;
                let prepared = processor.apply(&picture)?;
                Ok(Ready::Picture(Box::new((picture, prepared, remarks))))
            }
            (Kind::Array(path, index), How::Image(_)) => self.array(path, index.unwrap_or(0)),
            (Kind::Text(text), How::Text(processor)) => Ok(Ready::Text(processor.apply(text)?)),
            (Kind::TextFile(path), How::Text(processor)) => {
                let text = String::from_utf8(read(path)?).map_err(|_| Error::Input("is not UTF-8 text".into()))?;
                Ok(Ready::Text(processor.apply(&Text { first: text.trim().to_string(), second: None })?))
            }
            (_, How::Text(_)) => Err(Error::Input("is an image, but the model reads texts".into())),
            (_, How::Image(_)) => Err(Error::Input("is a text, but the model reads images".into())),
        }
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
        let (size, fit) = self.asked;
        if fit.is_some() || self.window.is_some() || size.is_some_and(|s| s != (height, width)) {
            return Err(Error::Input(format!(
                "is an array of prepared values of {height}x{width} pixels, which has its own size: --size, --fit and --window are for pictures"
            )));
        }
        let picture = processor.picture(&pixels, height, width);
        let view = View { x: 0.0, y: 0.0, width: width as f64, height: height as f64 };
        Ok(Ready::Picture(Box::new((picture, Prepared { pixels, size: (height, width), view }, Vec::new()))))
    }
}

/// Height, width and values of an example.
fn example(array: &Array, index: usize, channels: usize) -> Result<(usize, usize, Vec<f32>)> {
    let (height, width) = array.size();
    Ok((height, width, array.example(index, channels)?))
}

/// Prepared inputs as one batch.
///
/// # Errors
/// As [`Model::image_inputs`] and [`Model::text_inputs`].
pub fn batch_of(model: &Model, ready: &[Ready]) -> Result<(Inputs, Vec<Layout>)> {
    let pictures = ready.iter().filter_map(|r| if let Ready::Picture(p) = r { Some(p.1.clone()) } else { None });
    let texts = ready.iter().filter_map(|r| if let Ready::Text(t) = r { Some(t.clone()) } else { None });
    match ready.first() {
        Some(Ready::Text(_)) => model.text_inputs(&texts.collect::<Vec<_>>()),
        _ => model.image_inputs(&pictures.collect::<Vec<_>>()),
    }
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
    /// Inputs of one batch agree in this.
    fn size(&self) -> (usize, usize) {
        match self {
            Ready::Picture(p) => p.1.size,
            Ready::Text(t) => (1, t.ids.len()),
        }
    }

    /// What is to be said of a picture.
    pub fn remarks(&self) -> &[Remark] {
        match self {
            Ready::Picture(p) => &p.2,
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
