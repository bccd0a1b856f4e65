//! What goes wrong between the hub and the cache: busy hubs, broken and silent connections, contents that are not what they
//! should be, redirects into nowhere.

use crate::hub_server::*;
use crate::support::*;
use std::time::{Duration, SystemTime};

/// Long enough for this machine, short enough for a test.
const LIMIT: &str = "2";

/// A date as HTTP writes it, so many seconds from now.
pub fn date(seconds: u64) -> String {
    let then = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + seconds;
    let then = chrono::DateTime::from_timestamp(then as i64, 0).unwrap();
    then.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub fn busy(status: u16, after: impl ToString) -> Reply {
    Reply::of(status).with("Retry-After", after).with("Content-Length", 0)
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says() {
    let hub = Hub::with(|ask, reply| match (ask.at_store, &ask.name[..], ask.turn) {
        (false, "config.json", 0) => busy(429, 1),
        (false, "config.json", 1) => busy(503, 0),
        (true, _, 0) => busy(503, date(3)),
        (false, "tokenizer.json", 0) => Reply::of(502).with("Content-Length", 0),
        _ => reply,
    });
    let home = tempfile::tempdir().unwrap();
    let output = run(&hub, home.path());
    succeeds(&output);
    let said = stderr(&output);
    assert!(said.contains("answers 429") && said.contains("asks to wait 1 second"), "{said}");
    assert!(said.contains("answers 503"), "{said}");
    let at = |name: &str, store: bool| -> Vec<_> {
        hub.seen().into_iter().filter(|s| s.name == name && s.at_store == store).map(|s| s.at).collect()
    };
    let (config, store) = (at("config.json", false), at("model.safetensors", true));
    assert!(config[1] - config[0] >= Duration::from_secs(1), "it waits as it is asked to");
    // A date holds whole seconds: of three at least two are left.
    assert!(store[1] - store[0] >= Duration::from_secs(1), "until the date");
}

#[test]
fn a_hub_that_stays_busy_ends_in_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    for status in [429, 503] {
        let hub = Hub::with(move |_, _| busy(status, "0"));
        fails(&run(&hub, home.path()), &[&format!("answers {status}"), &hub.url, "config.json"]);
        assert_eq!(hub.seen().len(), 3, "not for ever, and not once alone");
    }
}

#[test]
fn a_silent_hub_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let run = |hub: &Hub| {
        let mut command = command(&hub.url, home.path(), &predict("good", &[]));
        command.env("HF_HUB_DOWNLOAD_TIMEOUT", LIMIT).output().unwrap()
    };
    let dumb = Hub::with(|_, reply| reply.holding(None));
    fails(&run(&dumb), &["no answer within 2 seconds", &dumb.url, "HF_HUB_DOWNLOAD_TIMEOUT", "config.json"]);
    let half = Hub::with(|ask, reply| if ask.at_store { reply.holding(None) } else { reply });
    let place = half.store.trim_start_matches("http://").to_string();
    fails(&run(&half), &["no answer within 2 seconds", &place, "HF_HUB_DOWNLOAD_TIMEOUT", "model.safetensors"]);
    // In the middle of the weights, once: it goes on there.
    let once = Hub::with(|ask, reply| match ask.at_store && ask.turn == 0 {
        true => reply.holding(Some(50_000)),
        false => reply,
    });
    succeeds(&run(&once));
    assert_eq!(once.at_store()[1].range.as_deref(), Some("bytes=50000-"));
}

