//! `vitx evaluate` and `vitx tune` as users run them.

use crate::cli::{records, stderr, stdout, vitx};
use crate::support::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

fn data(name: &str) -> String {
    root().join("tests/data").join(name).display().to_string()
}

/// Figures by method and metric.
fn figures(records: &[Value]) -> BTreeMap<(String, String), Value> {
    let text = |v: &Value| v.as_str().unwrap().to_string();
    let figures = records.iter().filter(|r| r.get("figure").is_some());
    figures.map(|r| ((text(&r["method"]), text(&r["metric"])), r["figure"].clone())).collect()
}

fn value(figures: &BTreeMap<(String, String), Value>, method: &str, metric: &str) -> f64 {
    figures[&(method.to_string(), metric.to_string())]["value"].as_f64().unwrap()
}

#[test]
fn pictures_with_masks_rank_methods_above_controls() {
    let dir = tempfile::tempdir().unwrap();
    let data = data("vision/labels.csv");
    let metrics = "average-precision,miou,pixel-accuracy,pointing-game,mass-inside";
    let args = ["evaluate", "--data", &data, "--method", "gae,rollout", "--metric", metrics, "--json", "-q"];
    let output = vitx(dir.path(), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let all = figures(&records(&output));
    assert_eq!(all.len(), 5 * 5, "two methods, raw attention and two controls under five metrics");
    for metric in metrics.split(',') {
        assert!(value(&all, "gae", metric) > value(&all, "(random)", metric), "{metric}");
    }
    assert!(value(&all, "gae", "mass-inside") > value(&all, "rollout", "mass-inside"));
    let gae = &all[&("gae".into(), "average-precision".into())];
    assert_eq!((gae["n"].as_u64(), gae["images"].as_u64()), (Some(6), Some(4)));
    assert_eq!(gae["beats_random"], Value::Bool(true));
    assert!(gae["low"].as_f64() <= gae["value"].as_f64() && gae["value"].as_f64() <= gae["high"].as_f64());
    assert_eq!(records(&vitx(dir.path(), &args)), records(&output), "the same figures every time");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a finished run leaves nothing behind");
}

#[test]
fn texts_with_rationales_make_a_table_a_page_and_a_csv() {
    let dir = tempfile::tempdir().unwrap();
    let (data, method) = (data("text/sentiment.csv"), "gae,leave-one-out");
    let files = ["--csv", "s.csv", "--report", "r.html", "--latex", "t.tex", "--markdown", "t.md"];
    let args = [&["evaluate", "--data", &data, "--method", method][..], &files].concat();
    let output = vitx(dir.path(), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    for part in ["demo-bert", "8 texts", "comprehensiveness ↑", "token-f1 ↑", "(random)", "higher is better", "seed: 0"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    let csv = std::fs::read_to_string(dir.path().join("s.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 8 * 5 * 7, "a line each text, candidate and metric");
    let page = std::fs::read_to_string(dir.path().join("r.html")).unwrap();
    for part in ["<svg", "<details>", "line 2: negative (predicted: negative)", "95 % bootstrap", "leave-one-out"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("src=\"http") && !page.contains("href="), "a page that needs nothing else");
    assert!(!page.contains("<script") && page.contains("name=\"viewport\"") && page.contains("prefers-color-scheme"));
    let (tex, markdown) = (dir.path().join("t.tex"), dir.path().join("t.md"));
    papers(&std::fs::read_to_string(tex).unwrap(), &std::fs::read_to_string(markdown).unwrap(), &table);
    let again = vitx(dir.path(), &args);
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("--overwrite"));
}

/// Both tables for papers hold the figures of the terminal's table, the best of each column in bold.
fn papers(tex: &str, markdown: &str, table: &str) {
    assert!(tex.contains("\\begin{tabular}{lrrrrrrr}") && tex.contains("\\bottomrule"), "{tex}");
    assert!(tex.contains("comprehensiveness $\\uparrow$") && markdown.contains("sufficiency ↓"), "{tex}{markdown}");
    let figures = |text: &str, from: &str, to: char| -> Vec<String> {
        let line = text.lines().find(|line| line.contains(from)).unwrap_or_else(|| panic!("no {from}: {text}"));
        let line = line.split_once(from).unwrap().1.replace("\\mathbf{", "").replace(['*', '$', '}', '†'], "");
        let cells = line.split(to).map(str::trim).filter(|cell| cell.contains('['));
        cells.map(|cell| cell.split(' ').next().unwrap().replace("^{\\dagger", "")).collect()
    };
    let told = table.lines().find(|line| line.starts_with(" leave-one-out ")).unwrap();
    let told: Vec<&str> = told.split_whitespace().skip(1).step_by(3).collect();
    assert_eq!(told.len(), 7, "{told:?}");
    assert_eq!(figures(tex, "leave-one-out & ", '&'), told);
    assert_eq!(figures(markdown, "| `leave-one-out` | ", '|'), told);
    for text in [tex, markdown] {
        assert!(text.contains("model: demo-bert") && text.contains("(random)") && text.contains("95 "), "{text}");
        let bold = text.matches("\\mathbf").count() + text.matches("**").count() / 2;
        assert!((7..12).contains(&bold), "the best of seven columns is bold, {bold} are: {text}");
    }
}

#[test]
fn bad_samples_are_reported_and_the_others_judged() {
    let dir = tempfile::tempdir().unwrap();
    let picture = data("vision/03.jpg");
    let csv = format!("path,label\n{picture},coin\nmissing.jpg,coin\n{picture},unicorn\n{picture},3\n");
    std::fs::write(dir.path().join("d.csv"), csv).unwrap();
    let metric = ["--metric", "sparseness", "--method", "attention", "--json"];
    let output = vitx(dir.path(), &[&["evaluate", "--data", "d.csv"][..], &metric].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("missing.jpg") && stderr(&output).contains("unicorn"), "{}", stderr(&output));
    let figure = &figures(&records(&output))[&("attention".into(), "sparseness".into())];
    assert_eq!((figure["n"].as_u64(), figure["images"].as_u64()), (Some(2), Some(1)));

    let good: String =
        ["03", "26", "47", "62"].map(|n| format!("{},coin\n", data(&format!("vision/{n}.jpg")))).concat();
    std::fs::write(dir.path().join("t.csv"), format!("path,label\n{good}missing.jpg,coin\n{picture},unicorn\n"))
        .unwrap();
    let tune = ["tune", "-q", "--data", "t.csv", "--method", "aggregate:layers=gae|mean", "--metric", "sparseness"];
    let output = vitx(dir.path(), &tune);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("missing.jpg") && stderr(&output).contains("unicorn"), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("--method aggregate\n"), "{}", stdout(&output));

    std::fs::create_dir_all(dir.path().join("folders/coin")).unwrap();
    std::fs::copy(&picture, dir.path().join("folders/coin/a.jpg")).unwrap();
    std::fs::write(dir.path().join("stands.tex"), "mine").unwrap();
    let output = vitx(dir.path(), &[&["evaluate", "--data", "folders"][..], &metric].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    for (args, part) in [
        (vec!["--data", "nothing"], "nothing"),
        (vec!["--data", "folders", "-m", "demo-bert"], "reads texts"),
        (vec!["--data", "folders", "--metric", "comprehensiveness"], "not for explanations of images"),
        (vec!["--data", "folders", "--metric", "delection"], "did you mean `deletion`"),
        (vec!["--data", "folders", "--latex", "t.pdf"], "expected a file ending in .tex"),
        (vec!["--data", "folders", "--markdown", "t.csv"], "expected a file ending in .md"),
        (vec!["--data", "folders", "--latex", "stands.tex"], "--overwrite"),
    ] {
        let output = vitx(dir.path(), &[&["evaluate"][..], &args].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
}

/// What an evaluation of texts prints, run to its end.
fn text_run(dir: &Path, extra: &[&str]) -> Vec<Value> {
    let data = data("text/sentiment.csv");
    let args = ["evaluate", "--data", &data, "--method", "gae,leave-one-out", "--json", "-q", "--batch-size", "2"];
    let output = vitx(dir, &[&args[..], extra].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    records(&output)
}

#[test]
fn an_interrupted_run_resumes_to_the_same_figures() {
    let whole = tempfile::tempdir().unwrap();
    let want = text_run(whole.path(), &[]);

    let dir = tempfile::tempdir().unwrap();
    let data = data("text/sentiment.csv");
    let args = ["evaluate", "--data", &data, "--method", "gae,leave-one-out", "--json", "-q", "--batch-size", "2"];
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("vitx"))
        .args(args)
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let journal = || {
        let mut files = std::fs::read_dir(dir.path()).unwrap().filter_map(|e| Some(e.ok()?.path()));
        files.find(|p| p.to_string_lossy().contains(".vitx-evaluate-"))
    };
    let lines = || journal().and_then(|p| std::fs::read_to_string(p).ok()).map_or(0, |t| t.lines().count());
    while lines() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap(); // without warning, as a power cut would
    child.wait().unwrap();
    let kept = lines();
    assert!((2..8).contains(&kept), "{kept} of 8 inputs were done when it was killed");
    // The same command again, without a word about the interrupted run, loses nothing.
    let again = vitx(dir.path(), &args);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        stderr(&again).contains("--resume goes on") && stderr(&again).contains("--overwrite"),
        "{}",
        stderr(&again)
    );
    assert_eq!(lines(), kept);
    // A line that was cut off in the middle counts for nothing.
    let path = journal().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 40]).unwrap();
    assert_eq!(text_run(dir.path(), &["--resume"]), want);
    assert!(journal().is_none(), "a finished run leaves no journal");
}

#[test]
fn random_weights_take_class_specific_maps_apart() {
    let dir = tempfile::tempdir().unwrap();
    let data = data("vision/labels.csv");
    let args = ["evaluate", "--data", &data, "--method", "grad-rollout,gradcam", "--metric", "mass-inside"];
    let output = vitx(dir.path(), &[&args[..], &["--sanity", "2", "--json", "-q"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let records = records(&output);
    let trained = figures(&records);
    let of = |kind: &str, method: &str| {
        records
            .iter()
            .find(|r| r["sanity"] == kind && r["method"] == method)
            .unwrap_or_else(|| panic!("{kind} {method}"))
    };
    let random = |method: &str| of("all-weights-random", method)["figures"]["mass-inside"]["value"].as_f64().unwrap();
    for method in ["grad-rollout", "gradcam"] {
        let stages = &of("rank-correlation", method)["stages"];
        let last = stages["embedding"].as_f64().unwrap();
        assert!(last.abs() < 0.5, "{method}: correlation {last} with a model of random weights");
        assert!(
            stages.as_object().unwrap().len() == 2 + 9 + 1,
            "another class, head, nine layers, embedding: {stages}"
        );
        let gain = value(&trained, method, "mass-inside") - random(method);
        assert!(gain > 0.2, "{method} loses its localisation with the weights: {gain}");
    }
    let attention = &of("rank-correlation", "attention")["stages"];
    assert_eq!(attention["head"].as_f64(), Some(1.0), "raw attention does not see the head");
}

#[test]
fn tuning_prints_a_method_to_paste_and_measures_on_other_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let data = data("vision/labels.csv");
    let grid = "aggregate:heads=grad|mean|min,layers=rollout|gae|last";
    let args = ["tune", "--data", &data, "--method", grid, "-o", "grid.png", "--latex", "t.tex", "--markdown", "t.md"];
    let output = vitx(dir.path(), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    // Two pictures put nothing beyond doubt: the grid's method without its choices is the baseline, and is kept.
    assert_eq!(text.lines().last(), Some("--method aggregate:heads=grad,layers=rollout"));
    assert!(text.contains("9 settings, searched on 2 inputs, measured on 2 others") && text.contains("(baseline)"));
    let picture = image::open(dir.path().join("grid.png")).unwrap();
    assert!(picture.width() > 200 && picture.height() > 90);
    let written = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let (tex, markdown) = (written("t.tex"), written("t.md"));
    assert!(
        tex.contains("rank & setting & judged & search $\\uparrow$ & gain & held out $\\uparrow$ & gain \\\\"),
        "{tex}"
    );
    assert_eq!(tex.matches("& aggregate:heads=").count(), 9, "{tex}");
    assert_eq!(markdown.matches("| `aggregate:heads=").count(), 9, "{markdown}");
    assert!(
        markdown.contains("| (baseline) | ") && markdown.contains("9 settings, searched on 2 inputs"),
        "{markdown}"
    );

    let json = vitx(dir.path(), &[&args[..4], &[grid, "--budget", "6", "--json", "-q"]].concat());
    assert!(json.status.success(), "{}", stderr(&json));
    let ranked = records(&json);
    assert_eq!(ranked.len(), 9);
    assert!(ranked[0]["judged"].as_u64() >= ranked[8]["judged"].as_u64(), "the best were judged on most");
    assert_eq!(ranked.iter().filter(|r| r["baseline"] == true && r["chosen"] == true).count(), 1);

    let other = vitx(
        dir.path(),
        &[&args[..4], &["gradcam:layer=7|8", "--baseline", "rollout", "--metric", "mass-inside", "--json"]].concat(),
    );
    assert!(other.status.success(), "{}", stderr(&other));
    assert!(stderr(&other).contains("no setting is better than `rollout` beyond doubt"), "{}", stderr(&other));
    let ranked_others = records(&other);
    let baseline = ranked_others.iter().find(|r| r["baseline"] == true).unwrap();
    assert_eq!((ranked_others.len(), baseline["method"].as_str()), (3, Some("rollout")));
    assert!(baseline["gain"].is_null() && ranked_others[0]["gain"][0].is_number());

    let refused = vitx(dir.path(), &["tune", "--data", &data, "--method", "aggregate:heads=grad|median"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn metrics_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let listed = records(&vitx(dir.path(), &["metrics", "--json"]));
    assert_eq!(listed.len(), vitx::evaluate::METRICS.len());
    assert!(listed.iter().all(|m| m["convention"].is_string() && m["direction"].is_string()));
    assert!(stdout(&vitx(dir.path(), &["metrics"])).contains("lower is better"));
}

#[path = "../../examples/evaluate.rs"]
#[allow(dead_code)]
mod example;

#[test]
fn the_library_evaluates_without_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = data("vision/labels.csv");
    let table = example::table(Path::new(&data)).unwrap();
    let args = ["evaluate", "-q", "--data", &data, "--method", "gae,grad-rollout", "--metric"];
    let output = vitx(dir.path(), &[&args[..], &["average-precision,mass-inside"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    // The command looks at the masks before anything is judged, and says so.
    let told: Vec<String> = stdout(&output).lines().filter(|l| !l.starts_with("masks:")).map(String::from).collect();
    assert_eq!(table.lines().collect::<Vec<_>>(), told);
}
