//! What sets one model family apart, as data: sizes from the config, tensor names of the checkpoint.

mod layer;

pub use layer::{
    CosineSpec, DisentangledSpec, LayerSpec, LinearSpec, MergingSpec, NormKind, NormSpec, Part, ProbeSpec, ScoresSpec,
    Uniform,
};

use crate::encoder::{Gate, Head, Pool, Reading, Wiring};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::nn::resample::Bicubic;
use crate::nn::Activation;
use crate::scale::Scale;
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

/// What a checkpoint's head says something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// A whole input.
    #[default]
    Whole,
    /// Each token: its label (names, parts of speech).
    Tokens,
    /// Each token: how well an answer begins and ends there.
    Spans,
}

/// A model's sizes and names: all that is needed to build it from a checkpoint.
#[derive(Debug, Clone)]
pub struct Spec {
    /// D of the first layer.
    pub width: usize,
    /// Where the norms of a layer stand.
    pub wiring: Wiring,
    /// What all norms outside of layers have in common.
    pub norm: NormKind,
    /// Images or words.
    pub embedding: EmbeddingSpec,
    /// What the classifier reads.
    pub pooling: Pooling,
    /// The query of a head that attends ([`Pooling::Probe`]).
    pub probe: Option<Box<ProbeSpec>>,
    /// What is between pooling and classifier.
    pub steps: Vec<StepSpec>,
    /// Whether the classifiers have a bias.
    pub classifier_bias: bool,
    /// What the head says something of.
    pub task: Task,
    /// The checkpoint is a backbone, without a classifier.
    pub headless: bool,
    /// The text tower beside a picture tower; its texts may be the classes.
    pub beside: Option<Box<Beside>>,
    /// The ways in which checkpoints name the same tensors; the first as transformers 4 and the hub have them.
    pub spellings: Vec<Spelling>,
}

/// The text tower beside a picture tower. Both end in one space, in vectors of length 1, whose products are the logits.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Its steps are what is between its pooled state and that space.
    pub spec: Spec,
    /// P, the width of that space.
    pub width: usize,
    /// What the products are multiplied by, as a logarithm.
    pub scale: &'static str,
    /// What is added to them.
    pub bias: Option<&'static str>,
    /// What they are then.
    pub logits: Scale,
    /// Texts are filled up to the greatest length, with padding that counts as read.
    pub filled: bool,
}

/// One way of naming a family's tensors.
#[derive(Debug, Clone)]
pub struct Spelling {
    /// Outside of the layers.
    pub names: Names,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
}

/// What a head pools, as configs say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    First,
    /// The last real token.
    Last,
    /// Of each number the greatest of all real tokens.
    Max,
    /// The first token for the first classifier, the second (distillation) token for the second.
    FirstAndSecond,
    /// The first token beside the mean of the patch tokens (DINOv2).
    ClassAndPatchMean,
    /// The mean of all real tokens.
    Mean,
    /// The mean of the patch tokens.
    PatchMean,
    /// What a learned query reads of all tokens.
    Probe,
}

impl Pooling {
    /// What a head pools.
    pub(super) fn of(head: &Head) -> Self {
        match &head.readings[..] {
            [Reading { pool: Pool::Mean { from: 0 }, .. }] => Pooling::Mean,
            [Reading { pool: Pool::Mean { .. }, .. }] => Pooling::PatchMean,
            [Reading { pool: Pool::Beside(_), .. }] => Pooling::ClassAndPatchMean,
            [Reading { pool: Pool::Last, .. }] => Pooling::Last,
            [Reading { pool: Pool::Max, .. }] => Pooling::Max,
            [Reading { pool: Pool::Probe(_), .. }] => Pooling::Probe,
            [Reading { pool: Pool::Token(_), .. }] | [] => Pooling::First,
            [_, _, ..] => Pooling::FirstAndSecond,
        }
    }
}

/// An operation between pooling and classifier.
#[derive(Debug, Clone)]
pub enum StepSpec {
    /// A linear map.
    Linear(LinearSpec),
    /// A nonlinearity.
    Activation(Activation),
    /// A norm.
    Norm(NormSpec),
    /// Made a vector of length 1.
    Unit,
    /// The length of the vector.
    Length,
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
        /// Whether the patch convolution has a bias.
        bias: bool,
        /// Values a pixel: 3 of a colour picture, 1 of a grey one, others of arrays.
        channels: usize,
        /// A class token in front.
        class: bool,
        /// A distillation token behind the class token.
        distillation: bool,
        /// Number of register tokens.
        registers: usize,
        /// How the table of positions is resampled; none for models without a table.
        table: Option<Bicubic>,
        /// Which tokens it has rows for.
        placed: Placed,
        /// The norm in front of the first layer.
        front: Option<NormSpec>,
    },
    /// A text family.
    Words {
        /// Vocabulary size.
        vocabulary: usize,
        /// Longest text: rows of the position table.
        positions: usize,
        /// Whether there is such a table; without one attention scores know the places.
        table: bool,
        /// Token types; 0 for models without them.
        types: usize,
        /// RoBERTa counts positions from here + 1.
        padding_id: Option<u32>,
        /// The map from the tables' width to D, where they are narrower.
        narrow: Option<LinearSpec>,
    },
}

/// Which tokens have a position embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// All but registers.
    Usual,
    /// All.
    All,
    /// Patches alone.
    Patches,
}

