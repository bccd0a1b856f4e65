//! From a [`Spec`] and [`Weights`] to an [`Encoder`].

use super::family::{EmbeddingSpec, Names, Spec};
use super::weights::Weights;
use crate::encoder::{
    Block, Embedding, Encoder, FeedForward, Head, Neutral, Passes, PatchEmbedding, Pooling, WordEmbedding,
};
use crate::error::{Error, Result};
use crate::explanation::Prefix;
use crate::nn::{LayerNorm, Linear};
use crate::scale::Scale;
use candle_core::{DType, Device, Tensor};

/// Builds the encoder, reading every tensor once.
///
/// # Errors
/// [`Error::Model`] as [`Weights::get`], and for a checkpoint without a classification head.
pub fn assemble(spec: &Spec, classes: usize, weights: &Weights, dtype: DType, device: &Device) -> Result<Encoder> {
    let loader = Loader { spec, weights, dtype, device };
    let head = loader.head(classes)?;
    let names = &spec.names;
    Ok(Encoder {
        embedding: loader.embedding()?,
        blocks: (0..spec.layers)
            .map(|i| loader.block(&names.layer.replace("{}", &i.to_string())))
            .collect::<Result<_>>()?,
        final_norm: names.final_norm.map(|n| loader.norm(n)).transpose()?,
        head,
        neutral: Neutral::default(),
        passes: Passes::default(),
    })
}

struct Loader<'a> {
    spec: &'a Spec,
    weights: &'a Weights,
    dtype: DType,
    device: &'a Device,
}

impl Loader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.get(name, shape, self.dtype, self.device)
    }

    fn linear(&self, name: &str, out: usize, input: usize, bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[out, input])?;
        let bias = bias.then(|| self.tensor(&format!("{name}.bias"), &[out])).transpose()?;
        Ok(Linear { weight, bias })
    }

    fn norm(&self, name: &str) -> Result<LayerNorm> {
        let d = [self.spec.width];
        let (weight, bias) = (self.tensor(&format!("{name}.weight"), &d)?, self.tensor(&format!("{name}.bias"), &d)?);
        Ok(LayerNorm { weight, bias, eps: self.spec.eps })
    }

    fn block(&self, layer: &str) -> Result<Block> {
        let (s, n) = (self.spec, &self.spec.names);
        let (d, f) = (s.width, s.feed_forward);
        let at = |name: &str| format!("{layer}.{name}");
        let [query, key, value, projection] = n.attention.map(at);
        let [first, second] = n.feed_forward.map(at);
        let feed_forward = if s.gated {
            FeedForward::Gated {
                weights_in: self.linear(&first, 2 * f, d, true)?,
                weights_out: self.linear(&second, d, f, true)?,
            }
        } else {
            let (fc1, fc2) = (self.linear(&first, f, d, true)?, self.linear(&second, d, f, true)?);
            FeedForward::Plain { fc1, activation: s.activation, fc2 }
        };
        let scale = |i: usize| n.scales.map(|names| self.tensor(&at(names[i]), &[d])).transpose();
        Ok(Block {
            heads: s.heads,
            placement: s.placement,
            query: self.linear(&query, d, d, s.qkv_bias)?,
            key: self.linear(&key, d, d, s.qkv_bias)?,
            value: self.linear(&value, d, d, s.qkv_bias)?,
            projection: self.linear(&projection, d, d, true)?,
            norm1: self.norm(&at(n.norms[0]))?,
            norm2: self.norm(&at(n.norms[1]))?,
            feed_forward,
            scale1: scale(0)?,
            scale2: scale(1)?,
        })
    }

    fn embedding(&self) -> Result<Embedding> {
        let (d, prefix) = (self.spec.width, self.spec.names.embeddings);
        let at = |name: &str| format!("{prefix}.{name}");
        match self.spec.embedding {
            EmbeddingSpec::Patches { image, patch, distillation, registers, kernel } => {
                let grid = (image.0 / patch.0, image.1 / patch.1);
                let token = |name: &str| Ok::<_, Error>(self.tensor(&at(name), &[1, 1, d])?.reshape(d)?);
                let mut positioned = vec![(Prefix::Class, token("cls_token")?)];
                if distillation {
                    positioned.push((Prefix::Distillation, token("distillation_token")?));
                }
                let registers = match registers {
                    0 => None,
                    n => Some(self.tensor(&at("register_tokens"), &[1, n, d])?.reshape((n, d))?),
                };
                let n = positioned.len() + grid.0 * grid.1;
                let convolution = self.tensor(&at("patch_embeddings.projection.weight"), &[d, 3, patch.0, patch.1])?;
                let weight = convolution.reshape((d, 3 * patch.0 * patch.1))?;
                let bias = Some(self.tensor(&at("patch_embeddings.projection.bias"), &[d])?);
                let positions = self.tensor(&at("position_embeddings"), &[1, n, d])?.reshape((n, d))?;
                let projection = Linear { weight, bias };
                Ok(Embedding::Patches(PatchEmbedding {
                    projection,
                    patch,
                    positioned,
                    registers,
                    positions,
                    grid,
                    kernel,
                }))
            }
            EmbeddingSpec::Words { vocabulary, positions, types, padding_id } => Ok(Embedding::Words(WordEmbedding {
                words: self.tensor(&at("word_embeddings.weight"), &[vocabulary, d])?,
                positions: self.tensor(&at("position_embeddings.weight"), &[positions, d])?,
                types: match types {
                    0 => None,
                    n => Some(self.tensor(&at("token_type_embeddings.weight"), &[n, d])?),
                },
                norm: self.norm(&at("LayerNorm"))?,
                padding_id,
            })),
        }
    }

    fn head(&self, classes: usize) -> Result<Head> {
        let (s, n) = (self.spec, &self.spec.names);
        if let Some(missing) = n.classifiers.iter().find(|c| !self.weights.has(&format!("{c}.weight"))) {
            return Err(no_head(n, missing));
        }
        let input = if s.pooling == Pooling::ClassAndPatchMean { 2 * s.width } else { s.width };
        let prefix = match s.embedding {
            EmbeddingSpec::Patches { distillation, registers, .. } => 1 + usize::from(distillation) + registers,
            EmbeddingSpec::Words { .. } => 1,
        };
        let dense = n.dense.zip(s.dense);
        Ok(Head {
            pooling: s.pooling,
            prefix,
            dense: dense
                .map(|(name, f)| Ok::<_, Error>((self.linear(name, s.width, s.width, true)?, f)))
                .transpose()?,
            classifiers: n.classifiers.iter().map(|c| self.linear(c, classes, input, true)).collect::<Result<_>>()?,
            scale: Scale::Softmax,
        })
    }
}

fn no_head(names: &Names, missing: &str) -> Error {
    Error::Model(format!(
        "this checkpoint has no classification head (`{missing}.weight` is missing): it is a backbone ({}), and vitx explains classifiers; use a fine-tuned checkpoint of the same family (`vitx models` names some)",
        names.embeddings.split('.').next().unwrap_or_default()
    ))
}
