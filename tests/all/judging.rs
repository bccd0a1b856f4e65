//! Judging with the masks, texts and folders that people have.

use crate::cli::{records, stderr, stdout, vitx};
use crate::support::*;
use candle_core::DType;
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, LumaA, RgbImage};
use serde_json::Value;
use std::path::Path;
use std::process::Output as Ended;
use vitx::evaluate::mask::Place;
use vitx::evaluate::{self, Candidate, Case as Judged, Truth};

const SIZE: (u32, u32) = (64, 48);

/// A model of a few thousand weights.
fn model(name: &str) -> String {
    case_dir(name).join("model").display().to_string()
}

fn picture(path: &Path, seed: u32) {
    let noise = |x: u32, y: u32, c: u32| ((x * (7 + seed) + y * 13 + c * 29 + x * y) % 256) as u8;
    RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgb([noise(x, y, 0), noise(x, y, 1), noise(x, y, 2)]))
        .save(path)
        .unwrap();
}

/// Whether a pixel is the object, in all masks.
fn inside(x: u32, y: u32) -> bool {
    (10..40).contains(&x) && (8..30).contains(&y)
}

fn gray(path: &Path, on: u8) {
    GrayImage::from_fn(SIZE.0, SIZE.1, |x, y| Luma([if inside(x, y) { on } else { 0 }])).save(path).unwrap();
}

/// A palette PNG with VOC's colours; around the object lies void, of which nobody can say what it is.
fn palette(path: &Path, value: impl Fn(u32, u32) -> u8) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    let mut colours = vec![0u8; 768];
    colours[3..9].copy_from_slice(&[128, 0, 0, 0, 128, 0]);
    colours[765..].copy_from_slice(&[224, 224, 192]);
    encoder.set_palette(colours);
    let rows: Vec<u8> = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y))).map(|(x, y)| value(x, y)).collect();
    encoder.write_header().unwrap().write_image_data(&rows).unwrap();
}

/// `evaluate` over a table of pictures and masks.
fn evaluated(dir: &Path, table: &str, extra: &[&str]) -> Ended {
    std::fs::write(dir.join("d.csv"), table).unwrap();
    let (model, metrics) = (model("vit-square"), "miou,mass-inside,average-precision,pointing-game,pixel-accuracy");
    let args = ["evaluate", "-m", &model, "--data", "d.csv", "--method", "gae", "--metric", metrics, "--json"];
    vitx(dir, &[&args[..], extra].concat())
}

fn values(output: &Ended) -> Vec<(String, String, Option<f64>)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let of = |r: &Value| (text(&r["method"]), text(&r["metric"]), r["figure"]["value"].as_f64());
    records(output).iter().filter(|r| r.get("metric").is_some()).map(of).collect()
}

#[test]
fn the_same_mask_in_every_spelling_gives_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (mut table, mut plain) = ("path,label,mask\n".to_string(), "path,label,mask\n".to_string());
    gray(&at("255.png"), 255);
    gray(&at("01.png"), 1);
    gray(&at("ids.png"), 15);
    ImageBuffer::from_fn(SIZE.0, SIZE.1, |x, y| Luma([u16::from(inside(x, y))])).save(at("16.png")).unwrap();
    let alpha = |x, y| LumaA([0u8, if inside(x, y) { 255 } else { 0 }]);
    DynamicImage::ImageLumaA8(ImageBuffer::from_fn(SIZE.0, SIZE.1, alpha)).save(at("alpha.png")).unwrap();
    palette(&at("voc.png"), |x, y| u8::from(inside(x, y)) * 2);
    for (i, mask) in ["255", "01", "ids", "16", "alpha", "voc"].iter().enumerate() {
        picture(&at(&format!("{i}.png")), i as u32);
        table.push_str(&format!("{i}.png,0,{mask}.png\n"));
        plain.push_str(&format!("{i}.png,0,255.png\n"));
    }
    let (want, got) = (evaluated(dir.path(), &plain, &[]), evaluated(dir.path(), &table, &[]));
    assert!(want.status.success() && got.status.success(), "{}", stderr(&got));
    assert_eq!(values(&got), values(&want));
    let line = "masks: 0/1 in 2 files, 0/15 in 1, 0/255 in 1, palette indices (all but 0 and void, 255, are the object) in 1, alpha in 1";
    assert!(stderr(&got).contains(line), "{}", stderr(&got));
    assert_eq!(stderr(&got).matches("masks:").count(), 1);
}

