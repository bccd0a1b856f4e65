//! The command line as users and scripts run it.

use crate::support::*;
use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) fn vitx(dir: &Path, args: &[&str]) -> Output {
    Command::new(cargo_bin!("vitx")).args(args).current_dir(dir).env_remove("VITX_MODEL").output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn records(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

pub(crate) fn asset(name: &str) -> String {
    root().join("assets").join(name).display().to_string()
}

pub(crate) fn read_npy(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    npyz::NpyFile::new(&bytes[..]).unwrap().into_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

pub(crate) fn write_npy(path: &Path, tensor: &candle_core::Tensor) {
    use npyz::WriterBuilder;
    let shape: Vec<u64> = tensor.dims().iter().map(|&d| d as u64).collect();
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd().unwrap();
    writer.extend(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()).unwrap();
    writer.finish().unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Kernels of all widths give the same bits, and candle's own operations the same picture.
#[test]
fn kernels_can_be_narrowed_and_turned_off() {
    let dir = tempfile::tempdir().unwrap();
    let run = |kernels: &str| {
        let args = ["explain", "-q", "--json", "--overwrite", "--format", "npy", "-o", "."];
        let mut command = Command::new(cargo_bin!("vitx"));
        command.args(args).arg(root().join("assets/flower.jpg")).current_dir(dir.path());
        let output = command.env("VITX_KERNELS", kernels).env_remove("VITX_MODEL").output().unwrap();
        let record = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
        let numbers = std::fs::read(dir.path().join("flower.gae.npy")).unwrap_or_default();
        let floats = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let numbers: Vec<f32> = floats(&numbers[numbers.len().saturating_sub(4 * 196)..]);
        (record["instructions"].as_str().map(String::from), numbers, output)
    };
    let (widest, numbers, _) = run("");
    let (off, composed, _) = run("off");
    assert_eq!(off.as_deref(), Some("portable"));
    assert!(!numbers.is_empty() && numbers.iter().zip(&composed).all(|(a, b)| (a - b).abs() < 1e-5));
    if widest.as_deref() == Some("avx512") {
        let (narrow, same, _) = run("avx2");
        assert_eq!((narrow.as_deref(), same), (Some("avx2"), numbers));
    }
    let (.., refused) = run("fast");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("VITX_KERNELS=fast"), "{refused:?}");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn the_command_gives_the_golden_arrays_for_every_family() {
    const METHODS: &str = "attention,rollout,gae,grad-rollout,attention-gradcam";
    for name in CASES {
        let case = Case::open(name);
        let dir = tempfile::tempdir().unwrap();
        let model = case_dir(name).join("model").display().to_string();
        let targets = case.targets();
        for (row, target) in targets.iter().enumerate() {
            let target = target.to_string();
            let out = format!("out{row}");
            let mut args =
                vec!["explain", "-m", &model, "--method", METHODS, "--format", "npy", "-t", &target, "-o", &out];
            let texts = if case.is_text() { case.texts() } else { Vec::new() };
            if case.is_text() {
                match &texts[row].second {
                    Some(second) => args.extend(["--text-pair", &texts[row].first, second]),
                    None => args.extend(["--text", &texts[row].first]),
                }
            } else {
                write_npy(&dir.path().join("pixels.npy"), &case.inputs["pixel_values"]);
                args.push("pixels.npy");
            }
            let output = vitx(dir.path(), &args);
            assert!(output.status.success(), "{name}: {}", stderr(&output));
            for method in METHODS.split(',') {
                let key = format!("method.{method}");
                let Some(array) = case.json["methods"].get(&key) else { continue };
                let label = format!("LABEL_{target}");
                let stem = if case.is_text() { "text".to_string() } else { format!("pixels-{row}") };
                let got = read_npy(&dir.path().join(&out).join(format!("{stem}.{method}.{label}.npy")));
                let mut want = flat(&case.expected[&key].get(row).unwrap());
                want.truncate(got.len());
                let (atol, rtol) = (array["atol"].as_f64().unwrap(), array["rtol"].as_f64().unwrap());
                assert_close(&format!("{name} {key} row {row}"), &got, &want, atol, rtol);
            }
        }
    }
}

#[test]
fn a_newcomer_sees_the_class_and_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let output = vitx(dir.path(), &["explain", &asset("cat.jpg")]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("mammal") && stdout(&output).contains("-> cat.gae.png"), "{}", stdout(&output));
    assert!(stderr(&output).contains("google/vit-base-patch16-224"), "the hint names real checkpoints");
    let png = image::open(dir.path().join("cat.gae.png")).unwrap();
    let source = image::open(asset("cat.jpg")).unwrap();
    assert_eq!((png.width(), png.height()), (source.width(), source.height()), "the picture's own resolution");

    let again = vitx(dir.path(), &["explain", &asset("cat.jpg")]);
    assert!(again.status.success() && stderr(&again).contains("up to date"), "{}", stderr(&again));
    let other = vitx(dir.path(), &["explain", "--alpha", "0.3", &asset("cat.jpg")]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("another style; pass --overwrite"), "{}", stderr(&other));
    assert!(vitx(dir.path(), &["explain", "--overwrite", "-q", &asset("cat.jpg")]).status.success());
}

#[test]
fn the_readme_s_flower_is_lit() {
    let dir = tempfile::tempdir().unwrap();
    let output = vitx(dir.path(), &["explain", "-q", "-f", "npy", &asset("flower.jpg")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let map = read_npy(&dir.path().join("flower.gae.npy"));
    // The bloom is a disc of radius 2.6 patches around row 6.2, column 5.6 of the 12 x 12 grid.
    let inside = |i: usize| ((i / 12) as f64 + 0.5 - 6.2).hypot((i % 12) as f64 + 0.5 - 5.6) < 2.6;
    let brightest = (0..map.len()).max_by(|&a, &b| map[a].total_cmp(&map[b])).unwrap();
    assert!(inside(brightest), "the brightest patch is {},{}", brightest / 12, brightest % 12);
    let (on, off): (Vec<usize>, Vec<usize>) = (0..map.len()).partition(|&i| inside(i));
    let mean = |patches: &[usize]| patches.iter().map(|&i| map[i]).sum::<f64>() / patches.len() as f64;
    assert!(mean(&on) > 5.0 * mean(&off), "{} on the flower, {} beside it", mean(&on), mean(&off));
}

/// The patches of the 12 x 12 grid that a mask's object covers.
pub(crate) fn on_object(mask: &str) -> Vec<bool> {
    let mask = image::open(asset(&format!("masks/{mask}"))).unwrap();
    let mask = mask.resize_exact(12, 12, image::imageops::FilterType::Triangle).into_luma8();
    mask.pixels().map(|p| p[0] > 100).collect()
}

/// Share of a mask's object in the map's total above its mean.
fn mass_inside(map: &[f64], mask: &str) -> f64 {
    let mean = map.iter().sum::<f64>() / map.len() as f64;
    let excess = |v: &f64| (v - mean).max(0.0);
    let inside: f64 = map.iter().zip(on_object(mask)).filter(|(_, on)| *on).map(|(v, _)| excess(v)).sum();
    inside / map.iter().map(excess).sum::<f64>()
}

#[test]
fn two_targets_light_two_objects() {
    for (name, labels) in [
        ("mammal-and-flower", ["mammal", "flower"]),
        ("road-vehicle-and-musical-instrument", ["road-vehicle", "musical-instrument"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let picture = asset(&format!("{name}.jpg"));
        let output = vitx(
            dir.path(),
            &["explain", "-q", "-m", "demo-vit", "--target", "top:2", "-f", "npy", "-f", "overlay", &picture],
        );
        assert!(output.status.success(), "{}", stderr(&output));
        for (i, label) in labels.iter().enumerate() {
            let map = read_npy(&dir.path().join(format!("{name}.gae.{label}.npy")));
            let own = mass_inside(&map, &format!("{name}.{label}.png"));
            let other = mass_inside(&map, &format!("{name}.{}.png", labels[1 - i]));
            assert!(own > 0.45 && own > 5.0 * other, "{name} {label}: {own:.2} on its object, {other:.2} on the other");
        }
    }
}

#[test]
fn a_mixed_folder_is_done_as_far_as_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("in");
    std::fs::create_dir_all(folder.join("nested/deep")).unwrap();
    for i in 0..20 {
        std::fs::copy(asset("cat.jpg"), folder.join(format!("good{i:02}.jpg"))).unwrap();
    }
    std::fs::copy(asset("flower.jpg"), folder.join("nested/deep/flower.jpg")).unwrap();
    let pictures = root().join("tests/fixtures/pictures");
    for entry in std::fs::read_dir(&pictures).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(folder.join("notes.md"), "not an input").unwrap();
    let output = vitx(dir.path(), &["explain", "--json", "--batch-size", "8", "in"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let records = records(&output);
    let bad: Vec<&Value> = records.iter().filter(|r| r["status"] == "error").collect();
    let names: Vec<_> =
        bad.iter().map(|r| Path::new(r["input"].as_str().unwrap()).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in ["corrupt.png", "empty.png", "text.jpg", "truncated.jpg"] {
        assert!(names.contains(&name), "{name}");
        assert!(stderr(&output).contains(name), "{name} is reported with its reason");
    }
    let written: Vec<PathBuf> =
        records.iter().filter_map(|r| r["outputs"]["overlay"].as_str()).map(|p| dir.path().join(p)).collect();
    let readable = 20 + 1 + std::fs::read_dir(&pictures).unwrap().count() - 4;
    assert_eq!(written.len(), readable);
    assert!(written.iter().all(|p| image::open(p).is_ok()), "every overlay is a whole picture");
    assert!(dir.path().join("vitx-out/nested/deep/flower.gae.png").exists(), "folders are mirrored");
    let rotated = image::open(dir.path().join("vitx-out/rotated.gae.png")).unwrap();
    assert_eq!((rotated.width(), rotated.height()), (60, 40), "drawn upright");
}

#[test]
fn batches_do_not_change_results() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = ["cat.jpg", "flower.jpg", "temple.jpg"].map(asset);
    for (batch, threads) in [("1", "1"), ("3", "2")] {
        let mut args = vec![
            "explain",
            "-q",
            "--batch-size",
            batch,
            "--threads",
            threads,
            "-f",
            "npy",
            "-f",
            "overlay",
            "-o",
            batch,
        ];
        args.extend(inputs.iter().map(String::as_str));
        assert!(vitx(dir.path(), &args).status.success());
    }
    for entry in std::fs::read_dir(dir.path().join("1")).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_string_lossy().starts_with('.') {
            continue; // the ledger
        }
        let read = |folder: &str| std::fs::read(dir.path().join(folder).join(&name)).unwrap();
        assert!(read("1") == read("3"), "{name:?}");
    }
}

#[test]
fn texts_are_plain_in_a_pipe_and_whole_in_records() {
    let dir = tempfile::tempdir().unwrap();
    let text = "A charming little film - the soup smelled fragrant!";
    let plain = vitx(dir.path(), &["explain", "-q", "--text", text]);
    assert!(plain.status.success(), "{}", stderr(&plain));
    assert!(!stdout(&plain).contains('\x1b') && stdout(&plain).contains("\tcharming\n"), "{}", stdout(&plain));
    let record = &records(&vitx(dir.path(), &["explain", "-q", "--json", "--text", text]))[0];
    assert_eq!(record["target"]["label"], "positive");
    let tokens = record["tokens"].as_array().unwrap();
    assert!(tokens[0]["special"].as_bool().unwrap());
    let words: Vec<&str> = record["words"].as_array().unwrap().iter().map(|w| w["text"].as_str().unwrap()).collect();
    assert_eq!(words, ["A", "charming", "little", "film", "-", "the", "soup", "smelled", "fragrant", "!"]);
    let pieces =
        tokens.iter().filter(|t| t["start"].as_u64().unwrap() >= 41 && t["end"].as_u64().unwrap() <= 49).count();
    assert!(pieces > 1, "`fragrant` is split, and merged again in words");

    let long = "good ".repeat(400);
    let cut = vitx(dir.path(), &["explain", "--text", &long]);
    assert!(cut.status.success() && stderr(&cut).contains("146 tokens were left out"), "{}", stderr(&cut));
}

#[test]
fn mistakes_end_early_and_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file.d"), "x").unwrap();
    let cat = asset("cat.jpg");
    let model = case_dir("vit-square").join("model").display().to_string();
    let bert = case_dir("bert").join("model").display().to_string();
    for (args, part) in [
        (vec!["--method", "rolout", &cat], "did you mean `rollout`"),
        (vec!["--method", "gae:star_layer=1", &cat], "did you mean `start_layer`"),
        (vec!["--method", "gae:start_layer=99", &cat], "layers 0 to 8"),
        (vec!["--method", "gae:row=distillation", &cat], "no distillation token"),
        (vec!["--target", "mamal", &cat], "did you mean `mammal`"),
        (vec!["--target", "99", &cat], "classes 0 to 13"),
        (vec!["--target", "top:99", &cat], "from 1 to 14"),
        (vec!["-m", "no/such/model", &cat], "no such directory"),
        (vec!["-m", &cat, &cat], "is a file"),
        (vec!["-o", "file.d", &cat], "a file in the place"),
        (vec!["-o", "file.d/deeper", &cat], "is a file"),
        (vec!["-o", "one.png", &cat, &cat], "takes one output"),
        (vec!["nowhere.jpg"], "cannot read nowhere.jpg"),
        (vec![], "no input"),
        (vec!["-f", "ansi", &cat], "not for images"),
        (vec!["-f", "overly", &cat], "did you mean `overlay`"),
        (vec!["--device", "tpu", &cat], "expected auto, cpu"),
        (vec!["--normalize", "mean", &cat], "minmax"),
        (vec!["--alpha", "2", &cat], "from 0"),
        (vec!["--size", "4x4", &cat], "smaller than one patch"),
        (vec!["-m", &model, "--text", "x"], "reads images"),
        (vec!["-m", &bert, &cat], "reads texts"),
        (vec!["--text", "x", &cat], "texts and images in one run"),
    ] {
        let all = [&["explain"], &args[..]].concat();
        let start = std::time::Instant::now();
        let output = vitx(dir.path(), &all);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
        assert!(start.elapsed().as_secs_f64() < 2.0, "{args:?} took {:?}", start.elapsed());
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written");
}

#[test]
fn what_would_take_too_much_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let output = vitx(dir.path(), &["explain", "--max-pixels", "200k", &asset("cat.jpg"), &asset("temple.jpg")]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("are 273280 pixels, and 200000 may be read"), "{}", stderr(&output));
    let output = vitx(dir.path(), &["predict", "--memory", "8M", "--size", "640", &asset("cat.jpg")]);
    assert!(stderr(&output).contains("tokens need") && output.status.code() == Some(1), "{}", stderr(&output));
    assert!(vitx(dir.path(), &["predict", "--memory", "8M", &asset("cat.jpg")]).status.success());
}

#[test]
fn a_part_of_a_run_may_hold_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<usize> = (1..=9)
        .map(|part| {
            let shard = format!("{part}/9");
            let output =
                vitx(dir.path(), &["predict", "--json", "--shard", &shard, &asset("cat.jpg"), &asset("temple.jpg")]);
            assert!(output.status.success(), "{shard}: {}", stderr(&output));
            stdout(&output).lines().count()
        })
        .collect();
    assert_eq!(all.iter().sum::<usize>(), 2);
}

#[test]
fn a_run_is_resumed_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("in");
    std::fs::create_dir(&folder).unwrap();
    for name in ["cat.jpg", "flower.jpg", "temple.jpg"] {
        std::fs::copy(asset(name), folder.join(name)).unwrap();
    }
    let run = |more: &[&str]| vitx(dir.path(), &[&["explain", "--json", "-f", "npy", "in"], more].concat());
    let names = |output: &Output| -> Vec<String> {
        records(output).iter().map(|r| r["input"].as_str().unwrap().to_string()).collect()
    };
    let parts = [names(&run(&["--shard", "1/2", "-o", "a"])), names(&run(&["--shard", "2/2", "-o", "b"]))];
    let mut all = parts.concat();
    all.sort();
    assert_eq!(all, ["in/cat.jpg", "in/flower.jpg", "in/temple.jpg"], "each is in one part");
    let first = vitx(dir.path(), &["explain", "-q", "-f", "npy", "-o", "vitx-out/", "in/cat.jpg", "in/temple.jpg"]);
    assert!(first.status.success(), "{}", stderr(&first));
    let refused = run(&["--seed", "1"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--resume"), "{}", stderr(&refused));
    let status =
        |output: &Output| records(output).iter().map(|r| r["status"].as_str().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(status(&run(&["--resume"])), ["skipped", "ok", "skipped"]);
    assert_eq!(status(&run(&[])), ["unchanged"; 3]);
    std::fs::remove_file(dir.path().join("vitx-out/temple.gae.npy")).unwrap();
    assert_eq!(status(&run(&["--resume"])), ["skipped", "skipped", "ok"]);
    assert_eq!(status(&run(&["--resume", "--method", "rollout"])), ["ok", "ok", "ok"]);
    assert_eq!(status(&run(&["--resume", "--target", "top:2", "--method", "gae"])), ["ok"; 6]);
    assert!(dir.path().join("vitx-out/cat.gae.mammal.npy").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_it_has_finished() {
    let dir = tempfile::tempdir().unwrap();
    let list: Vec<String> = (0..400).map(|_| asset("cat.jpg")).collect();
    let mut child = Command::new(cargo_bin!("vitx"))
        .args(["explain", "--json", "-f", "npy", "-o", "out"])
        .args(&list)
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 20]).unwrap(); // it has begun
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let names: Vec<_> = std::fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let arrays: Vec<_> = names.iter().filter(|n| n.to_string_lossy().ends_with(".npy")).collect();
    assert!(!arrays.is_empty() && arrays.len() < 400, "{}", arrays.len());
    for name in arrays {
        assert_eq!(read_npy(&dir.path().join("out").join(name)).len(), 144, "{name:?} is whole");
    }
    assert!(!names.iter().any(|n| n.to_string_lossy().ends_with(".tmp")));
}

#[test]
fn lists_come_from_stdin_and_bytes_go_to_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let with_stdin = |args: &[&str], input: &str| {
        let mut child = Command::new(cargo_bin!("vitx"))
            .args(args)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let list = format!("{}\n{}\n", asset("cat.jpg"), asset("flower.jpg"));
    let output = with_stdin(&["predict", "-q", "--json", "-"], &list);
    let labels: Vec<_> = records(&output).iter().map(|r| r["predictions"][0]["label"].clone()).collect();
    assert_eq!(labels, ["mammal", "flower"]);
    let output = with_stdin(&["predict", "-q", "--text-file", "-"], "I love it\n\nI hate it\n");
    assert_eq!(stdout(&output).lines().count(), 2);
    let png = vitx(dir.path(), &["explain", "-q", "-o", "-", &asset("cat.jpg")]);
    assert!(image::load_from_memory(&png.stdout).is_ok(), "only the PNG is on stdout");
}

#[test]
fn sizes_and_fits_change_the_grid_and_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let run = |out: &str, more: &[&str]| {
        let output = vitx(dir.path(), &[&["explain", "-q", "--json", "-f", "heatmap", "-o", out, &cat], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let record = records(&output).remove(0);
        let png = image::open(dir.path().join(record["outputs"]["heatmap"].as_str().unwrap())).unwrap().into_rgba8();
        (record["grid"].clone(), png)
    };
    let (grid, png) = run("a", &["--size", "112x196"]);
    assert_eq!(grid, serde_json::json!([8, 14]));
    assert!(png.pixels().all(|p| p[3] == 255), "the model saw the whole picture");
    let (grid, png) = run("b", &["--fit", "crop"]);
    assert_eq!(grid, serde_json::json!([12, 12]));
    let (w, h) = png.dimensions();
    let seen = png.pixels().filter(|p| p[3] == 255).count() as f64;
    let square = f64::from(w.min(h)).powi(2);
    assert!((seen - square).abs() < 0.01 * square, "a centre crop sees the central square");
    assert_eq!((png.get_pixel(0, h / 2)[3], png.get_pixel(w / 2, h / 2)[3]), (0, 255));
    let (_, png) = run("c", &["--fit", "pad"]);
    assert!(png.pixels().all(|p| p[3] == 255), "padding lies outside the picture");
}

#[test]
fn a_shared_scale_is_one_scale() {
    let dir = tempfile::tempdir().unwrap();
    let (cat, temple) = (asset("cat.jpg"), asset("temple.jpg"));
    let args = [
        "explain",
        "-q",
        "-f",
        "heatmap",
        "--colormap",
        "gray",
        "--upsample",
        "nearest",
        "--normalize",
        "shared",
        &cat,
        &temple,
    ];
    let output = vitx(dir.path(), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let brightest =
        |name: &str| image::open(dir.path().join(name)).unwrap().into_luma8().pixels().map(|p| p[0]).max().unwrap();
    let (a, b) = (brightest("cat.gae.heatmap.png"), brightest("temple.gae.heatmap.png"));
    assert!(a.max(b) == 255 && a.min(b) < 250, "{a} {b}");
}

#[test]
fn methods_and_heads_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let picture = asset("mammal-and-flower.jpg");
    let size = |name: &str| {
        let png = image::open(dir.path().join(name)).unwrap();
        (png.width(), png.height())
    };
    let methods = "attention,rollout,gae,grad-attention,value-zeroing";
    let output =
        vitx(dir.path(), &["compare", "-q", &picture, "--method", methods, "--target", "top:2", "--cell", "96"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (w, h) = size("mammal-and-flower.compare.png");
    assert!(
        w > 6 * 96 && h > 2 * 96 && h < 4 * 96,
        "a row a target, a column a method and one for the picture: {w}x{h}"
    );
    assert_eq!(vitx(dir.path(), &["compare", "-q", &picture]).status.code(), Some(2), "an existing sheet is kept");
    for (out, args, rows) in [("all.png", &["--cell", "64"][..], 9), ("one.png", &["--layer", "8", "--cell", "64"], 1)]
    {
        let output = vitx(dir.path(), &[&["heads", "-q", &picture, "-o", out], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let (w, h) = size(out);
        assert!(w > 6 * 64 && h > rows * 64 && h < (rows + 2) * 72, "{out}: {w}x{h}");
    }
    for (args, part) in [
        (vec!["heads", "--layer", "9", &picture], "layers 0 to 8"),
        (vec!["compare", &picture, &picture], "takes one input"),
        (vec!["compare", "-o", "y.png", "--method", "gae:matrix=true", &picture], "no place on a sheet"),
        (vec!["compare", "-o", "x.jpg", &picture], "ending in .png"),
    ] {
        let output = vitx(dir.path(), &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn texts_are_compared_in_tables() {
    let dir = tempfile::tempdir().unwrap();
    let text = ["--text", "Not bad at all <b>!"];
    let methods = ["compare", "-q", "--method", "gae,alti,globenc", "--target", "top:2"];
    let plain = vitx(dir.path(), &[&methods[..], &text].concat());
    assert!(plain.status.success(), "{}", stderr(&plain));
    let lines: Vec<String> = stdout(&plain).lines().map(String::from).collect();
    assert_eq!(lines.iter().filter(|l| *l == "token\tgae\talti\tglobenc").count(), 2, "{lines:?}");
    assert!(lines.iter().any(|l| l.starts_with("bad\t+")));
    let html = vitx(dir.path(), &[&methods[..], &text, &["-o", "x.html"]].concat());
    assert!(html.status.success(), "{}", stderr(&html));
    let page = std::fs::read_to_string(dir.path().join("x.html")).unwrap();
    assert!(page.contains("<th>globenc</th>") && page.contains("&lt;") && !page.contains("<b>"), "{page}");
    let heads = vitx(dir.path(), &[&["heads", "-q", "--layer", "0"][..], &text].concat());
    assert!(stdout(&heads).contains("head 11"), "{}", stdout(&heads));
}

#[test]
fn any_token_and_whole_matrices_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let run = |args: &[&str]| {
        let output = vitx(dir.path(), &[&["explain", "-q", "-f", "npy"], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    };
    run(&["--method", "rollout:matrix=true,rollout", "--row", "2,5", &cat]);
    let matrix = read_npy(&dir.path().join("cat.rollout-matrix=true-row=2-5.npy"));
    assert_eq!(matrix.len(), 145 * 145);
    let row = read_npy(&dir.path().join("cat.rollout-row=2-5.npy"));
    let own = 1 + 2 * 12 + 5;
    assert_close("row", &row, &matrix[own * 145 + 1..(own + 1) * 145], 1e-6, 1e-4);
    run(&["--method", "attention", "--row", "charming", "--text", "A charming film"]);
    assert_eq!(read_npy(&dir.path().join("text.attention-row=charming.npy")).len(), 5);
    for (args, part) in [
        (vec!["--row", "99,0", &cat], "12x12"),
        (vec!["--row", "x", &cat], "row,column"),
        (vec!["--row", "dull", "--text", "A charming film"], "no such token"),
        (vec!["--method", "gae:matrix=true", &cat], "--format npy"),
    ] {
        let output = vitx(dir.path(), &[&["explain"], &args[..]].concat());
        assert!(!output.status.success() && stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(cargo_bin!("vitx"))
        .args(["predict", "-q", &asset("cat.jpg"), &asset("flower.jpg")])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_other_commands_speak() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["methods"][..], "rollout"),
        (&["methods", "rollout"], "discard_ratio=0"),
        (&["methods", "--json"], "\"class_specific\":true"),
        (&["models"], "dinov2_with_registers"),
        (&["inspect", "demo-vit"], "12x12 patches of 14x14"),
        (&["inspect", "demo-bert", "--json"], "\"parameters\":"),
        (&["completions", "bash"], "_vitx"),
        (&["man"], ".TH"),
        (&["--version"], "vitx 0."),
    ] {
        let output = vitx(dir.path(), args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(part), "{args:?}: {}", stdout(&output));
    }
    assert_eq!(vitx(dir.path(), &["methods", "gea"]).status.code(), Some(2));
    let output = vitx(dir.path(), &["inspect", "demo-vit"]);
    assert!(stdout(&output).contains("8.29 M"), "{}", stdout(&output));
}

#[test]
fn a_record_states_everything_the_result_depends_on() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let args =
        ["explain", &cat, "-q", "--json", "--size", "112", "--fit", "crop", "--alpha", "0.3", "-f", "overlay,json"];
    let output = vitx(dir.path(), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let record = records(&output).remove(0);
    let identity: vitx::identity::Identity = serde_json::from_value(record["identity"].clone()).unwrap();
    assert_eq!((identity.dtype.as_str(), identity.device.as_str(), identity.seed), ("f32", "cpu", 0));
    assert_eq!((identity.size, identity.fit.as_deref()), (Some((112, 112)), Some("crop")));
    assert_eq!(identity.input, vitx::identity::of_file(Path::new(&cat)).unwrap());
    assert_eq!((identity.style["alpha"].as_f64(), identity.style["normalize"].as_str()), (Some(0.3), Some("auto")));
    assert_eq!(record["size"], serde_json::json!([112, 112]), "what the model reads");
    let file = std::fs::read(dir.path().join("cat.gae.json")).unwrap();
    let mut lasting = record.clone();
    assert!(lasting.as_object_mut().unwrap().remove("ms").is_some());
    assert_eq!(serde_json::from_slice::<Value>(&file).unwrap(), lasting, "the format is the record, without the time");
    // Nothing is noted of texts on stdout; the record says the same.
    let text = vitx(dir.path(), &["explain", "-q", "--json", "--text", "A fine film."]);
    let identity = records(&text).remove(0)["identity"].clone();
    assert_eq!((identity["dtype"].as_str(), identity["target"][0].as_str()), (Some("f32"), Some("predicted")));
    assert!(
        identity["input"].as_str().unwrap().len() == 64 && identity["model"].as_str().unwrap().ends_with("softmax")
    );
}
