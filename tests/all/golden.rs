//! Every family against the independent reference: passes, preprocessing, and every variant of every method.

use crate::support::*;
use candle_core::{DType, Tensor};
use serde_json::Value;
use vitx::encoder::{Inputs, Keep};
use vitx::explanation::Layout;
use vitx::input::image::Fit;
use vitx::method;
use vitx::model::Processor;
use vitx::nn::Rules;
use vitx::run::Batch;
use vitx::target::{seed, Output};

fn outputs(case: &Case) -> Vec<Output> {
    case.targets().into_iter().map(Output::of).collect()
}

#[test]
fn passes_equal_the_reference() {
    for name in CASES {
        let case = Case::open(name);
        for dtype in [DType::F32, DType::F64] {
            let model = case.model(dtype);
            let (inputs, _) = case.batch(&model);
            let trace = model.encoder.forward(&inputs, Keep::Layers).unwrap();
            let seed = seed(&outputs(&case), model.encoder.classes(), dtype, model.encoder.device()).unwrap();
            let grads = model.encoder.backward(&trace, &seed, &Rules::GRADIENT).unwrap();
            let mut seen = 0;
            for (key, want) in &case.expected {
                let (kind, layer) = key.split_once('.').map_or((key.as_str(), 0), |(k, l)| (k, l.parse().unwrap_or(0)));
                let got = match kind {
                    "logits" => &trace.logits,
                    "hidden" if layer == 0 => &trace.embedding,
                    "hidden" => &trace.layers[layer - 1].output,
                    "attention" => &trace.layers[layer].attention,
                    "attention_grad" => &grads.layers[layer].attention,
                    _ => continue,
                };
                let base = &case.json["base"];
                let (atol, rtol) = (base["atol"][kind].as_f64().unwrap(), base["rtol"].as_f64().unwrap());
                assert_close(&format!("{name} {dtype:?} {key}"), &flat(got), &flat(want), atol, rtol);
                seen += 1;
            }
            assert_eq!(seen, 2 + 3 * model.encoder.blocks.len(), "{name}: logits, hidden, attention, gradients");
        }
    }
}

#[test]
fn preprocessing_equals_the_reference() {
    for name in CASES {
        let case = Case::open(name);
        let checkpoint = case.checkpoint();
        if case.is_text() {
            let tokens = case.tokenised(&checkpoint);
            let want = case.json["tokens"].as_array().unwrap();
            for (row, (got, want)) in tokens.iter().zip(want).enumerate() {
                let want: Vec<&str> =
                    want.as_array().unwrap().iter().map(|t| t.as_str().unwrap()).take(got.ids.len()).collect();
                assert_eq!(pieces(&got.layout), want, "{name} row {row}");
            }
            let model = checkpoint.load(DType::F32, &candle_core::Device::Cpu).unwrap();
            let (Inputs::Tokens { ids, types, mask }, _) = model.text_inputs(&tokens).unwrap() else { panic!() };
            for (got, key) in [(ids, "input_ids"), (types, "token_type_ids"), (mask, "attention_mask")] {
                let Some(want) = case.inputs.get(key) else { continue };
                assert_eq!(flat(&got), flat(want), "{name} {key}");
            }
            continue;
        }
        let Processor::Image(processor) = &checkpoint.processor else { panic!() };
        let want = &case.inputs["pixel_values"];
        let images = &case.inputs["image_u8"];
        for row in 0..images.dims()[0] {
            let bytes: Vec<u8> = images.get(row).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let (h, w) = (images.dims()[1] as u32, images.dims()[2] as u32);
            let picture = image::RgbImage::from_raw(w, h, bytes).unwrap();
            for processor in
                [processor.clone(), processor.clone().adapted(Some((h as usize, w as usize)), Some(Fit::Crop))]
            {
                let got = processor.apply(&picture).unwrap();
                let got: Vec<f64> = got.pixels.iter().map(|&p| f64::from(p)).collect();
                assert_close(&format!("{name} pixels"), &got, &flat(&want.get(row).unwrap()), 1e-6, 1e-6);
            }
        }
    }
}

/// Methods whose arrays are rows of attention-like matrices; those of the others are in `golden_methods.rs`.
pub const ATTENTION_METHODS: &[&str] = &[
    "attention",
    "rollout",
    "flow",
    "gae",
    "grad-rollout",
    "attention-gradcam",
    "grad-attention",
    "aggregate",
    "norm",
    "norm-res",
    "norm-resln",
    "globenc",
    "alti",
    "value-zeroing",
];

