//! Models whose tokens see windows and are merged between stages (Swin): methods against arrays that torch, captum and pytorch-grad-cam
//! made of transformers' models, on pictures of two sizes (`tests/reference/stages.py`).

use crate::kin::Kin;
use crate::support::{assert_close, flat, root};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use vitx::encoder::{Inputs, Keep};
use vitx::explanation::{Explanation, Layout};
use vitx::method;
use vitx::nn::Rules;
use vitx::run::{Batch, Pass};
use vitx::target::Output;

struct Staged {
    kin: Kin,
    arrays: HashMap<String, Tensor>,
}

impl Staged {
    fn open(name: &str) -> Self {
        let folder = root().join("tests/fixtures/families").join(name);
        let arrays = candle_core::safetensors::load(folder.join("methods.safetensors"), &Device::Cpu).unwrap();
        Staged { kin: Kin::open(folder), arrays }
    }

    fn outputs(&self) -> Vec<Output> {
        self.kin.json["targets"].as_array().unwrap().iter().map(|t| Output::of(t.as_u64().unwrap() as u32)).collect()
    }

    /// Calls with the pass over both pictures of either size, and what the arrays of that size are called.
    fn each(&self, mut check: impl FnMut(&Pass<'_>, &str)) {
        for (size, pixels) in [("", &self.kin.inputs["pixel_values"]), ("large.", &self.arrays["large.pixel_values"])] {
            let (b, _, h, w) = pixels.dims4().unwrap();
            let layouts = vec![Layout::Image(self.kin.model.image_layout(h, w).unwrap()); b];
            let batch = Batch::new(&self.kin.model.encoder, Inputs::Pixels(pixels.clone()), layouts).unwrap();
            check(&batch.pass(self.outputs()).unwrap(), size);
        }
    }

    fn close(&self, name: &str, got: &[f64], row: usize, atol: f64) {
        let want = flat(&self.arrays[name].get(row).unwrap());
        assert_close(&format!("{name} row {row}"), got, &want, atol, 1e-3);
    }
}

const BOTH: [&str; 2] = ["swin", "swinv2"];

fn explained(spec: &str, pass: &Pass<'_>, row: usize) -> Explanation {
    method::parse(spec).unwrap().explain(&pass.run(row)).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

#[test]
fn logits_and_gradients_are_those_of_the_reference_on_both_sizes() {
    for own in BOTH.map(Staged::open) {
        own.each(|pass, size| {
            for row in 0..2 {
                let run = pass.run(row);
                own.close(&format!("{size}logits"), &flat(&run.trace().unwrap().logits.get(row).unwrap()), row, 1e-5);
                let of = |rules: &Rules| run.input_under(rules).unwrap();
                own.close(&format!("{size}gradient"), &flat(&of(&Rules::GRADIENT)), row, 1e-5);
                let pixels = run.subject().unwrap().values().unwrap();
                for (name, rules) in [("attn_lrp", Rules::ATTN_LRP), ("libra", Rules::LIBRA)] {
                    own.close(&format!("{size}{name}"), &flat(&(&pixels * of(&rules)).unwrap()), row, 1e-5);
                }
            }
        });
    }
}

#[test]
fn class_activation_maps_of_every_stage_are_those_of_the_reference() {
    for own in BOTH.map(Staged::open) {
        let mut seen = 0;
        for name in own.arrays.keys().filter(|name| name.contains("cam.")) {
            let (size, plain) = name.strip_prefix("large.").map_or(("", name.as_str()), |plain| ("large.", plain));
            let [method, layer, place] = plain.split('.').collect::<Vec<_>>()[..] else { panic!("{name}") };
            let spec = format!("{method}:layer={layer},where={place}");
            own.each(|pass, own_size| {
                for row in (0..2).filter(|_| own_size == size) {
                    let found = explained(&spec, pass, row);
                    let Layout::Image(layout) = &found.layout else { panic!() };
                    let want = flat(&own.arrays[name].get(row).unwrap());
                    let finer = want.len() / found.relevance.len();
                    if finer == 1 {
                        assert_close(&spec, &wide(&found.relevance), &want, 1e-6, 1e-3);
                        assert!(found.pixels.is_none());
                    } else {
                        // Four tokens of the first stage are one of the last: that has their mean, and the picture shows all.
                        let columns = 2 * layout.grid.1;
                        let mean = |cell: usize| {
                            let (r, c) = (2 * (cell / layout.grid.1), 2 * (cell % layout.grid.1));
                            (0..4).map(|i| want[(r + i / 2) * columns + c + i % 2]).sum::<f64>() / 4.0
                        };
                        let means: Vec<f64> = (0..found.relevance.len()).map(mean).collect();
                        assert_close(&spec, &wide(&found.relevance), &means, 1e-6, 1e-3);
                        assert!(found.drawn_pixels().is_some_and(|map| map.values.iter().any(|v| *v > 0.0)));
                    }
                    seen += 1;
                }
            });
        }
        assert!(seen >= 24, "{seen}");
    }
}

#[test]
fn integrated_gradients_are_those_of_captum() {
    for own in BOTH.map(Staged::open) {
        own.each(|pass, size| {
            for row in 0..2 {
                let spec = "integrated-gradients:steps=8,quadrature=midpoint,baseline=zero";
                let found = explained(spec, pass, row);
                let want = own.arrays[&format!("{size}integrated_gradients")].get(row).unwrap().sum(0).unwrap();
                let map = found.pixels.unwrap();
                assert_close(&format!("{size}{row}"), &wide(&map.values), &flat(&want), 1e-5, 1e-3);
            }
        });
    }
}

/// Relevance of pixels, of what the embedding adds and of all later constants sum to the logit, though windows hold places without a
/// token, and those constants.
#[test]
fn rules_that_conserve_lose_nothing_in_windows_and_mergings() {
    for own in BOTH.map(Staged::open) {
        own.each(|pass, size| {
            for (spec, row) in ["attn-lrp:rules=cp", "cp-lrp:identity=true", "reslrp:cp=true", "fullgrad:libra=true"]
                .iter()
                .flat_map(|spec| [(spec, 0), (spec, 1)])
            {
                let found = explained(spec, pass, row);
                let gap = found.checks["conservation_gap"].as_f64().unwrap();
                assert!(gap.abs() < 1e-4, "{size}{spec} row {row}: {gap}");
            }
            for row in 0..2 {
                // Each merged token's share goes to those that it stands for, so that the sum stays the logit.
                let found = explained("fullgrad:libra=true", pass, row);
                let sum: f64 = wide(&found.relevance).iter().sum();
                let logit = pass.run(row).logit().unwrap();
                assert!((sum - logit).abs() < 1e-4, "{size}{row}: {sum} of {logit}");
            }
        });
    }
}

/// Layers that are computed anew are those that were kept, to the last bit.
#[test]
fn what_is_computed_anew_is_what_was_kept() {
    for own in BOTH.map(Staged::open) {
        let (encoder, pixels) = (&own.kin.model.encoder, &own.arrays["large.pixel_values"]);
        let inputs = Inputs::Pixels(pixels.clone());
        let (kept, anew) = [Keep::Layers, Keep::Inputs].map(|keep| encoder.forward(&inputs, keep).unwrap()).into();
        for layer in 0..encoder.blocks.len() {
            let again = encoder.recorded(&anew, layer).unwrap().unwrap();
            assert_eq!(flat(&again.output), flat(&kept.layers[layer].output), "{layer}");
            let attention = encoder.attention(&anew, layer).unwrap().unwrap();
            assert_eq!(flat(&attention), flat(&kept.layers[layer].attention), "{layer}");
        }
        let seeds = Tensor::ones((2, encoder.classes()), DType::F32, &Device::Cpu).unwrap();
        let reach = |trace| flat(&encoder.backward(trace, &seeds, &Rules::GRADIENT).unwrap().embedding);
        assert_eq!(reach(&kept), reach(&anew));
    }
}

#[test]
fn stages_are_named_and_what_cannot_be_is_refused() {
    let own = Staged::open("swin");
    let facts = own.kin.model.checkpoint.facts();
    let refused = |spec: &str| method::parse(spec).unwrap().check(&facts).err().map(|e| e.to_string());
    for spec in ["gae", "rollout", "attention", "alti"] {
        assert!(refused(spec).is_some_and(|why| why.contains("window")), "{spec}");
    }
    assert!(refused("gradcam:layer=stage3").is_some_and(|why| why.contains("no such stage")));
    own.each(|pass, _| {
        let relevance = |spec: &str| explained(spec, pass, 0).relevance;
        assert_eq!(relevance("gradcam:layer=stage1"), relevance("gradcam:layer=1"));
        assert_eq!(relevance("gradcam:layer=stage2"), relevance("gradcam"));
    });
    let small = own.kin.inputs["pixel_values"].narrow(3, 0, 16).unwrap();
    let why = own.kin.model.encoder.logits(&Inputs::Pixels(small)).unwrap_err().to_string();
    assert!(why.contains("larger --size"), "{why}");
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// What other commands do with a model without attention of all tokens for all.
#[cfg(feature = "cli")]
#[test]
fn other_commands_take_what_the_model_has_or_say_why_not() {
    use crate::cli::{asset, stderr, vitx};
    let dir = tempfile::tempdir().unwrap();
    let model = root().join("tests/fixtures/families/swin/model");
    let model = model.to_str().unwrap();
    let cat = asset("cat.jpg");
    let heads = vitx(dir.path(), &["heads", "-m", model, &cat]);
    assert!(heads.status.code() == Some(2) && stderr(&heads).contains("window"), "{}", stderr(&heads));
    let compared = vitx(dir.path(), &["compare", "-m", model, "-q", "-o", "c.png", &cat]);
    assert!(compared.status.success(), "{}", stderr(&compared));
    let labels = format!("path,label\n{cat},0\n{},1\n", asset("flower.jpg"));
    std::fs::write(dir.path().join("labels.csv"), labels).unwrap();
    let evaluated =
        vitx(dir.path(), &["evaluate", "-m", model, "-q", "--data", "labels.csv", "--metric", "sparseness"]);
    assert!(evaluated.status.success(), "{}", stderr(&evaluated));
}
