//! Models that compare pictures with texts: texts are classes, words are explained for a picture; and similarities of states.

use crate::cli::{asset, read_npy, records, stderr, stdout, vitx, write_npy};
use crate::kin::{checkpoint, Kin};
use crate::support::{assert_close, flat, root};
use candle_core::{DType, Device, Tensor};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use vitx::encoder::Keep;
use vitx::input::image::Prepared;
use vitx::input::prepare::{Picture, Ready};
use vitx::input::text::Text;
use vitx::method;
use vitx::model::{Checkpoint, Model, Processor, Reference};
use vitx::nn::Rules;
use vitx::run::Batch;
use vitx::target::{seed, Output};

const CASES: &[&str] = &["clip", "chinese_clip", "siglip"];

fn folder(case: &str) -> PathBuf {
    root().join("tests/fixtures/towers").join(case)
}

fn model_of(case: &str) -> String {
    folder(case).join("model").display().to_string()
}

/// A picture of the case as it is prepared.
fn picture(kin: &Kin, number: usize) -> Ready {
    let pixels = kin.inputs["pixel_values"].get(number).unwrap();
    let (_, h, w) = pixels.dims3().unwrap();
    let plain = vitx::input::image::decode(&std::fs::read(root().join("assets/cat.jpg")).unwrap()).unwrap();
    let prepared =
        Prepared { pixels: flat(&pixels).iter().map(|x| *x as f32).collect(), size: (h, w), ..prepared(kin, &plain) };
    Ready::Picture(Box::new(Picture { upright: plain, prepared, remarks: Vec::new() }))
}

fn prepared(kin: &Kin, picture: &image::RgbImage) -> Prepared {
    let Processor::Image(processor) = &kin.model.checkpoint.processor else { panic!("a vision model") };
    processor.apply(picture).unwrap()
}

const CPU: (DType, &Device) = (DType::F32, &Device::Cpu);

fn load(checkpoint: vitx::Result<Checkpoint>) -> Model {
    checkpoint.and_then(|c| c.load(DType::F32, &Device::Cpu)).unwrap()
}

