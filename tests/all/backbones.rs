//! Checkpoints without a classifier: what explains tokens explains them, and nothing speaks of classes.

use crate::checkpoints::{changed, open};
use crate::cli::{stderr, vitx};
use crate::support::*;
use candle_core::DType;
use serde_json::{json, Value};
use std::path::Path;
use tempfile::TempDir;
use vitx::method;
use vitx::run::Batch;
use vitx::target::Output;

/// A case's checkpoint as its bare model is saved: no classifier, and without the base model's name where there is one.
pub(crate) fn backbone(case: &str, class: &str, base: &str) -> TempDir {
    let dir = changed(case, |tensors| {
        tensors
            .retain(|name, _| name.starts_with(base) && !name.starts_with("head") && !name.starts_with("classifier"));
        *tensors = tensors.drain().map(|(k, t)| (k.strip_prefix(base).unwrap_or(&k).to_string(), t)).collect();
    });
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    match config.get("architecture") {
        Some(_) => config["num_classes"] = json!(0),
        None => config["architectures"] = json!([class]),
    }
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}

const AGNOSTIC: &[&str] = &["attention", "rollout", "flow", "norm", "alti", "value-zeroing", "aggregate:heads=mean"];

#[test]
fn what_explains_tokens_says_of_a_backbone_what_it_says_of_the_classifier() {
    for (case, class, base) in
        [("vit-square", "ViTModel", "vit."), ("bert", "BertModel", "bert."), ("roberta", "RobertaModel", "roberta.")]
    {
        let case = Case::open(CASES.iter().find(|c| **c == case).unwrap());
        let bare = open(backbone(case.name, class, base).path()).unwrap();
        let whole = case.model(DType::F32);
        let map = |model: &vitx::model::Model, spec: &str| {
            let (inputs, layouts) = case.batch(model);
            let outputs = vec![Output::of(0); layouts.len()];
            let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
            method::parse(spec).unwrap().explain(&batch.pass(outputs).unwrap().run(0)).unwrap().relevance
        };
        let facts = bare.checkpoint.facts();
        for spec in AGNOSTIC {
            method::parse(spec).unwrap().check(&facts).unwrap();
            assert_eq!(map(&bare, spec), map(&whole, spec), "{} {spec}", case.name);
        }
        let refused: Vec<_> = method::all().filter(|m| method::parse(m.name).unwrap().check(&facts).is_err()).collect();
        assert!(refused.iter().any(|m| m.name == "gae") && refused.len() > 20, "{}", case.name);
    }
}

#[test]
fn the_command_line_speaks_of_no_class() {
    let dirs = [
        backbone("vit-square", "ViTModel", "vit."),
        backbone("dinov2", "Dinov2Model", "dinov2."),
        backbone("families/timm-vit", "", ""),
        backbone("families/ijepa", "IJepaModel", "ijepa."),
    ];
    for dir in &dirs {
        let (model, out) = (dir.path().to_str().unwrap(), tempfile::tempdir().unwrap());
        let picture = root().join("assets/cat.jpg");
        let run = |words: &[&str]| {
            vitx(out.path(), &[&[words[0], picture.to_str().unwrap(), "-m", model], &words[1..]].concat())
        };
        let done = run(&["explain", "--method", "rollout,attention", "--json"]);
        assert!(done.status.success(), "{}", stderr(&done));
        for line in String::from_utf8(done.stdout).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&record["target"], &record["predictions"]), (&Value::Null, &json!([])), "{line}");
            assert!(Path::new(&out.path().join(record["outputs"]["overlay"].as_str().unwrap())).exists());
        }
        let said = run(&["explain", "--method", "attention", "--overwrite"]);
        let line = String::from_utf8(said.stdout).unwrap();
        assert!(line.contains("cat.jpg: attention -> ") && !line.contains("feature"), "{line}");
        assert!(run(&["heads"]).status.success());
        assert!(run(&["compare", "--method", "rollout,norm"]).status.success());
        for (words, part) in [
            (&["explain"][..], "the model has no classes; attention, rollout"),
            (&["explain", "--method", "rollout", "-t", "id:3"], "there is no class to explain"),
            (&["predict"], "has no classes: it is a backbone without a classifier"),
            (&["explain", "--method", "rollout", "--head", "softmax"], "the model is a backbone, which has none"),
        ] {
            let refused = run(words);
            assert!(!refused.status.success() && stderr(&refused).contains(part), "{words:?}: {}", stderr(&refused));
        }
        let seen = vitx(out.path(), &["inspect", model]);
        assert!(String::from_utf8(seen.stdout).unwrap().contains("a backbone without a classifier"));
    }
}
