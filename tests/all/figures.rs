//! Figures for papers, tables and arrays of a run, texts that are longer than the model: as a shell asks for them.

use crate::cli::{asset, stderr, stdout, vitx};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::RowAccessor;
use serde_json::Value;
use std::fs::File;
use std::path::Path;

fn fine(dir: &Path, args: &[&str]) -> String {
    let output = vitx(dir, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let output = vitx(dir, args);
    assert!(!output.status.success(), "{args:?} is not refused");
    stderr(&output)
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))).into_owned()
}

/// Width, height, pixels an inch and whether there is transparency.
fn png(file: &Path) -> (u32, u32, u32, bool) {
    let reader = png::Decoder::new(std::io::BufReader::new(File::open(file).unwrap())).read_info().unwrap();
    let info = reader.info();
    let inch = info.pixel_dims.map_or(0.0, |dims| f64::from(dims.xppu) * 0.0254);
    (info.width, info.height, inch.round() as u32, info.color_type == png::ColorType::Rgba)
}

#[test]
fn pictures_and_texts_are_figures_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let out = dir.path().join("out");
    fine(dir.path(), &["explain", "-q", "-f", "svg,pdf", "--legend", "--title", "A <cat>", "-o", "out/", &cat]);
    let svg = text(&out.join("cat.gae.svg"));
    assert!(
        svg.contains("A &lt;cat&gt;") && svg.contains("@font-face") && svg.contains("url(#scale0)"),
        "{}",
        &svg[..600]
    );
    let pdf = text(&out.join("cat.gae.pdf"));
    assert!(
        pdf.starts_with("%PDF") && pdf.contains("DejaVuSans") && pdf.contains("/MediaBox[0 0 234 "),
        "3.25 inches wide"
    );
    let review = "A charming little film, but far too long.";
    let asked =
        ["--text", review, "-f", "png,svg,pdf", "--width", "640", "--dpi", "200", "--background", "transparent"];
    fine(dir.path(), &[&["explain", "-q", "-o", "out/"][..], &asked].concat());
    let (width, height, dpi, clear) = png(&out.join("text.attn-lrp.png"));
    assert!(width == 640 && height > 80 && dpi == 200 && clear, "{width}x{height} {dpi} {clear}");
    assert!(text(&out.join("text.attn-lrp.pdf")).contains("/MediaBox[0 0 230.4"));
    // Larger letters take more lines.
    let larger = [&["explain", "-q", "-o", "out/", "--overwrite"][..], &asked, &["--font-size", "24"]].concat();
    fine(dir.path(), &larger);
    assert!(png(&out.join("text.attn-lrp.png")).1 > 2 * height);
    // What the built-in font lacks and no font here has is said; a viewer's fonts draw it in SVG, which is whole as XML.
    let said = |format: &str| {
        let output = vitx(dir.path(), &["explain", "-f", format, "-o", "x/", "--text", "good \u{10fffd} \u{ffff}"]);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).contains("no font here has the letters")
    };
    assert!(said("pdf") && said("png") && !said("svg"));
    assert!(!text(&dir.path().join("x/text.attn-lrp.svg")).contains('\u{ffff}'));
    assert!(refused(dir.path(), &["explain", "-f", "png", &cat]).contains("pass overlay"));
    for (idle, format) in [("--dpi=100", "svg"), ("--font-size=9", "pdf"), ("--background=white", "svg")] {
        assert!(refused(dir.path(), &["explain", idle, "-f", format, &cat]).contains("would change nothing"), "{idle}");
    }
    let large = ["explain", "-f", "png", "--text", "good", "--width", "64", "--font-size", "200"];
    assert!(refused(dir.path(), &large).contains("leave no room"));
    for idle in ["--width=300", "--dpi=100", "--font-size=9", "--title=x", "--background=white"] {
        assert!(refused(dir.path(), &["explain", idle, &cat]).contains("would change nothing"), "{idle}");
    }
}

