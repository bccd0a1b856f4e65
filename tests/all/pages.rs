//! Pages, figures and tables of the command line, without a browser; `tests/browser/pages.py` drives the pages in one.

use crate::cli::{asset, stderr, stdout, vitx};
use serde_json::Value;
use std::path::Path;

/// What the script of a page reads.
fn data(page: &Path) -> Value {
    let text = std::fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let json = text.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
    assert!(!json.contains('<'), "markup may begin in the data");
    for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!text.contains(outside), "{outside}");
    }
    serde_json::from_str(json).unwrap()
}

fn fine(dir: &Path, args: &[&str]) -> String {
    let output = vitx(dir, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn a_folder_becomes_pages_with_an_index_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos/deep");
    std::fs::create_dir_all(&photos).unwrap();
    let hostile = "<img src=x onerror=alert(1)>.jpg";
    std::fs::copy(asset("cat.jpg"), photos.join(hostile)).unwrap();
    std::fs::copy(asset("flower.jpg"), dir.path().join("photos/b.jpg")).unwrap();
    let args = [
        "explain",
        "-f",
        "html,npy",
        "--method",
        "gae,gradient:resolution=pixel",
        "-t",
        "top:2",
        "-o",
        "out",
        "photos",
    ];
    assert!(fine(dir.path(), &args).contains("index -> out/index.html"));

    let out = dir.path().join("out");
    let index = data(&out.join("index.html"));
    let entries = index["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert!(
        entries.iter().any(|e| e["page"] == "deep/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E.html"),
        "{entries:?}"
    );
    assert!(entries.iter().all(|e| e["thumbnail"].is_string() && e["figure"].as_f64().unwrap() > 0.1));
    let page = data(&out.join("b.html"));
    let maps = page["maps"].as_array().unwrap();
    let of = |map: &Value| (map["method"].as_str().unwrap().to_string(), map["fine"].is_string());
    let kinds = maps.iter().map(of).collect::<Vec<_>>();
    assert_eq!(kinds.iter().filter(|k| **k == ("gae".into(), false)).count(), 2);
    assert_eq!(kinds.iter().filter(|k| **k == ("gradient:resolution=pixel".into(), true)).count(), 2);
    assert_eq!(maps[0]["record"]["outputs"]["html"], "out/b.html");
    let values: Vec<f64> = maps[0]["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let target = maps[0]["record"]["outputs"]["npy"].as_str().unwrap();
    let raw = crate::cli::read_npy(&dir.path().join(target));
    assert!(values.iter().zip(&raw).all(|(a, b)| (a - b).abs() < 1e-9), "the values are the raw ones");

    let again = vitx(dir.path(), &args);
    assert!(again.status.success() && stderr(&again).contains("up to date"), "{}", stderr(&again));
    // A page that is gone is made again, of all that it holds; what else stands, stands.
    std::fs::remove_file(out.join("b.html")).unwrap();
    fine(dir.path(), &[&args[..], &["--resume"]].concat());
    assert_eq!(data(&out.join("b.html"))["maps"].as_array().unwrap().len(), 4);
    assert_eq!(data(&out.join("index.html"))["entries"].as_array().unwrap().len(), 2);
    // Another method makes another page.
    let other = vitx(dir.path(), &["explain", "-f", "html", "--method", "rollout", "-o", "out", "photos"]);
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
}

#[test]
fn a_page_of_one_picture_may_be_one_file_or_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    fine(dir.path(), &["explain", "-q", "-f", "html", "--method", "gae,rollout", "-o", "cat.html", &cat]);
    assert_eq!(data(&dir.path().join("cat.html"))["maps"].as_array().unwrap().len(), 2);
    assert!(!dir.path().join("index.html").exists(), "one input needs no index");
    let page = fine(dir.path(), &["explain", "-q", "-f", "html", "-o", "-", &cat]);
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
}

#[test]
fn an_index_takes_no_other_file_s_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("out")).unwrap();
    std::fs::write(dir.path().join("out/index.html"), "mine").unwrap();
    let (cat, flower) = (asset("cat.jpg"), asset("flower.jpg"));
    let output = vitx(dir.path(), &["explain", "-q", "-f", "html", "-o", "out/", &cat, &flower]);
    assert!(stderr(&output).contains("no index of vitx"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(dir.path().join("out/index.html")).unwrap(), "mine");
    assert!(
        output.status.code() == Some(2) && !dir.path().join("out/cat.html").exists(),
        "said before anything is done"
    );
}

