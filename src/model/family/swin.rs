//! Swin (Liu et al., ICCV 2021): tokens see those of their window, every other layer's windows are shifted, and between stages four tokens
//! become one; the classifier reads the mean of the last stage's tokens.

use crate::encoder::{Gate, Order, Wiring};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::spec::{
    activation, EmbeddingSpec, Family, LayerSpec, LinearSpec, MergingSpec, Modality, Names, NormKind, Placed, Pooling,
    ScoresSpec, Spec, Spelling, Uniform,
};
use crate::nn::{Offsets, Reach, Windowing};

/// `model_type: swin`
pub const FAMILY: Family = Family {
    name: "swin",
    title: "Swin",
    modality: Modality::Image,
    architectures: &["SwinForImageClassification"],
    example: "microsoft/swin-tiny-patch4-window7-224",
    spec,
};

/// More layers in a stage than any checkpoint has.
const MANY: usize = 1 << 10;
/// PyTorch's own epsilon of norms, which those of embedding and mergings have whatever the config says.
const EPS: f64 = 1e-5;

fn spec(c: &Config) -> Result<Spec> {
    let side = window(c)?;
    staged(c, &NAMES, Wiring::Pre, |name, (_, number), own| {
        let name = format!("{name}.attention.self.relative_position_bias_table");
        let shift = if number % 2 == 1 { side / 2 } else { 0 };
        own.scores = ScoresSpec::Table { name, entries: (2 * side - 1).pow(2), offsets: Offsets::Window { side } };
        own.reach = Reach::Windows(Windowing { side, shift, fixed: false });
        Order::NormFirst
    })
}

/// Tokens along a side of its windows.
///
/// # Errors
/// [`Error::Model`] for more than any checkpoint has, whose table alone would fill the memory.
pub(in crate::model) fn window(c: &Config) -> Result<usize> {
    match c.size_or("window_size", 7)? {
        side @ ..=256 => Ok(side),
        side => Err(Error::Model(format!("config.json: `window_size` is {side}; at most 256 is read"))),
    }
}

/// What both versions share. `own` finishes the layer of this name, that of a stage, both counted from 0, and says where the norm of a
/// merging stands.
pub(in crate::model) fn staged(
    c: &Config,
    names: &Names,
    wiring: Wiring,
    own: impl Fn(&str, (usize, usize), &mut LayerSpec) -> Order,
) -> Result<Spec> {
    if c.flag_or("use_absolute_embeddings", false)? {
        return Err(Error::Model("config.json: `use_absolute_embeddings` is not supported".into()));
    }
    let (depths, heads) = (c.numbers_or("depths", &[2, 2, 6, 2])?, c.numbers_or("num_heads", &[3, 6, 12, 24])?);
    let fits = depths.iter().zip(&heads).all(|(depth, heads)| (1..MANY).contains(depth) && *heads > 0);
    if depths.len() != heads.len() || !(1..=8).contains(&depths.len()) || !fits {
        return Err(Error::Model(format!("config.json: stages of {depths:?} layers with {heads:?} heads")));
    }
    let (first, ratio) = (c.size_or("embed_dim", 96)?, c.float_or("mlp_ratio", 4.0)?);
    if !(ratio > 0.0 && ratio <= 64.0) {
        return Err(Error::Model(format!("config.json: `mlp_ratio` is {ratio}")));
    }
    let (norm, plain) = (NormKind::layer_norm(c.float_or("layer_norm_eps", EPS)?), NormKind::layer_norm(EPS));
    let family = names.first.split('.').next().unwrap_or_default();
    let mut layers = Vec::new();
    for (stage, (&depth, &heads)) in depths.iter().zip(&heads).enumerate() {
        let width = first << stage;
        let alike = Uniform {
            layers: depth,
            heads,
            width,
            feed_forward: (ratio * width as f64) as usize, // transformers: int(ratio * width)
            activation: activation(c, "hidden_act")?,
            gate: Gate::None,
            norm,
            qkv_bias: [c.flag_or("qkv_bias", true)?; 3],
            bias: true,
            scores: ScoresSpec::Dot,
        };
        for number in 0..depth {
            let name = format!("{family}.encoder.layers.{stage}.blocks.{number}");
            let mut layer = alike.layer(&name, names);
            let order = own(&name, (stage, number), &mut layer);
            if number + 1 == depth && stage + 1 < depths.len() {
                let at = |name: &str| format!("{family}.encoder.layers.{stage}.downsample.{name}");
                let reduction = LinearSpec::whole(at("reduction"), (2 * width, 4 * width), false);
                layer.merging = Some(MergingSpec { norm: plain.named(at("norm")), order, reduction });
            }
            layers.push(layer);
        }
    }
    Ok(Spec {
        width: first,
        wiring,
        norm,
        embedding: EmbeddingSpec::Patches {
            image: c.pair_or("image_size", 224)?,
            patch: c.pair_or("patch_size", 4)?,
            channels: c.size_or("num_channels", 3)?,
            class: false,
            bias: true,
            distillation: false,
            registers: 0,
            table: None,
            placed: Placed::Patches,
            front: Some(plain.named(format!("{family}.embeddings.norm"))),
        },
        pooling: Pooling::PatchMean,
        steps: Vec::new(),
        classifier_bias: true,
        task: Default::default(),
        headless: false,
        beside: None,
        probe: None,
        spellings: vec![Spelling { layers, names: names.clone() }],
    })
}

const NAMES: Names = Names {
    first: "swin.embeddings.patch_embeddings.projection.weight",
    embeddings: "swin.embeddings",
    layer: "swin.encoder.layers.0.blocks.{}",
    attention: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    final_norm: Some("swin.layernorm"),
    ..super::vit::NAMES
};
