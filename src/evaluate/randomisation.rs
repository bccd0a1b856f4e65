//! Sanity checks: a map that does not change when the model's weights, or the class, do explains neither.
//!
//! Adebayo et al., NeurIPS 2018. *Cascading parameter randomisation*: the head, then the last layer, the one below, down to
//! the embedding get new weights, all earlier ones staying new; after each stage the map is compared with the trained
//! model's by Spearman's rank correlation of `|relevance|`. New weights are normal with each tensor's own mean and deviation.
//!
//! *Label randomisation*: the authors train a second model on permuted labels, which needs its training data; given such a
//! checkpoint its maps are compared like a stage. Without one the random-logit test (Sixt, Granz & Landgraf, ICML 2020)
//! answers the part that one model can: the map of the explained class against that of another class drawn at random.

use crate::encoder::{Embedding, Encoder, FeedForward};
use crate::error::Result;
use crate::nn::{LayerNorm, Linear};
use candle_core::{DType, Device, Tensor};
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// Number of stages of a cascade: head, layers, embedding.
pub fn stages(encoder: &Encoder) -> usize {
    encoder.blocks.len() + 2
}

/// What a stage gives new weights to.
pub fn stage_name(encoder: &Encoder, stage: usize) -> String {
    let layers = encoder.blocks.len();
    match stage {
        0 => "head".into(),
        s if s <= layers => format!("layer {}", layers - s),
        _ => "embedding".into(),
    }
}

/// Gives one more part of a model new weights, in the order of the cascade.
///
/// # Errors
/// Tensor operations.
pub fn randomise(encoder: &mut Encoder, stage: usize, seed: u64) -> Result<()> {
    let mut fresh = Fresh(ChaCha8Rng::seed_from_u64(seed.wrapping_add(stage as u64)));
    let layers = encoder.blocks.len();
    if stage == 0 {
        encoder.head.classifiers.iter_mut().try_for_each(|c| fresh.linear(c))?;
        if let Some((dense, _)) = &mut encoder.head.dense {
            fresh.linear(dense)?;
        }
        return encoder.final_norm.as_mut().map_or(Ok(()), |n| fresh.norm(n));
    }
    if stage <= layers {
        let block = &mut encoder.blocks[layers - stage];
        for linear in [&mut block.query, &mut block.key, &mut block.value, &mut block.projection] {
            fresh.linear(linear)?;
        }
        fresh.norm(&mut block.norm1)?;
        fresh.norm(&mut block.norm2)?;
        for scale in [&mut block.scale1, &mut block.scale2].into_iter().flatten() {
            fresh.tensor(scale)?;
        }
        return match &mut block.feed_forward {
            FeedForward::Plain { fc1, fc2, .. } => fresh.linear(fc1).and_then(|()| fresh.linear(fc2)),
            FeedForward::Gated { weights_in, weights_out } => {
                fresh.linear(weights_in).and_then(|()| fresh.linear(weights_out))
            }
        };
    }
    match &mut encoder.embedding {
        Embedding::Patches(patches) => {
            fresh.linear(&mut patches.projection)?;
            fresh.tensor(&mut patches.positions)?;
            if let Some(registers) = &mut patches.registers {
                fresh.tensor(registers)?;
            }
            patches.positioned.iter_mut().try_for_each(|(_, token)| fresh.tensor(token))
        }
        Embedding::Words(words) => {
            fresh.tensor(&mut words.words)?;
            fresh.tensor(&mut words.positions)?;
            if let Some(types) = &mut words.types {
                fresh.tensor(types)?;
            }
            fresh.norm(&mut words.norm)
        }
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

    fn linear(&mut self, linear: &mut Linear) -> Result<()> {
        self.tensor(&mut linear.weight)?;
        linear.bias.as_mut().map_or(Ok(()), |b| self.tensor(b))
    }

    fn norm(&mut self, norm: &mut LayerNorm) -> Result<()> {
        self.tensor(&mut norm.weight)?;
        self.tensor(&mut norm.bias)
    }
}
