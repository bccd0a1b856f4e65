//! Heads of one output, regression, several labels, and the ways to name a target.

use crate::cli::{records, stderr, stdout, vitx, write_npy};
use crate::support::*;
use candle_core::{DType, Device};
use serde_json::{json, Map, Value};
use std::path::Path;
use vitx::evaluate::{self, Candidate, Truth};
use vitx::method;
use vitx::model::{Access, Checkpoint, Model};
use vitx::run::Batch;
use vitx::target::{Output, Scale};

/// The vit-square fixture with its first `classes` outputs and other keys in its config, beside its two inputs as `x.npy`.
/// transformers' logits of their five outputs:
const LOGITS: [[f32; 5]; 2] = [[-1.2001, 0.6549, 0.3545, -1.1159, -3.1327], [-1.6478, 0.2458, 0.5102, 0.4020, -2.3986]];

fn fixture(dir: &Path, classes: usize, keys: Value) -> String {
    let (case, from, to) = (Case::open("vit-square"), case_dir("vit-square").join("model"), dir.join("model"));
    std::fs::create_dir_all(&to).unwrap();
    let mut config: Map<String, Value> =
        serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    let labels: Map<String, Value> = (0..classes).map(|c| (c.to_string(), json!(format!("LABEL_{c}")))).collect();
    config.insert("id2label".into(), labels.into());
    config.remove("label2id");
    let Value::Object(keys) = keys else { panic!() };
    config.extend(keys);
    std::fs::write(to.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    std::fs::copy(from.join("preprocessor_config.json"), to.join("preprocessor_config.json")).unwrap();
    let mut weights = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    for name in ["classifier.weight", "classifier.bias"] {
        let part = weights[name].narrow(0, 0, classes).unwrap().contiguous().unwrap();
        weights.insert(name.into(), part);
    }
    candle_core::safetensors::save(&weights, to.join("model.safetensors")).unwrap();
    write_npy(&dir.join("x.npy"), &case.inputs["pixel_values"]);
    to.display().to_string()
}

fn opened(model: &str) -> Checkpoint {
    Checkpoint::open(model, &Access::default()).unwrap()
}

fn near(got: &Value, want: f32) -> bool {
    got.as_f64().is_some_and(|got| (got - f64::from(want)).abs() < 2e-4)
}

#[test]
fn one_output_is_a_value_in_its_own_unit() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture(dir.path(), 1, json!({}));
    let run = |args: &[&str]| vitx(dir.path(), args);
    let predicted = run(&["predict", "-m", &model, "x.npy"]);
    assert_eq!(stdout(&predicted), "x.npy[0]: LABEL_0 -1.200\nx.npy[1]: LABEL_0 -1.648\n", "{}", stderr(&predicted));
    let record = &records(&run(&["predict", "-m", &model, "x.npy", "--json"]))[1]["predictions"][0];
    assert!(near(&record["value"], LOGITS[1][0]) && record.get("probability").is_none(), "{record}");

    let explained =
        run(&["explain", "-m", &model, "x.npy", "--method", "gae,rise:n=4", "--json", "-f", "npy", "-o", "o"]);
    let all = records(&explained);
    assert_eq!(all.len(), 4, "{}", stderr(&explained));
    for (record, input) in all.iter().zip([0, 0, 1, 1]) {
        let target = &record["target"];
        assert!(near(&target["value"], LOGITS[input][0]) && near(&target["logit"], LOGITS[input][0]), "{target}");
        assert!(target.get("probability").is_none(), "{target}");
    }
    assert_eq!(all[1]["method"]["params"]["score"], "value", "what stood in for the probability");

    for (args, part) in [
        (
            &["explain", "--method", "occlusion:score=probability"][..],
            "a probability is asked of a model that gives a value",
        ),
        (&["explain", "--method", "rise:score=probability"], "a probability is asked of a model that gives a value"),
        (&["explain", "-t", "above:0.5"], "a probability is asked of a model that gives a value"),
        (&["explain", "--head", "softmax"], "a softmax over one output is 1"),
    ] {
        let output = run(&[args, &["-m", &model, "x.npy", "-o", "p"]].concat());
        assert!(output.status.code() == Some(2) && stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
    let sigmoid = run(&["predict", "-m", &model, "x.npy", "--head", "sigmoid"]);
    assert_eq!(stdout(&sigmoid), "x.npy[0]: LABEL_0 0.231\nx.npy[1]: LABEL_0 0.161\n");
}

#[test]
fn values_are_judged_by_the_value() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture(dir.path(), 1, json!({"problem_type": "regression"}));
    let picture = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([(x * 8) as u8, (y * 8) as u8, 90]));
    picture.save(dir.path().join("a.png")).unwrap();
    std::fs::write(dir.path().join("d.csv"), "path,label\na.png,-1.5\n").unwrap();
    let evaluate = |more: &[&str]| {
        vitx(dir.path(), &[&["evaluate", "-m", &model, "--data", "d.csv", "--method", "gae"][..], more].concat())
    };
    let output = evaluate(&[]);
    let text = stdout(&output);
    assert!(
        output.status.success() && text.contains("the label class (the model gives values)"),
        "{}",
        stderr(&output)
    );
    assert!(text.contains("of the value, where a probability is named"), "{text}");
    assert!(!text.contains("of the accuracy") && !text.contains("are the prediction"), "{text}");
    for (metric, part) in [
        ("positive", "metric `positive`: accuracy is asked of a model that gives a value"),
        ("deletion:value=probability", "a probability is asked of a model that gives a value"),
    ] {
        let output = evaluate(&["--metric", metric]);
        assert!(output.status.code() == Some(2) && stderr(&output).contains(part), "{metric}: {}", stderr(&output));
    }
    assert!(evaluate(&["--metric", "positive:value=logit"]).status.success());
}

