//! A layer as data: sizes, and the names of its tensors.

use super::Names;
use crate::encoder::{Gate, Order};
use crate::nn::{Activation, Centre, Offsets, Reach, Rotary};

/// One transformer layer.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// H
    pub heads: usize,
    /// Query, key, value, output projection.
    pub projections: [LinearSpec; 4],
    /// How queries and keys become scores.
    pub scores: ScoresSpec,
    /// Which keys a token sees.
    pub reach: Reach,
    /// The norm around attention and the one around the feed-forward.
    pub norms: [Option<NormSpec>; 2],
    /// The feed-forward's first map; two where the halves of a gated one are stored apart.
    pub into: Vec<LinearSpec>,
    /// The feed-forward's second map.
    pub out: LinearSpec,
    /// Between the two.
    pub activation: Activation,
    /// Whether a second half of the hidden state gates the first.
    pub gate: Gate,
    /// The two layer scales (full names).
    pub scales: Option<[String; 2]>,
    /// Norms within attention and within the feed-forward, in front of the last map of each.
    pub inner: [Option<NormSpec>; 2],
    /// What makes one of four tokens behind it.
    pub merging: Option<MergingSpec>,
}

/// What makes one token of four: names and sizes of [`crate::encoder::Merging`].
#[derive(Debug, Clone)]
pub struct MergingSpec {
    /// In front of the map or behind it.
    pub norm: NormSpec,
    /// Which of the two.
    pub order: Order,
    /// `[2D,4D]`
    pub reduction: LinearSpec,
}

/// How a layer's scores are made.
#[derive(Debug, Clone)]
pub enum ScoresSpec {
    /// Products of queries and keys.
    Dot,
    /// Of rotated ones.
    Rotary(Rotary),
    /// Products, and a number from a table `[N,H]`.
    Table {
        /// In the checkpoint; `{}` stands for the layer where each has its own.
        name: String,
        /// N
        entries: usize,
        /// How it counts.
        offsets: Offsets,
    },
    /// Contents and places apart.
    Disentangled(Box<DisentangledSpec>),
    /// Cosines, and numbers that a small network makes of differences of places.
    Cosine(CosineSpec),
}

/// Scores of directions, and numbers that a small network makes of differences of places (Swin v2).
#[derive(Debug, Clone)]
pub struct CosineSpec {
    /// Before its tensors.
    pub name: String,
    /// Tokens along a side of its windows.
    pub side: usize,
    /// The same of the windows it was first trained on, where it says so.
    pub trained: Option<usize>,
}

/// Scores of contents and places apart.
#[derive(Debug, Clone)]
pub struct DisentangledSpec {
    /// The table of places, in the checkpoint.
    pub places: String,
    /// S: the table has 2S rows.
    pub span: usize,
    /// The norm behind the table.
    pub norm: Option<NormSpec>,
    /// What queries ask of places; none without this term.
    pub keys: Option<LinearSpec>,
    /// What places ask of keys; none without this term.
    pub queries: Option<LinearSpec>,
    /// See [`crate::nn::Disentangled::buckets`].
    pub buckets: Option<(usize, usize)>,
}

impl LayerSpec {
    /// D
    pub fn width(&self) -> usize {
        self.projections[3].out
    }
}

impl ScoresSpec {
    /// Those of one layer, whose tensors begin so.
    fn of(&self, layer: &str) -> Self {
        match self {
            ScoresSpec::Table { name, entries, offsets } => {
                ScoresSpec::Table { name: name.replace("{}", layer), entries: *entries, offsets: *offsets }
            }
            other => other.clone(),
        }
    }
}

/// A linear map `[out, input]`; `.weight` and `.bias` are understood.
#[derive(Debug, Clone)]
pub struct LinearSpec {
    /// In the checkpoint.
    pub name: String,
    /// Which part it is, where several maps are stored as one (fused qkv).
    pub part: Option<Part>,
    /// Rows.
    pub out: usize,
    /// Columns.
    pub input: usize,
    /// Whether it has one.
    pub bias: bool,
    /// The bias's name, where it is stored by itself.
    pub bias_name: Option<String>,
    /// What stands between the name and `weight` or `bias`: a dot, of torch's own attention an underscore.
    pub between: char,
}

