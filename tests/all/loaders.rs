//! Checkpoints under other names than transformers 4 wrote: of transformers 5, of wrappers, of people's own classes; and
//! what is none is called what it is.

use crate::checkpoints::{changed, expected, logits, open, Tensors};
use crate::support::*;
use candle_core::{DType, Device, Tensor};
use serde_json::{json, Value};
use std::path::Path;
use vitx::model::{Access, Checkpoint};

fn renamed(tensors: &mut Tensors, name: impl Fn(&str) -> String) {
    *tensors = tensors.drain().map(|(k, t)| (name(&k), t)).collect();
}

fn config(dir: &Path, change: impl Fn(&mut Value)) {
    let path = dir.join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
}

fn same_logits(what: &str, dir: &Path, case: &str) -> Vec<String> {
    let model = open(dir).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_close(what, &logits(&model, case), &expected(case), 1e-5, 1e-4);
    model.checkpoint.notes
}

fn error(dir: &Path) -> String {
    open(dir).map(|_| ()).unwrap_err().to_string()
}

/// The names of transformers 5.24's `state_dict()`.
fn modern(name: &str) -> String {
    let mut name = name.to_string();
    if !name.starts_with("dinov2") {
        name = name.replace("encoder.layer.", "layers.");
        name = name.replace("attention.output.dense", "attention.o_proj");
        name = name.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2");
    }
    for (old, new) in [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")] {
        name = name.replace(&format!("attention.attention.{old}"), &format!("attention.{new}"));
    }
    name.replace("attention.output.dense", "attention.o_proj").replace("mlp.weights_out", "mlp.down_proj")
}

#[test]
fn names_of_transformers_5_are_read() {
    for case in
        ["vit-square", "deit-distilled", "dinov2", "dinov2-registers", "dinov2-interp", "dinov2-registers-interp"]
    {
        let dir = changed(case, |tensors| {
            renamed(tensors, modern);
        });
        // The names need no note; that the processor's size is not the model's does.
        let mut notes = same_logits(case, dir.path(), case);
        notes.retain(|note| !(case.ends_with("-interp") && note.contains("position embeddings are interpolated")));
        assert_eq!(notes, Vec::<String>::new(), "{case}");
    }
}

/// DINOv2's gated feed-forward: one map of both halves, or the gate and what it multiplies apart.
#[test]
fn a_gated_feed_forward_is_read_whole_and_in_halves() {
    let random = |shape: &[usize], seed: f64| {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((i as f64 + 1.0) * seed).sin() as f32 * 0.3).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let gated = |halves: bool| {
        let dir = changed("dinov2", |t| {
            t.retain(|name, _| !name.contains(".mlp."));
            for layer in 0..3 {
                let at = |name: &str| format!("dinov2.encoder.layer.{layer}.mlp.{name}");
                let ([weight, bias], out) = ([random(&[96, 32], 1.7), random(&[96], 0.9)], random(&[32, 48], 2.3));
                let (first, second) = (if halves { "gate_proj" } else { "weights_in" }, "up_proj");
                let rows = if halves { 48 } else { 96 };
                t.insert(at(&format!("{first}.weight")), weight.narrow(0, 0, rows).unwrap().contiguous().unwrap());
                t.insert(at(&format!("{first}.bias")), bias.narrow(0, 0, rows).unwrap().contiguous().unwrap());
                if halves {
                    t.insert(at(&format!("{second}.weight")), weight.narrow(0, 48, 48).unwrap().contiguous().unwrap());
                    t.insert(at(&format!("{second}.bias")), bias.narrow(0, 48, 48).unwrap().contiguous().unwrap());
                }
                let last = if halves { "down_proj" } else { "weights_out" };
                t.insert(at(&format!("{last}.weight")), out);
                t.insert(at(&format!("{last}.bias")), random(&[32], 0.4));
            }
            if halves {
                renamed(t, modern);
            }
        });
        config(dir.path(), |c| (c["use_swiglu_ffn"], c["mlp_ratio"]) = (json!(true), json!(2.25)));
        let model = open(dir.path()).unwrap();
        assert!(model.checkpoint.notes.is_empty(), "{:?}", model.checkpoint.notes);
        logits(&model, "dinov2")
    };
    let whole = gated(false);
    assert_eq!(whole, gated(true));
    assert!(whole.iter().all(|x| x.is_finite()));
}

