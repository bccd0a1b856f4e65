//! timm's vision transformers (Wightman), in timm's own layout: `architecture` and `model_args` in config.json in place of sizes, and
//! the names of the authors' code. What an architecture's name stands for is in `timm.json`, which
//! `tests/reference/timm_architectures.py` writes.

mod eva;

use crate::encoder::{Gate, Wiring};
use crate::error::{nearest, Error, Result};
use crate::model::config::Config;
use crate::model::spec::{
    EmbeddingSpec, Family, LayerSpec, Modality, Names, NormKind, Part, Placed, Pooling, ProbeSpec, ScoresSpec, Spec,
    Spelling, StepSpec, Uniform,
};
use crate::nn::resample::Bicubic;
use crate::nn::{Activation, Offsets};
use serde_json::{Map, Value};

/// timm's layout, also behind transformers' `timm_wrapper`.
pub const FAMILY: Family = Family {
    name: "timm",
    title: "timm's ViT, DeiT, BEiT and EVA-02",
    modality: Modality::Image,
    architectures: &["TimmWrapperForImageClassification"],
    example: "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
    spec,
};

/// Arguments that change nothing about what is computed.
const IDLE: &[&str] = &[
    "num_classes",
    "dynamic_img_size",
    "strict_img_size",
    "dynamic_img_pad",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
];

/// Arguments that are read.
const READ: &[&str] = &[
    "img_size",
    "patch_size",
    "in_chans",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
    "init_values",
    "class_token",
    "no_embed_class",
    "reg_tokens",
    "pre_norm",
    "use_abs_pos_emb",
    "use_rel_pos_bias",
    "global_pool",
    "fc_norm",
    "act_layer",
    "norm_eps",
    "swiglu",
    "distilled",
    "eva",
    "qkv_fused",
    "swiglu_mlp",
    "scale_mlp",
    "scale_attn_inner",
    "use_rot_pos_emb",
    "use_post_norm",
    "ref_feat_shape",
];

/// What an architecture's name stands for, and over it what config.json says.
///
/// # Errors
/// [`Error::Model`] for an architecture or an argument that is not known.
fn arguments(c: &Config) -> Result<Config> {
    let all: Map<String, Value> = serde_json::from_str(include_str!("timm.json"))
        .map_err(|e| Error::Fault(format!("the table of timm's architectures: {e}")))?;
    let full = c.text("architecture").unwrap_or_default();
    let name = full.split('.').next().unwrap_or_default(); // a tag of the weights may follow
    let Some(Value::Object(own)) = all.get(name) else {
        let near = nearest(name, all.keys().map(String::as_str)).map(|n| format!(" (the closest that works: {n})"));
        return Err(Error::Model(format!(
            "config.json: timm's architecture `{full}` is not one that vitx reads{}; it reads plain vision transformers (vit_*, deit_*, deit3_*), BEiTs (beit_*, beitv2_*) and EVAs (eva_*, eva02_*)",
            near.unwrap_or_default()
        )));
    };
    let mut args = own.clone();
    if let Some(Value::Object(more)) = c.get("model_args") {
        args.extend(more.clone());
    }
    args.extend(c.get("global_pool").map(|pool| ("global_pool".to_string(), pool.clone())));
    match args.keys().find(|key| !READ.contains(&key.as_str()) && !IDLE.contains(&key.as_str())) {
        Some(key) => Err(Error::Model(format!("config.json: `model_args` has `{key}`, which is not supported"))),
        None => Ok(Config::of(args)),
    }
}

/// The config with its classes where transformers has them: `num_classes`, and names where there are some.
pub(in crate::model) fn labelled(c: &Config) -> Config {
    let c = c.get("num_classes").map_or_else(|| c.clone(), |n| c.with_default("num_labels", n.clone()));
    match c.get("label_names").and_then(Value::as_array) {
        Some(names) => {
            let named = names.iter().enumerate().map(|(number, name)| (number.to_string(), name.clone()));
            c.with_default("id2label", Value::Object(named.collect()))
        }
        None => c,
    }
}

