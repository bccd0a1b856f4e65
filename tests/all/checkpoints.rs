//! Checkpoints as they occur: shards, pickles, old names, half precision, and every way to be broken.

use crate::support::*;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::Path;
use vitx::encoder::Keep;
use vitx::model::{Access, Checkpoint, Model};

pub type Tensors = HashMap<String, Tensor>;

pub fn open(dir: &Path) -> vitx::Result<Model> {
    Checkpoint::open(dir.to_str().unwrap(), &Access::default())?.load(DType::F32, &Device::Cpu)
}

/// A copy of a fixture's model, changed.
pub fn changed(case: &str, change: impl Fn(&mut Tensors)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = case_dir(case).join("model");
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().unwrap() == "json" {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut tensors = candle_core::safetensors::load(source.join("model.safetensors"), &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
    dir
}

pub fn logits(model: &Model, case: &str) -> Vec<f64> {
    let case = Case::open(CASES.iter().find(|c| **c == case).unwrap());
    let (inputs, _) = case.batch(model);
    flat(&model.encoder.forward(&inputs, Keep::Logits).unwrap().logits)
}

pub fn expected(case: &str) -> Vec<f64> {
    flat(&Case::open(CASES.iter().find(|c| **c == case).unwrap()).expected["logits"])
}

#[test]
fn shards_are_joined() {
    let dir = changed("bert", |_| ());
    let whole = dir.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&whole, &Device::Cpu).unwrap();
    std::fs::remove_file(&whole).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..2 {
        let name = format!("model-{shard:05}-of-00002.safetensors");
        let part: Tensors =
            tensors.iter().filter(|(k, _)| k.len() % 2 == shard).map(|(k, t)| (k.clone(), t.clone())).collect();
        part.keys().for_each(|k| drop(map.insert(k.clone(), name.clone().into())));
        candle_core::safetensors::save(&part, dir.path().join(name)).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_close("shards", &logits(&open(dir.path()).unwrap(), "bert"), &expected("bert"), 1e-5, 1e-4);

    std::fs::remove_file(dir.path().join("model-00001-of-00002.safetensors")).unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("model-00001-of-00002.safetensors, which is missing"), "{error}");
}

#[test]
fn pickles_are_read() {
    // tests/fixtures/pickle/pytorch_model.bin: the weights of vit-square, in the layout of torch.save.
    let dir = changed("vit-square", |_| ());
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    std::fs::copy(root().join("tests/fixtures/pickle/pytorch_model.bin"), dir.path().join("pytorch_model.bin"))
        .unwrap();
    assert_close("pickle", &logits(&open(dir.path()).unwrap(), "vit-square"), &expected("vit-square"), 1e-5, 1e-4);
    std::fs::write(dir.path().join("pytorch_model.bin"), b"PK garbage").unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin: damaged"), "{error}");
}

#[test]
fn old_layer_norm_names_are_understood() {
    let dir = changed("bert", |tensors| {
        for name in tensors.keys().cloned().collect::<Vec<_>>() {
            if let Some(stem) = name.strip_suffix("LayerNorm.weight").or(name.strip_suffix("LayerNorm.bias")) {
                let new = if name.ends_with("weight") { "gamma" } else { "beta" };
                let tensor = tensors.remove(&name).unwrap();
                tensors.insert(format!("{stem}LayerNorm.{new}"), tensor);
            }
        }
    });
    assert_close("gamma", &logits(&open(dir.path()).unwrap(), "bert"), &expected("bert"), 1e-5, 1e-4);
}

#[test]
fn half_precision_weights_are_converted_once() {
    for dtype in [DType::F16, DType::BF16] {
        let dir = changed("dinov2", |tensors| tensors.values_mut().for_each(|t| *t = t.to_dtype(dtype).unwrap()));
        let model = open(dir.path()).unwrap();
        assert_eq!(model.encoder.dtype(), DType::F32);
        assert_close("half", &logits(&model, "dinov2"), &expected("dinov2"), 0.05, 0.05);
    }
}

#[test]
fn broken_weights_name_the_tensor() {
    let query = "vit.encoder.layer.1.attention.attention.query.weight";
    type Breakage = Box<dyn Fn(&mut Tensors)>;
    let breakages: [(&str, Breakage, &[&str]); 5] = [
        ("missing", Box::new(|t| drop(t.remove(query))), &[query, "is missing", "[32, 32]"]),
        (
            "shape",
            Box::new(|t| drop(t.insert(query.into(), Tensor::zeros((32, 31), DType::F32, &Device::Cpu).unwrap()))),
            &[query, "[32, 31]", "[32, 32]"],
        ),
        (
            "nan",
            Box::new(|t| drop(t.insert(query.into(), Tensor::full(f32::NAN, (32, 32), &Device::Cpu).unwrap()))),
            &[query, "NaN"],
        ),
        ("head", Box::new(|t| drop(t.remove("classifier.weight"))), &["no classification head", "fine-tuned"]),
        (
            "u8",
            Box::new(|t| drop(t.insert(query.into(), Tensor::zeros((32, 32), DType::U8, &Device::Cpu).unwrap()))),
            &["scale"],
        ),
    ];
    for (what, change, parts) in breakages {
        let error = open(changed("vit-square", change).path()).map(|_| ()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{what}: {error}");
        }
    }
}

#[test]
fn broken_files_say_what_to_do() {
    let dir = changed("vit-square", |_| ());
    let weights = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("damaged or incomplete"), "{error}");
    std::fs::remove_file(&weights).unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no weights found"), "{error}");
    std::fs::write(dir.path().join("config.json"), "{\"model_type\": \"vit\"").unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("config.json: not valid JSON"), "{error}");
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    let error = open(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no config.json"), "{error}");
}