#[test]
fn sheets_are_vectors_too_and_wrap_their_columns() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    let at = |name: &str| dir.path().join(name);
    let methods = "gae,attention,rollout,attn-lrp";
    fine(dir.path(), &["compare", "-q", "--method", methods, "-o", "wide.png", &cat]);
    fine(dir.path(), &["compare", "-q", "--method", methods, "--columns", "2", "-o", "high.png", &cat]);
    let (wide, high) = (png(&at("wide.png")), png(&at("high.png")));
    assert!(wide.0 > high.0 && wide.1 < high.1 && wide.2 == 300, "{wide:?} {high:?}");
    fine(dir.path(), &["compare", "-q", "--method", methods, "--title", "Four", "-o", "s.svg", &cat]);
    let svg = text(&at("s.svg"));
    assert_eq!((svg.matches("<image").count(), svg.matches("<linearGradient").count()), (5, 4), "a bar each");
    assert!(svg.contains(">Four</text>") && svg.contains(">rollout</text>"));
    fine(dir.path(), &["heads", "-q", "--layer", "0,last", "-o", "h.pdf", &cat]);
    assert!(text(&at("h.pdf")).starts_with("%PDF"));
    fine(dir.path(), &["compare", "-q", "--method", "gae,attn-lrp", "--text", "so good", "-o", "t.svg"]);
    let svg = text(&at("t.svg"));
    assert!(svg.contains(">gae</text>") && svg.matches(">good</text>").count() == 2, "{svg}");
    // The patch whose row is shown has an edge: as many pixels differ as it is long.
    for (row, name) in [(&["--row", "3,4"][..], "row.png"), (&[], "none.png")] {
        fine(dir.path(), &[&["explain", "-q", "--method", "attention", "-o", name, &cat][..], row].concat());
    }
    let edge = |name: &str| {
        let picture = image::open(at(name)).unwrap().into_rgb8();
        picture.pixels().filter(|p| p.0 == [255; 3]).count()
    };
    assert!(edge("row.png") > edge("none.png") + 100);
}

#[test]
fn all_attention_of_an_input_is_one_file_and_layers_are_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cat = asset("cat.jpg");
    fine(dir.path(), &["heads", "-q", "--layer", "0,last", "-o", "a.npz", &cat]);
    let mut archive = zip::ZipArchive::new(File::open(dir.path().join("a.npz")).unwrap()).unwrap();
    let all = npyz::NpyFile::new(archive.by_name("attention.npy").unwrap()).unwrap();
    assert_eq!(all.shape(), [2, 6, 145, 145]);
    let values: Vec<f32> = all.into_vec().unwrap();
    assert!(values.chunks(145).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-4), "rows are shares");
    // The class token's row is what the method gives.
    fine(dir.path(), &["explain", "-q", "-f", "npy", "--method", "attention:layer=0,heads=3", "-o", "r.npy", &cat]);
    let row = crate::cli::read_npy(&dir.path().join("r.npy"));
    let own = &values[3 * 145 * 145 + 1..3 * 145 * 145 + 145];
    assert!(row.iter().zip(own).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-7));
    assert!(refused(dir.path(), &["heads", "-o", "b.npz", "--row", "1,1", &cat]).contains("--row would change nothing"));
    let lines =
        fine(dir.path(), &["explain", "--method", "attention:layer=all,heads=max", "-f", "npy", "-o", "l/", &cat]);
    assert_eq!(lines.lines().count(), 9, "{lines}");
}

