//! `vitx worker` as services run it: lines through a pipe, and HTTP by hand.

use crate::cli::{asset, read_npy, stderr, vitx};
use crate::support::root;
use assert_cmd::cargo::cargo_bin;
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn worker(dir: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(cargo_bin!("vitx"));
    command.arg("worker").args(args).current_dir(dir).env_remove("VITX_MODEL");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What comes of some lines.
fn answered(dir: &Path, args: &[&str], lines: &[String]) -> (Vec<Value>, Output) {
    let mut child = worker(dir, args);
    let (mut stdin, input) = (child.stdin.take().unwrap(), lines.join("\n"));
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect(), output)
}

fn base64(file: &str) -> String {
    STANDARD.encode(std::fs::read(asset(file)).unwrap())
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| f64::from(v.as_f64().unwrap() as f32)).collect()
}

/// `explain -f npy` of the same.
fn explained(dir: &Path, args: &[&str], file: &str) -> Vec<f64> {
    let output = vitx(dir, &[&["explain", "-q", "--overwrite", "-f", "npy", "-o", "one/"], args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    read_npy(&dir.join("one").join(file))
}

#[test]
fn bad_lines_are_answered_and_good_ones_beside_them_are_as_explained_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (cat, flower) = (base64("cat.jpg"), base64("flower.jpg"));
    let broken = STANDARD.encode(&std::fs::read(asset("cat.jpg")).unwrap()[..2000]);
    let lines = [
        json!({"id": "cat", "image": cat}).to_string(),
        "{\"id\": 2, \"image\":".into(),
        json!({"id": 3, "image": cat, "colour": "red"}).to_string(),
        json!({"id": 4, "image": cat, "path": "cat.jpg"}).to_string(),
        String::new(),
        json!({"id": 5, "image": broken}).to_string(),
        json!({"id": null, "image": "%%%"}).to_string(),
        json!({"id": {"a": [1.5, "x"]}, "image": flower, "formats": ["npy", "values"]}).to_string(),
        json!({"id": 8, "image": cat, "method": "gea"}).to_string(),
        json!({"id": 9, "image": cat, "target": "zebra"}).to_string(),
        json!({"id": 10, "path": asset("cat.jpg")}).to_string(),
        json!({"id": 11, "text": "a cat"}).to_string(),
        json!({"id": 12, "image": "A".repeat(3 << 20)}).to_string(),
        "x".repeat(5 << 20),
        json!({"id": 14, "image": cat, "method": ["gae", "rollout"], "target": "top:2"}).to_string(),
        json!({"id": 15, "image": cat, "target": "above:0.99999"}).to_string(),
        json!({"id": 16, "image": cat, "formats": "overlay"}).to_string(),
    ];
    let args = ["-q", "--batch-size", "8", "--max-wait", "200", "--max-body", "4M", "--max-picture", "2M"];
    let (all, output) = answered(dir.path(), &args, &lines);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let expected = [
        (json!("cat"), "ok", ""),
        (json!(null), "error", "is not JSON"),
        (json!(3), "error", "unknown field `colour`"),
        (json!(4), "error", "got `path`, `image`"),
        (json!(5), "error", "truncated"),
        (json!(null), "error", "image: is not base64"),
        (json!({"a": [1.5, "x"]}), "ok", ""),
        (json!(8), "error", "did you mean `gae`"),
        (json!(9), "error", "zebra"),
        (json!(10), "error", "path: no file is read without --root"),
        (json!(11), "error", "is a text"),
        (json!(12), "error", "image: has 2359296 bytes; at most 2097152"),
        (json!(null), "error", "the line has more than 4194304 bytes"),
        (json!(14), "ok", ""),
        (json!(14), "ok", ""),
        (json!(14), "ok", ""),
        (json!(14), "ok", ""),
        (json!(15), "nothing", ""),
        (json!(16), "ok", ""),
    ];
    assert_eq!(all.len(), expected.len(), "{all:?}");
    for (got, (id, status, part)) in all.iter().zip(expected) {
        assert!(got["id"] == id && got["status"] == status, "{id}: {got}");
        assert!(got["error"].as_str().unwrap_or_default().contains(part), "{id}: {got}");
    }
    assert_eq!((&all[1]["line"], &all[4]["line"], &all[12]["line"]), (&json!(2), &json!(6), &json!(14)));
    let parts: Vec<_> = (13..17).map(|n| (all[n]["part"].clone(), all[n]["parts"].clone())).collect();
    assert_eq!(parts, (1..5).map(|n| (json!(n), json!(4))).collect::<Vec<_>>());

    let values = &all[0]["relevance_values"];
    assert_eq!(floats(&values["values"]), explained(dir.path(), &[&asset("cat.jpg")], "cat.gae.npy"));
    assert_eq!(values["shape"], all[0]["grid"]);
    let file = STANDARD.decode(all[6]["relevance_values"]["npy"].as_str().unwrap()).unwrap();
    std::fs::write(dir.path().join("flower.npy"), file).unwrap();
    let own = read_npy(&dir.path().join("flower.npy"));
    assert_eq!(own, explained(dir.path(), &[&asset("flower.jpg")], "flower.gae.npy"));
    assert_eq!(floats(&all[6]["relevance_values"]["values"]), own);
    let picture = STANDARD.decode(all[18]["files"]["overlay"].as_str().unwrap()).unwrap();
    assert_eq!(image::load_from_memory(&picture).unwrap().width(), image::open(asset("cat.jpg")).unwrap().width());
    assert!(all[18].get("relevance_values").is_none());
}

#[test]
fn texts_and_pairs_are_explained_in_order_or_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let text = "A charming little film.";
    let request = |id: usize| match id % 3 {
        0 => json!({"id": id, "text": text}),
        1 => json!({"id": id, "text": "dull ".repeat(1 + id % 7), "method": "attention"}),
        _ => json!({"id": id, "pair": ["A film.", "It is good."]}),
    };
    let lines: Vec<String> = (0..60).map(|id| request(id).to_string()).collect();
    let (all, output) = answered(dir.path(), &["-q", "-m", "demo-bert", "--queue", "7"], &lines);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let ids: Vec<u64> = all.iter().map(|r| r["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..60).collect::<Vec<_>>());
    assert!(all.iter().filter(|r| r["id"].as_u64().unwrap() % 3 != 2).all(|r| r["status"] == "ok"));
    let alone = explained(dir.path(), &["-m", "demo-bert", "--text", text], "text.attn-lrp.npy");
    assert_eq!(floats(&all[57]["relevance_values"]["values"]), alone);
    assert_eq!(all[57]["tokens"].as_array().unwrap().len(), alone.len());
    let pair =
        vitx(dir.path(), &["explain", "-q", "--json", "-m", "demo-bert", "--text-pair", "A film.", "It is good."]);
    let pair: Value = serde_json::from_slice(&pair.stdout).unwrap();
    assert_eq!((&all[2]["tokens"], &all[2]["error"]), (&pair["tokens"], &pair["error"]));

    let (mut loose, _) = answered(dir.path(), &["-q", "-m", "demo-bert", "--unordered"], &lines);
    loose.sort_by_key(|r| r["id"].as_u64());
    let plain =
        |all: &[Value]| all.iter().map(|r| (r["id"].clone(), r["relevance_values"].clone())).collect::<Vec<_>>();
    assert_eq!(plain(&loose), plain(&all));
}

#[test]
fn an_answer_comes_while_the_pipe_stays_open_and_a_closed_one_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = worker(dir.path(), &["-q", "-m", "demo-bert"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for id in 0..3 {
        writeln!(stdin, "{}", json!({"id": id, "text": "fine"})).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], id);
    }
    drop(stdout);
    for id in 0..9 {
        let _ = writeln!(stdin, "{}", json!({"id": id, "text": "fine"}));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    drop(stdin);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_worker_that_waits_for_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = worker(dir.path(), &["-q", "-m", "demo-bert"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    writeln!(stdin, "{}", json!({"id": 1, "text": "fine"})).unwrap();
    stdout.read_line(&mut String::new()).unwrap();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
}

#[cfg(unix)]
#[test]
fn files_are_read_and_written_inside_of_the_root_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("root");
    std::fs::create_dir_all(folder.join("made")).unwrap();
    std::fs::write(folder.join("made/.vitx-killed.tmp"), "what a killed worker leaves").unwrap();
    std::fs::copy(asset("cat.jpg"), folder.join("cat.jpg")).unwrap();
    std::fs::copy(asset("cat.jpg"), dir.path().join("secret.jpg")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret.jpg"), folder.join("link.jpg")).unwrap();
    std::os::unix::fs::symlink(dir.path(), folder.join("up")).unwrap();
    let paths = ["cat.jpg", "../secret.jpg", "link.jpg", "up/secret.jpg", "/etc/hostname", "none.jpg", "."];
    let mut lines: Vec<String> = paths.iter().map(|path| json!({"id": path, "path": path}).to_string()).collect();
    for (id, out) in [(1, "made/cat"), (2, "made/cat"), (3, "../made"), (4, "up/made"), (5, "/tmp/made")] {
        lines.push(json!({"id": id, "path": "cat.jpg", "out": out, "formats": ["npy", "overlay"]}).to_string());
    }
    lines.push(json!({"id": 6, "path": "cat.jpg", "out": "made/cat", "overwrite": true}).to_string());
    let (all, output) = answered(dir.path(), &["-q", "--root", "root", "--batch-size", "1", "--threads", "1"], &lines);
    assert_eq!(output.status.code(), Some(0));
    let status: Vec<_> = all.iter().map(|r| r["status"].as_str().unwrap()).collect();
    let expected = [vec!["ok"], vec!["error"; 6], vec!["ok"], vec!["error"; 4], vec!["ok"]].concat();
    assert_eq!(status, expected, "{all:#?}");
    for (number, part) in [
        (1, "not inside"),
        (2, "not inside"),
        (3, "not inside"),
        (4, "not inside"),
        (5, "no such file"),
        (6, "is a folder"),
        (8, "made/cat.gae.npy exists"),
        (9, "not inside"),
    ] {
        let error = all[number]["error"].as_str().unwrap();
        assert!(error.contains(part) && !error.contains(dir.path().to_str().unwrap()), "{number}: {error}");
    }
    assert_eq!(all[7]["outputs"]["overlay"], "made/cat.gae.png");
    let written = read_npy(&folder.join("made/cat.gae.npy"));
    assert_eq!(written, explained(dir.path(), &["root/cat.jpg"], "cat.gae.npy"));
    assert!(!folder.join("made/.vitx-killed.tmp").exists());
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["one", "root", "secret.jpg"]);
}

#[test]
fn mistakes_are_found_before_the_first_line() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["--method", "gea"][..], "did you mean `gae`"),
        (&["--target", "zebra"], "zebra"),
        (&["--root", "none"], "there is no such folder"),
        (&["-m", "none/there", "--offline"], "none/there"),
        #[cfg(feature = "serve")]
        (&["--listen", "8080"], "expected 127.0.0.1:PORT"),
    ] {
        let (all, output) = answered(dir.path(), args, &[]);
        assert!(all.is_empty() && output.status.code() == Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("vitx worker"));
}

#[cfg(feature = "serve")]
mod http {
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    /// A worker that listens; it is stopped when the test is over.
    struct Served {
        child: Child,
        place: String,
    }

    impl Served {
        fn new(dir: &Path, args: &[&str]) -> Self {
            let mut child = worker(dir, &[&["-q", "--listen", "127.0.0.1:0"], args].concat());
            let mut line = String::new();
            BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
            let place = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}"));
            Served { place: place.to_string(), child }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(&self.place).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream
        }

        /// Status and body of the answer to some bytes.
        fn raw(&self, request: &[u8]) -> (u16, String) {
            let mut stream = self.connect();
            let _ = stream.write_all(request);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
        }

        fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> (u16, String) {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}");
            self.raw(format!("{head}\r\n{body}").as_bytes())
        }

        fn post(&self, body: &str) -> (u16, String) {
            self.ask("POST", "/explain", &format!("Content-Length: {}\r\n", body.len()), body)
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn requests_have_answers_and_mistakes_their_status() {
        let dir = tempfile::tempdir().unwrap();
        let served = Served::new(dir.path(), &["--max-body", "1M", "--max-picture", "700K"]);
        assert_eq!(served.ask("GET", "/healthz", "", ""), (200, "ok\n".into()));
        let (status, body) = served.post(&json!({"id": "é", "image": base64("cat.jpg")}).to_string());
        let record: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &record["id"], &record["status"]), (200, &json!("é"), &json!("ok")));
        let own = floats(&record["relevance_values"]["values"]);
        assert_eq!(own, explained(dir.path(), &[&asset("cat.jpg")], "cat.gae.npy"));
        let lines = [
            json!({"id": 1, "image": base64("cat.jpg")}),
            json!({"id": 2}),
            json!({"id": 3, "image": base64("flower.jpg")}),
        ];
        let (status, body) = served.post(&lines.map(|line| line.to_string()).join("\n"));
        let all: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((status, all.iter().map(|r| r["id"].as_u64().unwrap()).collect::<Vec<_>>()), (200, vec![1, 2, 3]));
        assert_eq!((&all[1]["status"], &all[1]["line"]), (&json!("error"), &json!(2)));
        for ((status, body), expected, part) in [
            (served.post("{\"id\": 1"), 400, "is not JSON"),
            (served.post(""), 400, "the body is empty"),
            (served.post(&json!({"id": 1, "path": asset("cat.jpg")}).to_string()), 400, "without --root"),
            (served.post(&json!({"id": 1, "image": "AAAA"}).to_string()), 400, "not an image"),
            (served.ask("GET", "/explain", "", ""), 405, "POST"),
            (served.ask("POST", "/metrics", "Content-Length: 0\r\n", ""), 405, "GET"),
            (served.ask("GET", "/", "", ""), 404, "/explain"),
            (served.ask("POST", "/explain", "", ""), 411, "Content-Length"),
            (served.ask("POST", "/explain", "Content-Length: 99999999\r\n", ""), 413, "1048576"),
            (served.ask("POST", "/explain", "Origin: http://evil\r\nContent-Length: 0\r\n", ""), 403, "web pages"),
        ] {
            assert!(status == expected && body.contains(part), "{expected}: {status} {body}");
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], "error");
        }
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let (status, _) = served.ask("POST", "/explain", "Transfer-Encoding: chunked\r\n", &chunk.repeat(20));
        assert_eq!(status, 413);
        let (_, metrics) = served.ask("GET", "/metrics", "", "");
        for line in [
            "vitx_requests_total{outcome=\"ok\"} 3",
            "vitx_requests_total{outcome=\"request\"} 3",
            "vitx_requests_total{outcome=\"input\"} 1",
            "vitx_inside 0",
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
        }
    }

    #[test]
    fn slow_clients_hold_nobody_and_a_full_house_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let served = Served::new(dir.path(), &["--queue", "1", "--batch-size", "1", "--time-limit", "2"]);
        let slow: Vec<TcpStream> = (0..20)
            .map(|n| {
                let mut stream = served.connect();
                let head = "POST /explain HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"id\"";
                stream.write_all(&head.as_bytes()[..if n % 2 == 0 { head.len() } else { 9 }]).unwrap();
                stream
            })
            .collect();
        let start = Instant::now();
        assert_eq!(served.ask("GET", "/healthz", "", "").0, 200);
        assert_eq!(served.post(&json!({"id": 1, "image": base64("cat.jpg")}).to_string()).0, 200);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        drop(slow);
        // One that takes long: it is cut off, and who comes meanwhile is told to come again.
        let long = json!({"id": 2, "image": base64("cat.jpg"), "method": "rise:n=5000"}).to_string();
        std::thread::scope(|scope| {
            let long = scope.spawn(|| served.post(&long));
            std::thread::sleep(Duration::from_millis(700));
            let (status, body) = served.post(&json!({"id": 3, "image": base64("cat.jpg")}).to_string());
            assert!(status == 503 && body.contains("come again"), "{status} {body}");
            let (status, body) = long.join().unwrap();
            assert!(status == 504 && body.contains("time limit"), "{status} {body}");
        });
        let start = Instant::now();
        while served.post(&json!({"id": 4, "image": base64("cat.jpg")}).to_string()).0 != 200 {
            assert!(start.elapsed() < Duration::from_secs(60), "what nobody waits for goes on");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_serves_the_same_and_goes_with_the_worker() {
        use std::os::unix::net::UnixStream;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vitx.sock");
        // What a worker left that was killed is no obstacle.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let mut child = worker(dir.path(), &["-q", "-m", "demo-bert", "--listen", "unix:vitx.sock"]);
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listening on unix:vitx.sock");
        let mut stream = UnixStream::connect(&socket).unwrap();
        let body = json!({"id": 1, "text": "fine"}).to_string();
        let head =
            format!("POST /explain HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"relevance_values\""), "{answer}");
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(!socket.exists());
    }
}