impl EmbeddingSpec {
    /// Tokens before the first patch or word: what the classifier reads, and registers.
    pub fn prefix(&self) -> usize {
        match self {
            EmbeddingSpec::Patches { class, distillation, registers, .. } => {
                usize::from(*class) + usize::from(*distillation) + registers
            }
            EmbeddingSpec::Words { .. } => 1,
        }
    }
}

/// Checkpoint names. Those of a layer, for [`Uniform::spelled`], follow `layer`, with `{}` for its number; `.weight` and
/// `.bias` are understood.
#[derive(Debug, Clone)]
pub struct Names {
    /// The first tensor of every checkpoint of the family, by which it is known.
    pub first: &'static str,
    /// Before the embedding's tensors.
    pub embeddings: &'static str,
    /// The patch convolution or the table of words, and the norm behind the sum (texts; empty for none).
    pub inputs: [&'static str; 2],
    /// Class token, distillation token and register tokens (pictures).
    pub tokens: [&'static str; 3],
    /// The table of positions.
    pub places: &'static str,
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
    /// One classifier, or two.
    pub classifiers: &'static [&'static str],
    /// How the names of tensors begin that are of another part of the model, which is read by itself or not at all.
    pub apart: &'static [&'static str],
    /// Other heads of the family, told by their tensors.
    pub other_heads: &'static [(Pooling, &'static [&'static str])],
}

impl Names {
    /// Before the tensors of a layer.
    pub(super) fn numbered(&self, number: impl std::fmt::Display) -> String {
        self.layer.replace("{}", &number.to_string())
    }
}

impl Spec {
    /// The layers, first to last.
    pub fn layers(&self) -> &[LayerSpec] {
        self.spellings.first().map_or(&[], |s| &s.layers)
    }

    /// H, of the layer that has most.
    pub fn heads(&self) -> usize {
        self.layers().iter().map(|l| l.heads).max().unwrap_or(0)
    }

    /// D of the last layer: the width of what the head reads.
    pub fn last_width(&self) -> usize {
        self.layers().last().map_or(self.width, LayerSpec::width)
    }

    /// How often four tokens become one on the way.
    pub fn merges(&self) -> usize {
        self.layers().iter().filter(|layer| layer.merging.is_some()).count()
    }

    /// Height and width in pixels of what one token of the last layer stands for; none: it reads texts.
    pub fn cell(&self) -> Option<(usize, usize)> {
        match self.embedding {
            EmbeddingSpec::Patches { patch: (h, w), .. } => Some((h << self.merges(), w << self.merges())),
            EmbeddingSpec::Words { .. } => None,
        }
    }

    /// F, of the widest layer.
    pub fn feed_forward(&self) -> usize {
        self.layers().iter().map(|l| l.out.input).max().unwrap_or(0)
    }

    /// Whether a feed-forward is gated.
    pub fn gated(&self) -> bool {
        self.layers().iter().any(|l| l.gate != Gate::None)
    }

    /// Checks what no tensor shape would reveal.
    ///
    /// # Errors
    /// [`Error::Model`] for heads that do not divide the width, and for images smaller than a patch.
    pub fn checked(self) -> Result<Self> {
        for layer in self.layers() {
            let width = layer.width();
            if !width.is_multiple_of(layer.heads) {
                return Err(Error::Model(format!(
                    "config.json: {} attention heads do not divide the hidden size {width}",
                    layer.heads
                )));
            }
            let coordinates = match (&layer.scores, &self.embedding) {
                (
                    ScoresSpec::Dot | ScoresSpec::Table { .. } | ScoresSpec::Disentangled(_) | ScoresSpec::Cosine(_),
                    _,
                ) => 1,
                (ScoresSpec::Rotary(_), EmbeddingSpec::Words { .. }) => 2,
                (ScoresSpec::Rotary(_), EmbeddingSpec::Patches { .. }) => 4,
            };
            if !(width / layer.heads).is_multiple_of(coordinates) {
                return Err(Error::Model(format!(
                    "config.json: the width of a head, {}, is no multiple of {coordinates}, as rotary positions need",
                    width / layer.heads
                )));
            }
        }
        if let (EmbeddingSpec::Patches { image, .. }, Some(patch)) = (&self.embedding, self.cell()) {
            if image.0 < patch.0 || image.1 < patch.1 {
                return Err(Error::Model(format!(
                    "config.json: image_size {image:?} is smaller than patch_size {patch:?}"
                )));
            }
        }
        Ok(self)
    }

    /// What of a backbone stands for a whole input: its class token, or the mean of the tokens.
    pub fn bare(&self) -> Pooling {
        match (&self.embedding, self.pooling) {
            (EmbeddingSpec::Patches { .. }, Pooling::Probe) => Pooling::Probe,
            (EmbeddingSpec::Patches { class: true, .. }, _) => Pooling::First,
            (EmbeddingSpec::Patches { .. }, _) => Pooling::PatchMean,
            (EmbeddingSpec::Words { .. }, Pooling::Mean | Pooling::Max | Pooling::Last) => self.pooling,
            (EmbeddingSpec::Words { .. }, _) => Pooling::First,
        }
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

/// A square map and an activation before the classifier: BERT's pooler and its kin.
pub(super) fn dense_and(name: &str, width: usize, activation: Activation) -> Vec<StepSpec> {
    vec![StepSpec::Linear(LinearSpec::whole(name, (width, width), true)), StepSpec::Activation(activation)]
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