#[test]
fn tables_by_columns_and_the_maps_of_a_run_are_one_file_each() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broken.jpg"), "no picture").unwrap();
    let (cat, flower) = (asset("cat.jpg"), asset("flower.jpg"));
    let run = |more: &[&str]| {
        vitx(
            dir.path(),
            &[&["explain", "-q", "-t", "top:2", "-f", "npy"][..], more, &[&cat, "broken.jpg", &flower]].concat(),
        )
    };
    let output = run(&["--table", "t.parquet", "--arrays", "maps.npy", "-o", "out/"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let reader = SerializedFileReader::new(File::open(dir.path().join("t.parquet")).unwrap()).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr().root_schema().clone();
    let at = |name: &str| schema.get_fields().iter().position(|field| field.name() == name).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 5);
    let maps = npyz::NpyFile::new(File::open(dir.path().join("maps.npy")).unwrap()).unwrap();
    assert_eq!(maps.shape(), [4, 12, 12]);
    let maps: Vec<f32> = maps.into_vec().unwrap();
    for row in rows.iter().filter(|row| row.get_string(at("status")).unwrap() == "ok") {
        let place = row.get_long(at("array")).unwrap() as usize;
        let outputs: Value = serde_json::from_str(row.get_string(at("outputs")).unwrap()).unwrap();
        let own = crate::cli::read_npy(&dir.path().join(outputs["npy"].as_str().unwrap()));
        let map = &maps[place * 144..(place + 1) * 144];
        assert!(own.iter().zip(map).all(|(a, b)| *a == f64::from(*b)), "row {place} is not its map");
    }
    assert!(!dir.path().join("t.parquet.rows.jsonl").exists());
    let output = run(&["--table", "t.npz", "-o", "out/"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let mut archive = zip::ZipArchive::new(File::open(dir.path().join("t.npz")).unwrap()).unwrap();
    let classes: Vec<i64> = npyz::NpyFile::new(archive.by_name("class.npy").unwrap()).unwrap().into_vec().unwrap();
    assert_eq!((classes.len(), classes.iter().filter(|class| **class == -1).count()), (5, 1));
    assert!(
        refused(dir.path(), &["explain", "--arrays", "m.npy", "--text", "good"]).contains("--arrays is for pictures")
    );
}

#[test]
fn texts_that_are_too_long_are_read_in_windows() {
    let dir = tempfile::tempdir().unwrap();
    let long = "A charming little film, but far too long. ".repeat(60);
    std::fs::write(dir.path().join("long.txt"), &long).unwrap();
    let record = |more: &[&str]| -> Value {
        let args =
            [&["explain", "-q", "--json", "-f", "npy", "--overwrite", "-o", "o/", "long.txt"][..], more].concat();
        serde_json::from_str(&fine(dir.path(), &args)).unwrap()
    };
    let cut = record(&[]);
    assert!(cut["truncated"]["tokens"].as_u64().unwrap() > 100 && cut.get("windows").is_none());
    let read = record(&["--stride", "16"]);
    let windows = read["windows"].as_array().unwrap();
    assert!(read["truncated"].is_null() && windows.len() == 3, "{windows:?}");
    let ends: Vec<(u64, u64)> = windows.iter().map(|w| (w[0].as_u64().unwrap(), w[1].as_u64().unwrap())).collect();
    assert!(ends.windows(2).all(|pair| pair[1].0 < pair[0].1), "neighbours share characters");
    assert_eq!((ends[0].0, ends[2].1), (0, long.trim().chars().count() as u64));
    let tokens = read["tokens"].as_array().unwrap();
    assert!(tokens.len() > cut["tokens"].as_array().unwrap().len());
    // Before the second window begins, a token has what the first alone finds of it, for the same class.
    let first: String = long.chars().take(ends[0].1 as usize).collect();
    std::fs::write(dir.path().join("first.txt"), &first).unwrap();
    let target = read["target"]["label"].as_str().unwrap();
    let args = ["explain", "-q", "--json", "-f", "npy", "-t", target, "-o", "p/", "first.txt"];
    let alone: Value = serde_json::from_str(&fine(dir.path(), &args)).unwrap();
    let relevance = |record: &Value, token: usize| record["tokens"][token]["relevance"].as_f64().unwrap();
    for token in [1, 7, 100] {
        assert!((relevance(&read, token) - relevance(&alone, token)).abs() < 1e-6, "token {token}");
    }
    // A text that fits is as it is without windows.
    let short = |more: &[&str]| fine(dir.path(), &[&["predict", "-q", "--text", "so good"][..], more].concat());
    assert_eq!(short(&[]), short(&["--stride", "8"]));
    assert!(refused(dir.path(), &["explain", "--stride", "400", "long.txt"]).contains("neighbours must share fewer"));
    assert!(
        refused(dir.path(), &["explain", "--stride", "8", &asset("cat.jpg")]).contains("--stride is for text models")
    );
}

#[test]
fn pages_hold_what_tokens_attend_to() {
    let dir = tempfile::tempdir().unwrap();
    fine(dir.path(), &["explain", "-q", "-f", "html", "--method", "gradcam", "-o", "c.html", &asset("cat.jpg")]);
    let page = text(&dir.path().join("c.html"));
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let links = &data["links"];
    let (layers, heads, tokens) = (
        links["layers"].as_array().unwrap().len(),
        links["heads"].as_u64().unwrap(),
        links["tokens"].as_u64().unwrap(),
    );
    assert_eq!((layers, heads, tokens, &links["averaged"]), (9, 6, 145, &Value::Bool(false)));
    let encoded = data["attention"].as_str().unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap();
    assert_eq!(bytes.len(), 9 * 6 * 145 * 145);
    fine(dir.path(), &["heads", "-q", "--layer", "last", "-o", "a.npz", &asset("cat.jpg")]);
    let mut archive = zip::ZipArchive::new(File::open(dir.path().join("a.npz")).unwrap()).unwrap();
    let all: Vec<f32> = npyz::NpyFile::new(archive.by_name("attention.npy").unwrap()).unwrap().into_vec().unwrap();
    for at in [0, 5, 145 * 40 + 7, 145 * 145 - 1] {
        let (place, greatest) = ((8 * 6 + 2) * 145 * 145 + at, links["greatest"][8 * 6 + 2].as_f64().unwrap());
        let (own, held) = (f64::from(all[2 * 145 * 145 + at]), (f64::from(bytes[place]) / 255.0).powi(2) * greatest);
        assert!((own - held).abs() < 0.01 * greatest, "{at}: {own} {held}");
    }
}

#[test]
fn arrays_and_tables_take_no_other_file_s_place_and_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (cat, flower) = (asset("cat.jpg"), asset("flower.jpg"));
    let at = |name: &str| dir.path().join(name);
    // An input, and a result of the run, hold neither maps nor rows; what is there stays.
    fine(dir.path(), &["explain", "-q", "-f", "npy", "-o", "x.npy", &cat]);
    let before = std::fs::read(at("x.npy")).unwrap();
    refused(dir.path(), &["explain", "-q", "x.npy", "--arrays", "x.npy", "--overwrite", "-o", "o/"]);
    assert_eq!(std::fs::read(at("x.npy")).unwrap(), before);
    let both = ["explain", "-q", "-f", "npy", "-o", "z/", "--arrays", "z/cat.gae.npy", &cat];
    assert!(refused(dir.path(), &both).contains("is a result of this run"));
    // A refused run leaves the table of an earlier one.
    let run = |name: &str, more: &[&str]| {
        vitx(
            dir.path(),
            &[&["explain", "-q", "--table", "t.csv", "--arrays", "a.npy", "-o", "o/", name][..], more].concat(),
        )
    };
    assert!(run(&cat, &[]).status.success());
    let table = text(&at("t.csv"));
    assert_eq!(run(&flower, &[]).status.code(), Some(2));
    assert_eq!(text(&at("t.csv")), table);
    // The same run again makes the array anew and leaves the files that stand.
    let array = std::fs::read(at("a.npy")).unwrap();
    let made = std::fs::metadata(at("o/cat.gae.png")).unwrap().modified().unwrap();
    let again = run(&cat, &["--resume"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!((std::fs::read(at("a.npy")).unwrap(), text(&at("t.csv")).lines().count()), (array, 2));
    assert_eq!(std::fs::metadata(at("o/cat.gae.png")).unwrap().modified().unwrap(), made);
    // Without a map there is no array.
    std::fs::write(at("broken.jpg"), "no picture").unwrap();
    assert!(!vitx(dir.path(), &["explain", "-q", "broken.jpg", "--arrays", "none.npy"]).status.success());
    assert!(!at("none.npy").exists());
    let reference = format!("similarity:{flower}");
    let twice = ["explain", "-q", "-t", &reference, "--both", "--arrays", "m.npy", &cat];
    assert!(refused(dir.path(), &twice).contains("--both makes two runs"));
}
