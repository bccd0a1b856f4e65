//! The methods as the command line offers them: what it writes, records and refuses, and `vitx maximize`.

use crate::cli::*;
use crate::support::*;
use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn ran(dir: &Path, args: &[&str]) -> Output {
    let output = vitx(dir, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    output
}

/// Every file of a folder by name, the ledger left out.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).filter(|(name, _)| !name.starts_with('.')).collect()
}

fn assert_same(dir: &Path, folders: &[&str], count: usize) {
    let first = files(&dir.join(folders[0]));
    assert_eq!(first.len(), count, "{:?}", first.keys());
    for folder in &folders[1..] {
        let other = files(&dir.join(folder));
        assert!(first.keys().eq(other.keys()), "{:?} {:?}", first.keys(), other.keys());
        for (name, bytes) in &first {
            assert!(*bytes == other[name], "{name} in {} and {folder}", folders[0]);
        }
    }
}

fn shape(path: &Path) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    npyz::NpyFile::new(&bytes[..]).unwrap().shape().to_vec()
}

fn number(value: &Value, keys: &[&str]) -> f64 {
    let at = keys.iter().fold(value, |v, k| &v[*k]);
    at.as_f64().unwrap_or_else(|| panic!("{keys:?} in {value}"))
}

const IMAGE_METHODS: &str = "gradcam,integrated-gradients:steps=4,smoothgrad:n=2,rise:n=16,\
occlusion:window=4,stride=4,attn-lrp,reslrp,lrp,legrad";

#[test]
fn maps_of_images_do_not_depend_on_threads_and_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (cat, flower) = (asset("cat.jpg"), asset("flower.jpg"));
    for (out, batch, threads) in [("a", "1", "1"), ("b", "2", "2")] {
        let run = ["explain", "-q", "--batch-size", batch, "--threads", threads, "-o", out, "-f", "npy,overlay"];
        ran(dir.path(), &[&run[..], &["--method", IMAGE_METHODS, &cat, &flower]].concat());
    }
    // Patches and a picture of each of nine methods, and the pixels of five.
    assert_same(dir.path(), &["a", "b"], 2 * (9 * 2 + 5));
}

#[test]
fn maps_of_many_passes_do_not_depend_on_threads_and_batches() {
    let dir = tempfile::tempdir().unwrap();
    let model = case_dir("vit-square").join("model").display().to_string();
    let (cat, flower) = (asset("cat.jpg"), asset("flower.jpg"));
    for (out, batch, threads) in [("a", "1", "1"), ("b", "2", "2"), ("c", "2", "1")] {
        let run = ["explain", "-q", "--batch-size", batch, "--threads", threads, "-o", out, "-f", "npy,overlay"];
        let methods = ["--method", "scorecam,vit-cx,vargrad:n=3,iia2:steps=2,beyond-intuition:steps=3"];
        ran(dir.path(), &[&run[..], &["-m", &model], &methods, &[&cat, &flower]].concat());
    }
    assert_same(dir.path(), &["a", "b", "c"], 2 * (5 * 2 + 2));
}

#[test]
fn maps_of_texts_do_not_depend_on_threads_and_batches() {
    let dir = tempfile::tempdir().unwrap();
    let texts = [
        "Good.",
        "A charming little film with two wonderful performances and a perfect last scene.",
        "The plot makes no sense.",
        "A dull film.",
    ];
    let texts: Vec<&str> = texts.iter().flat_map(|t| ["--text", t]).collect();
    for (out, batch, threads) in [("a", "1", "1"), ("b", "4", "2"), ("c", "3", "1")] {
        let run = ["explain", "-q", "--batch-size", batch, "--threads", threads, "-o", out, "-f", "npy"];
        let methods = ["--method", "leave-one-out,integrated-gradients:steps=4,lrp,attn-lrp,gradcam"];
        ran(dir.path(), &[&run[..], &methods, &texts].concat());
    }
    assert_same(dir.path(), &["a", "b", "c"], 4 * 5);
}