#[test]
fn a_common_prefix_is_left_out_with_a_note() {
    for prefix in ["module.", "_orig_mod.module.", "model.", "net.0."] {
        for case in ["vit-square", "roberta"] {
            let dir = changed(case, |t| renamed(t, |name| format!("{prefix}{name}")));
            let notes = same_logits(prefix, dir.path(), case);
            assert!(notes.len() == 1 && notes[0].contains(&format!("begin with `{prefix}`")), "{notes:?}");
        }
    }
    // The base model alone behind a prefix, or none of its own name.
    let dir = changed("vit-square", |t| renamed(t, |name| name.replace("vit.", "backbone.")));
    assert!(same_logits("backbone", dir.path(), "vit-square")[0].contains("`backbone.`"));
    for case in ["vit-square", "bert", "dinov2"] {
        let base = format!("{}.", case.split('-').next().unwrap());
        let dir = changed(case, |t| renamed(t, |name| name.strip_prefix(&base).unwrap_or(name).to_string()));
        assert!(same_logits("bare", dir.path(), case).is_empty());
    }
    let twice = changed("vit-square", |t| {
        let all = t.clone().into_iter();
        *t = all.flat_map(|(k, v)| [(format!("student.{k}"), v.clone()), (format!("teacher.{k}"), v)]).collect();
    });
    assert!(error(twice.path()).contains("several models"), "{}", error(twice.path()));
}

#[test]
fn heads_are_judged_by_their_tensors() {
    let sequence = changed("vit-square", |t| renamed(t, |name| name.replace("classifier.", "classifier.1.")));
    let notes = same_logits("sequence", sequence.path(), "vit-square");
    assert!(notes[0].contains("the head is `classifier.1`"), "{notes:?}");
    let teacher = changed("deit-distilled", |_| ());
    config(teacher.path(), |c| drop(c.as_object_mut().unwrap().remove("architectures")));
    assert!(same_logits("teacher", teacher.path(), "deit-distilled").is_empty());
    for (class, note) in [("MyViT", true), ("ViTModel", false)] {
        let own = changed("vit-square", |_| ());
        config(own.path(), |c| c["architectures"] = json!([class]));
        assert_eq!(same_logits(class, own.path(), "vit-square").iter().any(|n| n.contains(class)), note);
    }
    for (name, part) in [
        (None, "it is a backbone (vit)"),
        (Some("head.0"), "beside the backbone (vit) it holds `head.0`"),
        (Some("decoder.0"), "its head fills in masked patches"),
        (Some("qa_outputs"), "begins and ends"),
    ] {
        let dir = changed("vit-square", |t| {
            t.retain(|k, _| !k.starts_with("classifier"));
            if let Some(name) = name {
                t.insert(format!("{name}.weight"), Tensor::zeros((5, 32), DType::F32, &Device::Cpu).unwrap());
            }
        });
        let error = error(dir.path());
        assert!(error.contains(part), "{error}");
    }
    let tokens = changed("bert", |t| t.retain(|name, _| !name.contains("pooler")));
    config(tokens.path(), |c| drop(c.as_object_mut().unwrap().remove("architectures")));
    assert!(error(tokens.path()).contains("reads each token by itself"), "{}", error(tokens.path()));
    let two = changed("vit-square", |t| {
        t.insert("classifier.3.weight".into(), Tensor::zeros((5, 32), DType::F32, &Device::Cpu).unwrap());
        renamed(
            t,
            |n| if n.starts_with("classifier.3") { n.into() } else { n.replace("classifier.", "classifier.0.") },
        );
    });
    assert!(error(two.path()).contains("it holds `classifier.0`, `classifier.3`"), "{}", error(two.path()));
}

