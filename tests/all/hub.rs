//! Models of the hub against a local server with the hub's real layout: the cache, the token, proxies, settings, and runs
//! side by side. What a hub does wrong is in `hub_failures.rs`.

use crate::hub_server::*;
use crate::support::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[test]
fn a_hub_model_is_downloaded_once_and_then_works_without_the_hub() {
    let (hub, home) = (Hub::healthy(), tempfile::tempdir().unwrap());
    let home = home.path();
    let first = vitx(&hub, home, &predict("the quiet film", &["--json"]));
    succeeds(&first);
    let record: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!((&record["model"]["id"], &record["model"]["revision"]), (&"org/model".into(), &COMMIT.into()));
    // As huggingface_hub lays it out: links of a commit to contents, a branch that names the commit.
    let blob = folder(home).join("blobs").join(sha256(&weights()));
    assert_eq!(cached(home, "model.safetensors").canonicalize().unwrap(), blob.canonicalize().unwrap());
    assert_eq!(std::fs::read_to_string(folder(home).join("refs/main")).unwrap(), COMMIT);
    assert!(cached(home, "config.json").is_symlink());
    assert!(blobs(home).iter().all(|name| !name.ends_with(".part")), "{:?}", blobs(home));

    // Neither asks: what the commit does not have is known too. The hub is gone.
    let before = hub.seen().len();
    succeeds(&vitx(&hub, home, &predict("the quiet film", &[])));
    assert_eq!(hub.seen().len(), before);
    let gone = format!("http://{}", free_address());
    let without = command(&gone, home, &predict("the quiet film", &["--json"])).output().unwrap();
    assert_eq!(first.stdout, without.stdout, "{}", stderr(&without));
    let offline = vitx(&hub, home, &predict("the quiet film", &["--json", "--offline"]));
    assert_eq!(first.stdout, offline.stdout, "{}", stderr(&offline));
    succeeds(&vitx(&hub, home, &predict("the quiet film", &["--offline", "--revision", COMMIT])));
    assert_eq!(hub.seen().len(), before);
}

/// Where nobody listens.
fn free_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn one_line_says_what_was_downloaded() {
    let (hub, home) = (Hub::healthy(), tempfile::tempdir().unwrap());
    let output = run(&hub, home.path());
    succeeds(&output);
    let said = stderr(&output);
    for name in ["config.json", "model.safetensors"] {
        let size = std::fs::metadata(case_dir("bert").join("model").join(name)).unwrap().len();
        let line = format!("downloaded {name} ({size} bytes) to {}", folder(home.path()).display());
        assert_eq!(said.matches(&line).count(), 1, "{line}: {said}");
    }
    let again = stderr(&run(&hub, home.path()));
    assert!(!again.contains("downloaded"), "{again}");
    let home = tempfile::tempdir().unwrap();
    let quiet = vitx(&hub, home.path(), &predict("good", &["-q"]));
    succeeds(&quiet);
    assert_eq!(stderr(&quiet), "");
}

#[test]
fn the_token_reaches_the_hub_alone() {
    let private = |ask: &Ask, reply: Reply| match ask.token.as_deref() {
        Some("Bearer secret") => reply,
        _ if ask.at_store => reply,
        _ => Reply::of(401).with("Content-Length", 0),
    };
    let hub = Hub::with(private);
    let home = tempfile::tempdir().unwrap();
    let with = |token: &str| {
        let mut command = command(&hub.url, home.path(), &predict("good", &[]));
        command.env("HF_TOKEN", token).output().unwrap()
    };
    fails(&run(&hub, home.path()), &["401", "HF_TOKEN", "private"]);
    fails(&with("sec\nret"), &["HF_TOKEN", "line break"]);
    fails(&with("wrong"), &["401", "the token that was sent", "HF_TOKEN"]);
    assert!(!stderr(&with("wrong")).contains("`wrong`") && !stderr(&with("s3cr3t")).contains("s3cr3t"));
    let before = hub.seen().len();
    succeeds(&with("secret\n"));
    let (store, own): (Vec<_>, Vec<_>) = hub.seen().into_iter().skip(before).partition(|s| s.at_store);
    assert!(!store.is_empty() && store.iter().all(|s| s.token.is_none()), "{store:?}");
    assert!(own.iter().all(|s| s.token.as_deref() == Some("Bearer secret")), "{own:?}");

    // As a login leaves it.
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "secret\n").unwrap();
    succeeds(&run(&hub, home.path()));
}

