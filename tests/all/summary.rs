//! `vitx summary` as users run it.

use crate::cli::{asset, read_npy, records, stderr, stdout, vitx};
use crate::support::root;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::Path;

const HOSTILE: &str = "<img src=x onerror=alert(1)>.jpg";

/// Class folders with a picture that is none, a label that the model does not have, and a name that would run.
fn pictures(dir: &Path) {
    for (from, to) in [
        ("cat.jpg", "data/mammal/a.jpg"),
        ("mammal-and-flower.jpg", "data/mammal/b.jpg"),
        ("flower.jpg", &format!("data/flower/{HOSTILE}")),
        ("coffee.jpg", "data/nonsense/c.jpg"),
    ] {
        let to = dir.join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(asset(from), to).unwrap();
    }
    std::fs::write(dir.join("data/mammal/broken.jpg"), "no picture").unwrap();
}

/// Records of a kind.
fn of<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|r| r["kind"] == kind).collect()
}

#[test]
fn pictures_have_mean_maps_and_what_fails_is_told() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path());
    let args = ["summary", "--data", "data", "--method", "gae", "--confidence", "1", "--report", "s.html"];
    let output = vitx(dir.path(), &args);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let (table, told) = (stdout(&output), stderr(&output));
    for part in
        ["class token", "greatest at", "data: data: 3 inputs; 2 failed", "(all)", "Probability below 1: 3", HOSTILE]
    {
        assert!(table.contains(part), "{part}\n{table}");
    }
    for part in ["broken.jpg: not an image", "this model has no label `nonsense`", "2 of 5 inputs failed"] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    let page = std::fs::read_to_string(dir.path().join("s.html")).unwrap();
    for part in ["&lt;img src", "broken.jpg", "data:image/png;base64,", "Mean of the pictures", "default-src 'none'"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<img src=x") && !page.contains("<script") && !page.contains("http://"));
    assert_eq!(vitx(dir.path(), &args).status.code(), Some(2), "the page stands");

    let output =
        vitx(dir.path(), &["summary", "-q", "--json", "--data", "data", "--method", "gae", "--target", "label"]);
    let all = records(&output);
    assert_eq!(all.iter().filter(|r| r["status"] == "error").count(), 2);
    let classes: BTreeMap<&str, &Value> =
        of(&all, "class").into_iter().map(|r| (r["label"].as_str().unwrap(), r)).collect();
    assert_eq!(classes.keys().copied().collect::<Vec<_>>(), ["flower", "mammal"]);
    let mammal = classes["mammal"];
    assert_eq!((&mammal["explained"], &mammal["labelled"]), (&json!(2), &json!(2)));
    // The mean map is the mean of the maps that `explain` writes.
    let args = ["explain", "-q", "-f", "npy", "-t", "mammal", "--method", "gae", "-o", "out/"];
    let made = vitx(dir.path(), &[&args[..], &["data/mammal/a.jpg", "data/mammal/b.jpg"]].concat());
    assert!(made.status.success(), "{}", stderr(&made));
    let maps: Vec<_> = std::fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().path()).collect();
    let maps: Vec<Vec<f64>> =
        maps.iter().filter(|p| p.extension().is_some_and(|e| e == "npy")).map(|p| read_npy(p)).collect();
    assert_eq!(maps.len(), 2);
    let mean: Vec<f64> = mammal["map"]["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!((mean.len(), &mammal["map"]["grid"]), (maps[0].len(), &json!([12, 12])));
    assert!(mean.iter().zip(maps[0].iter().zip(&maps[1])).all(|(mean, (a, b))| (mean - (a + b) / 2.0).abs() < 1e-12));
    let shares = mammal["shares"].as_object().unwrap();
    let sum: f64 = shares.values().map(|share| share.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9 && shares.contains_key("class token"), "{shares:?}");
    let whole = of(&all, "whole")[0];
    assert_eq!((&whole["inputs"], &whole["failed"], &whole["target"]), (&json!(3), &json!(2), &json!("label")));
}