#[test]
fn labels_of_their_own_are_right_above_one_half() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture(dir.path(), 5, json!({"problem_type": "multi_label_classification"}));
    let output = vitx(
        dir.path(),
        &["explain", "-m", &model, "x.npy", "-t", "above:0.5", "--json", "-f", "npy", "-o", "o", "--batch-size", "2"],
    );
    let all = records(&output);
    let found: Vec<_> =
        all.iter().map(|r| (r["input"].as_str().unwrap(), r["target"]["class"].as_u64().unwrap())).collect();
    let mut sorted = found.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [("x.npy[0]", 1), ("x.npy[0]", 2), ("x.npy[1]", 1), ("x.npy[1]", 2), ("x.npy[1]", 3)],
        "{}",
        stderr(&output)
    );
    assert!(near(&all[0]["target"]["probability"], 0.6581), "{}", all[0]);
    let output = vitx(
        dir.path(),
        &["explain", "-m", &model, "x.npy", "-t", "above:0.65", "--json", "-f", "npy", "-o", "p", "--batch-size", "2"],
    );
    let all = records(&output);
    assert_eq!(all.iter().map(|r| r["status"].as_str().unwrap()).collect::<Vec<_>>(), ["nothing", "ok"]);
    assert!(
        stderr(&output).contains("note: x.npy[1]: nothing is above 0.65; the likeliest is LABEL_2 0.625"),
        "{}",
        stderr(&output)
    );

    // Both labels of an input count, and one below one half does not; under a softmax only the likeliest would.
    let case = Case::open("vit-square");
    let model = opened(&model).load(DType::F32, &Device::Cpu).unwrap();
    let (inputs, layouts) = case.batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    for (class, right) in [(1, 1.0), (2, 1.0), (0, 0.0)] {
        let pass = batch.pass(vec![Output::of(class); 2]).unwrap();
        let (run, candidate, truth) = (pass.run(0), Candidate::Gaussian, Truth::default());
        let explanation = candidate.explain(&run).unwrap();
        let judged = evaluate::Case { run: &run, explanation: &explanation, truth: &truth, candidate: &candidate };
        let metric = evaluate::parse_list(&["positive"], &model.checkpoint.facts()).unwrap().remove(0);
        let score = metric.score(&judged).unwrap().unwrap();
        assert_eq!(score.curve[0], right, "class {class} of the whole input");
        assert!(metric.convention().contains("probability is above 0.5"), "{}", metric.convention());
    }
}