#[test]
fn offline_is_what_users_say_it_is() {
    let (hub, home) = (Hub::healthy(), tempfile::tempdir().unwrap());
    let with =
        |key: &str, value: &str| command(&hub.url, home.path(), &predict("x", &[])).env(key, value).output().unwrap();
    for (key, value) in
        [("HF_HUB_OFFLINE", "1"), ("HF_HUB_OFFLINE", "YES"), ("HF_HUB_OFFLINE", "on"), ("TRANSFORMERS_OFFLINE", "true")]
    {
        fails(&with(key, value), &["not in the cache", key]);
    }
    assert_eq!(hub.seen().len(), 0);
    fails(&vitx(&hub, home.path(), &predict("x", &["--offline"])), &["not in the cache", "--offline"]);
    succeeds(&with("HF_HUB_OFFLINE", "0"));
}

#[test]
fn settings_that_cannot_be_are_named() {
    let (hub, home) = (Hub::healthy(), tempfile::tempdir().unwrap());
    for (key, value) in [
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1e300"),
        ("HF_ENDPOINT", "huggingface.co"),
        ("HTTP_PROXY", "ftp://name:secret@proxy"),
    ] {
        let output = command(&hub.url, home.path(), &predict("x", &[])).env(key, value).output().unwrap();
        fails(&output, &[key]);
        assert!(!stderr(&output).contains("secret"), "{}", stderr(&output));
    }
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn the_cache_is_where_users_put_it() {
    let (hub, home) = (Hub::healthy(), tempfile::tempdir().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = command(&hub.url, home.path(), &predict("good", &[]));
    succeeds(&command.env("HF_HUB_CACHE", elsewhere.path()).output().unwrap());
    assert!(elsewhere.path().join("models--org--model/refs/main").is_file() && !home.path().join("hub").exists());
    // A `~` that no shell has read.
    let mut command = self::command(&hub.url, home.path(), &predict("good", &[]));
    succeeds(&command.env("HF_HOME", "~/hf").env("HOME", home.path()).output().unwrap());
    assert!(home.path().join("hf/hub/models--org--model/refs/main").is_file());
}

/// A proxy that tunnels, or refuses; what it was asked for.
fn proxy(refuses: bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<String>>>::default());
    let kept = asked.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let kept = kept.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap_or_default().to_string();
                kept.lock().unwrap().push(head.lines().next().unwrap_or_default().to_string());
                if refuses {
                    return client.write_all(b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
                let Ok(mut server) = TcpStream::connect(target) else { return };
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut up, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up, &mut to).ok());
                std::io::copy(&mut server, &mut client).ok();
                client.shutdown(std::net::Shutdown::Both).ok();
            });
        }
    });
    (address, asked)
}

#[test]
fn proxies_are_used_as_users_know_them() {
    let hub = Hub::healthy();
    let (open, asked) = proxy(false);
    let (closed, refused) = proxy(true);
    let place = hub.url.trim_start_matches("http://").to_string();
    let with = |set: &[(&str, String)]| {
        let home = tempfile::tempdir().unwrap();
        let mut command = command(&hub.url, home.path(), &predict("good", &[]));
        command.envs(set.iter().map(|(key, value)| (*key, value))).output().unwrap()
    };
    let url = |proxy: &str| format!("http://user:hushed@{proxy}");
    succeeds(&with(&[("HTTP_PROXY", url(&open))]));
    assert!(asked.lock().unwrap().contains(&format!("CONNECT {place} HTTP/1.1")), "{asked:?}");

    // The scheme of the address decides, small letters win, and who is spared is asked directly.
    let before = asked.lock().unwrap().len();
    succeeds(&with(&[("HTTPS_PROXY", url(&closed))]));
    for spared in ["*", "127.0.0.1", "example.com, 127.0.0.1", "127.0.0.0/8"] {
        succeeds(&with(&[("HTTP_PROXY", url(&closed)), ("NO_PROXY", spared.into())]));
    }
    assert_eq!((asked.lock().unwrap().len(), refused.lock().unwrap().len()), (before, 0));
    succeeds(&with(&[("HTTP_PROXY", url(&closed)), ("http_proxy", url(&open))]));
    succeeds(&with(&[("ALL_PROXY", open.clone())]));
    assert!(asked.lock().unwrap().len() > before);

    // An encrypted address goes to the proxy of encrypted ones; what fails there names it, and no password.
    let home = tempfile::tempdir().unwrap();
    let mut command = command("https://hub.invalid", home.path(), &predict("good", &[]));
    let output = command.env("HTTPS_PROXY", url(&closed)).env("HTTP_PROXY", url(&open)).output().unwrap();
    fails(&output, &["hub.invalid", &closed, "407"]);
    assert_eq!(refused.lock().unwrap()[0], "CONNECT hub.invalid:443 HTTP/1.1");
    let gone = with(&[("HTTP_PROXY", url(&free_address().to_string()))]);
    fails(&gone, &["proxy 127.0.0.1:"]);
    for output in [output, gone] {
        assert!(!stderr(&output).contains("hushed"), "{}", stderr(&output));
    }
}

