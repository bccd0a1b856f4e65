//! From a [`Spec`] and [`Weights`] to an [`Encoder`].

use super::naming::Naming;
use super::spec::{EmbeddingSpec, Names, Spec};
use super::task;
use super::weights::Weights;
use crate::encoder::{
    Block, Embedding, Encoder, FeedForward, Head, Neutral, Passes, PatchEmbedding, Pooling, WordEmbedding,
};
use crate::error::{Error, Result};
use crate::explanation::Prefix;
use crate::nn::{LayerNorm, Linear};
use crate::scale::Scale;
use candle_core::{DType, Device, Tensor};
use std::cell::RefCell;

/// What is done with the tensors' contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// They are read.
    Read,
    /// They are not: names, shapes and dtypes are checked, and the encoder that comes of it holds nothing.
    Checked,
}

/// Builds the encoder, reading every tensor once; with what the user may want to know of the weights.
///
/// # Errors
/// [`Error::Model`] as [`Weights::get`], and for a checkpoint without a classification head.
pub fn assemble(
    spec: &Spec,
    classes: usize,
    weights: &Weights,
    contents: Contents,
    (dtype, device): (DType, &Device),
) -> Result<(Encoder, Vec<String>)> {
    let naming = Naming::of(weights, &spec.names)?;
    // A file is in one spelling: whichever names its first layer's query.
    let first =
        |n: &&Names| naming.find(&format!("{}.{}.weight", n.layer.replace("{}", "0"), n.attention[0])).is_some();
    let names = [Some(&spec.names), spec.modern.as_ref()].into_iter().flatten().find(first).unwrap_or(&spec.names);
    let notes = RefCell::new(weights.notes());
    let loader = Loader { spec, names, naming, weights, contents, dtype, device, notes };
    let head = loader.head(classes)?;
    let encoder = Encoder {
        embedding: loader.embedding()?,
        blocks: (0..spec.layers)
            .map(|i| loader.block(&names.layer.replace("{}", &i.to_string())))
            .collect::<Result<_>>()?,
        final_norm: names.final_norm.map(|n| loader.norm(n)).transpose()?,
        head,
        neutral: Neutral::default(),
        passes: Passes::default(),
    };
    let mut notes = loader.notes.into_inner();
    notes.extend(loader.naming.notes());
    Ok((encoder, notes))
}

struct Loader<'a> {
    spec: &'a Spec,
    names: &'a Names,
    naming: Naming<'a>,
    weights: &'a Weights,
    contents: Contents,
    dtype: DType,
    device: &'a Device,
    notes: RefCell<Vec<String>>,
}

