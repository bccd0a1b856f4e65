//! What README.md shows is what the code makes. `assets/readme/make.py` makes it anew.

use crate::cli::{stderr, vitx};
use crate::support::*;
use image::RgbImage;
use std::path::{Path, PathBuf};
use vitx::evaluate::Candidate;

const STALE: &str = "is older than the code: run assets/readme/make.py";

/// The command of this kind that stands in backquotes before the first heading and holds `part`.
fn command(kind: &str, part: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let head = readme.split("\n## ").next().unwrap();
    let commands = head.split('`').filter(|c| c.starts_with(&format!("vitx {kind} ")) && c.contains(part));
    let words = commands.map(|c| c.split_whitespace().skip(1).map(String::from).collect::<Vec<_>>());
    words.into_iter().next().unwrap_or_else(|| panic!("README has no `vitx {kind} ... {part}`"))
}

fn run(words: &[String], out: &Path) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = vitx(&root(), &[&words[..], &["-m", "demo-vit", "-q", "-o", out.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
}

fn open(path: PathBuf) -> RgbImage {
    image::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8()
}

/// Whether two pictures show the same in a rectangle: rounding moves colours by a little, a digit moves many by a lot.
fn same(a: &RgbImage, b: &RgbImage, (from, to): ((u32, u32), (u32, u32))) -> bool {
    let far = |x: u32, y: u32| a.get_pixel(x, y).0.iter().zip(b.get_pixel(x, y).0).any(|(a, b)| a.abs_diff(b) > 48);
    let count = (from.1..to.1).flat_map(|y| (from.0..to.0).map(move |x| (x, y))).filter(|(x, y)| far(*x, *y)).count();
    count == 0
}

#[test]
fn the_hero_is_what_its_command_makes() {
    let dir = tempfile::tempdir().unwrap();
    run(&command("explain", "--legend"), dir.path());
    for class in ["mammal", "flower"] {
        let name = format!("mammal-and-flower.gae.{class}.png");
        let (own, new) = (open(root().join("assets/readme").join(&name)), open(dir.path().join(&name)));
        assert_eq!(own.dimensions(), new.dimensions(), "{name} {STALE}");
        assert!(same(&own, &new, ((0, 0), own.dimensions())), "{name} {STALE}");
    }
}

#[test]
fn the_sheets_are_what_their_commands_make() {
    let dir = tempfile::tempdir().unwrap();
    for (sheet, part) in [("compare.png", "value-zeroing"), ("propagation.png", "attn-lrp")] {
        let mut words = command("compare", part);
        let methods = words.iter().position(|w| w == "--method").unwrap() + 1;
        words[methods] = "attention".into(); // the quickest: its sheet has the same rows, labels and probabilities
        words.push("assets/mammal-and-flower.jpg".into());
        let out = dir.path().join(sheet);
        run(&words, &out);
        let (own, new) = (open(root().join("assets/readme").join(sheet)), open(out));
        assert_eq!(own.height(), new.height(), "{sheet} {STALE}");
        // Labels, probabilities, and the picture itself.
        assert!(same(&own, &new, ((0, 0), (200, own.height()))), "{sheet} {STALE}");
    }
}

#[test]
fn the_random_rows_are_those_of_this_code() {
    let case = Case::open("vit-square");
    let model = case.model(candle_core::DType::F32);
    let (batch, outputs) = case.asked(&model);
    let explanation = Candidate::Random.explain(&batch.pass(outputs).unwrap().run(0)).unwrap();
    let first: Vec<f32> = explanation.of_content().take(3).collect();
    let want = [0.627_340_7_f32, 0.860_488_5, 0.716_129_4];
    let near = first.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near, "{first:?}: the random control is another one, so README's random rows are stale: run assets/readme/make.py with its data");
}