#[test]
fn another_seed_draws_other_maps() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let methods = "rise:n=8,smoothgrad:n=2,integrated-gradients:steps=2";
    for (out, seed) in [("a", "0"), ("b", "7"), ("c", "7")] {
        let output = ran(
            dir.path(),
            &["explain", "-q", "--json", "--seed", seed, "-f", "npy", "-o", out, "--method", methods, &cat],
        );
        assert!(records(&output).iter().all(|r| r["seed"].as_u64().unwrap().to_string() == seed));
    }
    assert_same(dir.path(), &["b", "c"], 6);
    let (a, b) = (files(&dir.path().join("a")), files(&dir.path().join("b")));
    for (name, bytes) in &a {
        let drawn = name.contains("rise") || name.contains("smoothgrad");
        assert_eq!(*bytes != b[name], drawn, "{name}");
    }
}

#[test]
fn pixel_maps_are_written_beside_patches() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let run = |methods: &str| ran(dir.path(), &["explain", "-q", "--json", "-f", "npy", "--method", methods, &cat]);
    let pooled = |pixels: &[f64], factor: f64| -> Vec<f64> {
        let mut patches = vec![0.0; 144];
        pixels.iter().enumerate().for_each(|(i, v)| patches[(i / 168 / 14) * 12 + i % 168 / 14] += v * factor);
        patches
    };
    let output = run("integrated-gradients:steps=4,rise:n=16,gradcam,legrad");
    let records = records(&output);
    for (method, stem, factor) in [
        ("integrated-gradients", "cat.integrated-gradients-steps=4", 1.0),
        ("rise", "cat.rise-n=16", 1.0 / 196.0), // patches are sums of attributions, means of other maps
    ] {
        let path = |end: &str| dir.path().join(format!("{stem}.{end}"));
        let record = records.iter().find(|r| r["method"]["name"] == method).unwrap();
        assert_eq!(record["outputs"]["npy"], format!("{stem}.npy"), "{record}");
        assert_eq!(record["outputs"]["npy-pixels"], format!("{stem}.pixels.npy"), "{record}");
        assert_eq!(record["grid"], serde_json::json!([12, 12]));
        assert_eq!((shape(&path("npy")), shape(&path("pixels.npy"))), (vec![12, 12], vec![168, 168]));
        let (patches, pixels) = (read_npy(&path("npy")), read_npy(&path("pixels.npy")));
        let size = patches.iter().fold(0f64, |m, v| m.max(v.abs()));
        assert!(size > 0.0);
        assert_close(method, &patches, &pooled(&pixels, factor), 1e-5 * size, 1e-5);
        assert_close(method, &[number(record, &["relevance", "sum"])], &[patches.iter().sum()], 1e-4, 1e-4);
    }
    for method in ["gradcam", "legrad"] {
        assert_eq!(shape(&dir.path().join(format!("cat.{method}.npy"))), [12, 12]);
        assert!(!dir.path().join(format!("cat.{method}.pixels.npy")).exists(), "{method} knows no pixels");
    }

    run("integrated-gradients:steps=4,suppress_grid=true");
    let (plain, calm) = ("cat.integrated-gradients-steps=4", "cat.integrated-gradients-steps=4-suppress_grid=true");
    let read = |stem: &str, end: &str| read_npy(&dir.path().join(format!("{stem}.{end}")));
    assert_eq!(read(plain, "npy"), read(calm, "npy"), "patches stay");
    let (rough, smooth) = (read(plain, "pixels.npy"), read(calm, "pixels.npy"));
    assert_ne!(rough, smooth);
    // What all patches have in common at one place within them.
    let common = |map: &[f64]| -> f64 {
        let mut places = vec![0.0; 196];
        map.iter().enumerate().for_each(|(i, v)| places[(i / 168 % 14) * 14 + i % 168 % 14] += v / 144.0);
        let mean = places.iter().sum::<f64>() / 196.0;
        places.iter().map(|p| (p - mean).abs()).sum::<f64>() / 196.0
    };
    assert!(common(&smooth) < 1e-3 * common(&rough), "{:e} {:e}", common(&smooth), common(&rough));
}