#[test]
fn masks_that_cannot_be_right_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    gray(&at("255.png"), 255);
    gray(&at("empty.png"), 0);
    palette(&at("void.png"), |x, y| if inside(x, y) { 255 } else { 0 });
    palette(&at("two.png"), |x, y| if inside(x, y) { 1 + u8::from(x < 20) } else { 0 });
    GrayImage::from_pixel(SIZE.0, SIZE.1, Luma([1])).save(at("full.png")).unwrap();
    GrayImage::from_fn(SIZE.1, SIZE.0, |x, y| Luma([u8::from(x < 9 && y < 9)])).save(at("turned.png")).unwrap();
    GrayImage::from_fn(SIZE.0, SIZE.1, |x, _| Luma([1 + u8::from(x > 40) + u8::from(x > 50)]))
        .save(at("trimap.png"))
        .unwrap();
    (0..5).for_each(|i| picture(&at(&format!("{i}.png")), i));
    let table = "path,label,mask,mask_value,notes\n0.png,0,empty.png,,\n1.png,0,void.png,,\n2.png,0,full.png,,\n\
                 3.png,0,turned.png,,\n4.png,1,255.png,,\n";
    let output = evaluated(dir.path(), table, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    for part in [
        "empty.png: no pixel of it is the object",
        "void.png: no pixel of it is the object",
        "full.png: no pixel of it is background",
        "turned.png: the picture is 64x48 upright, the mask 48x64: it is stretched",
        "2 empty, 1 full: left out",
        "left out of --data: the column notes",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let n = &records(&output)[0]["figure"]["n"];
    assert_eq!(n.as_u64(), Some(2), "only what can be judged is");
    // Which of the values 1, 2 and 3 is the object nobody can know; the table can say it, of class ids too.
    let output = evaluated(dir.path(), "path,label,mask\n0.png,0,trimap.png\n1.png,0,255.png\n", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("its values are 1, 2, 3 and no 0"), "{}", stderr(&output));
    let table = "path,label,mask,mask_value\n0.png,0,trimap.png,1\n1.png,0,two.png,2\n1.png,1,two.png,1\n";
    let output = evaluated(dir.path(), table, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("the value named in 3 files"), "{}", stderr(&output));
}

#[test]
fn void_pixels_are_left_out_of_every_metric() {
    let case = Case::open("vit-square");
    let model = case.model(DType::F32);
    let (batch, outputs) = case.asked(&model);
    let pass = batch.pass(outputs).unwrap();
    let run = pass.run(0);
    let explanation = Candidate::Method(vitx::method::parse("gradcam").unwrap()).explain(&run).unwrap();
    let map = evaluate::curves::pixels(&explanation, run.subject().unwrap().size().unwrap()).unwrap();
    let score = |spec: &str, mask: &dyn Fn(usize) -> Place| {
        let truth = Truth { mask: Some((0..map.len()).map(mask).collect()), rationale: None };
        let judged = Judged { run: &run, explanation: &explanation, truth: &truth, candidate: &Candidate::Gaussian };
        evaluate::parse(spec).unwrap().score(&judged).unwrap().unwrap().value
    };
    let mean = map.iter().sum::<f64>() / map.len() as f64;
    let half = |i: usize| if i.is_multiple_of(3) { Place::Object } else { Place::Background };
    let right = |i: usize| (map[i] > mean) == (half(i) == Place::Object);
    for metric in ["pixel-accuracy", "miou"] {
        let all = score(metric, &half);
        assert!(all > 0.0 && all < 1.0, "{metric}: {all}");
        assert_eq!(score(metric, &|i| if right(i) { half(i) } else { Place::Void }), 1.0, "{metric}");
    }
    // Scores (1 - r, r) against (background, object): all is ranked right where the map is cut at its middle.
    let middle = (map.iter().copied().fold(f64::MIN, f64::max) + map.iter().copied().fold(f64::MAX, f64::min)) / 2.0;
    let ranked = |i: usize| match (map[i] - middle).partial_cmp(&0.0) {
        _ if i.is_multiple_of(3) => Place::Void,
        Some(std::cmp::Ordering::Greater) => Place::Object,
        _ => Place::Background,
    };
    assert!((score("average-precision", &ranked) - 1.0).abs() < 1e-12);
    assert_eq!(score("mass-inside", &|i| if i == 0 || map[i] <= 0.0 { Place::Void } else { Place::Object }), 1.0);
    let highest = (0..map.len()).max_by(|&a, &b| map[a].total_cmp(&map[b]).then(b.cmp(&a))).unwrap();
    let second =
        (0..map.len()).filter(|&i| i != highest).max_by(|&a, &b| map[a].total_cmp(&map[b]).then(b.cmp(&a))).unwrap();
    let only = |object: usize, void: Option<usize>| {
        move |i: usize| match i {
            i if i == object => Place::Object,
            i if Some(i) == void => Place::Void,
            _ => Place::Background,
        }
    };
    assert_eq!(score("pointing-game", &only(second, None)), 0.0);
    assert_eq!(score("pointing-game", &only(second, Some(highest))), 1.0, "the highest known point");
}

#[test]
fn a_resumed_run_notices_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    (0..3).for_each(|i| picture(&at(&format!("{i}.png")), i));
    gray(&at("a.png"), 255);
    gray(&at("b.png"), 255);
    let table = "path,label,mask\n0.png,0,a.png\n1.png,1,b.png\n2.png,2,b.png\n";
    // The table is made of all inputs, and then cannot be written: what was judged stays in the journal.
    let args = ["--batch-size", "1", "--csv", "d.csv/no.csv"];
    let broken = evaluated(dir.path(), table, &args);
    assert_eq!(broken.status.code(), Some(2), "{}", stderr(&broken));
    let resumed = |extra: &[&str]| evaluated(dir.path(), table, &[&["--batch-size", "1", "--resume"], extra].concat());
    let again = evaluated(dir.path(), table, &args);
    assert!(stderr(&again).contains("--resume goes on"), "{}", stderr(&again));
    let same = resumed(&["--csv", "d.csv/no.csv"]);
    assert!(stderr(&same).contains("3 of 3 inputs were judged before"), "{}", stderr(&same));
    let mask = |x: u32, _| Luma([u8::from(x < 5)]);
    GrayImage::from_fn(SIZE.0, SIZE.1, mask).save(at("a.png")).unwrap();
    let output = resumed(&[]);
    assert!(stderr(&output).contains("1 input changed since"), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 of 3 inputs were judged before"), "{}", stderr(&output));
    let fresh = evaluated(dir.path(), table, &["--batch-size", "1", "--overwrite"]);
    assert_eq!(values(&output), values(&fresh), "as a fresh run");
    assert!(!std::fs::read_dir(dir.path()).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn pairs_are_read_as_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let pair = "text,text_pair,label,id\nthe film,was good,0,a\na b,c d,1,b\n";
    std::fs::write(dir.path().join("pairs.csv"), pair).unwrap();
    std::fs::write(dir.path().join("plain.csv"), pair.replace("text_pair", "other")).unwrap();
    let model = model("bert");
    let run = |data: &str| {
        let args =
            ["evaluate", "-m", &model, "--data", data, "--method", "gae", "--metric", "comprehensiveness", "--json"];
        vitx(dir.path(), &args)
    };
    let (pairs, plain) = (run("pairs.csv"), run("plain.csv"));
    assert!(pairs.status.success() && plain.status.success(), "{}", stderr(&pairs));
    assert!(stderr(&pairs).contains("left out of --data: the column id"), "{}", stderr(&pairs));
    assert!(stderr(&plain).contains("left out of --data: the columns other, id"), "{}", stderr(&plain));
    assert_ne!(values(&pairs), values(&plain));
    // What does not fit is said, and from which character on.
    std::fs::write(dir.path().join("long.csv"), format!("text,label\n{},0\n", "good film ".repeat(60))).unwrap();
    let long = run("long.csv");
    assert!(
        stderr(&long).contains("line 2: too long for the model") && stderr(&long).contains("from character"),
        "{}",
        stderr(&long)
    );
}

#[test]
fn folders_hold_more_than_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("c/0/sub")).unwrap();
    picture(&at("p.png"), 1);
    image::open(at("p.png")).unwrap().save_with_format(at("c/0/a.jfif"), image::ImageFormat::Jpeg).unwrap();
    std::fs::copy(at("p.png"), at("c/0/sub/b.png")).unwrap();
    std::fs::write(at("c/0/notes.md"), "").unwrap();
    // A header that promises a billion pictures is one input that fails.
    let promise = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 3, 8, 8), }";
    let header = [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), format!("{promise:117}\n").as_bytes()].concat();
    std::fs::write(at("c/0/bomb.npy"), header).unwrap();
    let case = Case::open("vit-square");
    let (_, _, h, w) = case.inputs["pixel_values"].dims4().unwrap();
    let array = case.inputs["pixel_values"].to_dtype(DType::F32).unwrap();
    let count = array.dim(0).unwrap();
    assert!(h > 0 && w > 0);
    array.write_npy(at("c/0/x.npy")).unwrap();
    #[cfg(unix)]
    assert!(std::process::Command::new("mkfifo").arg(at("c/0/f.png")).status().unwrap().success());
    let model = model("vit-square");
    let args = ["evaluate", "-m", &model, "--data", "c", "--method", "gae", "--metric", "sparseness", "--json"];
    let output = vitx(dir.path(), &args);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("bomb.npy") && stderr(&output).contains("1 of 5 inputs failed"),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        records(&output).iter().find(|r| r["status"] == "ok").unwrap()["figure"]["images"].as_u64(),
        Some(2 + count as u64)
    );
    assert!(stderr(&output).contains("1 file of other endings: .md"), "{}", stderr(&output));
    #[cfg(unix)]
    assert!(stderr(&output).contains("1 file not regular, such as c/0/f.png"), "{}", stderr(&output));
}

