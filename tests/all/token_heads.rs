//! Models that label each token, and that find answers: what they mark is what transformers' pipelines mark, and each output is explained.

use crate::cli::{read_npy, records, stderr, vitx};
use crate::support::{assert_close, flat, root};
use candle_core::{DType, Device, Tensor};
use serde_json::{json, Value};
use std::collections::HashMap;
use std::path::PathBuf;
use vitx::encoder::Keep;
use vitx::input::text::{Text, Tokenised};
use vitx::model::{Access, Checkpoint, Model, Processor};
use vitx::nn::Rules;
use vitx::target::{seed, Output};

struct Case {
    folder: PathBuf,
    json: Value,
    expected: HashMap<String, Tensor>,
}

impl Case {
    fn open(name: &str) -> Self {
        let folder = root().join("tests/fixtures/heads").join(name);
        let json = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let expected = candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap();
        Case { folder, json, expected }
    }

    fn id(&self) -> String {
        self.folder.join("model").display().to_string()
    }

    fn model(&self) -> Model {
        Checkpoint::open(&self.id(), &Access::default()).and_then(|c| c.load(DType::F32, &Device::Cpu)).unwrap()
    }

    fn texts(&self) -> Vec<Vec<String>> {
        let text = |v: &Value| v.as_str().unwrap().to_string();
        let pair = |v: &Value| v.as_array().unwrap().iter().map(text).collect();
        self.json["texts"].as_array().unwrap().iter().map(pair).collect()
    }

    fn tokenised(&self, model: &Model) -> Vec<Tokenised> {
        let Processor::Text(processor) = &model.checkpoint.processor else { panic!("a text model") };
        self.texts().iter().map(|text| processor.apply(&Text::of(text).unwrap()).unwrap()).collect()
    }

    fn arguments(&self, row: usize) -> Vec<String> {
        let text = self.texts().swap_remove(row);
        let flag = if text.len() == 2 { "--text-pair" } else { "--text" };
        [vec![flag.to_string()], text].concat()
    }
}

/// The gradient of what a token's classes say by each layer's attention, of one text alone.
fn gradients(model: &Model, text: &Tokenised, token: usize, class: u32) -> (f64, Vec<Tensor>) {
    let mut encoder = model.encoder.clone();
    encoder.head = encoder.head.at(token);
    let (inputs, _) = model.text_inputs(std::slice::from_ref(text)).unwrap();
    let trace = encoder.forward(&inputs, Keep::Reverse).unwrap();
    let outputs = [Output::of(class)];
    let seed = seed(&outputs, encoder.classes(), DType::F32, &Device::Cpu).unwrap();
    let grads = encoder.backward(&trace, &seed, &Rules::GRADIENT).unwrap();
    let logit = flat(&trace.logits)[class as usize];
    (logit, grads.layers.iter().map(|l| l.attention.get(0).unwrap()).collect())
}