#[test]
fn pictures_are_drawn_at_the_resolution_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let methods = "integrated-gradients:steps=2,integrated-gradients:steps=2,resolution=pixel,\
integrated-gradients:steps=2,resolution=patch,rise:n=8,rise:n=8,resolution=pixel,rise:n=8,resolution=patch";
    let run = ["explain", "-q", "-f", "heatmap,npy", "--upsample", "nearest", "--colormap", "gray"];
    ran(dir.path(), &[&run[..], &["--normalize", "minmax", "--method", methods, &cat]].concat());
    for (method, default, other) in [("integrated-gradients-steps=2", "patch", "pixel"), ("rise-n=8", "pixel", "patch")]
    {
        let read = |end: &str| std::fs::read(dir.path().join(format!("cat.{method}{end}"))).unwrap();
        let picture = |resolution: &str| read(&format!("-resolution={resolution}.heatmap.png"));
        assert!(read(".heatmap.png") == picture(default), "{method}: {default} is its own choice");
        assert!(picture(default) != picture(other), "{method}: resolutions look alike");
        for end in ["npy", "pixels.npy"] {
            let array = |resolution: &str| read(&format!("-resolution={resolution}.{end}"));
            assert!(array("patch") == array("pixel"), "{method}: arrays do not depend on what is drawn");
        }
        let colours = |resolution: &str| {
            let mut seen = image::load_from_memory(&picture(resolution)).unwrap().into_luma8().into_raw();
            seen.sort_unstable();
            seen.dedup();
            seen.len()
        };
        assert!(colours("patch") <= 144, "{method}: a colour a patch");
    }
}

#[test]
fn records_account_for_relevance() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let methods = "gae,integrated-gradients,gradient-x-input:libra=true,reslrp:cp=true,attn-lrp,lrp";
    let output = ran(dir.path(), &["explain", "--json", "-f", "npy", "--method", methods, &cat]);
    let records = records(&output);
    assert_eq!(records.len(), 6);
    let of = |name: &str| records.iter().find(|r| r["method"]["name"] == name).unwrap();
    for record in &records {
        for key in ["target", "predictions", "model", "grid", "input", "status", "seed", "version"] {
            assert_eq!(record[key], of("gae")[key], "{key} of {}", record["method"]);
        }
        assert_eq!(record["target"]["label"], "mammal");
        assert!(number(record, &["ms"]) > 0.0);
    }
    let logit = number(of("gae"), &["target", "logit"]);
    assert!((logit - number(of("attn-lrp"), &["checks", "logit"])).abs() < 1e-4 * logit.abs());

    let ig = &of("integrated-gradients");
    let (delta, difference) =
        (number(ig, &["checks", "completeness_delta"]), number(ig, &["checks", "completeness_difference"]));
    let error = number(ig, &["checks", "completeness_error"]);
    assert!((error - (delta / difference).abs()).abs() < 1e-9, "{ig}");
    assert!((number(ig, &["relevance", "sum"]) - delta - difference).abs() < 1e-4, "{ig}");
    assert_eq!(error > 0.05, stderr(&output).contains("raise steps"), "{error} {}", stderr(&output));

    for name in ["gradient-x-input", "reslrp"] {
        let checks = &of(name)["checks"];
        assert_eq!(checks["conserves"], true, "{name}");
        assert!(number(checks, &["conservation_gap"]).abs() < 1e-4 * logit.abs(), "{name}: {checks}");
        let parts = ["relevance_input", "relevance_embedding", "relevance_constants", "conservation_gap"];
        let sum: f64 = parts.iter().map(|p| number(checks, &[p])).sum();
        assert!((sum - logit).abs() < 1e-4 * logit.abs(), "{name}: {checks}");
    }
    let checks = &of("attn-lrp")["checks"];
    assert_eq!(checks["conserves"], false);
    assert!(number(checks, &["conservation_gap"]).abs() > 1e-2 * logit.abs(), "softmax takes its share: {checks}");
    let checks = &of("lrp")["checks"];
    assert_eq!(number(checks, &["relevance_start"]), 1.0);
    let gap = number(checks, &["conservation_gap"]);
    assert!((gap + number(checks, &["relevance_embedding"]) - 1.0).abs() < 1e-9, "{checks}");
}