#[test]
fn regression_with_several_outputs_and_cross_encoders() {
    let dir = tempfile::tempdir().unwrap();
    let predicted = |classes, keys, args: &[&str]| {
        let model = fixture(dir.path(), classes, keys);
        stdout(&vitx(dir.path(), &[&["predict", "-m", &model, "x.npy"], args].concat()))
            .lines()
            .next()
            .map(String::from)
    };
    let value = Some("x.npy[0]: LABEL_1 0.655, LABEL_2 0.354, LABEL_0 -1.200".to_string());
    assert_eq!(predicted(3, json!({"problem_type": "regression"}), &[]), value);
    assert_eq!(predicted(3, json!({}), &["--head", "value"]), value);
    let asks = json!({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}});
    assert_eq!(predicted(1, asks, &[]), Some("x.npy[0]: LABEL_0 0.231".into()));
    let plain = json!({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"});
    assert_eq!(predicted(1, plain, &[]), Some("x.npy[0]: LABEL_0 -1.200".into()));
}

#[test]
fn names_that_begin_at_one_load_as_in_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let names = json!({"id2label": {"1": "1 star", "2": "2 stars", "3": "3 stars", "4": "4 stars", "5": "5 stars"}});
    let model = fixture(dir.path(), 5, names);
    let checkpoint = opened(&model);
    assert_eq!(checkpoint.labels.len(), 5);
    assert_eq!((checkpoint.labels.name(0), checkpoint.labels.name(4)), ("class 0".into(), "4 stars".into()));
    assert!(checkpoint.notes.iter().any(|n| n.contains("names class 5 (`5 stars`)")), "{:?}", checkpoint.notes);
    let model = checkpoint.load(DType::F32, &Device::Cpu).unwrap();
    let (inputs, layouts) = Case::open("vit-square").batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let got = batch.logits().unwrap();
    for (got, want) in got.iter().flatten().zip(LOGITS.iter().flatten()) {
        assert!((got - want).abs() < 2e-4, "{got} instead of {want}");
    }
}

#[test]
fn targets_are_named_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let names = json!({"id2label": {"0": "1", "1": "2", "2": "crane", "3": "crane", "4": "0"}});
    let model = fixture(dir.path(), 5, names);
    let explain = |target: &str| {
        vitx(
            dir.path(),
            &["explain", "-m", &model, "x.npy", "-t", target, "--json", "-q", "-f", "npy", "-o", "o", "--overwrite"],
        )
    };
    let classes = |target: &str| -> Vec<u64> {
        let output = explain(target);
        let all = records(&output);
        all.iter().filter(|r| r["input"] == "x.npy[0]").map(|r| r["target"]["class"].as_u64().unwrap()).collect()
    };
    assert_eq!(classes("2,id:2,0,3"), [1, 2, 4, 3], "labels before numbers");
    for (target, part) in [
        ("crane", "label `crane` reads as classes 2 and 3; say id:2 or id:3"),
        ("1,id:0", "class 0 is asked for twice: `1` and `id:0`"),
        ("1,,2", "an empty label"),
    ] {
        let output = explain(target);
        assert!(output.status.code() == Some(2) && stderr(&output).contains(part), "{target}: {}", stderr(&output));
    }
    // A contrast tells the difference of the logits, here and on the line.
    let record = &records(&explain("id:1-id:0"))[0];
    assert!(near(&record["target"]["difference"], LOGITS[0][1] - LOGITS[0][0]), "{record}");
    let line = vitx(dir.path(), &["explain", "-m", &model, "x.npy", "-t", "id:1-id:0", "-f", "npy", "-o", "q"]);
    assert!(
        stdout(&line).starts_with("x.npy[0]: 2-1 +1.855 logits (class 1 less class 0, gae) -> "),
        "{}",
        stdout(&line)
    );
    // What lowers a class has its own name, and its record says so.
    let record = &records(&explain("-2"))[0];
    assert_eq!((&record["target"]["label"], &record["target"]["lowers"]), (&json!("-2"), &json!(true)));
    assert!(near(&record["target"]["logit"], LOGITS[0][1]), "{record}");
    assert!(record["outputs"]["npy"].as_str().unwrap().ends_with("x-0.gae.-2.npy"), "{record}");
    // Class 1 is among the first two of one input only; no map is made twice.
    assert_eq!(records(&explain("top:2,2")).len(), 5);
}