#[test]
fn texts_have_pages_figures_and_fragments_by_words() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Unplayable <b>plots</b> & so on";
    let formats = ["explain", "-q", "-f", "html,svg,fragment,npy", "--text", text, "-o", "out/"];
    fine(dir.path(), &formats);
    let page = data(&dir.path().join("out/text.html"));
    let map = &page["maps"][0];
    let spans = |kind: &str| map[kind][0].as_array().unwrap().iter().filter(|s| !s[1].is_null()).count();
    assert!(spans("words") < spans("pieces"), "{map}");
    let joined: String = map["words"][0].as_array().unwrap().iter().map(|s| s[0].as_str().unwrap()).collect();
    assert_eq!(joined, text);
    assert!(map["notes"][0].as_str().unwrap().contains("Special tokens hold"));
    let share = map["record"]["relevance"]["special"].as_f64().unwrap();
    assert!((0.0..1.0).contains(&share));
    for (file, escaped) in [("text.attn-lrp.svg", "&lt;"), ("text.attn-lrp.fragment.html", "&lt;")] {
        let made = std::fs::read_to_string(dir.path().join("out").join(file)).unwrap();
        assert!(made.contains(escaped) && !made.contains("<b>"), "{file}: {made}");
    }
    let shown = |more: &[&str]| {
        let args = [&["explain", "-q", "--overwrite", "-f", "fragment", "--text", text, "-o", "out/"], more].concat();
        fine(dir.path(), &args);
        let made = std::fs::read_to_string(dir.path().join("out/text.attn-lrp.fragment.html")).unwrap();
        made.matches("<span").count()
    };
    let (words, pieces, special) = (shown(&[]), shown(&["--words", "off"]), shown(&["--special"]));
    assert!(words < pieces && special == words + 2, "{words} {pieces} {special}");
    let idle = vitx(dir.path(), &["explain", "--words", "off", "-f", "npy", "--text", text]);
    assert!(stderr(&idle).contains("--words would change nothing"), "{}", stderr(&idle));
}

#[test]
fn a_table_has_a_row_a_result_and_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broken.jpg"), "no picture").unwrap();
    let cat = asset("cat.jpg");
    let args = [
        "explain",
        "-q",
        "-t",
        "top:2",
        "--method",
        "gae,rollout",
        "--table",
        "t.csv",
        "-o",
        "out/",
        &cat,
        "broken.jpg",
    ];
    assert_eq!(vitx(dir.path(), &args).status.code(), Some(1));
    let rows = |file: &str| {
        let mut reader = csv::Reader::from_path(dir.path().join(file)).unwrap();
        let names = reader.headers().unwrap().clone();
        let at = |name: &str| names.iter().position(|n| n == name).unwrap();
        let (status, method, predicted) = (at("status"), at("method"), at("predicted"));
        let row = |r: csv::StringRecord| (r[status].to_string(), r[method].to_string(), r[predicted].to_string());
        reader.records().map(|r| row(r.unwrap())).collect::<Vec<_>>()
    };
    let made = rows("t.csv");
    assert_eq!(made.len(), 5, "{made:?}");
    assert_eq!(made.iter().filter(|r| r.0 == "ok" && r.2 == "mammal").count(), 4);
    assert_eq!(made.iter().filter(|r| r.0 == "error").count(), 1);
    // Results that stand have their rows too.
    let again = [&args[..args.len() - 1], &["--resume"]].concat();
    fine(dir.path(), &again);
    assert_eq!(rows("t.csv").len(), 4);
}