#[test]
fn tensors_that_nothing_reads_are_told() {
    let dir = changed("vit-square", |t| {
        t.insert("vit.pooler.dense.weight".into(), Tensor::zeros((32, 32), DType::F32, &Device::Cpu).unwrap());
        t.insert("vit.embeddings.position_ids".into(), Tensor::zeros((1, 4), DType::I64, &Device::Cpu).unwrap());
    });
    assert!(same_logits("harmless", dir.path(), "vit-square").is_empty());
    config(dir.path(), |c| c["num_hidden_layers"] = json!(1));
    let notes = open(dir.path()).unwrap().checkpoint.notes;
    let layers = "16 tensors of vit.encoder.layer.1, 16 tensors of vit.encoder.layer.2 are in the file and not used";
    assert_eq!(notes, [layers]);
    let checkpoint = Checkpoint::open(dir.path().to_str().unwrap(), &Access::default()).unwrap();
    assert_eq!(checkpoint.check_weights().unwrap(), [layers], "told without reading the weights");
}

#[test]
fn no_registers_are_no_registers() {
    let dir = changed("dinov2", |t| {
        renamed(t, |name| name.replace("dinov2.", "dinov2_with_registers."));
        let none = Tensor::zeros((1, 0, 32), DType::F32, &Device::Cpu).unwrap();
        t.insert("dinov2_with_registers.embeddings.register_tokens".into(), none);
    });
    config(dir.path(), |c| {
        c["model_type"] = json!("dinov2_with_registers");
        c["architectures"] = json!(["Dinov2WithRegistersForImageClassification"]);
        c["num_register_tokens"] = json!(0);
    });
    assert!(same_logits("registers", dir.path(), "dinov2").is_empty());
}

#[test]
fn what_changes_the_forward_pass_is_refused_by_its_key() {
    for (case, key, value) in [
        ("bert", "is_decoder", json!(true)),
        ("roberta", "add_cross_attention", json!(true)),
        ("bert", "position_embedding_type", json!("relative_key")),
        ("vit-square", "quantization_config", json!({"quant_method": "bitsandbytes"})),
        ("vit-square", "hidden_act", json!("xielu")),
        ("vit-square", "hidden_size", json!(1u64 << 40)),
    ] {
        let dir = changed(case, |_| ());
        config(dir.path(), |c| c[key] = value.clone());
        assert!(error(dir.path()).contains(value.as_str().unwrap_or(key)), "{}", error(dir.path()));
    }
    let many = changed("vit-square", |_| ());
    config(many.path(), |c| (c["id2label"], c["num_labels"]) = (Value::Null, json!(1_000_000_000)));
    assert!(error(many.path()).contains("`num_labels` is 1000000000"), "{}", error(many.path()));
}