#[test]
fn relevance_of_texts_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let text = "A charming little film - the soup smelled fragrant!";
    let methods = "gae,lrp,gradient-x-input:libra=true,reslrp:cp=true,attn-lrp,integrated-gradients";
    let output = ran(dir.path(), &["explain", "--json", "-q", "-f", "npy", "--method", methods, "--text", text]);
    let records = records(&output);
    let of = |name: &str| records.iter().find(|r| r["method"]["name"] == name).unwrap();
    for record in &records {
        assert_eq!((&record["target"], &record["words"][1]["text"]), (&of("gae")["target"], &"charming".into()));
        let tokens = record["tokens"].as_array().unwrap();
        let stem = Path::new(record["outputs"]["npy"].as_str().unwrap());
        assert_eq!(read_npy(&dir.path().join(stem)).len(), tokens.len());
        // The sum is that of what is shown: special tokens are left out.
        let shown = |t: &&Value| !t["special"].as_bool().unwrap();
        let shown = tokens.iter().filter(shown);
        let sum: f64 = shown.map(|t| number(t, &["relevance"])).sum();
        assert!((sum - number(record, &["relevance", "sum"])).abs() < 1e-4, "{record}");
    }
    let lrp = &of("lrp")["checks"];
    assert_eq!((number(lrp, &["relevance_start"]), &lrp["conserves"]), (1.0, &Value::Bool(true)));
    assert!(number(lrp, &["conservation_gap"]).abs() < 1e-4, "{lrp}");
    let logit = number(of("gae"), &["target", "logit"]).abs();
    for name in ["gradient-x-input", "reslrp"] {
        assert!(number(of(name), &["checks", "conservation_gap"]).abs() < 1e-4 * logit, "{}", of(name));
    }
    assert_eq!(of("attn-lrp")["checks"]["conserves"], false);
}

#[test]
fn an_incomplete_integral_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    // One step may hit the whole by chance; eight miss most of it, however the weights are rounded.
    let run = ["explain", "--json", "-f", "npy", "--method", "integrated-gradients:steps=8"];
    let output = ran(dir.path(), &[&run[..], &[&cat]].concat());
    let record = &records(&output)[0];
    let error = number(record, &["checks", "completeness_error"]);
    assert!(error > 0.5, "{record}");
    let told = stderr(&output);
    let warning = told.lines().find(|l| l.starts_with("warning: ")).unwrap_or_else(|| panic!("{told}"));
    let share = format!("by {:.0} %", error * 100.0);
    for part in ["cat.jpg", "integrated-gradients:steps=8", &share, "raise steps (now 8)"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    let silent = ran(dir.path(), &[&run[..], &["-q", "--overwrite", &cat]].concat());
    assert_eq!(stderr(&silent), "");
}

