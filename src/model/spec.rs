//! What sets one model family apart, as data: sizes from the config, tensor names of the checkpoint.

use crate::encoder::{NormPlacement, Pooling};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::nn::resample::Bicubic;
use crate::nn::Activation;
use serde_json::Value;

/// What a family reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// Pictures.
    Image,
    /// Texts.
    Text,
}

/// An entry of the family registry.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in config.json.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Images or texts.
    pub modality: Modality,
    /// Classes of transformers whose checkpoints are read.
    pub architectures: &'static [&'static str],
    /// A checkpoint people know.
    pub example: &'static str,
    /// Reads a config.
    pub spec: fn(&Config) -> Result<Spec>,
}

/// A model's sizes and names: all that is needed to build it from a checkpoint.
#[derive(Debug, Clone)]
pub struct Spec {
    /// D
    pub width: usize,
    /// H
    pub heads: usize,
    /// L
    pub layers: usize,
    /// F
    pub feed_forward: usize,
    /// Activation of the feed-forward (unused when gated).
    pub activation: Activation,
    /// SwiGLU instead of two plain linear maps.
    pub gated: bool,
    /// Where the layer norms stand.
    pub placement: NormPlacement,
    /// Layer norms' epsilon.
    pub eps: f64,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Images or words.
    pub embedding: EmbeddingSpec,
    /// What the classifier reads.
    pub pooling: Pooling,
    /// Activation of the dense layer before the classifier, if there is one.
    pub dense: Option<Activation>,
    /// Tensor names, as transformers 4 and the hub have them.
    pub names: Names,
    /// Tensor names of transformers 5, where it writes others.
    pub modern: Option<Names>,
}

/// Sizes of the embedding.
#[derive(Debug, Clone)]
pub enum EmbeddingSpec {
    /// A vision family.
    Patches {
        /// Height and width the position embeddings were trained for, in pixels.
        image: (usize, usize),
        /// Patch height and width.
        patch: (usize, usize),
        /// Values a pixel: 3 of a colour picture, 1 of a grey one, others of arrays.
        channels: usize,
        /// A distillation token behind the class token.
        distillation: bool,
        /// Number of register tokens.
        registers: usize,
        /// How positions are resampled.
        kernel: Bicubic,
    },
    /// A text family.
    Words {
        /// Vocabulary size.
        vocabulary: usize,
        /// Rows of the position table.
        positions: usize,
        /// Token types; 0 for models without them.
        types: usize,
        /// RoBERTa counts positions from here + 1.
        padding_id: Option<u32>,
    },
}

impl EmbeddingSpec {
    /// Tokens before the first patch or word: what the classifier reads, and registers.
    pub fn prefix(&self) -> usize {
        match self {
            EmbeddingSpec::Patches { distillation, registers, .. } => 1 + usize::from(*distillation) + registers,
            EmbeddingSpec::Words { .. } => 1,
        }
    }
}

/// Checkpoint names. Those of a layer follow `layer`, with `{}` for its number; `.weight` and `.bias` are understood.
#[derive(Debug, Clone)]
pub struct Names {
    /// The first tensor of every checkpoint of the family, by which it is known.
    pub first: &'static str,
    /// Before the embedding's tensors.
    pub embeddings: &'static str,
    /// Before a layer's tensors.
    pub layer: &'static str,
    /// Query, key, value, output projection.
    pub attention: [&'static str; 4],
    /// The norm around attention and the one around the feed-forward.
    pub norms: [&'static str; 2],
    /// First and second linear map of the feed-forward.
    pub feed_forward: [&'static str; 2],
    /// The second half of a gated feed-forward's first map, where its halves are stored apart.
    pub second_half: Option<&'static str>,
    /// The two layer scales (full names without suffix).
    pub scales: Option<[&'static str; 2]>,
    /// The norm behind the last layer.
    pub final_norm: Option<&'static str>,
    /// The dense layer before the classifier.
    pub dense: Option<&'static str>,
    /// One classifier, or two.
    pub classifiers: &'static [&'static str],
    /// Other heads of the family, told by their tensors.
    pub other_heads: &'static [(Pooling, &'static [&'static str])],
}

impl Spec {
    /// Checks what no tensor shape would reveal.
    ///
    /// # Errors
    /// [`Error::Model`] for heads that do not divide the width, and for images smaller than a patch.
    pub fn checked(self) -> Result<Self> {
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::Model(format!(
                "config.json: {} attention heads do not divide the hidden size {}",
                self.heads, self.width
            )));
        }
        if let EmbeddingSpec::Patches { image, patch, .. } = self.embedding {
            if image.0 < patch.0 || image.1 < patch.1 {
                return Err(Error::Model(format!(
                    "config.json: image_size {image:?} is smaller than patch_size {patch:?}"
                )));
            }
        }
        Ok(self)
    }

    /// Longest text in tokens, special tokens included; none for images.
    pub fn max_tokens(&self) -> Option<usize> {
        match self.embedding {
            EmbeddingSpec::Words { positions, padding_id, .. } => {
                Some(positions - padding_id.map_or(0, |p| p as usize + 1).min(positions - 1))
            }
            EmbeddingSpec::Patches { .. } => None,
        }
    }
}

/// `hidden_act`, erf GELU when absent.
pub(super) fn activation(config: &Config, key: &str) -> Result<Activation> {
    match config.get(key) {
        None => Ok(Activation::Gelu),
        Some(Value::String(name)) => Activation::from_name(name),
        Some(other) => {
            Err(Error::Model(format!("config.json: `{key}` is {other}, expected the name of an activation")))
        }
    }
}