fn spec(c: &Config) -> Result<Spec> {
    let a = arguments(c)?;
    let width = a.size_or("embed_dim", 768)?;
    let norm = NormKind::layer_norm(a.float_or("norm_eps", 1e-6)?);
    let (is_eva, packed) = (a.flag_or("eva", false)?, a.flag_or("swiglu", false)?);
    let (gated, front) = (packed || a.flag_or("swiglu_mlp", false)?, a.flag_or("pre_norm", false)?);
    let hidden = (a.float_or("mlp_ratio", 4.0)? * width as f64) as usize; // timm: int(width * ratio)
    let activation = match (gated, a.text("act_layer")) {
        (true, _) => Activation::Silu,
        (false, None) => Activation::Gelu,
        (false, Some("gelu_tanh")) => Activation::GeluTanh,
        (false, Some(name)) => Activation::from_name(name)?,
    };
    let class = a.flag_or("class_token", true)?;
    let distilled = a.flag_or("distilled", false)?;
    let (pool, normed) = match a.text("global_pool").unwrap_or("token") {
        "token" if distilled => (Pooling::FirstAndSecond, false),
        "token" if class => (Pooling::First, false),
        "avg" => (Pooling::PatchMean, true),
        "map" => (Pooling::Probe, false),
        other => {
            return Err(Error::Model(format!(
                "config.json: `global_pool` is `{other}`{}, and heads on `token`, `avg` and `map` are supported",
                if class { "" } else { " without a class token" }
            )))
        }
    };
    let behind = a.flag_or("fc_norm", normed)?; // the norm stands behind the mean, and not in front of it
    let beit = a.flag_or("use_rel_pos_bias", false)?;
    let names = Names {
        scales: if beit { Some(["gamma_1", "gamma_2"]) } else { NAMES.scales }
            .filter(|_| a.float_or("init_values", 0.0).is_ok_and(|scale| scale > 0.0)),
        final_norm: NAMES.final_norm.filter(|_| !behind),
        classifiers: if distilled { &["head", "head_dist"] } else { &["head"] },
        ..NAMES
    };
    let layers = Uniform {
        layers: a.layers_or("depth", 12)?,
        heads: a.size_or("num_heads", 12)?,
        width,
        feed_forward: if packed { hidden / 2 } else { hidden }, // of the one kind `mlp_ratio` counts both halves
        activation,
        gate: if gated { Gate::First } else { Gate::None },
        norm,
        qkv_bias: [a.flag_or("qkv_bias", true)?; 3],
        bias: true,
        scores: ScoresSpec::Dot,
    };
    let (image, patch) = (image(c, &a)?, a.pair_or("patch_size", 16)?);
    let probe = (pool == Pooling::Probe).then(|| Box::new(probe(&layers, hidden, norm)));
    let mut layers = layers.spelled(&names);
    for layer in &mut layers {
        for (which, projection) in layer.projections.iter_mut().take(3).enumerate() {
            projection.part = Some(Part::Block { which, of: 3 });
        }
    }
    if is_eva {
        eva::finish(&a, &mut layers)?;
    }
    if beit {
        let (rows, columns) = (image.0 / patch.0.max(1), image.1 / patch.1.max(1));
        relative(&mut layers, (rows, columns));
    }
    Ok(Spec {
        width,
        wiring: if a.flag_or("use_post_norm", false)? { Wiring::ResPost } else { Wiring::Pre },
        norm,
        embedding: EmbeddingSpec::Patches {
            image,
            patch,
            bias: !front,
            channels: a.size_or("in_chans", 3)?,
            class,
            distillation: distilled,
            registers: a.number_or("reg_tokens", 0)? as usize,
            table: a.flag_or("use_abs_pos_emb", true)?.then_some(Bicubic::Antialiased),
            placed: if a.flag_or("no_embed_class", false)? { Placed::Patches } else { Placed::All },
            front: front.then(|| norm.named("norm_pre")),
        },
        pooling: pool,
        steps: if behind { vec![StepSpec::Norm(norm.named("fc_norm"))] } else { Vec::new() },
        classifier_bias: true,
        task: Default::default(),
        headless: c.get("num_classes").and_then(Value::as_u64) == Some(0),
        beside: None,
        probe,
        spellings: vec![Spelling { layers, names }],
    })
}

/// The size of pictures that it was trained for.
fn image(c: &Config, arguments: &Config) -> Result<(usize, usize)> {
    let pretrained = c.get("pretrained_cfg").and_then(|p| p.get("input_size")).and_then(Value::as_array);
    let trained = pretrained.and_then(|size| Some(Value::from(vec![size.get(1)?.clone(), size.get(2)?.clone()])));
    arguments.with_default("img_size", trained.unwrap_or_else(|| 224.into())).pair_or("img_size", 224)
}

/// BEiT's layers: a table of relative positions in each, and biases of queries and values apart.
fn relative(layers: &mut [LayerSpec], (rows, columns): (usize, usize)) {
    let entries = (2 * rows).saturating_sub(1) * (2 * columns).saturating_sub(1) + 3;
    for (number, layer) in layers.iter_mut().enumerate() {
        let at = |name: &str| format!("blocks.{number}.attn.{name}");
        layer.projections[0].bias_name = Some(at("q_bias"));
        layer.projections[1].bias = false;
        layer.projections[2].bias_name = Some(at("v_bias"));
        let offsets = Offsets::Grid { rows, columns };
        layer.scores = ScoresSpec::Table { name: at("relative_position_bias_table"), entries, offsets };
    }
}

/// The query of a `map` head, and around it a layer like the others; it has all biases, and its feed-forward is never gated.
fn probe(layers: &Uniform, hidden: usize, norm: NormKind) -> ProbeSpec {
    let own = Uniform { feed_forward: hidden, gate: Gate::None, qkv_bias: [true; 3], ..layers.clone() };
    let mut layer = own.layer("attn_pool", &NAMES);
    for (which, (projection, name)) in layer.projections.iter_mut().zip(["q", "kv", "kv", "proj"]).enumerate() {
        projection.name = format!("attn_pool.{name}");
        projection.part = (name == "kv").then_some(Part::Block { which: which.saturating_sub(1), of: 2 });
    }
    layer.norms = [None, Some(norm.named("attn_pool.norm"))];
    layer.scales = None;
    ProbeSpec { query: "attn_pool.latent".into(), layer }
}

const NAMES: Names = Names {
    first: "patch_embed.proj.weight",
    embeddings: "",
    inputs: ["patch_embed.proj", ""],
    tokens: ["cls_token", "dist_token", "reg_token"],
    places: "pos_embed",
    layer: "blocks.{}",
    attention: ["attn.qkv", "attn.qkv", "attn.qkv", "attn.proj"],
    norms: ["norm1", "norm2"],
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    second_half: None,
    scales: Some(["ls1.gamma", "ls2.gamma"]),
    final_norm: Some("norm"),
    classifiers: &["head"],
    apart: &[],
    other_heads: &[],
};