#[test]
fn a_connection_that_breaks_is_taken_up_again() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::with(|ask, reply| match (ask.at_store, ask.turn) {
        (true, 0) => reply.breaking(50_000),
        (true, 1) => reply.breaking(20_000),
        (false, 0) if ask.name == "config.json" => Reply { sent: None, ..reply },
        _ => reply,
    });
    succeeds(&run(&hub, home.path()));
    let ranges: Vec<_> = hub.at_store().into_iter().map(|s| s.range).collect();
    assert_eq!(ranges, [None, Some("bytes=50000-".into()), Some("bytes=70000-".into())]);
    assert_eq!(std::fs::read(cached(home.path(), "model.safetensors")).unwrap(), weights());

    // A store without ranges begins at the beginning.
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::with(|ask, reply| match (ask.at_store, ask.turn) {
        (true, 0) => reply.breaking(50_000),
        (true, _) => {
            let bytes = weights();
            Reply { body: bytes.clone(), ..Reply::of(200) }.with("Content-Length", bytes.len())
        }
        _ => reply,
    });
    succeeds(&run(&hub, home.path()));
    assert_eq!(std::fs::read(cached(home.path(), "model.safetensors")).unwrap(), weights());
}

#[test]
fn a_connection_that_keeps_breaking_is_given_up_and_resumed_by_the_next_run() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::with(|ask, reply| if ask.at_store { reply.breaking(10_000) } else { reply });
    let output = run(&hub, home.path());
    fails(&output, &["30000 of", "model.safetensors", "is kept", &hub.store]);
    assert_eq!(part(home.path()).metadata().unwrap().len(), 30_000);
    let healthy = Hub::healthy();
    succeeds(&run(&healthy, home.path()));
    assert_eq!(healthy.at_store()[0].range.as_deref(), Some("bytes=30000-"));
}

#[test]
fn a_large_file_survives_any_number_of_breaks_while_it_grows() {
    let files = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(case_dir("bert").join("model").join(name), files.path().join(name)).unwrap();
    }
    let bytes: Vec<u8> = (0..5_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(files.path().join("model.safetensors"), &bytes).unwrap();
    let breaking = |ask: &Ask, reply: Reply| if ask.at_store { reply.breaking(9 << 17) } else { reply };
    let hub = Hub::of(files.path().into(), breaking);
    let home = tempfile::tempdir().unwrap();
    let output = run(&hub, home.path()); // a model it is not
    assert!(!stderr(&output).contains("could not be downloaded"), "{}", stderr(&output));
    assert_eq!(std::fs::read(cached(home.path(), "model.safetensors")).unwrap(), bytes);
    assert_eq!(hub.at_store().len(), 5);
    // Of a store without ranges it does not grow: each break is at the same place.
    let hub = Hub::of(files.path().into(), move |ask, reply| match ask.at_store {
        true => {
            let whole = Reply { body: bytes.clone(), ..Reply::of(200) }.with("Content-Length", bytes.len());
            breaking(ask, whole)
        }
        false => reply,
    });
    let home = tempfile::tempdir().unwrap();
    fails(&run(&hub, home.path()), &["1179648 of 5242880 bytes"]);
    assert_eq!(hub.at_store().len(), 4);
}

