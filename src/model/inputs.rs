//! From prepared inputs to a batch.

use super::{Model, Processor};
use crate::encoder::{Embedding, Inputs};
use crate::error::{Error, Result};
use crate::explanation::{ImageLayout, Layout};
use crate::input::image::Prepared;
use crate::input::prepare::Ready;
use crate::input::text::Tokenised;
use crate::nn;
use candle_core::{DType, Device, Tensor};

impl Model {
    /// The processor's instructions that its passes use; none where they run elsewhere.
    pub fn instructions(&self) -> Option<&'static str> {
        self.encoder.device().is_cpu().then(|| nn::instructions().ok()).flatten()
    }

    /// The tokens of an image of `height` x `width` pixels as this model sees it.
    pub fn image_layout(&self, height: usize, width: usize) -> Result<ImageLayout> {
        match &self.encoder.embedding {
            Embedding::Patches(patches) => Ok(patches.layout(height, width)),
            Embedding::Words(_) => Err(Error::Usage(format!("model `{}` reads texts, not images", self.checkpoint.id))),
        }
    }

    /// Tokens of the last layer of one prepared input; of a text in windows those of the longest.
    pub fn tokens(&self, ready: &Ready) -> usize {
        match ready {
            Ready::Picture(p) => {
                let (height, width) = p.prepared.size;
                self.image_layout(height, width).map_or(0, |image| Layout::Image(image).len())
            }
            Ready::Text(t) => t.windows.iter().map(|window| window.part.ids.len()).max().unwrap_or(t.ids.len()),
        }
    }

    /// Prepared pictures of one size as a batch, with what their tokens are.
    ///
    /// # Errors
    /// [`Error::Usage`] when their sizes differ or this is a text model.
    pub fn image_inputs(&self, pictures: &[Prepared]) -> Result<(Inputs, Vec<Layout>)> {
        self.of_pictures(&pictures.iter().collect::<Vec<_>>())
    }

    fn of_pictures(&self, pictures: &[&Prepared]) -> Result<(Inputs, Vec<Layout>)> {
        let (h, w) = pictures.first().map_or((0, 0), |p| p.size);
        let layout = Layout::Image(self.image_layout(h, w)?);
        Ok((pixel_inputs(pictures, self.encoder.device())?, vec![layout; pictures.len()]))
    }

    /// Tokenised texts as a batch, padded on the right to the longest, with what their tokens are.
    ///
    /// # Errors
    /// [`Error::Usage`] when this is an image model.
    pub fn text_inputs(&self, texts: &[Tokenised]) -> Result<(Inputs, Vec<Layout>)> {
        self.of_texts(&texts.iter().collect::<Vec<_>>())
    }

    fn of_texts(&self, texts: &[&Tokenised]) -> Result<(Inputs, Vec<Layout>)> {
        let Processor::Text(processor) = &self.checkpoint.processor else {
            return Err(Error::Usage(format!("model `{}` reads images, not texts", self.checkpoint.id)));
        };
        let layouts = texts.iter().map(|t| Layout::Text(t.layout.clone())).collect();
        Ok((token_inputs(texts, processor.pad_id(), self.encoder.device())?, layouts))
    }

    /// Prepared inputs of one size as a batch, with what their tokens are.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty batch, one of pictures and texts, or what the model does not read.
    pub fn inputs(&self, ready: &[Ready]) -> Result<(Inputs, Vec<Layout>)> {
        let pictures: Vec<&Prepared> =
            ready.iter().filter_map(|r| if let Ready::Picture(p) = r { Some(&p.prepared) } else { None }).collect();
        let texts: Vec<&Tokenised> =
            ready.iter().filter_map(|r| if let Ready::Text(t) = r { Some(t) } else { None }).collect();
        match (pictures.is_empty(), texts.is_empty()) {
            (false, true) => self.of_pictures(&pictures),
            (true, false) => self.of_texts(&texts),
            (true, true) => Err(Error::Usage("a batch of no input".into())),
            (false, false) => Err(Error::Usage("a batch of pictures and texts".into())),
        }
    }

    /// Probabilities from logits; none where the model gives values.
    pub fn probabilities(&self, logits: &[f32]) -> Option<Vec<f32>> {
        self.checkpoint.scale.probabilities(logits)
    }
}

/// Texts as a batch, padded on the right to the longest.
pub(super) fn token_inputs(texts: &[&Tokenised], pad_id: u32, device: &Device) -> Result<Inputs> {
    let (b, t) = (texts.len(), texts.iter().map(|t| t.ids.len()).max().unwrap_or(0));
    let padded =
        |row: &[u32], fill: u32| -> Vec<u32> { row.iter().copied().chain(std::iter::repeat(fill)).take(t).collect() };
    let rows = |f: &dyn Fn(&Tokenised) -> Vec<u32>| {
        Tensor::from_vec(texts.iter().flat_map(|t| f(t)).collect::<Vec<u32>>(), (b, t), device)
    };
    let ids = rows(&|x| padded(&x.ids, pad_id))?;
    let types = rows(&|x| padded(&x.types, 0))?;
    let mask = rows(&|x| padded(&vec![1; x.ids.len()], 0))?.to_dtype(DType::U8)?;
    Ok(Inputs::Tokens { ids, types, mask })
}

/// Prepared inputs of one size, all pictures or all texts, as a batch.
pub(super) fn batch(ready: &[&Ready], pad_id: u32, device: &Device) -> Result<Inputs> {
    let texts: Vec<&Tokenised> =
        ready.iter().filter_map(|r| if let Ready::Text(t) = r { Some(t) } else { None }).collect();
    if texts.len() == ready.len() {
        return token_inputs(&texts, pad_id, device);
    }
    let pictures = ready.iter().filter_map(|r| if let Ready::Picture(p) = r { Some(&p.prepared) } else { None });
    pixel_inputs(&pictures.collect::<Vec<_>>(), device)
}

/// Prepared pictures of one size as a batch.
fn pixel_inputs(pictures: &[&Prepared], device: &Device) -> Result<Inputs> {
    let (h, w) = pictures.first().map_or((0, 0), |p| p.size);
    if let Some(other) = pictures.iter().find(|p| p.size != (h, w)) {
        return Err(Error::Usage(format!("a batch of pictures of {h}x{w} and of {:?} pixels; set --size", other.size)));
    }
    let pixels: Vec<f32> = pictures.iter().flat_map(|p| p.pixels.iter().copied()).collect();
    let channels = pixels.len() / (pictures.len() * h * w).max(1);
    Ok(Inputs::Pixels(Tensor::from_vec(pixels, (pictures.len(), channels, h, w), device)?))
}
