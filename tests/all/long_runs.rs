//! Runs that end before their time, that meet others, and that are split: nothing is lost, nothing is half written.

use crate::cli::{records, stderr, vitx};
use crate::shell::{append, done, files, pictures, small, small_model, status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a ledger holds but the time that each result took.
fn ledger(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let records = line["records"].as_array_mut().unwrap();
        records.iter_mut().filter_map(Value::as_object_mut).for_each(|r| drop(r.remove("ms")));
        line
    };
    text.lines().map(line).collect()
}

fn begun(dir: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitx"));
    command.current_dir(dir).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until a file has so many lines, or its writer is done.
fn lines(file: &Path, wanted: usize, child: &mut Child) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60) {
        let there = std::fs::read(file).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count());
        if there >= wanted {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{i:02}.jpg")).collect()
}

#[test]
fn a_killed_run_that_is_resumed_is_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    small_model(dir.path());
    let names = names(24);
    for folder in [&whole, &cut] {
        pictures(&folder.join("in"), &names.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let run = "explain in -o out -m ../model -q -f npy,overlay,json --method gae,rollout --table t.jsonl";
    let run: Vec<_> = run.split(' ').collect();
    assert!(vitx(&whole, &run).status.success());
    let (made, noted) = (files(&whole.join("out")), ledger(&whole.join("out/.vitx-records.jsonl")));
    let notes = cut.join("out/.vitx-records.jsonl");
    for wanted in [0, 1, 7, 20, 40] {
        let _ = std::fs::remove_dir_all(cut.join("out"));
        let mut child = begun(&cut, &run);
        lines(&notes, wanted, &mut child);
        child.kill().unwrap(); // as kill -9 does
        child.wait().unwrap();
        let left = if cut.join("out").exists() { files(&cut.join("out")) } else { BTreeMap::new() };
        assert!(left.iter().all(|(name, bytes)| made[name] == *bytes), "half a file after {wanted} lines");
        std::fs::create_dir_all(cut.join("out")).unwrap();
        std::fs::write(cut.join("out/.vitx-killed.tmp"), "what a run that was killed in mid-file leaves").unwrap();
        append(&notes, b"{\"key\":{\"command\":\"explain\",\"cut off");
        let resumed = vitx(&cut, &[&run[..], &["--resume"]].concat());
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        assert!(files(&cut.join("out")) == made, "after {wanted} lines");
        assert!(ledger(&notes) == noted, "after {wanted} lines");
        let rows = |folder: &Path| std::fs::read(folder.join("t.jsonl")).unwrap();
        assert!(rows(&cut) == rows(&whole), "after {wanted} lines");
        let hidden = std::fs::read_dir(cut.join("out")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(hidden.filter(|name| name.starts_with('.')).collect::<Vec<_>>(), [".vitx-records.jsonl"]);
    }
    // What is cut or gone is made again, though the ledger names it.
    std::fs::write(cut.join("out/03.gae.npy"), &made["03.gae.npy"][..100]).unwrap();
    std::fs::remove_file(cut.join("out/05.rollout.png")).unwrap();
    assert!(vitx(&cut, &[&run[..], &["--resume"]].concat()).status.success());
    assert!(files(&cut.join("out")) == made);
}

#[test]
fn two_runs_into_one_folder_leave_what_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    small_model(dir.path());
    let names = names(12);
    pictures(&at("in"), &names.iter().map(String::as_str).collect::<Vec<_>>());
    let run = |out: &'static str| ["explain", "in", "-o", out, "-m", "model", "-q", "--resume"];
    assert!(vitx(dir.path(), &run("whole")).status.success());
    let children: Vec<_> = (0..3).map(|_| begun(dir.path(), &run("out"))).collect();
    assert!(children.into_iter().all(|mut child| child.wait().unwrap().success()));
    assert_eq!(files(&at("out")), files(&at("whole")));
    let lines = ledger(&at("out/.vitx-records.jsonl"));
    let inputs: Vec<_> = lines.iter().map(|l| l["records"][0]["input"].as_str().unwrap().to_string()).collect();
    assert!(names.iter().all(|name| inputs.contains(&format!("in/{name}"))));
    assert_eq!(done(dir.path(), &["explain", "in", "-o", "out", "--resume"]), ["skipped"; 12]);
    // One that is not done is told of; a table is one run's.
    let held = std::fs::File::options().append(true).open(at("out/.vitx-records.jsonl")).unwrap();
    held.lock_shared().unwrap();
    let told = vitx(dir.path(), &["explain", "in", "-o", "out", "-m", "model", "--overwrite"]);
    assert!(told.status.success() && stderr(&told).contains("another run of vitx writes into this folder too"));
    drop(held);
    let table = std::fs::File::create(at("t.csv")).unwrap();
    table.lock().unwrap();
    let refused = small(dir.path(), &["explain", "in", "-o", "out", "--overwrite", "--table", "t.csv"]);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("another run of vitx is writing it"));
    drop(table); // as a process that is killed does
    assert!(small(dir.path(), &["explain", "in", "-o", "out", "--overwrite", "--table", "t.csv"]).status.success());
}

