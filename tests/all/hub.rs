//! Hub models against a local server with the hub's real layout: metadata headers, redirects, ranges, commits.

use crate::support::*;
use assert_cmd::cargo::cargo_bin;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use tiny_http::{Header, Request, Response, ResponseBox, Server, StatusCode};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the hub or its store saw it.
#[derive(Debug, Clone)]
struct Seen {
    at_store: bool,
    name: String,
    token: Option<String>,
    range: Option<String>,
}

/// Serves `org/model` with the files of a folder. Large files redirect to a store on another host, as the hub's do.
struct Hub {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Hub {
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
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
    /// Is busy at the first request of each file.
    Busy,
    /// Redirects to itself.
    Circles,
    /// Redirects without an address.
    Nowhere,
    /// Sends the first 300 bytes of small files and no more.
    Half,
    /// Names an ETag that leads out of the cache.
    Outside,
    /// Serves any path.
    Any,
}

fn serve(files: PathBuf, fault: Fault) -> Hub {
    let (hub, store) = (Server::http("127.0.0.1:0").unwrap(), Server::http("127.0.0.1:0").unwrap());
    let url = format!("http://{}", hub.server_addr());
    let store_url = format!("http://{}/store", store.server_addr());
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    for (server, at_store) in [(hub, false), (store, true)] {
        let (files, seen, store_url) = (files.clone(), seen.clone(), store_url.clone());
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                let response = answer(&request, &files, fault, at_store, &store_url, &seen);
                request.respond(response).ok();
            }
        });
    }
    Hub { url, seen }
}

fn answer(
    request: &Request,
    files: &Path,
    fault: Fault,
    at_store: bool,
    store: &str,
    seen: &Mutex<Vec<Seen>>,
) -> ResponseBox {
    let sent = |name: &'static str| request.headers().iter().find(|h| h.field.equiv(name)).map(|h| h.value.to_string());
    let (token, range) = (sent("Authorization"), sent("Range"));
    let path = request.url().to_string();
    let name = path.rsplit('/').next().unwrap().to_string();
    let first = !seen.lock().unwrap().iter().any(|s| s.name == name);
    let private = fault == Fault::Private && !at_store && token.as_deref() != Some("Bearer secret");
    seen.lock().unwrap().push(Seen { at_store, name: name.clone(), token, range: range.clone() });
    match fault {
        Fault::Busy if first => {
            return Response::empty(429).with_header(header("Retry-After", "0")).boxed();
        }
        Fault::Circles => return Response::empty(307).with_header(header("Location", &path)).boxed(),
        Fault::Nowhere => return Response::empty(302).boxed(),
        _ if private => return Response::empty(401).boxed(),
        _ => {}
    }
    let known = fault == Fault::Any || path.starts_with("/org/model/resolve/") || path.starts_with("/store/");
    let Some(bytes) = std::fs::read(files.join(&name)).ok().filter(|_| known) else {
        return Response::empty(404).boxed();
    };
    let (hash, large) = (sha256(&bytes), name.ends_with(".safetensors"));
    if large && !at_store {
        let response = Response::empty(302)
            .with_header(header("Location", &format!("{store}/{name}")))
            .with_header(header("x-linked-etag", &format!("\"{hash}\"")))
            .with_header(header("x-repo-commit", COMMIT));
        return response.boxed();
    }
    let range = range.and_then(|r| {
        let (from, to) = r.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().unwrap_or(bytes.len() - 1)))
    });
    let (from, to) = range.unwrap_or((0, bytes.len() - 1));
    let mut body = bytes.get(from..=to.min(bytes.len() - 1)).unwrap_or_default().to_vec();
    if fault == Fault::Damaged && large && body.len() > 1000 {
        body[900] ^= 0xff;
    }
    if fault == Fault::Half && !large {
        body.truncate(300);
    }
    let etag = match fault {
        Fault::Outside => "/tmp/../escaped".to_string(),
        _ if large => hash,
        _ => hash[..40].to_string(),
    };
    Response::from_data(body)
        .with_status_code(StatusCode(206))
        .with_header(header("Content-Range", &format!("bytes {from}-{to}/{}", bytes.len())))
        .with_header(header("ETag", &format!("\"{etag}\"")))
        .with_header(header("x-repo-commit", COMMIT))
        .boxed()
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
    assert_eq!(stderr(&first).matches("downloaded model.safetensors").count(), 1, "{}", stderr(&first));
    assert_eq!(stderr(&first).matches("downloaded config.json").count(), 1, "{}", stderr(&first));
    let record: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&record["model"]["id"], &record["model"]["revision"]), (&"org/model".into(), &COMMIT.into()));
    let snapshot = home.path().join("hub/models--org--model/snapshots").join(COMMIT).join("config.json");
    assert!(snapshot.exists(), "the cache has the hub's own layout");

    let offline = vitx(&hub, home.path(), &predict("the quiet film", &["--json", "--offline"]));
    assert_eq!(first.stdout, offline.stdout, "{}", stderr(&offline));
    let by_commit = vitx(&hub, home.path(), &predict("the quiet film", &["--offline", "--revision", COMMIT]));
    assert!(by_commit.status.success(), "{}", stderr(&by_commit));

    let before = hub.seen().len();
    let again = vitx(&hub, home.path(), &predict("the quiet film", &[]));
    assert!(again.status.success());
    assert!(!stderr(&again).contains("downloaded"), "{}", stderr(&again));
    let optional = hub.seen().len() - before;
    assert!(optional <= 6, "{optional} requests for files the cache has");
}