#[test]
fn of_two_runs_on_a_cold_cache_the_second_waits() {
    let hub = Hub::with(|ask, reply| if ask.at_store { reply.holding(Some(50_000)) } else { reply });
    let home = tempfile::tempdir().unwrap();
    let shard = |shard: &str| {
        // Enough of them that both parts have some.
        let texts = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|text| ["--text", text]).concat();
        let args = [&["predict", "-m", "org/model", "--shard", shard], &texts[..]].concat();
        Running::start(command(&hub.url, home.path(), &args))
    };
    let first = shard("1/2");
    until("half of the weights", || part(home.path()).metadata().is_ok_and(|m| m.len() == 50_000));
    let second = shard("2/2");
    second.says("another process");
    hub.go_on();
    let ((code, said), (other, waited)) = (first.end(), second.end());
    assert_eq!((code, other), (Some(0), Some(0)), "{said} {waited}");
    assert_eq!(waited.matches("another process").count(), 1, "{waited}");
    assert!(waited.contains("waits") && !waited.contains("downloaded model.safetensors"), "{waited}");
    assert_eq!(hub.at_store().len(), 1, "the weights are fetched once: {:?}", hub.at_store());
}

#[test]
fn many_runs_on_a_cold_cache_share_it() {
    // Contents without a redirect, as mirrors give them, and slow enough that all meet: what the others have of it grows
    // while one asks.
    let hub = Hub::with(|ask, reply| {
        std::thread::sleep(std::time::Duration::from_millis(30));
        let bytes = weights();
        let from = ask.range.as_deref().map_or(0, |r| r[6..].trim_end_matches('-').parse().unwrap());
        match ask.name == "model.safetensors" && !ask.at_store {
            true => Reply { body: bytes[from..].to_vec(), sent: Some(0), then: Then::Drip, ..Reply::of(206) }
                .with("ETag", format!("\"{}\"", sha256(&bytes)))
                .with("X-Repo-Commit", COMMIT)
                .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
                .with("Content-Length", bytes.len() - from),
            false => reply,
        }
    });
    let home = tempfile::tempdir().unwrap();
    let runs: Vec<_> = (0..4).map(|_| Running::start(command(&hub.url, home.path(), &predict("good", &[])))).collect();
    let said: Vec<_> = runs.into_iter().map(Running::end).collect();
    assert!(said.iter().all(|(code, _)| *code == Some(0)), "{said:?}");
    for name in ["config.json", "model.safetensors"] {
        let count: usize = said.iter().map(|(_, said)| said.matches(&format!("downloaded {name}")).count()).sum();
        assert_eq!(count, 1, "{name}: {said:?}");
    }
}

#[cfg(unix)]
#[test]
fn the_lock_of_a_dead_run_is_nobody_s() {
    let hub = Hub::with(|ask, reply| match ask.at_store && ask.turn == 0 {
        true => reply.holding(Some(50_000)),
        false => reply,
    });
    let home = tempfile::tempdir().unwrap();
    let first = Running::start(command(&hub.url, home.path(), &predict("good", &[])));
    until("half of the weights", || part(home.path()).metadata().is_ok_and(|m| m.len() == 50_000));
    let second = Running::start(command(&hub.url, home.path(), &predict("good", &[])));
    second.says("another process");
    first.signal("KILL");
    assert_eq!(first.end().0, None);
    let (code, said) = second.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(hub.at_store()[1].range.as_deref(), Some("bytes=50000-"), "it goes on where the other was");
    assert_eq!(std::fs::read(cached(home.path(), "model.safetensors")).unwrap(), weights());
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
        let output = run(&Hub::of(files.path().into(), |_, reply| reply), home.path());
        fails(&output, &["no file of this repository"]);
        assert!(!elsewhere.is_symlink() && !folder(home.path()).join("evil.safetensors").is_symlink());
    }
}

#[test]
fn what_the_hub_does_not_give_is_explained() {
    let (hub, home) = (Hub::healthy(), tempfile::tempdir().unwrap());
    for (args, parts) in [
        (vec!["predict", "-m", "org/other", "--text", "x"], &["was not found"][..]),
        (vec!["predict", "-m", "org/other", "--offline", "--text", "x"], &["not in the cache"]),
        (vec!["predict", "-m", "./nowhere", "--text", "x"], &["no such directory"]),
        (predict("x", &["--revision", "v9"]), &["no revision `v9`", "org/model"]),
    ] {
        fails(&vitx(&hub, home.path(), &args), parts);
    }
    let gated = Hub::with(|_, _| Reply::of(403).with("X-Error-Code", "GatedRepo").with("Content-Length", 0));
    fails(&run(&gated, home.path()), &["gated", &format!("{}/org/model", gated.url), "HF_TOKEN"]);
}