#[test]
fn folders_say_how_they_were_matched() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture(dir.path(), 5, json!({"id2label": {"0": "1", "1": "2", "2": "crane", "3": "crane", "4": "0"}}));
    for folder in ["1", "0", "3", "crane"] {
        let folder = dir.path().join("d").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        image::RgbImage::from_pixel(32, 32, image::Rgb([9, 90, 200])).save(folder.join("a.png")).unwrap();
    }
    let args = ["evaluate", "-m", &model, "--data", "d", "--method", "gae", "--metric", "sparseness", "--csv", "f.csv"];
    let output = vitx(dir.path(), &args);
    let said = stderr(&output);
    assert!(said.contains("class folders: 2 matched by name, 1 by number, 1 by neither"), "{said}");
    assert!(said.contains("label `crane` reads as classes 2 and 3"), "{said}");
    assert_eq!(output.status.code(), Some(1), "the folder that is unclear is left out");
    let csv = std::fs::read_to_string(dir.path().join("f.csv")).unwrap();
    let gae = csv.lines().filter(|l| l.contains(",gae,")).map(|l| l.split(',').take(3).collect::<Vec<_>>().join(","));
    let mut gae: Vec<_> = gae.map(|l| l.replace('\\', "/")).collect();
    gae.sort();
    assert_eq!(gae.len(), 3);
    for (line, want) in gae.iter().zip(["0,4", "1,0", "crane,3"]) {
        assert!(line.ends_with(want), "{line} instead of {want}");
    }
}

/// The output of a run on one input of a fixture.
fn map(batch: &Batch<'_>, output: Output, spec: &str) -> vitx::Result<vitx::explanation::Explanation> {
    let pass = batch.pass(vec![output; 2])?;
    method::parse(spec)?.explain(&pass.run(0))
}

#[test]
fn every_method_tells_what_lowers_a_class() {
    for name in ["vit-square", "bert"] {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (inputs, layouts) = case.batch(&model);
        let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
        for entry in method::all() {
            let spec = crate::contract::quick(entry.name);
            let configured = method::parse(&spec).unwrap();
            if configured.check(&model.checkpoint.facts()).is_err() {
                continue;
            }
            let raises = map(&batch, Output::of(1), &spec).unwrap();
            let lowers = map(&batch, Output { lowers: true, ..Output::of(1) }, &spec).unwrap();
            let what = format!("{name} {spec}");
            if entry.class_specific && configured.method.signed() {
                let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let negative: Vec<f64> = wide(&raises.relevance).iter().map(|r| -r).collect();
                // Clamped weights and shares of a softmax have two sides that are no mirror images.
                if !["gradcam-plusplus", "layercam", "scorecam"].contains(&entry.name) {
                    assert_close(&what, &wide(&lowers.relevance), &negative, 1e-6, 1e-5);
                }
            }
            let same = raises.relevance == lowers.relevance;
            assert_eq!(same, !entry.class_specific || configured.method.sizes_only(), "{what}: same map");
            let warned = lowers.checks.contains_key("warning") && !raises.checks.contains_key("warning");
            assert_eq!(warned, configured.method.sizes_only(), "{what}: a warning where only sizes are kept");
        }
    }
}

#[test]
fn values_stand_in_where_a_probability_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let model: Model = opened(&fixture(dir.path(), 1, json!({}))).load(DType::F32, &Device::Cpu).unwrap();
    assert_eq!(model.encoder.head.scale, Scale::Value);
    assert_eq!(model.probabilities(&[0.3]), None);
    let (inputs, layouts) = Case::open("vit-square").batch(&model);
    let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
    let own = |spec: &str| map(&batch, Output::of(0), spec).unwrap();
    assert_eq!(own("rise:n=8").relevance, own("rise:n=8,score=logit").relevance);
    for spec in ["occlusion", "vit-cx", "scorecam", "fullgrad", "gradient"] {
        let relevance = own(spec).relevance;
        assert!(relevance.iter().any(|r| *r != relevance[relevance.len() - 1]), "{spec}: not constant");
    }
    for spec in ["occlusion:score=probability", "fullgrad:score=probability"] {
        let error = map(&batch, Output::of(0), spec).unwrap_err().to_string();
        assert!(error.contains("a model that gives a value"), "{spec}: {error}");
    }
}
