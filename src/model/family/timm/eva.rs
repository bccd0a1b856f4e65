//! EVA and EVA-02 (Fang et al. 2022, 2023) in timm's layout: rotary positions counted in rows and columns, keys without a bias, and norms
//! within attention and feed-forward.

use crate::encoder::Gate;
use crate::error::Result;
use crate::model::config::Config;
use crate::model::spec::{LayerSpec, NormKind, ScoresSpec};
use crate::nn::{Pairs, Rotary, Steps};

/// What sets its layers apart from ViT's.
pub(super) fn finish(a: &Config, layers: &mut [LayerSpec]) -> Result<()> {
    let norm = NormKind::layer_norm(a.float_or("norm_eps", 1e-6)?);
    let (fused, biased) = (a.flag_or("qkv_fused", true)?, a.flag_or("qkv_bias", true)?);
    let (scaled, inner) = (a.flag_or("scale_mlp", false)?, a.flag_or("scale_attn_inner", false)?);
    let counted = a.flag_or("use_rot_pos_emb", false)?.then(|| a.size("ref_feat_shape")).transpose()?;
    for (number, layer) in layers.iter_mut().enumerate() {
        let at = |name: &str| format!("blocks.{number}.{name}");
        let [query, key, value, _] = &mut layer.projections;
        key.bias = false;
        for (map, name) in [(query, "q"), (key, "k"), (value, "v")] {
            match fused {
                true => map.bias_name = biased.then(|| at(&format!("attn.{name}_bias"))),
                false => (map.name, map.part) = (at(&format!("attn.{name}_proj")), None),
            }
        }
        layer.inner = [inner.then(|| norm.named(at("attn.norm"))), scaled.then(|| norm.named(at("mlp.norm")))];
        if scaled && layer.gate == Gate::First {
            // The two halves of the first map apart.
            let Some(whole) = layer.into.pop() else { continue };
            layer.into = ["mlp.fc1_g", "mlp.fc1_x"]
                .map(|name| {
                    let mut half = whole.clone();
                    (half.name, half.out) = (at(name), whole.out / 2);
                    half
                })
                .to_vec();
        }
        if let Some(of) = counted {
            layer.scores =
                ScoresSpec::Rotary(Rotary { theta: 10_000.0, pairs: Pairs::Neighbours, steps: Steps::Cells { of } });
        }
    }
    Ok(())
}
