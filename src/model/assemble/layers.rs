//! Layers, from their specs and tensors.

use super::{Contents, Loader};
use crate::encoder::{Attention, Block, Branch, FeedForward, Merging, Order};
use crate::error::{Error, Result};
use crate::model::spec::{CosineSpec, DisentangledSpec, LayerSpec, LinearSpec, MergingSpec, NormSpec, ScoresSpec};
use crate::nn::{Cosine, Disentangled, Linear, Offsets, Relative, Scores};
use candle_core::{DType, Device, Tensor};

/// What Swin v2 multiplies cosines by at most.
const STEEPEST: f64 = 100.0;
/// The greatest number that it adds.
const MOST: f64 = 16.0;
/// Numbers between the two maps of the network that makes them.
const HIDDEN: usize = 512;

impl Loader<'_> {
    /// The layers; those of the same names share their tensors (ALBERT).
    pub(super) fn blocks(&self, layers: &[LayerSpec]) -> Result<Vec<Block>> {
        let mut blocks: Vec<Block> = Vec::with_capacity(layers.len());
        for layer in layers {
            let name = |layer: &LayerSpec| layer.projections[0].name.clone();
            let known = layers.iter().zip(&blocks).find(|(other, _)| name(other) == name(layer));
            blocks.push(match known {
                Some((_, block)) => block.clone(),
                None => self.block(layer)?,
            });
        }
        Ok(blocks)
    }

    pub(super) fn block(&self, layer: &LayerSpec) -> Result<Block> {
        let width = layer.width();
        let [query, key, value, projection] = &layer.projections;
        let [[first_norm, second_norm], [first_inner, second_inner]] = [&layer.norms, &layer.inner];
        let norm = |spec: &Option<NormSpec>, width| spec.as_ref().map(|spec| self.norm(spec, width)).transpose();
        let scale = |i: usize| {
            let name = layer.scales.as_ref().map(|names| &names[i]);
            name.map(|name| self.tensor(name, &[width])).transpose()
        };
        Ok(Block {
            attention: Branch {
                op: Attention {
                    heads: layer.heads,
                    query: self.linear(query)?,
                    key: self.linear(key)?,
                    value: self.linear(value)?,
                    inner: norm(first_inner, width)?,
                    projection: self.linear(projection)?,
                    scores: self.scores(&layer.scores, layer.heads)?,
                    reach: layer.reach,
                },
                norm: norm(first_norm, width)?,
                scale: scale(0)?,
            },
            feed_forward: Branch {
                op: FeedForward {
                    into: self.joined(&layer.into)?,
                    activation: layer.activation,
                    gate: layer.gate,
                    inner: norm(second_inner, layer.out.input)?,
                    out: self.linear(&layer.out)?,
                },
                norm: norm(second_norm, width)?,
                scale: scale(1)?,
            },
            wiring: self.spec.wiring,
            merging: layer.merging.as_ref().map(|spec| self.merging(spec)).transpose()?,
        })
    }

    fn merging(&self, spec: &MergingSpec) -> Result<Merging> {
        let width = match spec.order {
            Order::NormFirst => spec.reduction.input,
            Order::MapFirst => spec.reduction.out,
        };
        let norm = self.norm(&spec.norm, width)?;
        Ok(Merging { norm, order: spec.order, reduction: self.linear(&spec.reduction)? })
    }

    /// A linear map whose outputs may be stored as several, one behind the other.
    fn joined(&self, parts: &[LinearSpec]) -> Result<Linear> {
        let mut maps = parts.iter().map(|part| self.linear(part)).collect::<Result<Vec<_>>>()?;
        match (maps.pop(), maps.is_empty()) {
            (None, _) => Err(Error::Model("a feed-forward without a first map".into())),
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                maps.push(last);
                let biases: Option<Vec<&Tensor>> = maps.iter().map(|m| m.bias.as_ref()).collect();
                let bias = biases.map(|b| Tensor::cat(&b, 0)).transpose()?;
                let weights: Vec<&Tensor> = maps.iter().map(|m| &m.weight).collect();
                Ok(Linear { weight: Tensor::cat(&weights, 0)?, bias })
            }
        }
    }

    fn scores(&self, spec: &ScoresSpec, heads: usize) -> Result<Scores> {
        Ok(match spec {
            ScoresSpec::Dot => Scores::Dot,
            ScoresSpec::Rotary(rotary) => Scores::Rotary(*rotary),
            ScoresSpec::Table { name, entries, offsets } => {
                Scores::Table(Relative { table: self.tensor(name, &[*entries, heads])?, offsets: *offsets })
            }
            ScoresSpec::Disentangled(own) => Scores::Disentangled(self.disentangled(own)?),
            ScoresSpec::Cosine(own) => Scores::Cosine(self.cosine(own, heads)?),
        })
    }

    fn disentangled(&self, own: &DisentangledSpec) -> Result<Disentangled> {
        let table = self.tensor(&own.places, &[2 * own.span, self.spec.width])?;
        let norm = own.norm.as_ref().map(|norm| self.norm(norm, self.spec.width)).transpose()?;
        let map = |map: &Option<LinearSpec>| map.as_ref().map(|map| self.linear(map)).transpose();
        Ok(Disentangled {
            places: match (norm, self.contents) {
                (Some(norm), Contents::Read) => norm.forward(&table)?,
                (Some(_), Contents::Checked) | (None, _) => table,
            },
            keys: map(&own.keys)?,
            queries: map(&own.queries)?,
            buckets: own.buckets,
        })
    }

    /// Scale and table of Swin v2: what the checkpoint's network makes of each difference of places within a window.
    fn cosine(&self, own: &CosineSpec, heads: usize) -> Result<Cosine> {
        let at = |name: &str| format!("{}.{name}", own.name);
        let network = |name: &str, shape, bias| {
            self.linear(&LinearSpec::whole(at(&format!("continuous_position_bias_mlp.{name}")), shape, bias))
        };
        let scale = self.shaped(&at("logit_scale"), &[heads, 1, 1], &[heads])?;
        let (first, second) = (network("0", (HIDDEN, 2), true)?, network("2", (heads, HIDDEN), false)?);
        let offsets = Offsets::Window { side: own.side };
        let span = 2 * own.side - 1;
        if self.contents == Contents::Checked {
            let table = Tensor::zeros(1, self.dtype, &Device::Cpu)?.broadcast_as((span * span, heads))?;
            return Ok(Cosine { scale, table: Relative { table, offsets } });
        }
        let places = Tensor::from_vec(logarithmic(own), (span * span, 2), &Device::Cpu)?;
        let exact = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64);
        let bias = first.bias.as_ref().map(exact).transpose()?;
        let first = Linear { weight: exact(&first.weight)?, bias };
        let second = Linear { weight: exact(&second.weight)?, bias: None };
        let table = second.forward(&first.forward(&places)?.relu()?)?; // [N,H]
        let table = ((table.neg()?.exp()? + 1.0)?.recip()? * MOST)?;
        let scale = exact(&scale)?.minimum(STEEPEST.ln())?.exp()?;
        let here = |t: Tensor| t.to_dtype(self.dtype)?.to_device(self.device);
        Ok(Cosine { scale: here(scale)?, table: Relative { table: here(table)?, offsets } })
    }
}

/// Differences of places within a window, down and to the right, 8 at the edge of the window it was trained on, as `sign(t) log2(|t| + 1) / 3`:
/// `[(2S-1)^2,2]`, row by row.
fn logarithmic(own: &CosineSpec) -> Vec<f64> {
    let (span, reach) = (2 * own.side - 1, own.trained.unwrap_or(own.side).saturating_sub(1).max(1) as f64);
    let one = |at: usize| {
        let t = 8.0 * (at as f64 - (own.side - 1) as f64) / reach;
        t.signum() * (t.abs() + 1.0).log2() / 3.0
    };
    (0..span * span).flat_map(|i| [one(i / span), one(i % span)]).collect()
}