#[test]
fn failures_are_counted_by_input_and_nothing_is_not_ok() {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("a.png"), 1);
    picture(&dir.path().join("b.png"), 2);
    let some = evaluated(dir.path(), "path,label\na.png,0\nb.png,1\nb2.png,nope\n", &["--metric", "sparseness"]);
    assert_eq!(some.status.code(), Some(2), "masks were asked for and there are none: {}", stderr(&some));
    let model = model("vit-square");
    let run = |table: &str, extra: &[&str]| {
        std::fs::write(dir.path().join("t.csv"), table).unwrap();
        let args = ["evaluate", "-m", &model, "--data", "t.csv", "--method", "gae", "--metric", "sparseness", "--json"];
        vitx(dir.path(), &[&args[..], extra].concat())
    };
    let some = run("path,label\na.png,0\nb.png,1\nb2.png,nope\n", &[]);
    assert_eq!(some.status.code(), Some(1));
    assert!(stderr(&some).contains("1 of 3 inputs failed"), "{}", stderr(&some));
    let none = run("path,label\nx.png,0\ny.png,1\n", &[]);
    assert_eq!(none.status.code(), Some(2), "{}", stderr(&none));
    assert!(
        stderr(&none).contains("every input failed") && stderr(&none).contains("2 of 2 inputs failed"),
        "{}",
        stderr(&none)
    );
    assert!(records(&none).iter().all(|r| r["status"] == "error"), "{}", stdout(&none));
    let zero = run("path,label\na.png,0\n", &["--limit", "0"]);
    assert_eq!(zero.status.code(), Some(2), "{}", stderr(&zero));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("a.png"), 1);
    std::fs::write(dir.path().join("t.csv"), "path,label\na.png,0\n").unwrap();
    let (model, data) = (model("vit-square"), dir.path().join("t.csv").display().to_string());
    let args = ["evaluate", "-m", &model, "--data", &data, "--method", "gae", "--metric", "sparseness"];
    let output = vitx(Path::new("/proc"), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: no journal is kept"), "{}", stderr(&output));
    let output = vitx(Path::new("/proc"), &[&args[..], &["--resume"]].concat());
    assert_eq!(output.status.code(), Some(2), "what was asked for cannot be");
}