#[test]
fn parts_are_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    small_model(dir.path());
    let names = names(17);
    pictures(&at("in"), &names.iter().map(String::as_str).collect::<Vec<_>>());
    let run = |out: &str, table: &str, more: &[&str]| {
        let output = small(dir.path(), &[&["explain", "in", "-o", out, "--table", table], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        output
    };
    for ending in ["jsonl", "csv"] {
        let (whole, out) = (format!("whole-{ending}"), format!("out-{ending}"));
        run(&whole, &format!("whole.{ending}"), &[]);
        let mut told = Vec::new();
        let (mut tables, mut ledgers) = (Vec::new(), Vec::new());
        for part in 1..=3 {
            let table = format!("part-{part}.{ending}");
            told.extend(records(&run(&out, &table, &["--shard", &format!("{part}/3")])));
            tables.push(std::fs::read_to_string(at(&table)).unwrap());
            ledgers.extend(ledger(&at(&out).join(format!(".vitx-records.{part}-of-3.jsonl"))));
        }
        assert_eq!(files(&at(&out)), files(&at(&whole)));
        // Put one after the other they are the rows of the whole: `cat`, of CSV with one heading.
        let heading = if ending == "csv" { tables[0].lines().next().map(String::from) } else { None };
        let body = |text: &str| text.lines().skip(usize::from(heading.is_some())).map(String::from).collect::<Vec<_>>();
        let sorted = |mut rows: Vec<String>| {
            rows.sort();
            rows
        };
        let all = std::fs::read_to_string(at(&format!("whole.{ending}"))).unwrap().replace(&whole, &out);
        assert_eq!(sorted(tables.iter().flat_map(|t| body(t)).collect()), sorted(body(&all)));
        let texts = |lines: Vec<Value>| sorted(lines.iter().map(Value::to_string).collect());
        assert_eq!(texts(ledgers), texts(ledger(&at(&whole).join(".vitx-records.jsonl"))));
        assert_eq!(told.len(), 17);
        // Whatever the parts were, what is made is known.
        let again = run(&out, &format!("again.{ending}"), &["--resume"]);
        assert_eq!(status(&again), ["skipped"; 17]);
        let again = run(&out, &format!("again.{ending}"), &["--resume", "--shard", "2/2"]);
        assert!(status(&again).iter().all(|status| status == "skipped"));
    }
}

#[test]
#[cfg(unix)]
fn a_folder_that_cannot_be_written_is_named_and_loses_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    small_model(dir.path());
    pictures(&dir.path().join("in"), &["a.jpg", "b.jpg"]);
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o555)).unwrap();
    let refused = small(dir.path(), &["explain", "in", "-o", "out/"]);
    let mode = |mode| std::fs::set_permissions(&out, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    if refused.status.success() {
        return; // the superuser may write anywhere
    }
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("out"), "{}", stderr(&refused));
    assert!(files(&out).is_empty());
    assert_eq!(done(dir.path(), &["explain", "in", "-o", "out/"]), ["ok"; 2]);
}