#[test]
fn logits_and_gradients_of_tokens_are_those_of_the_reference() {
    for name in ["bert-tokens", "roberta-tokens", "distilbert-qa", "bert-qa"] {
        let case = Case::open(name);
        let model = case.model();
        for (row, text) in case.tokenised(&model).iter().enumerate() {
            let target = |i: usize| case.json["targets"][row][i].as_u64().unwrap();
            let asked = match name.ends_with("qa") {
                false => vec![("", target(0), target(1) as u32)],
                true => vec![("start.", target(0), 0), ("end.", target(1), 1)],
            };
            for (part, token, class) in asked {
                let (logit, grads) = gradients(&model, text, token as usize, class);
                let want = match part {
                    "" => flat(&case.expected["logits"].get(row).unwrap().get(token as usize).unwrap())[class as usize],
                    _ => flat(&case.expected[&format!("{}_logits", &part[..part.len() - 1])].get(row).unwrap())
                        [token as usize],
                };
                assert!((logit - want).abs() < 1e-5, "{name} {part} row {row}: {logit} instead of {want}");
                for (layer, got) in grads.iter().enumerate() {
                    let n = text.ids.len();
                    let want = case.expected[&format!("{part}attention_grad.{layer}")].get(row).unwrap();
                    let want = want.narrow(1, 0, n).unwrap().narrow(2, 0, n).unwrap();
                    assert_close(
                        &format!("{name} {part} row {row} layer {layer}"),
                        &flat(got),
                        &flat(&want),
                        2e-5,
                        1e-4,
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_marked_is_what_transformers_marks() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bert-tokens", "roberta-tokens", "distilbert-qa", "bert-qa"] {
        let case = Case::open(name);
        for row in 0..2 {
            let mut args = vec!["predict".to_string(), "--json".into(), "-m".into(), case.id()];
            args.extend(case.arguments(row));
            let output = vitx(dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(output.status.success(), "{}", stderr(&output));
            let got = records(&output)[0]["found"].as_array().unwrap().clone();
            let want = match name.ends_with("qa") {
                false => case.json["entities"]["simple"][row].as_array().unwrap().clone(),
                true => vec![case.json["answers"][row].clone()],
            };
            assert_eq!(got.len(), want.len(), "{name} row {row}: {got:?}");
            for (got, want) in got.iter().zip(&want) {
                assert!(
                    (got["score"].as_f64().unwrap() - want["score"].as_f64().unwrap()).abs() < 1e-5,
                    "{got} {want}"
                );
                assert_eq!((&got["start"], &got["end"]), (&want["start"], &want["end"]), "{name} row {row}");
                let ends = want["tokens"].as_array().unwrap();
                assert_eq!(got["tokens"], json!([ends.first(), ends.last()]), "{name} row {row}");
                match want.get("entity_group") {
                    Some(group) => assert_eq!(&got["label"], group),
                    None => assert_eq!(got["text"], want["answer"]),
                }
            }
        }
    }
}

#[test]
fn entities_and_answers_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let run = |case: &Case, row: usize, more: &[&str]| {
        let id = case.id();
        let (text, mut args) = (case.arguments(row), vec!["explain", "--json", "--overwrite", "-m", &id]);
        args.extend(text.iter().map(String::as_str));
        args.extend(more);
        vitx(dir.path(), &args)
    };
    let said = |case: &Case, row: usize, more: &[&str]| {
        let output = run(case, row, more);
        assert!(output.status.success(), "{more:?}: {}", stderr(&output));
        records(&output)
    };
    let tokens = Case::open("bert-tokens");
    let all = said(&tokens, 0, &[]);
    let groups = tokens.json["entities"]["simple"][0].as_array().unwrap();
    assert_eq!(all.len(), groups.len());
    assert_eq!(
        (&all[0]["target"]["label"], &all[0]["checks"]["found"]["text"]),
        (&json!("3/B-PER"), &json!("Maria Rivera"))
    );
    assert_eq!(said(&tokens, 0, &["-t", "entities"]).len(), groups.len());
    let one = said(&tokens, 0, &["-t", "token:4/B-LOC", "-t", "token:4", "-f", "npy", "-o", "maps/"]);
    assert_eq!((&one[0]["target"]["label"], &one[1]["target"]["label"]), (&json!("4/B-LOC"), &json!("4/I-PER")));
    assert!(dir.path().join("maps/text.attn-lrp.4-B-LOC.npy").exists());
    let every = said(&tokens, 1, &["-t", "token:1", "--method", "all"]);
    assert!(every.len() >= 30 && every.iter().all(|r| r["status"] == "ok"), "{}", every.len());
    let none = said(&tokens, 0, &["-t", "I-LOC", "-t", "B-LOC"]);
    assert_eq!(none.last().unwrap()["status"], "nothing", "{none:?}");

    let spans = Case::open("distilbert-qa");
    let [start, end] = [0, 1].map(|i| spans.json["targets"][0][i].as_u64().unwrap());
    let map = |target: &str, out: &str| {
        let found = said(&spans, 0, &["-t", target, "--method", "gradient-x-input", "-f", "npy", "-o", out]);
        let file = found[0]["outputs"]["npy"].as_str().unwrap().to_string();
        (found[0]["target"]["logit"].as_f64().unwrap(), read_npy(&dir.path().join(file)))
    };
    let ((first, begins), (last, ends), (both, sum)) = (map("start", "qa/"), map("end", "qa/"), map("answer", "qa/"));
    assert!((first + last - both).abs() < 1e-5);
    let added: Vec<f64> = begins.iter().zip(&ends).map(|(a, b)| a + b).collect();
    assert_close("an answer is its two ends", &sum, &added, 1e-6, 1e-4);
    assert_eq!(map(&format!("token:{start}/start"), "token/").1, begins);
    assert_eq!(map(&format!("token:{end}/end"), "token/").1, ends);

    for (case, part) in [(&tokens, "labels each token"), (&spans, "an answer begins")] {
        let seen = crate::cli::stdout(&vitx(dir.path(), &["inspect", &case.id()]));
        assert!(seen.contains(part), "{seen}");
    }
    for (output, part) in [
        (run(&tokens, 0, &["-t", "top:2"]), "ask for entities, a label, or token:I/LABEL"),
        (run(&tokens, 0, &["-t", "token:99"]), "the text has tokens 0 to 19"),
        (run(&tokens, 0, &["-t", "token:x"]), "expected token:I"),
        (run(&spans, 0, &["-t", "token:3"]), "ask for answer, start, end"),
        (vitx(dir.path(), &["explain", "--text", "fine", "-t", "entities"]), "nothing of each token"),
        (vitx(dir.path(), &["explain", "-m", &spans.id(), "--text", "Who?"]), "--text-pair QUESTION CONTEXT"),
    ] {
        assert!(!output.status.success() && stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
}