#[test]
fn a_metric_is_described_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let one = stdout(&vitx(dir.path(), &["metrics", "road"]));
    assert!(one.starts_with("road: ") && one.contains("order=combined") && !one.contains("deletion"), "{one}");
    assert_eq!(records(&vitx(dir.path(), &["metrics", "miou", "--json"]))[0]["needs"], "masks");
    let unknown = vitx(dir.path(), &["metrics", "delection"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("did you mean `deletion`"), "{}", stderr(&unknown));
}

#[test]
fn every_curve_says_where_its_points_are() {
    for (name, metrics) in [
        ("vit-square", &["deletion", "insertion", "srg", "road", "positive", "negative:auc=nine"][..]),
        ("bert", &["comprehensiveness", "sufficiency", "positive"]),
    ] {
        let case = Case::open(name);
        let model = case.model(DType::F32);
        let (batch, outputs) = case.asked(&model);
        let pass = batch.pass(outputs).unwrap();
        let run = pass.run(0);
        let explanation = Candidate::Gaussian.explain(&run).unwrap();
        let truth = Truth::default();
        for spec in metrics {
            let judged =
                Judged { run: &run, explanation: &explanation, truth: &truth, candidate: &Candidate::Gaussian };
            let metric = evaluate::parse(spec).unwrap();
            let score = metric.score(&judged).unwrap().unwrap();
            assert_eq!(score.at.len(), score.curve.len(), "{spec}");
            assert!(
                score.at.windows(2).all(|p| p[0] < p[1]) && score.at.iter().all(|a| (0.0..=1.0).contains(a)),
                "{spec}"
            );
            let axes = metric.axes().unwrap();
            assert!(axes.x.starts_with("share of") && !axes.y.is_empty(), "{spec}: {axes:?}");
            let ends = (score.at[0], *score.at.last().unwrap());
            let want = match *spec {
                "road" => (0.2, 0.8),
                "comprehensiveness" | "sufficiency" => (0.01, 0.5),
                "positive" => (0.0, 0.9),
                "negative:auc=nine" => (0.1, 0.9),
                _ => (0.0, 1.0),
            };
            assert_eq!(ends, want, "{spec}");
        }
    }
}