#[test]
fn a_part_file_is_finished_or_begun_anew_once() {
    let bytes = weights();
    let size = bytes.len();
    let overlong = [&bytes[..], b"x"].concat();
    // What is kept, whether the hub says how long the file is, and what the store is asked for.
    for (kept, linked, ranges) in [
        (&bytes[..50_000], true, &[Some("bytes=50000-")][..]),
        (&bytes[..], true, &[]),
        (&bytes[..], false, &[Some("bytes=133196-")]),
        (&overlong[..], true, &[None]),
        (&overlong[..], false, &[Some("bytes=133197-"), None]),
        (&vec![7; 50_000][..], true, &[Some("bytes=50000-"), None]),
        (&vec![7; size][..], true, &[None]),
        (&vec![7; size][..], false, &[Some("bytes=133196-"), None]),
    ] {
        let hub = Hub::with(move |_, reply| if linked { reply } else { reply.without("X-Linked-Size") });
        let home = tempfile::tempdir().unwrap();
        leave_part(home.path(), kept);
        let output = run(&hub, home.path());
        succeeds(&output);
        let asked: Vec<_> = hub.at_store().into_iter().map(|s| s.range).collect();
        assert_eq!(asked.iter().map(Option::as_deref).collect::<Vec<_>>(), ranges, "{} {linked}", kept.len());
        assert_eq!(std::fs::read(cached(home.path(), "model.safetensors")).unwrap(), bytes);
        assert!(!part(home.path()).exists());
        assert_eq!(stderr(&output).matches("downloaded model.safetensors").count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn half_a_small_file_is_never_kept() {
    // Less than was announced; no length at all, so that its end is the connection's; half of a chunked one.
    for (name, ways) in [("config.json", 0..3), ("tokenizer.json", 0..2), ("tokenizer_config.json", 1..2)] {
        for how in ways {
            let hub = Hub::with(move |ask, reply| match (ask.name == name, how) {
                (false, _) => reply,
                (true, 0) => reply.breaking(30),
                (true, 1) => reply.without("Content-Length").breaking(30),
                (true, _) => {
                    let body = [b"40\r\n".to_vec(), reply.body[..30].to_vec()].concat();
                    let reply = reply.without("Content-Length").with("Transfer-Encoding", "chunked");
                    Reply { body, ..reply }
                }
            });
            let home = tempfile::tempdir().unwrap();
            let output = run(&hub, home.path());
            fails(&output, &[name, "could not be downloaded"]);
            assert!(!cached(home.path(), name).is_symlink(), "{name} {how}");
            assert!(blobs(home.path()).iter().all(|blob| !blob.ends_with(".part")), "{:?}", blobs(home.path()));
            // A healthy hub mends it, offline nothing pretends to be there.
            if how == 0 {
                let offline = vitx(&hub, home.path(), &predict("good", &["--offline"]));
                assert!(!offline.status.success());
                succeeds(&run(&Hub::healthy(), home.path()));
            }
        }
    }
}

#[test]
fn a_chunked_file_that_is_whole_is_kept() {
    let hub = Hub::with(|ask, reply| match ask.at_store || reply.status != 200 {
        true => reply,
        false => {
            let chunk = [format!("{:x}\r\n", reply.body.len()).into_bytes(), reply.body.clone()].concat();
            let body = [chunk, b"\r\n0\r\n\r\n".to_vec()].concat();
            Reply { body, ..reply.without("Content-Length").with("Transfer-Encoding", "chunked") }
        }
    });
    let home = tempfile::tempdir().unwrap();
    succeeds(&run(&hub, home.path()));
    let config = std::fs::read(case_dir("bert").join("model/config.json")).unwrap();
    assert_eq!(std::fs::read(cached(home.path(), "config.json")).unwrap(), config);
}

#[test]
fn a_rest_that_is_too_long_is_begun_anew_once() {
    let hub = Hub::with(|ask, mut reply| match ask.at_store && ask.range.is_some() {
        true => {
            reply.body.push(1);
            reply.without("Content-Length")
        }
        false => reply,
    });
    let home = tempfile::tempdir().unwrap();
    leave_part(home.path(), &weights()[..50_000]);
    succeeds(&run(&hub, home.path()));
    assert_eq!(hub.at_store().len(), 2);
    assert_eq!(std::fs::read(cached(home.path(), "model.safetensors")).unwrap(), weights());
}

/// A reply of the store that is made wrong in some way.
type Wrong = fn(&Ask, Reply) -> Reply;

#[test]
fn contents_that_are_wrong_are_rejected() {
    let cases: &[(&str, Wrong, usize)] = &[
        (
            "SHA-256",
            |_, mut reply| {
                reply.body[900] ^= 0xff;
                reply
            },
            1,
        ),
        // Another length than the hub said, whole by itself.
        (
            "133196 bytes",
            |_, mut reply| {
                reply.body.truncate(1000);
                reply.without("Content-Length").with("Content-Length", 1000)
            },
            1,
        ),
        (
            "133196 bytes",
            |_, mut reply| {
                reply.body.push(1);
                reply.without("Content-Length").with("Content-Length", 133_197)
            },
            1,
        ),
        // Of no length, and too long or too short.
        (
            "3000 of 133196",
            |_, mut reply| {
                reply.body.truncate(1000);
                reply.without("Content-Length")
            },
            3,
        ),
        // Another part than was asked for.
        (
            "the part that is asked for",
            |_, reply| Reply { status: 206, ..reply.with("Content-Range", "bytes 7-133195/133196") },
            3,
        ),
        ("the part that is asked for", |_, reply| Reply { status: 206, ..reply }, 3),
        ("gzip", |_, reply| reply.with("Content-Encoding", "gzip"), 1),
    ];
    for (part, wrong, requests) in cases {
        let hub = Hub::with(|ask, reply| if ask.at_store { wrong(ask, reply) } else { reply });
        let home = tempfile::tempdir().unwrap();
        let output = run(&hub, home.path());
        fails(&output, &[part, "model.safetensors"]);
        assert_eq!(hub.at_store().len(), *requests, "{part}: {:?}", hub.at_store());
        assert!(!cached(home.path(), "model.safetensors").is_symlink());
        assert!(!folder(home.path()).join("blobs").join(sha256(&weights())).exists());
        succeeds(&run(&Hub::healthy(), home.path()));
    }
}

#[test]
fn a_store_without_the_file_does_not_say_that_there_is_none() {
    for status in [403, 404] {
        let hub = Hub::with(move |ask, reply| match ask.at_store {
            true => Reply::of(status).with("Content-Length", 0),
            false => reply,
        });
        let home = tempfile::tempdir().unwrap();
        fails(&run(&hub, home.path()), &["model.safetensors", &format!("{} answers {status}", hub.store)]);
        assert!(!folder(home.path()).join(".no_exist").join(COMMIT).join("model.safetensors").exists());
    }
    // Its addresses grow old: a new one is asked for.
    let hub = Hub::with(|ask, reply| match ask.at_store && ask.turn == 0 {
        true => Reply::of(403).with("Content-Length", 0),
        false => reply,
    });
    let home = tempfile::tempdir().unwrap();
    succeeds(&run(&hub, home.path()));
}

fn hop(to: &str) -> Reply {
    Reply::of(307).with("Location", to).with("Content-Length", 0)
}

#[test]
fn redirects_that_lead_nowhere_end_in_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    let cases: &[(&str, Wrong)] = &[
        ("redirects in circles", |ask, _| hop(&ask.path)),
        ("redirects in circles", |ask, _| hop(&format!("{}x", ask.path))),
        ("redirects to nowhere", |_, _| Reply::of(302).with("Content-Length", 0)),
        ("redirects to what is no address", |_, _| hop("file:///etc/passwd")),
        ("redirects to what is no address", |_, _| hop("http://")),
        ("gives no ETag that can be used", |_, reply| reply.without("ETag").with("ETag", "\"/tmp/../escaped\"")),
        ("gives no ETag that can be used", |_, reply| reply.without("ETag")),
        ("gives no commit that can be used", |_, reply| reply.without("X-Repo-Commit")),
    ];
    for (part, wrong) in cases {
        let hub = Hub::with(*wrong);
        fails(&run(&hub, home.path()), &[part, &hub.url, "config.json"]);
        assert!(hub.seen().len() <= 8, "{part}: {}", hub.seen().len());
    }
    // Between the store and itself.
    let hub = Hub::with(move |ask, reply| if ask.at_store { hop(&ask.path) } else { reply });
    fails(&run(&hub, home.path()), &["redirects in circles", &hub.store, "model.safetensors"]);
    assert!(!folder(home.path()).join("escaped").exists());
    succeeds(&run(&Hub::healthy(), home.path()));
}

#[test]
fn a_model_that_has_moved_is_found() {
    let hub = Hub::with(|ask, reply| match ask.path.strip_prefix("/org/old/") {
        Some(rest) => Reply::of(307).with("Location", format!("/org/model/{rest}")).with("Content-Length", 0),
        None => reply,
    });
    let home = tempfile::tempdir().unwrap();
    let mut moved = command(&hub.url, home.path(), &["predict", "-m", "org/old", "--text", "good"]);
    succeeds(&moved.env("HF_TOKEN", "secret").output().unwrap());
    assert!(hub.seen().iter().all(|s| s.token.is_some() != s.at_store), "{:?}", hub.seen());
}