impl Loader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.shaped(name, shape, shape)
    }

    /// A tensor that is stored in one shape and used in another of as many elements.
    fn shaped(&self, name: &str, shape: &[usize], used: &[usize]) -> Result<Tensor> {
        let stored = self.naming.used(name, shape)?;
        match self.contents {
            Contents::Read => Ok(self.weights.get(&stored, shape, self.dtype, self.device)?.reshape(used)?),
            Contents::Checked => {
                self.weights.check(&stored, shape)?;
                Ok(Tensor::zeros(1, self.dtype, &Device::Cpu)?.broadcast_as(used)?)
            }
        }
    }

    fn linear(&self, name: &str, out: usize, input: usize, bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[out, input])?;
        let bias = bias.then(|| self.tensor(&format!("{name}.bias"), &[out])).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// A linear map whose outputs are stored as two halves, the first half first.
    fn joined(&self, halves: [&str; 2], out: usize, input: usize) -> Result<Linear> {
        let [first, second] = halves.map(|name| self.linear(name, out / 2, input, true));
        let (first, second) = (first?, second?);
        if self.contents == Contents::Checked {
            return Ok(first);
        }
        let bias = first.bias.zip(second.bias).map(|(a, b)| Tensor::cat(&[a, b], 0)).transpose()?;
        Ok(Linear { weight: Tensor::cat(&[first.weight, second.weight], 0)?, bias })
    }

    fn norm(&self, name: &str) -> Result<LayerNorm> {
        let d = [self.spec.width];
        let (weight, bias) = (self.tensor(&format!("{name}.weight"), &d)?, self.tensor(&format!("{name}.bias"), &d)?);
        Ok(LayerNorm { weight, bias, eps: self.spec.eps })
    }

    fn block(&self, layer: &str) -> Result<Block> {
        let (s, n) = (self.spec, self.names);
        let (d, f) = (s.width, s.feed_forward);
        let at = |name: &str| format!("{layer}.{name}");
        let [query, key, value, projection] = n.attention.map(at);
        let [first, second] = n.feed_forward.map(at);
        let feed_forward = if s.gated {
            FeedForward::Gated {
                weights_in: match n.second_half {
                    Some(half) => self.joined([&first, &at(half)], 2 * f, d)?,
                    None => self.linear(&first, 2 * f, d, true)?,
                },
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
        let (d, prefix) = (self.spec.width, self.names.embeddings);
        let at = |name: &str| format!("{prefix}.{name}");
        match self.spec.embedding {
            EmbeddingSpec::Patches { image, patch, channels, distillation, registers, kernel } => {
                let grid = (image.0 / patch.0, image.1 / patch.1);
                let token = |name: &str| self.shaped(&at(name), &[1, 1, d], &[d]);
                let mut positioned = vec![(Prefix::Class, token("cls_token")?)];
                if distillation {
                    positioned.push((Prefix::Distillation, token("distillation_token")?));
                }
                let registers = match registers {
                    0 => None,
                    n => Some(self.shaped(&at("register_tokens"), &[1, n, d], &[n, d])?),
                };
                let n = positioned.len() + grid.0 * grid.1;
                let (stored, flat) = ([d, channels, patch.0, patch.1], [d, channels * patch.0 * patch.1]);
                let weight = self.shaped(&at("patch_embeddings.projection.weight"), &stored, &flat)?;
                let bias = Some(self.tensor(&at("patch_embeddings.projection.bias"), &[d])?);
                let positions = self.shaped(&at("position_embeddings"), &[1, n, d], &[n, d])?;
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
        let (s, n) = (self.spec, self.names);
        let (pooling, classifiers) = self.classifiers()?;
        let input = if pooling == Pooling::ClassAndPatchMean { 2 * s.width } else { s.width };
        let dense = n.dense.zip(s.dense);
        if let Some((name, _)) = dense.filter(|(name, _)| self.naming.find(&format!("{name}.weight")).is_none()) {
            return Err(Error::Model(format!(
                "`{name}.weight` is missing: a classifier without it reads each token by itself (names, parts of speech), and vitx explains classifiers of whole texts"
            )));
        }
        Ok(Head {
            pooling,
            prefix: s.embedding.prefix(),
            dense: dense
                .map(|(name, f)| Ok::<_, Error>((self.linear(name, s.width, s.width, true)?, f)))
                .transpose()?,
            classifiers: classifiers.iter().map(|c| self.linear(c, classes, input, true)).collect::<Result<_>>()?,
            scale: Scale::Softmax,
        })
    }

    /// The head that the tensors show, the one that config.json names before others.
    fn classifiers(&self) -> Result<(Pooling, Vec<String>)> {
        let n = self.names;
        let all = |names: &[&str]| names.iter().all(|c| self.naming.find(&format!("{c}.weight")).is_some());
        let named = std::iter::once((self.spec.pooling, n.classifiers)).chain(n.other_heads.iter().copied());
        if let Some((pooling, names)) = named.into_iter().find(|(_, names)| all(names)) {
            return Ok((pooling, names.iter().map(ToString::to_string).collect()));
        }
        let [name] = n.classifiers else { return Err(self.no_head()) };
        let [number] = &self.naming.sequence(name)[..] else { return Err(self.no_head()) };
        self.notes.borrow_mut().push(format!(
            "the head is `{name}.{number}`, part of a sequence of layers; the others have no weights and are taken for dropout"
        ));
        Ok((self.spec.pooling, vec![format!("{name}.{number}")]))
    }

    fn no_head(&self) -> Error {
        let family = self.names.embeddings.split('.').next().unwrap_or_default();
        let wanted = self.names.classifiers.first().copied().unwrap_or_default();
        let outside = self.naming.outside();
        let why = match (task::of_tensors(&outside), &outside[..]) {
            (Some(what), _) => format!("its head {what}"),
            (None, []) => format!("it is a backbone ({family})"),
            (None, outside) => {
                let some: Vec<_> = outside.iter().take(4).map(|n| format!("`{n}`")).collect();
                format!("beside the backbone ({family}) it holds {}", some.join(", "))
            }
        };
        Error::Model(format!(
            "this checkpoint has no classification head (`{wanted}.weight` is missing): {why}, and vitx explains classifiers; use a fine-tuned checkpoint of the same family (`vitx models` names some)"
        ))
    }
}