#[test]
fn what_stands_of_pages_is_told_whole_and_what_is_gone_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let (cat, flower) = (asset("cat.jpg"), asset("flower.jpg"));
    let args = [
        "explain",
        "-q",
        "--json",
        "-f",
        "html,overlay",
        "--method",
        "gae,rollout",
        "-t",
        "top:2",
        "-o",
        "out/",
        &cat,
        &flower,
    ];
    let records = |out: &str| out.lines().filter(|l| l.contains("\"method\"")).count();
    assert_eq!(records(&fine(dir.path(), &args)), 8);
    assert_eq!(records(&fine(dir.path(), &args)), 8, "each record again");
    // One file of four is gone: the input is made again, and told once; then all of it stands.
    std::fs::remove_file(dir.path().join("out/cat.rollout.mammal.png")).unwrap();
    assert_eq!(records(&fine(dir.path(), &[&args[..], &["--resume"]].concat())), 8);
    let again = vitx(dir.path(), &args);
    assert!(again.status.success() && stdout(&again).matches("unchanged").count() == 8, "{}", stderr(&again));
    // The index holds what earlier runs put beside it, and comes back when it is gone.
    std::fs::remove_file(dir.path().join("out/index.html")).unwrap();
    fine(dir.path(), &args);
    let coffee = asset("coffee.jpg");
    let more = [
        "explain",
        "-q",
        "-f",
        "html,overlay",
        "--method",
        "gae,rollout",
        "-t",
        "top:2",
        "-o",
        "out/",
        &coffee,
        &flower,
    ];
    fine(dir.path(), &more);
    assert_eq!(data(&dir.path().join("out/index.html"))["entries"].as_array().unwrap().len(), 3);
}

#[test]
fn a_table_replaces_a_table_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("texts.csv"), "good\nbad\n").unwrap();
    let output = vitx(dir.path(), &["explain", "-q", "--text-file", "texts.csv", "--table", "texts.csv"]);
    assert!(stderr(&output).contains("no table of vitx"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(dir.path().join("texts.csv")).unwrap(), "good\nbad\n");
    for _ in 0..2 {
        fine(dir.path(), &["explain", "-q", "--text-file", "texts.csv", "--table", "new/t.jsonl"]);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("new/t.jsonl")).unwrap().lines().count(), 2);
}

/// Pixels behind the last whole patch are no part of a map, of single pixels neither.
#[test]
fn pixel_maps_cover_whole_patches_and_pieces_have_a_scale_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    fine(
        dir.path(),
        &[
            "explain",
            "-q",
            "-f",
            "html",
            "--size",
            "150x150",
            "--method",
            "gradient:resolution=pixel",
            "-o",
            "c.html",
            &cat,
        ],
    );
    let page = data(&dir.path().join("c.html"));
    let map = &page["maps"][0];
    let side = map["grid"][0].as_u64().unwrap();
    let encoded = map["fine"].as_str().unwrap().split_once("base64,").unwrap().1;
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap();
    let fine_map = image::load_from_memory(&bytes).unwrap();
    assert_eq!(u64::from(fine_map.width()) % side, 0);
    assert!(u64::from(fine_map.width()) < 150);
    let text = "Unplayable plots and unplayable plays";
    fine(
        dir.path(),
        &["explain", "-q", "-f", "html", "--words", "off", "--method", "gae", "--text", text, "-o", "t.html"],
    );
    let page = data(&dir.path().join("t.html"));
    assert_eq!(page["units"], "pieces");
    let map = &page["maps"][0];
    let most = |kind: &str| {
        let all = map[kind][0].as_array().unwrap().iter().filter_map(|span| span[1].as_f64());
        all.fold(f64::MIN, f64::max)
    };
    assert!((map["high"].as_f64().unwrap() - most("words")).abs() < 1e-6);
    assert!((map["of_pieces"][1].as_f64().unwrap() - most("pieces")).abs() < 1e-6);
}
