//! The command line's word: names, resuming, pipes, panics and exit codes.

use crate::cli::*;
use crate::support::{case_dir, root};
use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Commands that print without reading an input.
const LISTS: &[&[&str]] = &[
    &["methods"],
    &["methods", "gae"],
    &["methods", "--json"],
    &["methods", "--markdown"],
    &["metrics"],
    &["models"],
    &["inspect", "demo-vit"],
    &["completions", "bash"],
    &["man"],
    &["--help"],
    &["explain", "--help"],
    &["--version"],
];

#[test]
fn a_closed_pipe_is_0_and_a_full_disk_an_error_for_every_list() {
    let dir = tempfile::tempdir().unwrap();
    for args in LISTS {
        let run = |stdout: Stdio, close: bool| {
            let mut command = Command::new(cargo_bin!("vitx"));
            let mut child =
                command.args(*args).stdout(stdout).stderr(Stdio::piped()).current_dir(dir.path()).spawn().unwrap();
            if close {
                drop(child.stdout.take());
            }
            child.wait_with_output().unwrap()
        };
        let closed = run(Stdio::piped(), true);
        assert_eq!((closed.status.code(), stderr(&closed).as_str()), (Some(0), ""), "{args:?}");
        #[cfg(target_os = "linux")]
        {
            let full = run(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into(), false);
            assert_eq!(full.status.code(), Some(2), "{args:?}: {}", stderr(&full));
            assert!(stderr(&full).contains("cannot be written to stdout"), "{args:?}: {}", stderr(&full));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stderr_never_ends_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    std::fs::write(dir.path().join("broken.jpg"), "x").unwrap();
    let mut command = Command::new(cargo_bin!("vitx"));
    command.args(["predict", "--json", "broken.jpg", &asset("cat.jpg")]).current_dir(dir.path()).stderr(full);
    let output = command.stdout(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let status: Vec<_> = records(&output).iter().map(|r| r["status"].clone()).collect();
    assert_eq!(status, ["error", "ok"]);
}

#[test]
fn completions_know_methods_metrics_targets_and_formats() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&vitx(dir.path(), &["completions", shell]));
        for name in ["gradcam-plusplus", "mass-inside", "predicted", "npy-pixels", "coolwarm"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn a_mistake_gets_the_right_hint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("photo"), "").unwrap();
    for (args, part) in [
        (vec!["cat.jpg"], "did you mean `vitx explain cat.jpg`"),
        (vec!["photo"], "did you mean `vitx explain photo`"),
        (vec!["--text", "x"], "did you mean `vitx explain --text"),
        (vec!["explan"], "explain"),
        (vec!["methods", "GradCAM++"], "did you mean `gradcam-plusplus`"),
        (vec!["methods", "gea"], "did you mean `gae`"),
        (vec!["explain", "--method", "gradcam++", "cat.jpg"], "cannot read cat.jpg"),
    ] {
        let output = vitx(dir.path(), &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
}

/// A small model in a folder that may be changed.
pub fn small_model(dir: &Path) -> PathBuf {
    let to = dir.join("model");
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(case_dir("vit-square").join("model")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
    to
}

/// Pictures of different colours, in a folder.
pub fn pictures(folder: &Path, names: &[&str]) {
    for (i, name) in names.iter().enumerate() {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let own = |x: u32, y: u32| image::Rgb([(x * 9) as u8, (y * 9) as u8, (40 * i) as u8]);
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_fn(24, 20, own).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        std::fs::write(path, bytes.into_inner()).unwrap();
    }
}

pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
    let read = |p: PathBuf| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(p).unwrap());
    all.map(read).filter(|(name, _)| !name.starts_with('.')).collect()
}

pub fn status(output: &Output) -> Vec<String> {
    records(output).iter().map(|r| r["status"].as_str().unwrap().to_string()).collect()
}

/// Runs with the small model, in the folder.
pub fn small(dir: &Path, args: &[&str]) -> Output {
    vitx(dir, &[&args[..1], &["-m", "model", "-q", "--json"], &args[1..]].concat())
}

pub fn done(dir: &Path, args: &[&str]) -> Vec<String> {
    let output = small(dir, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    status(&output)
}

pub fn append(path: &Path, bytes: &[u8]) {
    std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn what_has_changed_is_made_again_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let model = small_model(dir.path());
    pictures(&at("in"), &["a.jpg", "b.jpg"]);
    let run = ["explain", "in", "-o", "out", "-f", "npy,overlay"];
    let resume = |model: &str| {
        let output = vitx(dir.path(), &[&run[..], &["-m", model, "-q", "--json", "--resume"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        status(&output)
    };
    let first = records(&small(dir.path(), &run));
    let own = files(&at("out"));
    let (skipped, ok) = (["skipped"; 2], ["ok"; 2]);
    // The records of what stands are whole.
    let again = records(&small(dir.path(), &[&run[..], &["--resume"]].concat()));
    for (one, other) in first.iter().zip(&again) {
        let mut other = other.clone();
        assert_eq!(other["status"], "skipped");
        other["status"] = "ok".into();
        assert_eq!(*one, other);
    }
    assert_eq!(done(dir.path(), &run), ["unchanged"; 2]);
    // Names are no contents: the model, the input and the output written in another way, and copies.
    assert_eq!(resume("./model"), skipped);
    assert_eq!(done(dir.path(), &["explain", "./in/", "-o", "./out", "-f", "npy,overlay", "--resume"]), skipped);
    // Weights, processor, config.
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    let mut trained = weights.clone();
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    trained[header + 2..].iter_mut().step_by(64).for_each(|b| *b ^= 0x15);
    std::fs::write(model.join("model.safetensors"), &trained).unwrap();
    assert_eq!(resume("model"), ok);
    assert_ne!(files(&at("out")), own);
    std::fs::write(model.join("model.safetensors"), &weights).unwrap();
    assert_eq!(resume("model"), ok);
    assert_eq!(files(&at("out")), own);
    let processor = std::fs::read_to_string(model.join("preprocessor_config.json")).unwrap();
    std::fs::write(model.join("preprocessor_config.json"), processor.replace("0.48", "0.4")).unwrap();
    assert_eq!(resume("model"), ok);
    std::fs::write(model.join("preprocessor_config.json"), &processor).unwrap();
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    std::fs::write(model.join("config.json"), config.replacen('{', "{ \"note\": 1, ", 1)).unwrap();
    assert_eq!(resume("model"), ok);
    std::fs::write(model.join("config.json"), &config).unwrap();
    assert_eq!(resume("model"), skipped, "the note has changed no byte: what is there is what was written");
    // Outputs that were cut, replaced by those of another model, or taken away.
    std::fs::write(at("out/a.gae.npy"), "").unwrap();
    assert_eq!(resume("model"), ["ok", "skipped"]);
    std::fs::remove_file(at("out/b.gae.png")).unwrap();
    assert_eq!(resume("model"), ["skipped", "ok"]);
    assert!(vitx(dir.path(), &[&run[..], &["-q", "--overwrite"]].concat()).status.success(), "another model");
    assert_ne!(files(&at("out")), own);
    let refused = small(dir.path(), &run);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("made with another model"), "{}", stderr(&refused));
    assert_eq!(resume("model"), ok);
    assert_eq!(files(&at("out")), own);
    // The input, and only that.
    std::fs::copy(at("in/a.jpg"), at("in/b.jpg")).unwrap();
    assert_eq!(resume("model"), ["skipped", "ok"]);
}

#[test]
fn a_bad_byte_in_the_ledger_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    pictures(&dir.path().join("in"), &["a.jpg", "b.jpg"]);
    let run = ["explain", "in", "-o", "out", "--resume"];
    assert_eq!(done(dir.path(), &run), ["ok"; 2]);
    let ledger = dir.path().join("out/.vitx-records.jsonl");
    append(&ledger, b"\xff\n{\"key\": {\"cut");
    assert_eq!(done(dir.path(), &run), ["skipped"; 2]);
    std::fs::remove_file(dir.path().join("out/b.gae.png")).unwrap();
    assert_eq!(done(dir.path(), &run), ["skipped", "ok"]);
    assert_eq!(done(dir.path(), &run), ["skipped"; 2], "the line after a cut one is whole");
}

#[test]
fn a_shared_scale_is_that_of_a_whole_run() {
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    let at = |name: &str| dir.path().join(name);
    pictures(&at("in"), &["a.jpg", "b.jpg", "c.jpg"]);
    let run = |out: &str, more: &[&str]| {
        small(dir.path(), &[&["explain", "in", "--normalize", "shared", "-o", out], more].concat())
    };
    assert!(run("whole", &[]).status.success());
    assert_eq!(status(&run("whole", &["--resume"])), ["skipped"; 3]);
    // A run that stops draws nothing; one that lost an output draws everything again.
    std::fs::write(at("in/bb.jpg"), "broken").unwrap();
    let stopped = run("out", &["--fail-fast"]);
    assert_eq!((stopped.status.code(), files(&at("out")).len()), (Some(1), 0));
    std::fs::remove_file(at("in/bb.jpg")).unwrap();
    assert!(run("out", &[]).status.success());
    std::fs::remove_file(at("out/c.gae.png")).unwrap();
    assert_eq!(status(&run("out", &["--resume", "--batch-size", "2"])), ["ok"; 3]);
    assert_eq!(files(&at("out")), files(&at("whole")));
    // Another input changes the scale of all.
    std::fs::copy(asset("cat.jpg"), at("in/d.jpg")).unwrap();
    assert_eq!(status(&run("out", &["--resume"])), ["ok"; 4]);
    let shard = run("s", &["--shard", "1/2"]);
    assert!(shard.status.code() == Some(2) && stderr(&shard).contains("a scale of its own"), "{}", stderr(&shard));
}

#[test]
fn names_are_whole_and_stay_in_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    let at = |name: &str| dir.path().join(name);
    pictures(dir.path(), &["a/x.jpg", "b/x.jpg", "c/x.jpg~2.jpg", "dots/..jpg", "dots/...jpg", "dots/sub/..jpg"]);
    let long = "integrated-gradients:baseline=black,quadrature=midpoint,steps=";
    let (four, eight) = (format!("{long}4"), format!("{long}8"));
    let methods = ["explain", "a/x.jpg", "-o", "m", "-f", "npy", "--method", &four, "--method", &eight];
    assert_eq!(done(dir.path(), &methods), ["ok"; 2]);
    let made = files(&at("m"));
    assert_eq!(made.len(), 4, "patches and pixels: {:?}", made.keys());
    assert_eq!(done(dir.path(), &["explain", "a/x.jpg", "b/x.jpg", "c/x.jpg~2.jpg", "-o", "i"]), ["ok"; 3]);
    assert_eq!(files(&at("i")).len(), 3);
    assert_eq!(done(dir.path(), &["explain", "dots", "-o", "deep/out"]), ["ok"; 3]);
    assert_eq!(files(&at("deep")).len(), 0, "{:?}", files(&at("deep")).keys());
    for name in ["..jpg.gae.png", "...jpg.gae.png", "sub/..jpg.gae.png"] {
        assert!(at("deep/out").join(name).exists(), "{name}");
    }
    // A target that another one means too is told once, and both stand.
    let twice = ["explain", "a/x.jpg", "-o", "t", "-t", "top:2", "-t", "id:0", "-t", "id:1", "-t", "id:2"];
    let told = done(dir.path(), &twice).len();
    assert_eq!((told, files(&at("t")).len()), (files(&at("t")).len(), told));
    assert_eq!(done(dir.path(), &twice).len(), told);
    assert!(done(dir.path(), &["explain", "a/x.jpg", "-o", "t", "-t", "id:1"]) == ["unchanged"]);
}

#[test]
fn outputs_beside_inputs_are_no_inputs() {
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    let at = |name: &str| dir.path().join(name);
    pictures(&at("p"), &["a.jpg", "b.jpg"]);
    for _ in 0..3 {
        let output = small(dir.path(), &["explain", "p", "-o", "p", "-f", "npy,overlay", "--resume"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!((records(&output).len(), files(&at("p")).len()), (2, 6));
    }
    // Sheets, and from another folder; what is no longer ours is an input.
    assert!(small(dir.path(), &["compare", "p/a.jpg", "-o", "p/sheet.png"]).status.success());
    let seen = |n: usize| assert_eq!(records(&small(dir.path(), &["predict", "p"])).len(), n);
    seen(2);
    std::fs::copy(asset("cat.jpg"), at("p/a.gae.png")).unwrap();
    seen(3);
    let over = small(dir.path(), &["explain", "p/b.jpg", "p/b.gae.png", "-o", "p", "--overwrite"]);
    assert!(stderr(&over).contains("is an input of this run"), "{}", stderr(&over));
}

#[test]
fn one_bad_path_is_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    pictures(dir.path(), &["a.jpg", "empty/.keep"]);
    std::fs::remove_file(dir.path().join("empty/.keep")).unwrap();
    #[cfg(unix)]
    assert!(Command::new("mkfifo").arg(dir.path().join("pipe.jpg")).status().unwrap().success());
    let list = |lines: &[u8]| {
        let mut command = Command::new(cargo_bin!("vitx"));
        command.args(["predict", "-m", "model", "--json", "-q", "-"]).current_dir(dir.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = list(b"a.jpg\nmissing.jpg\nno/\xff.jpg\n\na.jpg\r\n");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(status(&output), ["ok", "error", "error", "ok"]);
    assert!(stderr(&output).contains("error: missing.jpg: there is no such file"), "{}", stderr(&output));
    assert_eq!(list(b"missing.jpg\n").status.code(), Some(1));
    let typed = small(dir.path(), &["predict", "missing.jpg", "a.jpg", "pipe.jpg"]);
    assert_eq!(typed.status.code(), Some(1));
    assert_eq!(status(&typed), ["error", "ok", "error"]);
    std::fs::write(dir.path().join("texts.txt"), b"good\n\xff\nbad\n").unwrap();
    let texts = vitx(dir.path(), &["predict", "-q", "--json", "--text-file", "no.txt", "--text-file", "texts.txt"]);
    assert_eq!(
        (texts.status.code(), status(&texts)),
        (Some(1), ["error", "ok", "error", "ok"].map(String::from).to_vec())
    );
    // Arrays that name more than they hold, by far.
    for (name, shape) in [("many.npy", "(1000000000, 3, 8, 8)"), ("wide.npy", "(3, 4294967296, 4294967296)")] {
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let header = format!("{header:117}\n");
        let bytes = [b"\x93NUMPY\x01\x00", &118u16.to_le_bytes()[..], header.as_bytes()].concat();
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let arrays = small(dir.path(), &["predict", "many.npy", "a.jpg", "wide.npy"]);
    assert_eq!(status(&arrays), ["error", "ok", "error"], "{}", stderr(&arrays));
    let none = small(dir.path(), &["predict", "missing.jpg"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("cannot read missing.jpg: there is no such file"), "{}", stderr(&none));
    let first = small(dir.path(), &["predict", "missing.jpg", "a.jpg", "--fail-fast", "--batch-size", "2"]);
    assert_eq!((first.status.code(), status(&first).len()), (Some(1), 1));
}

#[test]
fn what_would_change_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    pictures(dir.path(), &["a.jpg"]);
    for (args, part) in [
        (&["heads", "a.jpg", "--normalize", "max"][..], "--normalize max would change nothing"),
        (&["heads", "a.jpg", "--seed", "1"], "--seed"),
        (&["heads", "a.jpg", "--batch-size", "2"], "--batch-size"),
        (&["heads", "a.jpg", "--layer", "0,9"], "--layer 9"),
        (&["compare", "a.jpg", "--shard", "1/2"], "--shard"),
        (&["compare", "a.jpg", "--fail-fast"], "--fail-fast"),
        (&["compare", "a.jpg", "--text-file", "x"], "--text-file"),
        (&["compare", "a.jpg", "a.jpg"], "takes one input"),
        (&["explain", "a.jpg", "-f", "npy", "--colormap", "jet"], "--colormap would change nothing"),
        (&["explain", "a.jpg", "-f", "npy", "--legend"], "--legend would change nothing"),
        (&["explain", "a.jpg", "-f", "heatmap", "--alpha", "0.5"], "--alpha would change nothing"),
        (&["explain", "a.jpg", "--revision", "x"], "--revision is for models of the hub"),
        (&["maximize", "-t", "id:1", "-o", "fig.jpg"], "ending in .png"),
        (&["evaluate", "--data", "x", "--report", "page.pdf"], "ending in .html"),
        (&["tune", "--data", "x", "-o", "grid.svg"], "ending in .png"),
        (&["explain", "a.jpg", "-o", "fig.svg"], "pass --format svg"),
        (&["explain", "a.jpg", "-f", "html", "--legend"], "--legend would change nothing"),
        (&["explain", "a.jpg", "-f", "html", "--panel"], "--panel would change nothing"),
        (&["explain", "a.jpg", "-f", "html", "--upsample", "nearest"], "--upsample would change nothing"),
        (&["explain", "a.jpg", "-f", "html", "--blend", "mask:20"], "--blend mask:20 would change nothing"),
        (&["explain", "a.jpg", "-o", "fig.pdf"], "pass --format pdf"),
        (&["explain", "a.jpg", "--table", "t.xlsx"], "ending in .csv or .jsonl"),
        (&["explain", "a.jpg", "-o", "fig.jpg"], "no format writes .jpg"),
    ] {
        let output = small(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
    let text = ["explain", "-q", "--text", "Good."];
    for (flags, part) in [(&["--fit", "pad"][..], "--fit is for image"), (&["--upsample", "nearest"], "--upsample")] {
        let output = vitx(dir.path(), &[&text[..], flags].concat());
        assert!(output.status.code() == Some(2) && stderr(&output).contains(part), "{flags:?}: {}", stderr(&output));
    }
    assert_eq!(files(dir.path()).len(), 1, "nothing was written");
}

#[test]
fn other_layers_and_sizes_are_other_pictures() {
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    pictures(dir.path(), &["a.jpg"]);
    for (args, name) in [
        (&["heads", "a.jpg"][..], "a.heads.png"),
        (&["heads", "a.jpg", "--layer", "last"], "a.heads-layer=last.png"),
        (&["heads", "a.jpg", "--layer", "0,1"], "a.heads-layer=0,1.png"),
    ] {
        assert_eq!(done(dir.path(), args), ["ok"], "{args:?}");
        assert!(dir.path().join(name).exists(), "{name}");
        assert_eq!(done(dir.path(), args), ["unchanged"], "{args:?}");
    }
    let paint = ["maximize", "-t", "id:1", "--steps", "2", "-o", "p.png"];
    assert_eq!([done(dir.path(), &paint), done(dir.path(), &paint)], [["ok"], ["unchanged"]]);
    let other = small(dir.path(), &["maximize", "-t", "id:2", "--steps", "2", "-o", "p.png"]);
    assert!(other.status.code() == Some(2) && stderr(&other).contains("p.png exists"), "{}", stderr(&other));
    assert_eq!(done(dir.path(), &["explain", "a.jpg"]), ["ok"]);
    let other = small(dir.path(), &["explain", "a.jpg", "--size", "64"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("a.gae.png exists, made with another size"), "{}", stderr(&other));
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_named_once() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    pictures(dir.path(), &["a.jpg"]);
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(out.join("probe"), "").is_ok() {
        return; // the user may write everywhere
    }
    let output = small(dir.path(), &["explain", "a.jpg", "-o", "out"]);
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    assert_eq!((told.matches("Permission denied").count(), told.contains(".tmp")), (1, false), "{told}");
}

#[test]
fn nothing_but_the_voice_prints() {
    for path in crate::house::sources(&root().join("src/cli")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let prints = text
            .lines()
            .any(|l| !l.trim_start().starts_with("//") && (l.contains("println!(") || l.contains("print!(")));
        assert!(!prints, "{}", path.display());
    }
}

#[test]
fn every_method_is_a_record_of_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let record: Vec<Value> = records(&vitx(dir.path(), &["methods", "--json"]));
    assert_eq!(record.len(), vitx::method::all().count());
}