#[test]
fn older_tokenizer_files_give_the_same_tokens() {
    for case in ["bert", "roberta"] {
        let source = Case::open(CASES.iter().find(|c| **c == case).unwrap());
        let dir = changed(case, |_| ());
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap();
        std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        let vocab = json["model"]["vocab"].as_object().unwrap();
        if case == "bert" {
            let mut words: Vec<_> = vocab.iter().collect();
            words.sort_by_key(|(_, id)| id.as_u64());
            let lines: Vec<_> = words.iter().map(|(w, _)| w.as_str()).collect();
            std::fs::write(dir.path().join("vocab.txt"), lines.join("\n")).unwrap();
        } else {
            let merges = json["model"]["merges"].as_array().unwrap().iter();
            let line = |m: &serde_json::Value| {
                m.as_str()
                    .map_or_else(|| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()), String::from)
            };
            let merges: Vec<_> = merges.map(line).collect();
            std::fs::write(dir.path().join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
            std::fs::write(dir.path().join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
        }
        let checkpoint = Checkpoint::open(dir.path().to_str().unwrap(), &Access::default()).unwrap();
        let (new, old) = (source.tokenised(&source.checkpoint()), source.tokenised(&checkpoint));
        for (new, old) in new.iter().zip(&old) {
            assert_eq!((&new.ids, &new.layout), (&old.ids, &old.layout), "{case}");
        }
    }
}

#[test]
fn facts_are_those_of_the_built_model() {
    use vitx::explanation::Prefix;
    let check = |what: &str, model: &Model| {
        let (facts, encoder) = (model.checkpoint.facts(), &model.encoder);
        assert_eq!(facts.layers, encoder.blocks.len(), "{what}");
        assert_eq!(facts.reads_distillation, encoder.head.readings.len() == 2, "{what}");
        assert_eq!((facts.scale, facts.mask_token), (encoder.head.scale, encoder.neutral.mask_id.is_some()), "{what}");
        let prefix = model.checkpoint.spec.embedding.prefix();
        let states = || -> vitx::Result<_> { panic!("no query reads the states here") };
        let pooled = encoder.head.readings.first().and_then(|r| r.pool.shares(3, &states).unwrap());
        assert_eq!((facts.mean, facts.class_token), (pooled.is_some(), pooled.is_none()), "{what}");
        let shape = vitx::input::Shape::default();
        let Some((h, w)) = model.checkpoint.input_size(shape) else { return };
        let layout = model.image_layout(h, w).unwrap();
        assert_eq!(layout.prefix.len(), prefix, "{what}");
        assert_eq!(facts.distillation_token, layout.prefix.contains(&Prefix::Distillation), "{what}");
        assert_eq!(model.checkpoint.tokens(shape), prefix + layout.grid.0 * layout.grid.1, "{what}");
    };
    for &name in CASES {
        let case = Case::open(name);
        let (before, model) = (case.checkpoint().facts(), case.model(DType::F32));
        assert_eq!(before, model.checkpoint.facts(), "{name}");
        check(name, &model);
    }
    // A DeiT with one head has a distillation token that nothing reads: it has a row, and the class token can be pooled.
    let dir = changed("deit-distilled", |t| {
        for part in ["weight", "bias"] {
            let own = t.remove(&format!("cls_classifier.{part}")).unwrap();
            t.insert(format!("classifier.{part}"), own);
            t.remove(&format!("distillation_classifier.{part}"));
        }
    });
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let plain = text.replace("DeiTForImageClassificationWithTeacher", "DeiTForImageClassification");
    std::fs::write(&config, plain).unwrap();
    let model = open(dir.path()).unwrap();
    check("a plain deit", &model);
    let facts = model.checkpoint.facts();
    assert_eq!((facts.distillation_token, facts.reads_distillation), (true, false));
    for method in ["attention:row=distillation", "legrad:pool=mean"] {
        vitx::method::parse(method).unwrap().check(&facts).unwrap();
    }
    let distilled = Case::open("deit-distilled").checkpoint().facts();
    assert!(vitx::method::parse("legrad:pool=mean").unwrap().check(&distilled).is_err());
}

#[test]
fn whose_names_the_tensors_have_is_said() {
    let said = |case: &str| {
        let folder = root().join("tests/fixtures").join(case);
        Checkpoint::open(folder.to_str().unwrap(), &Access::default()).unwrap().naming().unwrap()
    };
    assert_eq!(said("families/timm-vit/model"), "timm's own");
    assert_eq!(said("families/swin/model"), "those of transformers");
    assert_eq!(said("families/vit_msn-hub/model"), "those of transformers 4 and the hub");
}