#[test]
fn what_a_model_cannot_do_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let image = [&cat[..]];
    let text = ["--text", "A charming film"];
    for (method, more, part) in [
        ("gradcam:where=output", &image[..], "no gradient at the patches"),
        ("leave-one-out", &image, "images have `occlusion`"),
        ("legrad:first_layer=9", &image, "layers 0 to 8"),
        ("integrated-gradients:baseline=pad", &image, "theirs are black, zero, blur, mean"),
        ("occlusion:window=2,stride=3", &image, "leaves patches between windows"),
        ("gradcam", &["--row", "3", &cat], "--row is for methods with a `row`"),
        ("gradcam", &["--row", "2,5", &cat], "--row is for methods with a `row`"),
        ("gradcam:where=inside", &image, "expected auto or norm1 or hidden or output"),
        ("gradcam:colour=red", &image, "its keys are layer, where, clamp"),
        ("rise:steps=3", &image, "its keys are n, cells, keep_probability, score, resolution, suppress_grid"),
        ("reslrp:gama=3", &image, "did you mean `gamma`"),
        ("attn-lrp:gamma=3", &image, "gamma_linear, gamma_conv"),
        ("smoothgrad:n=0", &image, "a whole number from 1"),
        ("leave-one-out:step=1", &text, "its keys are replace, unit, score"),
        ("occlusion", &text, "texts have `leave-one-out`"),
        ("rise", &text, "texts have `leave-one-out`"),
        ("scorecam", &text, "images only"),
        ("vit-cx", &text, "images only"),
        ("tokentm", &text, "gives all tokens the same length"),
        ("iia2", &text, "images only"),
        ("full-lrp", &text, "texts have `lrp` and `attn-lrp`"),
        ("attn-lrp:rules=gamma", &text, "use rules=attn or rules=cp"),
        ("gradcam:where=norm1", &text, "use where=hidden"),
        ("integrated-gradients:baseline=black", &text, "theirs are pad, mask, zero"),
    ] {
        let output = vitx(dir.path(), &[&["explain", "-f", "npy", "--method", method], more].concat());
        assert_eq!(output.status.code(), Some(2), "{method}: {}", stderr(&output));
        let told = stderr(&output);
        let name = method.split(':').next().unwrap();
        assert!(told.contains(part) && told.contains(name), "{method}: {told}");
        assert_eq!(stdout(&output), "", "{method}");
    }
    // What only a measurement shows is the input's failure, not the run's.
    let output = vitx(dir.path(), &["explain", "-f", "npy", "--method", "hirescam:where=hidden", &cat]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("gradient times activation cancels"), "{}", stderr(&output));
    assert!(files(dir.path()).is_empty(), "nothing was written");
}

#[test]
fn all_leaves_out_what_a_model_cannot_do() {
    let dir = tempfile::tempdir().unwrap();
    let listed: Vec<String> = records(&ran(dir.path(), &["methods", "--json"]))
        .iter()
        .map(|m| m["name"].as_str().unwrap().to_string())
        .collect();
    let model = |name: &str| case_dir(name).join("model").display().to_string();
    let (vit, bert, cat) = (model("vit-square"), model("bert"), asset("cat.jpg"));
    for (model, input, absent) in [
        (vit, vec![&cat[..]], &["globenc", "leave-one-out"][..]),
        (bert, vec!["--text", "ab"], &["tokentm", "iia2", "full-lrp", "scorecam", "vit-cx", "occlusion", "rise"]),
    ] {
        let run = ["explain", "-q", "--json", "-f", "npy", "--overwrite", "-m", &model, "--method"];
        let output = ran(dir.path(), &[&run[..], &["all"], &input[..]].concat());
        let done: Vec<String> =
            records(&output).iter().map(|r| r["method"]["name"].as_str().unwrap().to_string()).collect();
        for name in absent {
            assert!(!done.contains(&name.to_string()), "{name} with {model}");
            let refused = vitx(dir.path(), &[&run[..], &[name], &input[..]].concat());
            assert_eq!(refused.status.code(), Some(2), "{name} with {model}: {}", stderr(&refused));
        }
        let expected: Vec<&String> = listed.iter().filter(|l| !absent.contains(&l.as_str())).collect();
        assert_eq!(done.iter().collect::<Vec<_>>(), expected, "{model}");
    }
}

