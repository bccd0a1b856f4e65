//! All weights of a model, enumerated by the model itself: what gives it new weights cannot forget a field, since the parts
//! are taken apart without `..`.

use super::attention::Attention;
use super::block::Block;
use super::branch::Branch;
use super::embedding::{Embedding, PatchEmbedding, WordEmbedding};
use super::feed_forward::FeedForward;
use super::head::{Reading, Step};
use super::merging::Merging;
use super::pool::Pool;
use super::probe::Probe;
use super::Encoder;
use crate::error::Result;
use crate::nn::{Cosine, Disentangled, Linear, Norm, Relative, Scores};
use candle_core::Tensor;

/// A part of a model that has weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Classifiers, what is in front of them, and the norm behind the last layer.
    Head,
    /// A layer, counted from 0.
    Layer(usize),
    /// From the input to the first layer.
    Embedding,
}

/// Is shown one tensor after another, and may change it.
pub type Each<'e> = &'e mut dyn FnMut(&mut Tensor) -> Result<()>;

impl Encoder {
    /// The parts, from the output down to the input.
    pub fn parts(&self) -> Vec<Part> {
        let layers = (0..self.blocks.len()).rev().map(Part::Layer);
        std::iter::once(Part::Head).chain(layers).chain([Part::Embedding]).collect()
    }

    /// Shows every weight of a part, always in the same order.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn weights(&mut self, part: Part, each: Each<'_>) -> Result<()> {
        match part {
            Part::Head => {
                self.head.readings.iter_mut().try_for_each(|r| of_linear(&mut r.classifier, each))?;
                for Reading { pool, steps, classifier: _ } in &mut self.head.readings {
                    if let Pool::Probe(probe) = pool {
                        of_probe(probe, each)?;
                    }
                    for step in steps {
                        match step {
                            Step::Linear(linear) => of_linear(linear, each)?,
                            Step::Norm(norm) => of_norm(norm, each)?,
                            Step::Activation(_) | Step::Unit | Step::Length => {}
                        }
                    }
                }
                self.final_norm.as_mut().map_or(Ok(()), |n| of_norm(n, each))
            }
            Part::Layer(number) => self.blocks.get_mut(number).map_or(Ok(()), |block| of_block(block, each)),
            Part::Embedding => match &mut self.embedding {
                Embedding::Patches(patches) => of_patches(patches, each),
                Embedding::Words(words) => of_words(words, each),
            },
        }
    }
}

fn of_linear(linear: &mut Linear, each: Each<'_>) -> Result<()> {
    let Linear { weight, bias } = linear;
    each(weight)?;
    bias.as_mut().map_or(Ok(()), each)
}

fn of_norm(norm: &mut Norm, each: Each<'_>) -> Result<()> {
    let Norm { weight, bias, eps: _, centre: _ } = norm;
    each(weight)?;
    bias.as_mut().map_or(Ok(()), each)
}

fn of_block(block: &mut Block, each: Each<'_>) -> Result<()> {
    let Block { attention, feed_forward, wiring: _, merging } = block;
    let Branch { norm: first_norm, op, scale: first_scale } = attention;
    let Attention { heads: _, query, key, value, inner: first_inner, projection, scores, reach: _ } = op;
    let Branch { norm: second_norm, op, scale: second_scale } = feed_forward;
    let FeedForward { into, activation: _, gate: _, inner: second_inner, out } = op;
    for linear in [query, key, value, projection] {
        of_linear(linear, each)?;
    }
    for norm in [first_norm, second_norm, first_inner, second_inner].into_iter().flatten() {
        of_norm(norm, each)?;
    }
    if let Some(Merging { norm, order: _, reduction }) = merging {
        of_norm(norm, each)?;
        of_linear(reduction, each)?;
    }
    for scale in [first_scale, second_scale].into_iter().flatten() {
        each(scale)?;
    }
    match scores {
        Scores::Table(Relative { table, offsets: _ }) => each(table)?,
        Scores::Cosine(Cosine { scale, table: Relative { table, offsets: _ } }) => {
            each(scale)?;
            each(table)?;
        }
        Scores::Disentangled(Disentangled { places, keys, queries, buckets: _ }) => {
            each(places)?;
            [keys, queries].into_iter().flatten().try_for_each(|map| of_linear(map, each))?;
        }
        Scores::Dot | Scores::Rotary(_) => {}
    }
    of_linear(into, each)?;
    of_linear(out, each)
}

fn of_probe(probe: &mut Probe, each: Each<'_>) -> Result<()> {
    each(&mut probe.query)?;
    probe.maps().into_iter().try_for_each(|map| of_linear(map, each))?;
    probe.feed_forward.norm.as_mut().map_or(Ok(()), |norm| of_norm(norm, each))
}

fn of_patches(patches: &mut PatchEmbedding, each: Each<'_>) -> Result<()> {
    let PatchEmbedding { projection, patch: _, merges: _, positioned, registers, positions, norm } = patches;
    of_linear(projection, each)?;
    if let Some(positions) = positions {
        each(&mut positions.table)?;
    }
    if let Some(registers) = registers {
        each(registers)?;
    }
    norm.as_mut().map_or(Ok(()), |norm| of_norm(norm, each))?;
    positioned.iter_mut().try_for_each(|(_, token)| each(token))
}

fn of_words(embedding: &mut WordEmbedding, each: Each<'_>) -> Result<()> {
    let WordEmbedding { words, positions, types, norm, widened, padding_id: _ } = embedding;
    for table in [Some(words), positions.as_mut(), types.as_mut()].into_iter().flatten() {
        each(table)?;
    }
    norm.as_mut().map_or(Ok(()), |norm| of_norm(norm, each))?;
    widened.as_mut().map_or(Ok(()), |map| of_linear(map, each))
}