/// A model of the fixture's files, loaded through the library with nothing else going on.
fn run(hub: &Hub, home: &Path) -> Output {
    vitx(hub, home, &predict("good", &[]))
}

#[test]
fn an_interrupted_download_is_resumed() {
    let bytes = std::fs::read(case_dir("bert").join("model/model.safetensors")).unwrap();
    // What is kept may be the beginning of the file, too long, or of another one.
    for (kept, first_range) in [
        (bytes[..50_000].to_vec(), "bytes=50000-"),
        ([&bytes[..], b"x"].concat(), "bytes=133197-"),
        (vec![7; 50_000], "bytes=50000-"),
    ] {
        let hub = serve(case_dir("bert").join("model"), Fault::None);
        let home = tempfile::tempdir().unwrap();
        let blobs = home.path().join("hub/models--org--model/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(format!("{}.part", sha256(&bytes))), kept).unwrap();
        let output = run(&hub, home.path());
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(std::fs::read(blobs.join(sha256(&bytes))).unwrap(), bytes);
        let first = hub.seen().into_iter().find(|s| s.at_store).unwrap();
        assert_eq!(first.range.as_deref(), Some(first_range));
        assert!(!blobs.join(format!("{}.part", sha256(&bytes))).exists());
    }
}

#[test]
fn the_token_reaches_the_hub_alone() {
    let hub = serve(case_dir("bert").join("model"), Fault::Private);
    let home = tempfile::tempdir().unwrap();
    let with = |token: &str| {
        let mut command = Command::new(cargo_bin!("vitx"));
        command.args(predict("good", &[])).env("HF_HOME", home.path()).env("HF_ENDPOINT", &hub.url);
        command.env("HF_TOKEN", token).env_remove("HF_HUB_CACHE").env_remove("HF_HUB_OFFLINE").output().unwrap()
    };
    let broken = with("sec\nret");
    assert!(stderr(&broken).contains("HF_TOKEN") && stderr(&broken).contains("line break"), "{}", stderr(&broken));
    let output = with("secret\n");
    assert!(output.status.success(), "{}", stderr(&output));
    let (store, own): (Vec<_>, Vec<_>) = hub.seen().into_iter().partition(|s| s.at_store);
    assert!(!store.is_empty() && store.iter().all(|s| s.token.is_none()), "{store:?}");
    assert!(own.iter().all(|s| s.token.as_deref() == Some("Bearer secret")), "{own:?}");
}

#[test]
fn a_hub_that_is_busy_is_asked_again() {
    let hub = serve(case_dir("bert").join("model"), Fault::Busy);
    let home = tempfile::tempdir().unwrap();
    let output = run(&hub, home.path());
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_hub_that_misbehaves_ends_in_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    for (fault, part) in [
        (Fault::Circles, "it redirects in circles"),
        (Fault::Nowhere, "it redirects to nowhere"),
        (Fault::Outside, "it gives no ETag that can be used"),
        (Fault::Half, "it ended after 900 of 912 bytes"),
    ] {
        let output = run(&serve(case_dir("bert").join("model"), fault), home.path());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    // Half a file never counts as one.
    let output = run(&serve(case_dir("bert").join("model"), Fault::None), home.path());
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn shards_stay_in_the_repository() {
    let files = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(case_dir("bert").join("model")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, files.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::rename(files.path().join("model.safetensors"), files.path().join("evil.safetensors")).unwrap();
    let elsewhere = files.path().join("elsewhere/evil.safetensors");
    for shard in [elsewhere.to_str().unwrap(), "../../evil.safetensors"] {
        let index = serde_json::json!({"weight_map": {"a": shard}});
        std::fs::write(files.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let home = tempfile::tempdir().unwrap();
        let output = run(&serve(files.path().into(), Fault::Any), home.path());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("no file of this repository"), "{}", stderr(&output));
        assert!(!elsewhere.is_symlink() && !home.path().join("hub/models--org--model/evil.safetensors").is_symlink());
    }
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