#[test]
fn quantised_weights_are_named() {
    let path = |dir: &Path| dir.join("model.safetensors");
    let dir = changed("vit-square", |_| ());
    // The head's dtype in the header, and its bytes cut to one each.
    let bytes = std::fs::read(path(dir.path())).unwrap();
    let (length, body) = (u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize, 8);
    let header: Value = serde_json::from_slice(&bytes[body..body + length]).unwrap();
    let mut data = Vec::new();
    let mut map = serde_json::Map::new();
    for (name, entry) in header.as_object().unwrap().iter().filter(|(n, _)| *n != "__metadata__") {
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        let mut own = bytes[body + length + at(0)..body + length + at(1)].to_vec();
        let mut entry = entry.clone();
        if name == "classifier.weight" {
            own.truncate(own.len() / 4);
            entry["dtype"] = json!("I8");
        }
        entry["data_offsets"] = json!([data.len(), data.len() + own.len()]);
        data.extend(own);
        map.insert(name.clone(), entry);
    }
    let header = Value::Object(map).to_string();
    std::fs::write(path(dir.path()), [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat())
        .unwrap();
    let (error, id) = (error(dir.path()), dir.path().to_str().unwrap());
    for part in ["`classifier.weight` is stored as I8", "quantised weights are not read", id] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn files_are_called_what_they_are() {
    let pickle = std::fs::read(root().join("tests/fixtures/pickle/pytorch_model.bin")).unwrap();
    let legacy = std::fs::read(root().join("tests/fixtures/pickle/legacy.bin")).unwrap();
    let tensors = std::fs::read(case_dir("vit-square").join("model/model.safetensors")).unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 346293852\n";
    for (name, contents, part) in [
        ("model.safetensors", &pointer[..], "is a Git LFS pointer"),
        ("pytorch_model.bin", pointer, "run `git lfs pull`"),
        ("model.safetensors", b"<!DOCTYPE html><html>", "is a web page"),
        ("model.safetensors", b"", "is empty"),
        ("model.safetensors", &pickle, "a pickle of torch.save under another name: rename it to pytorch_model.bin"),
        ("model.safetensors", &legacy, "a pickle of torch.save under another name"),
        ("pytorch_model.bin", &tensors, "a safetensors file under another name: rename it to model.safetensors"),
        ("pytorch_model.bin", b"\x80\x04}\x94.", "a pickle that torch.save did not write"),
        ("pytorch_model.bin", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("pytorch_model.bin", &legacy, "not of the family"),
        ("config.json", pointer, "config.json is a Git LFS pointer"),
        ("preprocessor_config.json", b"<html>", "preprocessor_config.json is a web page"),
    ] {
        let dir = changed("vit-square", |_| ());
        if name.contains("model.") {
            std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        }
        std::fs::write(dir.path().join(name), contents).unwrap();
        let error = error(dir.path());
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn folders_are_called_what_they_are() {
    for (files, part) in [
        (&[("checkpoint-500/config.json", "{}"), ("checkpoint-60/config.json", "{}")][..], "checkpoint-500"),
        (&[("adapter_config.json", "{}"), ("adapter_model.safetensors", "")], "a PEFT adapter"),
        (
            &[(
                "config.json",
                r#"{"architecture": "vit_base_patch16_xp_224", "num_classes": 1000, "pretrained_cfg": {}}"#,
            )],
            "timm's architecture `vit_base_patch16_xp_224` is not one that vitx reads (the closest that works: vit_base_patch16",
        ),
        (&[("config.json", r#"{"model_type": "vit"}"#), ("model.onnx", "")], "an ONNX export"),
        (&[("config.json", r#"{"model_type": "vit"}"#), ("tf_model.h5", "")], "a TensorFlow model"),
        (&[("config.json", r#"{"model_type": "vit"}"#), ("best.ckpt", "")], "best.ckpt, a checkpoint of Lightning"),
        (&[("a/config.json", "{}"), ("b/config.json", "{}")], "a folder of models"),
        (&[("readme.txt", "")], "there is no config.json"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        let error = error(dir.path());
        assert!(error.contains(part), "{error}");
    }
    let timm = changed("vit-square", |t| {
        renamed(t, |n| n.replace("vit.embeddings.patch_embeddings.", "patch_embed.").replace("projection", "proj"))
    });
    assert!(error(timm.path()).contains("timm's"), "{}", error(timm.path()));
}

#[test]
fn a_mistyped_path_is_no_download() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::create_dir(parent.path().join("checkpoint-500")).unwrap();
    let near = parent.path().join("checkpoint-50");
    for id in ["./nothere", "nothere/", "../nothere", "/nothere/model", "a/b/c", "~/model", near.to_str().unwrap()] {
        let opened = Checkpoint::open(id, &Access::default());
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("no such directory") && !error.contains("hub has"), "{error}");
        assert_eq!(error.contains("did you mean"), id == near.to_str().unwrap(), "{error}");
    }
}

#[cfg(all(feature = "cli", feature = "demo"))]
#[test]
fn the_binary_holds_each_demo_model_once() {
    let binary = std::fs::read(assert_cmd::cargo::cargo_bin!("vitx")).unwrap();
    for builtin in vitx::model::builtin::BUILTINS {
        let part: &[u8] = &builtin.weights[builtin.weights.len() - 64..];
        assert_eq!(memchr::memmem::find_iter(&binary, part).count(), 1, "{}", builtin.name);
    }
}
