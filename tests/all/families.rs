//! What single families promise beside the golden arrays: windows, rotations, pooled heads, names and refusals.

use crate::checkpoints::{changed, expected, logits, open};
use crate::support::*;
use candle_core::DType;
use serde_json::{json, Value};
use std::path::Path;
use vitx::input::text::Text;
use vitx::method;
use vitx::model::Processor;
use vitx::run::Batch;
use vitx::target::Output;

fn reconfigured(dir: &Path, change: impl Fn(&mut Value)) -> String {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    open(dir).map(|_| "it loads".to_string()).unwrap_or_else(|e| e.to_string())
}

/// Tokens behind the window see padding alone; what they hold must reach nobody.
#[test]
fn a_short_text_keeps_its_numbers_beside_a_long_one_under_local_attention() {
    for name in ["modernbert", "modernbert-mean"] {
        let model = Case::open(name).model(DType::F32);
        let Processor::Text(processor) = &model.checkpoint.processor else { panic!() };
        let text = |words: &str| processor.apply(&Text { first: words.into(), second: None }).unwrap();
        let (short, long) = (text("good"), text(&"the quiet film was very good ".repeat(5)));
        assert!(short.ids.len() + 8 < long.ids.len());
        let maps = |texts: &[_]| {
            let (inputs, layouts) = model.text_inputs(texts).unwrap();
            let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
            let pass = batch.pass(vec![Output::of(0); texts.len()]).unwrap();
            let logits = batch.logits().unwrap().swap_remove(0);
            let map = |spec| method::parse(spec).unwrap().explain(&pass.run(0)).unwrap().relevance;
            [logits, map("gae"), map("attn-lrp"), map("rollout")].concat()
        };
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
        let (alone, beside) = (wide(maps(std::slice::from_ref(&short))), wide(maps(&[short, long])));
        assert!(beside.iter().all(|v| v.is_finite()), "{name}");
        assert_close(name, &beside, &alone, 1e-6, 1e-4);
    }
}

#[test]
fn the_readout_of_a_pooled_head_is_named_and_its_class_token_is_not_read() {
    for (name, row) in [("modernbert", "class"), ("modernbert-mean", "mean"), ("dinov3", "class")] {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (batch, outputs) = case.asked(&model);
        let pass = batch.pass(outputs).unwrap();
        let explained = method::parse("rollout").unwrap().explain(&pass.run(0)).unwrap();
        assert_eq!(explained.params["row"], row, "{name}");
        let refused = method::parse("rollout:row=class").unwrap().check(&model.checkpoint.facts());
        assert_eq!(refused.is_err(), row == "mean", "{name}");
        if let Err(why) = refused {
            assert!(why.to_string().contains("row=auto"), "{why}");
        }
        // Each row is a distribution over tokens, and so is what the head reads of them.
        let sum: f32 = explained.relevance.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{name}: {sum}");
    }
}

#[test]
fn a_backbone_s_names_with_a_classifier_are_read() {
    for name in ["dinov3", "dinov3-gated", "modernbert"] {
        let dir = changed(name, |tensors| {
            *tensors = tensors.drain().map(|(k, t)| (k.trim_start_matches("model.").to_string(), t)).collect();
        });
        let model = open(dir.path()).unwrap();
        assert_close(name, &logits(&model, name), &expected(name), 1e-5, 1e-4);
    }
}

#[test]
fn what_a_config_asks_for_and_the_family_does_not_do_is_refused() {
    let cases: [(&str, &str, Value, &str); 4] = [
        ("modernbert", "classifier_pooling", json!("max"), "`classifier_pooling` is \"max\""),
        ("modernbert", "layer_types", json!(["full_attention", "chunked_attention"]), "of layer 1"),
        ("modernbert", "rope_parameters", json!({"full_attention": {"rope_type": "yarn"}}), "\"yarn\""),
        ("dinov3", "num_attention_heads", json!(16), "no multiple of 4"),
    ];
    for (name, key, value, part) in cases {
        let dir = changed(name, |_| ());
        let said = reconfigured(dir.path(), |config| config[key] = value.clone());
        assert!(said.contains(part), "{name} {key}: {said}");
    }
    // Without a window there would be nothing local: every token sees itself at least.
    let dir = changed("modernbert", |_| ());
    assert_eq!(reconfigured(dir.path(), |config| config["local_attention"] = json!(1)), "it loads");
}