/// A head that attends: names and sizes of [`crate::encoder::Probe`].
#[derive(Debug, Clone)]
pub struct ProbeSpec {
    /// The learned query `[1,1,D]`, in the checkpoint.
    pub query: String,
    /// What attends, and the branch behind it; the first norm is none.
    pub layer: LayerSpec,
}

/// A part of rows of a stored map.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// The first of so many equal blocks of rows, or another.
    Block {
        /// Counted from 0.
        which: usize,
        /// All of them.
        of: usize,
    },
    /// The same of every head's rows, which lie one behind the other (DeBERTa).
    OfHeads {
        /// Counted from 0.
        which: usize,
        /// All of them.
        of: usize,
        /// H
        heads: usize,
    },
}

/// A norm's name and kind.
#[derive(Debug, Clone)]
pub struct NormSpec {
    /// In the checkpoint.
    pub name: String,
    /// What it computes.
    pub kind: NormKind,
}

/// What a norm computes.
#[derive(Debug, Clone, Copy)]
pub struct NormKind {
    /// Added to the variance.
    pub eps: f64,
    /// Whether it has a shift.
    pub bias: bool,
    /// LayerNorm or RMSNorm.
    pub centre: Centre,
}

/// The sizes of layers that are all alike.
#[derive(Debug, Clone)]
pub struct Uniform {
    /// L
    pub layers: usize,
    /// H
    pub heads: usize,
    /// D
    pub width: usize,
    /// F
    pub feed_forward: usize,
    /// Between the feed-forward's maps.
    pub activation: Activation,
    /// Whether the feed-forward is gated.
    pub gate: Gate,
    /// All norms.
    pub norm: NormKind,
    /// Whether query, key and value have a bias.
    pub qkv_bias: [bool; 3],
    /// Whether all other linear maps have one.
    pub bias: bool,
    /// How queries and keys become scores.
    pub scores: ScoresSpec,
}

impl NormKind {
    /// A LayerNorm with weight and shift.
    pub(in crate::model) fn layer_norm(eps: f64) -> Self {
        NormKind { eps, bias: true, centre: Centre::Mean }
    }

    /// A norm of this kind.
    pub(in crate::model) fn named(self, name: impl Into<String>) -> NormSpec {
        NormSpec { name: name.into(), kind: self }
    }
}

impl LinearSpec {
    /// A map stored by itself.
    pub(in crate::model) fn whole(name: impl Into<String>, (out, input): (usize, usize), bias: bool) -> Self {
        LinearSpec { name: name.into(), part: None, out, input, bias, bias_name: None, between: '.' }
    }
}

impl Uniform {
    /// The layers under one way of naming.
    pub(in crate::model) fn spelled(&self, names: &Names) -> Vec<LayerSpec> {
        (0..self.layers).map(|number| self.layer(&names.numbered(number), names)).collect()
    }

    /// One layer, whose tensors' names begin with `layer`.
    pub(in crate::model) fn layer(&self, layer: &str, names: &Names) -> LayerSpec {
        let (d, f) = (self.width, self.feed_forward);
        let at = |name: &str| format!("{layer}.{name}");
        let [query, key, value, projection] = names.attention;
        let [first, second] = names.feed_forward;
        let map = |name, shape, bias| LinearSpec::whole(at(name), shape, bias);
        let into = match (self.gate, names.second_half) {
            (Gate::None, _) => vec![map(first, (f, d), self.bias)],
            (Gate::First, None) => vec![map(first, (2 * f, d), self.bias)],
            (Gate::First, Some(half)) => vec![map(first, (f, d), self.bias), map(half, (f, d), self.bias)],
        };
        LayerSpec {
            heads: self.heads,
            projections: [
                map(query, (d, d), self.qkv_bias[0]),
                map(key, (d, d), self.qkv_bias[1]),
                map(value, (d, d), self.qkv_bias[2]),
                map(projection, (d, d), self.bias),
            ],
            scores: self.scores.of(layer),
            reach: Reach::All,
            norms: names.norms.map(|name| Some(self.norm.named(at(name)))),
            into,
            out: map(second, (d, f), self.bias),
            activation: self.activation,
            gate: self.gate,
            scales: names.scales.map(|names| names.map(at)),
            inner: [None, None],
            merging: None,
        }
    }
}