#[test]
fn a_contrast_fails_where_relevance_starts_from_one_class() {
    let dir = tempfile::tempdir().unwrap();
    let picture = asset("mammal-and-flower.jpg");
    for method in ["lrp", "partial-lrp", "full-lrp"] {
        let run = ["explain", "--json", "-f", "npy", "-t", "mammal-flower", "--method", method, &picture];
        let output = vitx(dir.path(), &run);
        assert_eq!(output.status.code(), Some(1), "{method}: {}", stderr(&output));
        let records = records(&output);
        assert_eq!(records.len(), 1);
        assert_eq!((&records[0]["status"], &records[0]["input"]), (&"error".into(), &picture[..].into()));
        assert!(records[0]["error"].as_str().unwrap().contains("starts from one class"), "{}", records[0]);
        assert!(stderr(&output).contains("starts from one class"), "{}", stderr(&output));
    }
    assert!(files(dir.path()).is_empty());
    let run = ["explain", "--json", "-q", "-f", "npy", "-t", "mammal-flower", "--method", "attn-lrp,gae", &picture];
    let records = records(&ran(dir.path(), &run));
    assert!(records.iter().all(|r| r["target"]["label"].as_str().unwrap().contains("mammal")), "{records:?}");
    assert!(dir.path().join("mammal-and-flower.attn-lrp.mammal-vs-flower.npy").exists());
}

#[test]
fn rule_tables_follow_the_parameters() {
    let dir = tempfile::tempdir().unwrap();
    let told = |name: &str| stdout(&ran(dir.path(), &["methods", name]));
    let row = |text: &str, operation: &str| -> String {
        let line = text.lines().find(|l| l.trim_start().starts_with(operation));
        line.unwrap_or_else(|| panic!("no row `{operation}`: {text}")).to_string()
    };
    let reslrp = told("reslrp:gamma=10");
    assert!(row(&reslrp, "skip connection").contains("gamma 10"), "{reslrp}");
    assert!(row(&reslrp, "softmax").contains("Taylor"), "{reslrp}");
    assert!(reslrp.contains("patent") && reslrp.contains("Berend et al. 2026"), "{reslrp}");
    assert!(row(&told("reslrp:cp=true"), "softmax").contains("constant"));
    let libra = told("gae:libra=true");
    assert!(libra.contains("(`libra`)") && !libra.contains("patent"), "{libra}");
    assert!(row(&libra, "layer norm").contains("deviation constant"), "{libra}");
    assert!(row(&libra, "activation").contains("gate"), "{libra}");
    assert!(row(&told("gae"), "layer norm").ends_with("derivative"));
    assert!(row(&told("attn-lrp:rules=gamma,gamma_conv=0.5"), "patch convolution").contains("gamma 0.5"));
    assert!(row(&told("lrp"), "carries").contains("relevance"));
    for (name, part) in [("gae:libra=maybe", "expected true or false"), ("reslrp:gamma=-1", "from 0")] {
        let output = vitx(dir.path(), &["methods", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }

    let all = records(&ran(dir.path(), &["methods", "--json"]));
    assert!(all.len() > 40);
    for method in &all {
        for key in ["name", "title", "paper", "group"] {
            assert!(!method[key].as_str().unwrap().is_empty(), "{key}: {method}");
        }
        assert!(method["class_specific"].is_boolean());
        assert!(method["params"].as_array().unwrap().iter().all(|p| p["key"].is_string() && p["default"].is_string()));
        for rules in method["rules"].as_array().unwrap() {
            let table = rules["table"].as_array().unwrap();
            assert!(rules["name"].is_string() && table.len() == 10, "{method}");
            assert!(table.iter().all(|r| r["operation"].is_string() && r["rule"].is_string()), "{method}");
        }
    }
    let rules = |name: &str| all.iter().find(|m| m["name"] == name).unwrap()["rules"].as_array().unwrap().len();
    assert_eq!((rules("rollout"), rules("gae"), rules("lrp")), (0, 1, 2));
    let one = records(&ran(dir.path(), &["methods", "--json", "reslrp:gamma=10"]));
    assert!(one.len() == 1 && one[0]["rules"].to_string().contains("gamma 10"), "{one:?}");
}

/// Positive relevance on a mask's object.
fn positive_on(map: &[f64], mask: &str) -> f64 {
    map.iter().zip(on_object(mask)).filter(|(_, on)| *on).map(|(v, _)| v.max(0.0)).sum()
}

#[test]
fn each_class_lights_its_own_object() {
    let dir = tempfile::tempdir().unwrap();
    let picture = asset("mammal-and-flower.jpg");
    let methods = "attn-lrp,reslrp,legrad,lrp,gradient-x-input:libra=true,gradcam,layercam,fullgrad-plus:libra=true";
    let run = ["explain", "-q", "-f", "npy", "-t", "mammal", "-t", "flower", "--method", methods, &picture];
    ran(dir.path(), &run);
    for method in methods.split(',') {
        let share = |label: &str| {
            let file = format!("mammal-and-flower.{}.{label}.npy", method.replace(':', "-"));
            let map = read_npy(&dir.path().join(file));
            let on = |object: &str| positive_on(&map, &format!("mammal-and-flower.{object}.png"));
            on("mammal") / (on("mammal") + on("flower"))
        };
        let (own, other) = (share("mammal"), share("flower"));
        assert!(own > other + 0.1, "{method}: {own:.2} on the mammal for `mammal`, {other:.2} for `flower`");
    }
}

/// The text chunk named `vitx` of a PNG, and the picture's size.
fn chunk(path: &Path) -> (Value, (u32, u32)) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let info = reader.info();
    let chunk = info.utf8_text.iter().find(|c| c.keyword == "vitx").expect("an iTXt chunk named vitx");
    (serde_json::from_str(&chunk.get_text().unwrap()).unwrap(), (info.width, info.height))
}

#[test]
fn the_picture_of_a_class_is_painted() {
    let dir = tempfile::tempdir().unwrap();
    let run = ["maximize", "--target", "flower", "--steps", "40", "--json", "-o", "out.png"];
    let output = ran(dir.path(), &[&run[..], &["--frames", "frames", "--every", "10"]].concat());
    let records = records(&output);
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((&record["status"], &record["objective"]["label"]), (&"ok".into(), &"flower".into()));
    let (before, after) = (number(record, &["before", "probability"]), number(record, &["after", "probability"]));
    assert!(before < 0.3 && after > 0.8, "{before} {after}");
    assert!(number(record, &["after", "score"]) > number(record, &["before", "score"]));
    assert_eq!((&record["parameters"]["steps"], &record["parameters"]["seed"]), (&40.into(), &0.into()));
    let (text, size) = chunk(&dir.path().join("out.png"));
    assert_eq!((&text, size), (record, (168, 168)), "the picture carries its record");
    let frames = files(&dir.path().join("frames"));
    assert_eq!(frames.keys().collect::<Vec<_>>(), [10, 20, 30, 40].map(|n| format!("frame-{n}.png")).each_ref());
    let (parameters, size) = chunk(&dir.path().join("frames/frame-20.png"));
    assert_eq!((&parameters["steps"], size), (&20.into(), (168, 168)));
    let picture = |path: &str| image::open(dir.path().join(path)).unwrap().into_rgb8();
    assert_eq!(picture("frames/frame-40.png"), picture("out.png"));
    let seen = &self::records(&ran(dir.path(), &["predict", "-q", "--json", "out.png"]))[0]["predictions"][0];
    assert_eq!(seen["label"], "flower");
    assert!((number(seen, &["probability"]) - after).abs() < 1e-3, "{seen} {after}");

    let again = vitx(dir.path(), &run);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("--overwrite"), "{}", stderr(&again));
}