#[test]
fn a_text_tower_s_passes_are_those_of_the_reference() {
    for case in CASES {
        let kin = Kin::open(folder(case));
        let pictures = vec![("first".to_string(), picture(&kin, 0))];
        let model = load(checkpoint(&folder(case)).and_then(|c| c.of_texts(pictures, CPU)));
        let Processor::Text(processor) = &model.checkpoint.processor else { panic!("a text model") };
        let texts: Vec<_> = kin.json["prompts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let read = |text: &&str| processor.apply(&Text { first: text.to_string(), second: None }).unwrap();
        let texts: Vec<_> = texts.iter().map(read).collect();
        let (inputs, layouts) = model.text_inputs(&texts).unwrap();
        let trace = model.encoder.forward(&inputs, Keep::Layers).unwrap();
        let outputs = vec![Output::of(0); texts.len()];
        let grads = model
            .encoder
            .backward(&trace, &seed(&outputs, 1, DType::F32, &Device::Cpu).unwrap(), &Rules::GRADIENT)
            .unwrap();
        let column = kin.expected["logits_per_image"].get(0).unwrap();
        assert_close(case, &flat(&trace.logits), &flat(&column), 1e-5, 1e-4);
        for (row, text) in texts.iter().enumerate() {
            let n = text.ids.len();
            let own = |t: &Tensor, square: bool| {
                let t = t.get(row).unwrap();
                flat(&if square {
                    t.narrow(1, 0, n).unwrap().narrow(2, 0, n).unwrap()
                } else {
                    t.narrow(0, 0, n).unwrap()
                })
            };
            for layer in 0..model.encoder.blocks.len() {
                let (record, grad) = (&trace.layers[layer], &grads.layers[layer]);
                let (hidden, after) = (format!("text.hidden.{layer}"), format!("text.hidden.{}", layer + 1));
                let (attention, by) = (format!("text.attention.{layer}"), format!("text.attention_grad.{layer}"));
                for (key, got, square, atol) in [
                    (&hidden, &record.input, false, 1e-5),
                    (&after, &record.output, false, 2e-5),
                    (&attention, &record.attention, true, 1e-5),
                    (&by, &grad.attention, true, 2e-5),
                ] {
                    let want = own(&kin.expected[key], square);
                    assert_close(&format!("{case} {key} row {row}"), &own(got, square), &want, atol, 1e-4);
                }
            }
        }
        let facts = model.checkpoint.facts();
        let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
        let pass = batch.pass(outputs).unwrap();
        let mut explained = 0;
        for entry in method::all() {
            let method = method::parse(entry.name).unwrap();
            if method.check(&facts).is_ok() {
                let found = method.explain(&pass.run(1)).unwrap_or_else(|e| panic!("{case} {}: {e}", entry.name));
                assert!(found.relevance.iter().all(|v| v.is_finite()), "{case} {}", entry.name);
                explained += 1;
            }
        }
        assert!(explained >= 25, "{case}: {explained} methods");
    }
}

#[test]
fn texts_are_classes_to_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let (model, cat) = (model_of("clip"), asset("cat.jpg"));
    std::fs::write(dir.path().join("classes.txt"), "cat\n\ndog\r\nred bird\n").unwrap();
    let run = |args: &[&str]| vitx(dir.path(), &[args, &["-m", &model]].concat());
    let said = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        output
    };
    let list = ["--classes", "cat, dog,red bird", "--prompt", "a photo of a {}"];
    let one = said(&[&["predict", "--json", &cat][..], &list].concat());
    let file = said(&["predict", "--json", &cat, "--classes-file", "classes.txt", "--prompt", "a photo of a {}"]);
    assert_eq!(stdout(&one), stdout(&file));
    let predictions = records(&one)[0]["predictions"].clone();
    let total: f64 = predictions.as_array().unwrap().iter().map(|p| p["probability"].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{predictions}");

    // The template's texts are the classes' texts.
    let whole =
        said(&["predict", "--json", &cat, "--classes", "a photo of a cat,a photo of a dog,a photo of a red bird"]);
    let logits = |o| {
        records(o)[0]["predictions"].as_array().unwrap().iter().map(|p| p["probability"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(logits(&one), logits(&whole));

    let target = |args: &[&str]| {
        let output = said(&[&["explain", "--json", "--overwrite", &cat][..], args].concat());
        let record = records(&output)[0].clone();
        (record["target"].clone(), record["identity"].clone())
    };
    let (alone, _) = target(&["-t", "text:a photo of a cat, asleep"]);
    assert_eq!(alone["label"], "a photo of a cat, asleep");
    let (among, first) = target(&["--classes", "dog", "-t", "text:a photo of a cat, asleep"]);
    assert_eq!((&among["class"], &among["logit"]), (&json!(1), &alone["logit"]));
    let (contrast, second) = target(&["-t", "text:a cat-text:a dog"]);
    assert_eq!(contrast["label"], "a cat-a dog");
    assert_ne!(first["model"], second["model"], "other classes are another model");
    let every = said(&[&["explain", "--method", "all", "--json", "-o", "all", &cat][..], &list].concat());
    assert!(records(&every).len() >= 40);
    said(&[&["compare", "--method", "gae,rollout", "-t", "cat-dog", &cat][..], &list].concat());

    let demo = ["explain", "--classes", "cat,dog", &cat];
    for (output, part) in [
        (run(&["explain", &cat]), "--classes \"cat, dog\""),
        (run(&["predict", &cat]), "compares pictures with texts; name texts as its classes"),
        (run(&["explain", &cat, "--prompt", "a photo of a {}"]), "no class is named"),
        (run(&["explain", &cat, "--classes", "cat,dog", "--prompt", "a photo"]), "has no {} for the class"),
        (run(&["explain", &cat, "--classes", "cat,cat"]), "named twice"),
        (run(&["explain", &cat, "--classes-file", "none.txt"]), "none.txt"),
        (run(&["explain", &cat, "--classes", "cat", "-t", &format!("text:{}", "very ".repeat(99))]), "longer than the"),
        (run(&["explain", &cat, "--explain", "text"]), "name the texts"),
        (vitx(dir.path(), &demo), "this one (ViT) has its own"),
    ] {
        assert!(!output.status.success() && stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    let seen = stdout(&vitx(dir.path(), &["inspect", &model]));
    assert!(seen.contains("pictures beside texts"), "{seen}");
}

#[test]
fn words_are_explained_for_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let (model, cat, flower) = (model_of("clip"), asset("cat.jpg"), asset("flower.jpg"));
    let text = ["-t", "text:a photo of a cat"];
    let args = ["explain", "--json", "--explain", "text", "-m", &model, &cat, &flower];
    let output = vitx(dir.path(), &[&args[..], &text].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let words = records(&output);
    let pictures =
        records(&vitx(dir.path(), &[&["explain", "--json", "-m", &model, &cat, &flower][..], &text].concat()));
    assert_eq!(words.len(), 2);
    for (word, picture) in words.iter().zip(&pictures) {
        assert_eq!(word["input"], "a photo of a cat");
        let close = word["target"]["logit"].as_f64().unwrap() - picture["target"]["logit"].as_f64().unwrap();
        assert!(close.abs() < 1e-4, "one similarity from both sides: {word} {picture}");
        let tokens: Vec<_> = word["tokens"].as_array().unwrap().iter().map(|t| t["text"].as_str().unwrap()).collect();
        assert_eq!(tokens.len(), 7, "{tokens:?}");
    }
    assert_eq!((&words[0]["target"]["label"], &words[1]["target"]["label"]), (&json!("cat"), &json!("flower")));
}

#[test]
fn similarities_are_those_of_the_states() {
    let kin = Kin::open(folder("clip"));
    let open = || vitx::model::Checkpoint::open(&model_of("clip"), &Default::default()).unwrap();
    let embeds = &kin.expected["image_embeds"];
    let dot = |a: usize, b: usize| -> f64 {
        flat(&embeds.get(a).unwrap()).iter().zip(flat(&embeds.get(b).unwrap())).map(|(x, y)| x * y).sum()
    };
    let vector = flat(&embeds.get(1).unwrap()).iter().map(|x| 3.0 * *x as f32).collect();
    let references =
        vec![("one".to_string(), Reference::Input(picture(&kin, 1))), ("vector".into(), Reference::Vector(vector))];
    let model = load(open().similar_to(references, false, CPU));
    let Ready::Picture(own) = picture(&kin, 0) else { panic!() };
    let (inputs, _) = model.image_inputs(&[own.prepared]).unwrap();
    let got = flat(&model.encoder.logits(&inputs).unwrap());
    assert_close("cosine", &got, &[dot(0, 1), dot(0, 1)], 1e-6, 1e-5);
    let long = open().similar_to(vec![("v".into(), Reference::Vector(vec![1.0; 7]))], true, CPU).err().unwrap();
    assert!(long.to_string().contains("a vector of 7 numbers"), "{long}");
}

/// A backbone of a case, with what `change` makes of its folder.
fn bare(case: &str, class: &str, change: impl Fn(&Path)) -> tempfile::TempDir {
    let dir = crate::backbones::backbone(case, class, &format!("{case}."));
    change(dir.path());
    dir
}

#[test]
fn similarities_and_lengths_of_backbones_are_outputs() {
    let out = tempfile::tempdir().unwrap();
    let dir = crate::backbones::backbone("vit-square", "ViTModel", "vit.");
    let (model, cat, flower) = (dir.path().to_str().unwrap(), asset("cat.jpg"), asset("flower.jpg"));
    let run = |args: &[&str]| vitx(out.path(), &[args, &["-m", model]].concat());
    let value = |args: &[&str]| {
        let output = run(&[&["explain", "--json", "--overwrite", "-f", "npy", "-o", "maps/"][..], args].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        records(&output)[0]["target"]["logit"].as_f64().unwrap()
    };
    let same = value(&[&cat, "-t", &format!("similarity:{cat}")]);
    assert!((same - 1.0).abs() < 1e-5, "{same}");
    // At a maximum of the cosine its gradient vanishes.
    value(&[&cat, "-t", &format!("similarity:{cat}"), "--method", "gradient"]);
    let map = |e: std::io::Result<std::fs::DirEntry>| {
        Some(e.unwrap().path()).filter(|p| p.to_string_lossy().contains("gradient"))
    };
    let maps: Vec<_> = std::fs::read_dir(out.path().join("maps")).unwrap().filter_map(map).collect();
    assert!(!maps.is_empty() && maps.iter().all(|map| read_npy(map).iter().all(|v| v.abs() < 1e-4)));
    let (there, back) =
        (value(&[&cat, "-t", &format!("similarity:{flower}")]), value(&[&flower, "-t", &format!("similarity:{cat}")]));
    assert!((there - back).abs() < 1e-5 && there < 0.9999, "{there} {back}");
    let (norm, dot) = (value(&[&cat, "-t", "norm"]), value(&[&cat, "-t", &format!("dot:{cat}")]));
    assert!((norm * norm / dot - 1.0).abs() < 1e-4, "{norm} {dot}");
    let first = Tensor::from_vec((0..32u8).map(|i| f32::from(u8::from(i == 0))).collect(), 32, &Device::Cpu).unwrap();
    write_npy(&out.path().join("first.npy"), &first);
    value(&[&cat, "-t", "dot:first.npy", "--method", "attn-lrp"]);
    value(&[&cat, "-t", &format!("-similarity:{flower}")]);
    let mixed = run(&["explain", &cat, "-t", "norm", "-t", "dot:first.npy"]);
    assert!(stderr(&mixed).contains("outputs of different models"), "{}", stderr(&mixed));
    let missing = run(&["explain", &cat, "-t", "similarity:none.jpg"]);
    assert!(stderr(&missing).contains("none.jpg"), "{}", stderr(&missing));
}

#[test]
fn sentence_encoders_pool_as_their_folders_say() {
    let out = tempfile::tempdir().unwrap();
    let with = |mode: &'static str| {
        bare("bert", "BertModel", move |dir| {
            let module = |name: &str, path: &str| json!({"idx": 0, "name": "", "path": path, "type": format!("sentence_transformers.models.{name}")});
            let modules =
                json!([module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")]);
            std::fs::write(dir.join("modules.json"), modules.to_string()).unwrap();
            std::fs::create_dir(dir.join("1_Pooling")).unwrap();
            let mut pooling: Value = json!({"word_embedding_dimension": 24});
            pooling[format!("pooling_mode_{mode}")] = json!(true);
            std::fs::write(dir.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
            std::fs::write(dir.join("sentence_bert_config.json"), r#"{"max_seq_length": 9, "do_lower_case": false}"#)
                .unwrap();
        })
    };
    let run = |dir: &Path| {
        let model = dir.to_str().unwrap();
        vitx(
            out.path(),
            &[
                "explain",
                "--json",
                "-m",
                model,
                "--text",
                "good film",
                "-t",
                "similarity:a good film",
                "-t",
                "similarity:bad",
            ],
        )
    };
    let value = |mode: &'static str| {
        let output = run(with(mode).path());
        assert!(output.status.success(), "{}", stderr(&output));
        let found = records(&output);
        (found[0]["target"]["logit"].as_f64().unwrap(), found[1]["target"]["label"].clone())
    };
    let (mean, label) = value("mean_tokens");
    assert_eq!(label, "bad");
    let (class, greatest) = (value("cls_token").0, value("max_tokens").0);
    assert!((mean - class).abs() > 1e-4 && (mean - greatest).abs() > 1e-4 && mean < 1.0 && greatest < 1.0);
    let refused = stderr(&run(with("mean_sqrt_len_tokens").path()));
    assert!(refused.contains("pooling by mean_sqrt_len_tokens is not supported"), "{refused}");
}

#[test]
fn both_sides_of_a_similarity_are_explained() {
    let out = tempfile::tempdir().unwrap();
    let dir = crate::backbones::backbone("vit-square", "ViTModel", "vit.");
    let (model, cat, flower) = (dir.path().to_str().unwrap(), asset("cat.jpg"), asset("flower.jpg"));
    let target = format!("similarity:{flower}");
    let output = vitx(out.path(), &["explain", "--json", "--both", "-m", model, &cat, "-t", &target]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = records(&output);
    let of = |n: usize| (found[n]["input"].as_str().unwrap().to_string(), found[n]["target"]["label"].clone());
    assert_eq!((of(0), of(1)), ((cat.clone(), json!(flower)), (flower, json!(cat.clone()))));
    let logit = |n: usize| found[n]["target"]["logit"].as_f64().unwrap();
    assert!((logit(0) - logit(1)).abs() < 1e-5);
    let refused = vitx(out.path(), &["explain", "--both", "-m", model, &cat, "-t", "norm"]);
    assert!(stderr(&refused).contains("--both explains the other side"), "{}", stderr(&refused));
}

#[test]
fn classes_are_hypotheses_to_a_model_that_knows_entailment() {
    let folder = root().join("tests/fixtures/heads/bert-nli");
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let expected = candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap();
    let (out, model) = (tempfile::tempdir().unwrap(), folder.join("model").display().to_string());
    let classes: Vec<&str> = json["classes"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    let text = json["premise"].as_str().unwrap();
    let list = classes.join(",");
    let run = |args: &[&str]| vitx(out.path(), &[args, &["-m", &model, "--text", text, "--classes", &list]].concat());
    let predicted = run(&["predict", "--json"]);
    assert!(predicted.status.success(), "{}", stderr(&predicted));
    let (logits, probabilities) = (flat(&expected["entailment_logits"]), flat(&expected["probabilities"]));
    for prediction in records(&predicted)[0]["predictions"].as_array().unwrap() {
        let class = prediction["class"].as_u64().unwrap() as usize;
        assert_eq!(prediction["label"], classes[class]);
        let near =
            |key: &str, want: f64| assert!((prediction[key].as_f64().unwrap() - want).abs() < 1e-5, "{prediction}");
        near("probability", probabilities[class]);
    }
    let explained = run(&["explain", "--json", "--method", "gae,leave-one-out", "-t", classes[1], "-t", "predicted"]);
    assert!(explained.status.success(), "{}", stderr(&explained));
    let found = records(&explained);
    assert_eq!((found.len(), &found[0]["target"]["label"]), (4, &json!(classes[1])));
    assert!(found[0]["texts"][1].as_str().unwrap().contains(classes[1]), "{}", found[0]["texts"]);
    assert!((found[0]["target"]["logit"].as_f64().unwrap() - logits[1]).abs() < 1e-5);
    assert!(run(&["compare", "--method", "gae,attn-lrp"]).status.success());
    for (args, part) in [
        (&["explain", "-t", &format!("{}-{}", classes[0], classes[1])][..], "read beside the text by itself"),
        (&["explain", "--prompt", "about"][..], "has no {} for the class"),
    ] {
        let refused = run(args);
        assert!(stderr(&refused).contains(part), "{}", stderr(&refused));
    }
    let demo = vitx(out.path(), &["predict", "--text", "fine", "--classes", "a,b"]);
    assert!(stderr(&demo).contains("with a class `entailment`"), "{}", stderr(&demo));
}

#[test]
fn components_are_directions_of_most_variance() {
    let out = tempfile::tempdir().unwrap();
    let dir = crate::backbones::backbone("vit-square", "ViTModel", "vit.");
    let (model, inputs) = (dir.path().to_str().unwrap(), ["cat.jpg", "flower.jpg", "temple.jpg"].map(asset));
    let run = |more: &[&str]| {
        let mut args = vec!["explain", "--json", "--overwrite", "-m", model, "--method", "gradient-x-input"];
        args.extend(inputs.iter().map(String::as_str));
        args.extend(more);
        vitx(out.path(), &args)
    };
    let output = run(&["-t", "component:1", "-t", "component:2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = records(&output);
    assert_eq!((found.len(), &found[1]["target"]["label"]), (6, &json!("component 2")));
    // Centred: over the run's pictures, all of as many patches, projections sum to 0; those on the first spread most.
    let values = |component: usize| -> Vec<f64> {
        let own = found.iter().filter(|r| r["target"]["label"] == format!("component {component}"));
        own.map(|r| r["target"]["logit"].as_f64().unwrap()).collect()
    };
    for component in [1, 2] {
        assert!(values(component).iter().sum::<f64>().abs() < 1e-4, "{:?}", values(component));
    }
    for (more, part) in [(["-t", "component:0"], "components 1 to 32"), (["-t", "component:x"], "a number from 1 on")] {
        assert!(stderr(&run(&more)).contains(part), "{}", stderr(&run(&more)));
    }
    let text = vitx(out.path(), &["explain", "--text", "fine", "-t", "component:1"]);
    assert!(stderr(&text).contains("component:K is for pictures"), "{}", stderr(&text));
}