#[test]
fn texts_have_words_that_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let data = root().join("tests/data/text/sentiment.csv").display().to_string();
    let args = ["summary", "-q", "--data", &data, "--min-count", "1", "--top", "1000"];
    let output = vitx(dir.path(), &[&args[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let all = records(&output);
    assert_eq!(of(&all, "class").len(), 2);
    let mut sums: BTreeMap<(String, String), f64> = BTreeMap::new();
    let mut reader = csv::Reader::from_path(&data).unwrap();
    let texts: Vec<String> = reader.records().map(|r| r.unwrap()[0].to_string()).collect();
    std::fs::write(dir.path().join("t.txt"), texts.join("\n")).unwrap();
    let explained = ["explain", "-q", "--json", "-f", "npy", "-o", "out/", "--text-file", "t.txt"];
    for record in records(&vitx(dir.path(), &explained)) {
        for word in record["words"].as_array().unwrap() {
            let text = word["text"].as_str().unwrap().to_lowercase();
            let class = record["target"]["label"].as_str().unwrap().to_string();
            *sums.entry((class, text)).or_default() += word["relevance"].as_f64().unwrap();
        }
    }
    let mut words = 0;
    for class in of(&all, "class") {
        for (side, sign) in [("for", 1.0), ("against", -1.0)] {
            for word in class["words"][side].as_array().unwrap() {
                let key = (class["label"].as_str().unwrap().to_string(), word["word"].as_str().unwrap().to_string());
                let (sum, want) = (word["sum"].as_f64().unwrap(), sums[&key]);
                assert!(sum * sign > 0.0 && (sum - want).abs() < 1e-5, "{key:?}: {sum} {want}");
                words += 1;
            }
        }
        assert!(class["shares"]["[CLS]"].is_number() && class["shares"]["words"].as_f64().unwrap() > 0.3);
    }
    assert!(words > 40, "{words}");

    // The same texts without their labels, from a file of lines: the same words, and nothing is right.
    let plain = vitx(dir.path(), &["summary", "-q", "--data", "t.txt", "--min-count", "1", "--top", "1000", "--json"]);
    assert!(plain.status.success(), "{}", stderr(&plain));
    let plain = records(&plain);
    assert_eq!(
        of(&plain, "class").iter().map(|c| &c["words"]).collect::<Vec<_>>(),
        of(&all, "class").iter().map(|c| &c["words"]).collect::<Vec<_>>()
    );
    assert_eq!((&of(&plain, "whole")[0]["right"], &of(&all, "whole")[0]["labelled"]), (&Value::Null, &json!(8)));
    let table = stdout(&vitx(dir.path(), &[&args[..], &["--report", "t.html"]].concat()));
    assert!(table.contains("words for it:") && table.contains("[SEP]"), "{table}");
    let page = std::fs::read_to_string(dir.path().join("t.html")).unwrap();
    assert!(page.contains("Words against it") && !page.contains("Mean maps"));
}

#[test]
fn folders_need_no_classes_and_groups_change_no_figure() {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [("cat.jpg", "p/a.jpg"), ("flower.jpg", "p/b.jpg"), ("coffee.jpg", "p/holiday/c.jpg")] {
        let to = dir.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(asset(from), to).unwrap();
    }
    let run = |more: &[&str]| {
        let output = vitx(dir.path(), &[&["summary", "--json", "--data", "p", "--method", "gae"], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let (all, told) = run(&[]);
    assert!(all.contains("\"inputs\":3"), "folders in it are no classes of the model: {all}");
    assert!(told.contains("data without labels"), "{told}");
    assert_eq!(run(&["--batch-size", "1"]).0, all);
    assert!(run(&["--limit", "1"]).0.contains("\"inputs\":1"));
}

#[test]
fn mistakes_are_found_before_weights_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = root().join("tests/data/vision/labels.csv").display().to_string();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::write(dir.path().join("t.txt"), "good\n").unwrap();
    for (args, part) in [
        (&["--data", &data, "--method", "gae,rollout"][..], "a summary is of one method"),
        (&["--data", &data, "--method", "rollout:matrix=true"], "not a matrix"),
        (&["--data", &data, "--report", "s.pdf"], "ending in .html"),
        (&["--data", &data, "--confidence", "1.5"], "a probability from 0 to 1"),
        (&["--data", "empty"], "no input in it"),
        (&["--data", "t.txt", "-t", "label"], "expected the columns"),
        (&["--data", "t.txt", "-m", "demo-vit"], "reads pictures, but the data are texts"),
    ] {
        let output = vitx(dir.path(), &[&["summary"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
}