#[test]
fn a_seed_paints_one_picture() {
    let dir = tempfile::tempdir().unwrap();
    let paint = |out: &str, more: &[&str]| {
        let run = ["maximize", "-q", "--target", "flower", "--steps", "4", "-o", out, "--overwrite"];
        ran(dir.path(), &[&run[..], more].concat());
        std::fs::read(dir.path().join(out)).unwrap()
    };
    let pixels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_rgb8();
    // The record in the picture names its file and how long it took: what is painted is compared.
    let first = pixels(&paint("a.png", &["--threads", "1", "--frames", "one"]));
    assert_eq!(first, pixels(&paint("a.png", &["--threads", "2", "--frames", "two"])));
    assert_ne!(first, pixels(&paint("a.png", &["--seed", "1"])));
    assert_ne!(first, pixels(&paint("a.png", &["--init", "gray"])));
    assert_same(dir.path(), &["one", "two"], 4);
}

#[test]
fn ascents_come_in_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let paint = |out: &str, more: &[&str]| {
        let output = ran(dir.path(), &[&["maximize", "-q", "--json", "--steps", "20", "-o", out], more].concat());
        let (text, size) = chunk(&dir.path().join(out));
        let record = records(&output).remove(0);
        assert_eq!((&text, size), (&record, (168, 168)));
        let grown = number(&record, &["after", "score"]) - number(&record, &["before", "score"]);
        (record, grown)
    };
    let (record, _) = paint("plain.png", &["--target", "flower", "--plain", "--lr", "50"]);
    let p = &record["parameters"];
    assert_eq!((&p["parametrisation"], &p["jitter"], &p["unit_steps"]), (&"pixel".into(), &0.into(), &false.into()));
    assert!(record["after"]["objective"].is_number(), "{record}");
    // Small steps, so that the score rises whatever the last bits say; larger ones overshoot from some starts.
    let (record, grown) = paint("calm.png", &["--target", "flower", "--plain", "--lr", "0.5"]);
    assert!(number(&record, &["after", "objective"]) > number(&record, &["before", "objective"]), "{record}");
    assert!(grown > 0.0, "{record}");
    let (record, grown) = paint("unit.png", &["--unit", "layer=5,channel=3"]);
    assert!(grown > 0.0, "{record}");
    assert_eq!(record["objective"], serde_json::json!({"layer": 5, "channel": 3, "token": null}));
    assert!(record["after"]["probability"].is_null());
}

