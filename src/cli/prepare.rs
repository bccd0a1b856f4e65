//! From a source to what the model reads.

use super::args::FitArg;
use super::guard::guarded;
use super::sources::{Kind, Source};
use image::RgbImage;
use std::path::{Path, PathBuf};
use vitx::encoder::Inputs;
use vitx::explanation::Layout;
use vitx::input::image::{decode, Fit, ImageProcessor, Prepared, View};
use vitx::input::text::{Text, TextProcessor, Tokenised};
use vitx::model::{Model, Processor};
use vitx::{Error, Result};

/// An input ready for the model.
pub enum Ready {
    /// The upright picture, and what the model reads of it.
    Picture(Box<(RgbImage, Prepared)>),
    /// A tokenised text.
    Text(Tokenised),
}

/// Prepares inputs for one model.
pub struct Preparer<'a> {
    how: How<'a>,
    /// The array read last: a file `[B,3,H,W]` is listed as B inputs.
    array: Option<(PathBuf, Vec<u64>, Vec<f32>)>,
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
        Preparer { how, array: None }
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
                let picture = decode(&read(path)?)?;
                let prepared = processor.apply(&picture)?;
                Ok(Ready::Picture(Box::new((picture, prepared))))
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
        if self.array.as_ref().is_none_or(|(p, _, _)| p != path) {
            let (shape, values) = read_array(path)?;
            self.array = Some((path.to_path_buf(), shape, values));
        }
        let (How::Image(processor), Some((_, shape, values))) = (&self.how, &self.array) else {
            return Err(Error::Input("is an array of pixel values, but the model reads texts".into()));
        };
        let (height, width) = (shape[shape.len() - 2] as usize, shape[shape.len() - 1] as usize);
        let n = 3 * height * width;
        let pixels = values[index * n..(index + 1) * n].to_vec();
        if pixels.iter().any(|p| !p.is_finite()) {
            return Err(Error::Input("holds NaN or infinite pixel values".into()));
        }
        let picture = processor.picture(&pixels, height, width);
        let view = View { x: 0.0, y: 0.0, width: width as f64, height: height as f64 };
        Ok(Ready::Picture(Box::new((picture, Prepared { pixels, size: (height, width), view }))))
    }
}

/// Shape of a `.npy` file, from its header.
pub fn array_shape(path: &Path) -> std::io::Result<Vec<u64>> {
    let file = std::io::BufReader::new(std::fs::File::open(path)?);
    Ok(npyz::NpyFile::new(file)?.shape().to_vec())
}

/// A `.npy` array `[3,H,W]` or `[B,3,H,W]` of f32 or f64.
fn read_array(path: &Path) -> Result<(Vec<u64>, Vec<f32>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::Input(format!("cannot be read: {e}")))?;
    let bad = |e: std::io::Error| Error::Input(format!("damaged .npy array: {e}"));
    let open = || npyz::NpyFile::new(&bytes[..]).map_err(bad);
    let file = open()?;
    let shape = file.shape().to_vec();
    let fits = matches!(shape[..], [3, h, w] | [_, 3, h, w] if h > 0 && w > 0);
    if !fits || file.order() != npyz::Order::C {
        return Err(Error::Input(format!(
            "the array has shape {shape:?}; expected pixel values [3,H,W] or [B,3,H,W], normalised, in C order"
        )));
    }
    let values = match file.into_vec::<f32>() {
        Ok(values) => values,
        Err(_) => {
            let wide =
                open()?.into_vec::<f64>().map_err(|e| Error::Input(format!("the array is not of f32 or f64: {e}")))?;
            wide.into_iter().map(|v| v as f32).collect()
        }
    };
    Ok((shape, values))
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

    /// What of a text was cut off, in a sentence.
    pub fn truncated(&self) -> Option<String> {
        match self {
            Ready::Picture(_) => None,
            Ready::Text(t) => t.layout.truncation(),
        }
    }
}
