//! Sanity checks: a map that does not change when the model's weights, or the class, do explains neither.
//!
//! Adebayo et al., NeurIPS 2018. *Cascading parameter randomisation*: the head, then the last layer, the one below, down to
//! the embedding get new weights, all earlier ones staying new; after each stage the map is compared with the trained
//! model's by Spearman's rank correlation of `|relevance|`. New weights are normal with each tensor's own mean and deviation.
//!
//! *Label randomisation*: the authors train a second model on permuted labels, which needs its training data; given such a
//! checkpoint its maps are compared like a stage. Without one the random-logit test (Sixt, Granz & Landgraf, ICML 2020)
//! answers the part that one model can: the map of the explained class against that of another class drawn at random.

use crate::encoder::{Encoder, Part};
use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// Number of stages of a cascade: head, layers, embedding.
pub fn stages(encoder: &Encoder) -> usize {
    encoder.parts().len()
}

/// What a stage gives new weights to.
pub fn stage_name(encoder: &Encoder, stage: usize) -> String {
    match encoder.parts().get(stage) {
        Some(Part::Head) => "head".into(),
        Some(Part::Layer(number)) => format!("layer {number}"),
        Some(Part::Embedding) => "embedding".into(),
        None => "nothing".into(),
    }
}

/// Gives one more part of a model new weights, in the order of the cascade; behind the last stage nothing.
///
/// # Errors
/// Tensor operations.
pub fn randomise(encoder: &mut Encoder, stage: usize, seed: u64) -> Result<()> {
    let mut fresh = Fresh(ChaCha8Rng::seed_from_u64(seed.wrapping_add(stage as u64)));
    match encoder.parts().get(stage) {
        Some(part) => encoder.weights(*part, &mut |tensor| fresh.tensor(tensor)),
        None => Ok(()),
    }
}

struct Fresh(ChaCha8Rng);

impl Fresh {
    fn tensor(&mut self, tensor: &mut Tensor) -> Result<()> {
        let old: Vec<f32> = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let mean = old.iter().map(|v| f64::from(*v)).sum::<f64>() / old.len() as f64;
        let variance = old.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / old.len() as f64;
        // A deviation that is finite and not negative is always accepted.
        let Ok(normal) = Normal::new(mean as f32, variance.sqrt() as f32) else { return Ok(()) };
        let new: Vec<f32> = old.iter().map(|_| normal.sample(&mut self.0)).collect();
        let new = Tensor::from_vec(new, tensor.shape(), &Device::Cpu)?;
        *tensor = new.to_dtype(tensor.dtype())?.to_device(tensor.device())?;
        Ok(())
    }
}
