//! Hub models against a local server with the hub's real layout: metadata headers, redirects, ranges, commits.

use crate::support::*;
use assert_cmd::cargo::cargo_bin;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use tiny_http::{Header, Response, Server, StatusCode};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves `org/NAME` with the files of a fixture's model. Large files redirect to a store, as the hub's do.
struct Hub {
    url: String,
    requests: Arc<AtomicUsize>,
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name.as_bytes(), value.as_bytes()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// What the server does wrong, if anything.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Sends other bytes than it announced.
    Damaged,
    /// Asks for a token.
    Private,
}

fn serve(files: PathBuf, fault: Fault) -> Hub {
    let server = Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr());
    let requests = Arc::new(AtomicUsize::new(0));
    let (count, base) = (requests.clone(), url.clone());
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            count.fetch_add(1, Ordering::SeqCst);
            let token = request.headers().iter().any(|h| h.field.equiv("Authorization") && h.value == "Bearer secret");
            if fault == Fault::Private && !token {
                request.respond(Response::empty(401)).ok();
                continue;
            }
            let path = request.url().to_string();
            let name = path.rsplit('/').next().unwrap().to_string();
            let file = files.join(&name);
            let known = path.starts_with("/org/model/resolve/") || path.starts_with("/store/");
            let Ok(bytes) = std::fs::read(&file).map_err(drop).and_then(|b| if known { Ok(b) } else { Err(()) }) else {
                request.respond(Response::empty(404)).ok();
                continue;
            };
            let etag = sha256(&bytes);
            let large = name.ends_with(".safetensors");
            if large && !path.starts_with("/store/") {
                let response = Response::empty(302)
                    .with_header(header("Location", &format!("{base}/store/{name}")))
                    .with_header(header("x-linked-etag", &format!("\"{etag}\"")))
                    .with_header(header("x-repo-commit", COMMIT));
                request.respond(response).ok();
                continue;
            }
            let range = request.headers().iter().find(|h| h.field.equiv("Range")).map(|h| h.value.to_string());
            let range = range.and_then(|r| {
                let (from, to) = r.strip_prefix("bytes=")?.split_once('-')?;
                Some((from.parse::<usize>().ok()?, to.parse::<usize>().unwrap_or(bytes.len() - 1)))
            });
            let (from, to) = range.unwrap_or((0, bytes.len() - 1));
            let mut body = bytes[from..=to.min(bytes.len() - 1)].to_vec();
            if fault == Fault::Damaged && large && body.len() > 1000 {
                body[900] ^= 0xff;
            }
            let etag = if large { etag } else { etag[..40].to_string() };
            let response = Response::from_data(body)
                .with_status_code(StatusCode(206))
                .with_header(header("Content-Range", &format!("bytes {from}-{to}/{}", bytes.len())))
                .with_header(header("ETag", &format!("\"{etag}\"")))
                .with_header(header("x-repo-commit", COMMIT));
            request.respond(response).ok();
        }
    });
    Hub { url, requests }
}

fn vitx(hub: &Hub, home: &Path, args: &[&str]) -> Output {
    Command::new(cargo_bin!("vitx"))
        .args(args)
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", &hub.url)
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_HUB_OFFLINE")
        .output()
        .unwrap()
}

fn predict<'a>(text: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["predict", "-m", "org/model", "--text", text], more].concat()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_hub_model_is_downloaded_once_and_then_works_offline() {
    let hub = serve(case_dir("bert").join("model"), Fault::None);
    let home = tempfile::tempdir().unwrap();
    let first = vitx(&hub, home.path(), &predict("the quiet film", &["--json"]));
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stderr(&first).contains("downloaded model.safetensors"), "{}", stderr(&first));
    let record: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&record["model"]["id"], &record["model"]["revision"]), (&"org/model".into(), &COMMIT.into()));
    let snapshot = home.path().join("hub/models--org--model/snapshots").join(COMMIT).join("config.json");
    assert!(snapshot.exists(), "the cache has the hub's own layout");

    let offline = vitx(&hub, home.path(), &predict("the quiet film", &["--json", "--offline"]));
    assert_eq!(first.stdout, offline.stdout, "{}", stderr(&offline));
    let by_commit = vitx(&hub, home.path(), &predict("the quiet film", &["--offline", "--revision", COMMIT]));
    assert!(by_commit.status.success(), "{}", stderr(&by_commit));

    let before = hub.requests.load(Ordering::SeqCst);
    let again = vitx(&hub, home.path(), &predict("the quiet film", &[]));
    assert!(again.status.success());
    assert!(!stderr(&again).contains("downloaded"), "{}", stderr(&again));
    let optional = hub.requests.load(Ordering::SeqCst) - before;
    assert!(optional <= 6, "{optional} requests for files the cache has");
}

#[test]
fn an_interrupted_download_is_resumed() {
    let hub = serve(case_dir("bert").join("model"), Fault::None);
    let home = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(case_dir("bert").join("model/model.safetensors")).unwrap();
    let blobs = home.path().join("hub/models--org--model/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.sync.part", sha256(&bytes))), &bytes[..50_000]).unwrap();
    let output = vitx(&hub, home.path(), &predict("good", &[]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read(blobs.join(sha256(&bytes))).unwrap(), bytes);
}

#[test]
fn a_damaged_download_is_found_and_removed() {
    let hub = serve(case_dir("bert").join("model"), Fault::Damaged);
    let home = tempfile::tempdir().unwrap();
    let output = vitx(&hub, home.path(), &predict("good", &[]));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("SHA-256"), "{}", stderr(&output));
    let snapshot = home.path().join("hub/models--org--model/snapshots").join(COMMIT);
    assert!(!snapshot.join("model.safetensors").exists());
}

#[test]
fn what_the_hub_does_not_give_is_explained() {
    let hub = serve(case_dir("bert").join("model"), Fault::None);
    let home = tempfile::tempdir().unwrap();
    for (args, part) in [
        (vec!["predict", "-m", "org/other", "--text", "x"], "was not found"),
        (vec!["predict", "-m", "org/other", "--offline", "--text", "x"], "not in the cache"),
        (vec!["predict", "-m", "./nowhere", "--text", "x"], "no such directory"),
    ] {
        let output = vitx(&hub, home.path(), &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
    let private = serve(case_dir("bert").join("model"), Fault::Private);
    let output = vitx(&private, home.path(), &predict("x", &[]));
    assert!(stderr(&output).contains("HF_TOKEN"), "{}", stderr(&output));
    let output = Command::new(cargo_bin!("vitx"))
        .args(predict("good", &[]))
        .env("HF_HOME", home.path())
        .env("HF_ENDPOINT", &private.url)
        .env("HF_TOKEN", "secret")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