#[test]
fn ascents_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["-m", "demo-bert", "--target", "positive", "-o", "a.png"][..], "reads texts"),
        (&["--target", "flwer", "-o", "a.png"], "did you mean `flower`"),
        (&["--target", "top:2", "-o", "a.png"], "name a class"),
        (&["--target", "flower", "-o", "x.jpg"], "ending in .png"),
        (&["--target", "flower", "-o", "a.png", "--lr", "nan"], "--lr"),
        (&["--target", "flower", "-o", "a.png", "--plain", "--tv", "1"], "--plain"),
        (&["--target", "flower", "--unit", "layer=1", "-o", "a.png"], "--unit"),
        (&["--target", "flower", "-o", "a.png", "--init", "nowhere.jpg"], "nowhere.jpg"),
        (&["--target", "flower", "-o", "a.png", "--every", "0"], "--every"),
        (&["--unit", "layer=99", "-o", "a.png"], "layer=99"),
        (&["--unit", "layer=1,channel=9999", "-o", "a.png"], "channel=9999"),
        (&["--unit", "channel=3", "-o", "a.png"], "layer=L is missing"),
        (&["--unit", "layer=1,row=3", "-o", "a.png"], "the keys are layer, channel and token"),
        (&["-o", "a.png"], "--target"),
    ] {
        let output = vitx(dir.path(), &[&["maximize"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    assert!(files(dir.path()).is_empty(), "nothing was written");
}

#[cfg(unix)]
#[test]
fn a_long_method_ends_when_interrupted_and_leaves_nothing() {
    for method in ["integrated-gradients:steps=4096", "rise:n=2000"] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(cargo_bin!("vitx"))
            .args(["explain", "--json", "-f", "npy,overlay", "-o", "out", "--method", method, &asset("cat.jpg")])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(1));
        assert!(child.try_wait().unwrap().is_none(), "{method} is still running");
        let asked = Instant::now();
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let took = asked.elapsed();
        assert_eq!(output.status.code(), Some(130), "{method}: {}", stderr(&output));
        assert!(took < Duration::from_secs(20), "{method} took {took:?} to stop");
        assert_eq!(stdout(&output), "", "no record of what is not finished");
        assert!(stderr(&output).contains("interrupted"), "{}", stderr(&output));
        let left = std::fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), [".vitx-records.jsonl"], "{method}: the empty ledger alone");
    }
}