/// The `--method` string of a variant, from its key and its parameters in case.json.
fn spec(method: &str, key: &str, array: &Value) -> String {
    let mixing = ["norm", "norm-res", "norm-resln", "globenc", "alti", "value-zeroing"].contains(&method);
    let params = array["params"].as_object().unwrap();
    let mut parts: Vec<String> = params
        .iter()
        .filter_map(|(key, value)| match (key.as_str(), value) {
            ("norm" | "metric", _) => None, // fixed in these methods
            ("heads", Value::String(s)) if s.starts_with("index ") => Some(format!("heads={}", &s[6..])),
            ("clamp", Value::String(s)) if s == "per head" => Some("clamp=true".into()),
            (_, Value::String(s)) => Some(format!("{key}={s}")),
            (_, other) => Some(format!("{key}={other}")),
        })
        .collect();
    if mixing {
        parts.push(format!("rollout={}", params.contains_key("start_layer")));
    }
    if key.ends_with(".raw") {
        parts.push("normalise=false".into());
    }
    if [".matrix", ".layers", ".raw"].iter().any(|end| key.ends_with(end)) {
        parts.push("matrix=true".into());
    }
    format!("{method}:{}", parts.join(","))
}

fn compare(
    case: &Case,
    batch: &Batch<'_>,
    layouts: &[Layout],
    spec: &str,
    layer: Option<usize>,
    (key, array): (&str, &Value),
) {
    let configured = method::parse(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
    let want = &case.expected[key];
    let (atol, rtol) = (array["atol"].as_f64().unwrap(), array["rtol"].as_f64().unwrap());
    let pass = batch.pass(outputs(case)).unwrap();
    for (row, layout) in layouts.iter().enumerate() {
        let explanation = configured.explain(&pass.run(row)).unwrap();
        let want = want.get(row).unwrap();
        let n = layout.len();
        let want = match (layer, explanation.matrix) {
            (Some(layer), _) => real(&want.get(layer).unwrap(), n),
            (None, true) => real(&want, n),
            (None, false) if case.is_text() => flat(&want.narrow(0, 0, n).unwrap()),
            _ => flat(&want),
        };
        let got: Vec<f64> = explanation.content().iter().map(|&r| f64::from(r)).collect();
        assert_close(&format!("{} {key} [{spec}] row {row}", case.name), &got, &want, atol, rtol);
    }
}

/// A padded matrix without its padding, which must be zero.
fn real(matrix: &Tensor, n: usize) -> Vec<f64> {
    let part = matrix.narrow(0, 0, n).unwrap().narrow(1, 0, n).unwrap().contiguous().unwrap();
    let sum = |t: &Tensor| flat(t).iter().map(|v| v.abs()).sum::<f64>();
    assert!((sum(matrix) - sum(&part)).abs() < 1e-9, "padding is not zero");
    flat(&part)
}

#[test]
fn every_variant_of_every_method_equals_the_reference() {
    for name in CASES {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        let batch = Batch::new(&model.encoder, inputs, layouts.clone()).unwrap();
        for entry in ATTENTION_METHODS {
            let arrays = case.arrays(entry);
            for (key, array) in arrays {
                let spec = spec(entry, &key, array);
                if key.ends_with(".layers") || key.ends_with(".raw") {
                    for layer in 0..model.encoder.blocks.len() {
                        let spec = format!("{spec},layer={layer}");
                        compare(&case, &batch, &layouts, &spec, Some(layer), (&key, array));
                    }
                    continue;
                }
                compare(&case, &batch, &layouts, &spec, None, (&key, array));
                if key == format!("method.{entry}") {
                    compare(&case, &batch, &layouts, entry, None, (&key, array));
                }
            }
        }
    }
}

#[test]
fn an_f64_model_agrees_with_itself_in_half_precision() {
    let case = Case::open("vit-square");
    let want = case.model(DType::F64);
    let (inputs, _) = case.batch(&want);
    let logits =
        |model: &vitx::model::Model| -> Tensor { model.encoder.forward(&inputs, Keep::Logits).unwrap().logits };
    for dtype in [DType::F16, DType::BF16] {
        let model = case.model(dtype);
        assert_close(&format!("{dtype:?}"), &flat(&logits(&model)), &flat(&logits(&want)), 0.05, 0.05);
    }
}
