//! Users who have waited long enough: Ctrl-C while the hub is silent or busy, or another run downloads.

use crate::hub_failures::{busy, date};
use crate::hub_server::*;
use std::time::Duration;

#[test]
fn an_absurd_wait_is_bounded_and_said_and_ctrl_c_ends_it() {
    for after in ["86400".into(), "99999999999999999999999".into(), date(86_400)] {
        let hub = Hub::with(move |_, _| busy(429, &after));
        let home = tempfile::tempdir().unwrap();
        let running = Running::start(command(&hub.url, home.path(), &predict("good", &[])));
        running.says("again after 60 seconds");
        assert!(running.said().contains("answers 429 and asks to wait "), "{}", running.said());
        ends_at_once(running, "INT");
        assert_eq!(hub.seen().len(), 1);
    }
}

/// The first signal ends it, with a sentence, long before anything that it waits for.
fn ends_at_once(running: Running, signal: &str) -> String {
    let begun = std::time::Instant::now();
    running.signal(signal);
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    said
}

#[test]
fn ctrl_c_ends_a_silent_download_at_once() {
    for (signal, quiet) in [("INT", false), ("TERM", true)] {
        let hub = Hub::with(|ask, reply| if ask.at_store { reply.holding(Some(50_000)) } else { reply });
        let home = tempfile::tempdir().unwrap();
        let mut slow = command(&hub.url, home.path(), &predict("good", if quiet { &["-q"] } else { &[] }));
        slow.env("HF_HUB_DOWNLOAD_TIMEOUT", "90");
        let running = Running::start(slow);
        until("half of the weights", || part(home.path()).metadata().is_ok_and(|m| m.len() == 50_000));
        let said = ends_at_once(running, signal);
        assert!(said.contains("goes on"), "{said}");
        assert!(!cached(home.path(), "model.safetensors").is_symlink() && part(home.path()).is_file());
        let healthy = Hub::healthy();
        succeeds(&run(&healthy, home.path()));
        assert_eq!(healthy.at_store()[0].range.as_deref(), Some("bytes=50000-"));
    }
}

/// Every command that opens a model, wherever in its work the hub falls silent.
#[test]
fn ctrl_c_ends_every_command_at_once() {
    let hub = Hub::with(|ask, reply| match ask.name.ends_with("tokenizer.json") || ask.at_store {
        true => reply.holding(None),
        false => reply,
    });
    let data = tempfile::tempdir().unwrap();
    let csv = data.path().join("data.csv");
    std::fs::write(&csv, "text,label\ngood,0\nbad,1\n").unwrap();
    let out = data.path().join("out");
    let (csv, out) = (csv.to_str().unwrap(), out.to_str().unwrap());
    let commands: &[&[&str]] = &[
        &["inspect", "org/model"],
        &["explain", "-m", "org/model", "--text", "good", "-o", out],
        &["evaluate", "-m", "org/model", "--data", csv],
        &["worker", "-m", "org/model"],
    ];
    for args in commands {
        let home = tempfile::tempdir().unwrap();
        let mut slow = command(&hub.url, home.path(), args);
        slow.env("HF_HUB_DOWNLOAD_TIMEOUT", "90");
        let before = hub.seen().len();
        let running = Running::start(slow);
        until("the silence", || hub.seen()[before..].iter().any(|s| s.name == "tokenizer.json" || s.at_store));
        ends_at_once(running, "INT");
        assert!(blobs(home.path()).iter().all(|name| name.len() == 40), "{args:?}: {:?}", blobs(home.path()));
        assert!(!cached(home.path(), "tokenizer.json").is_symlink());
    }
}

#[test]
fn ctrl_c_ends_the_wait_for_another_run_at_once() {
    let hub = Hub::with(|ask, reply| if ask.at_store { reply.holding(Some(50_000)) } else { reply });
    let home = tempfile::tempdir().unwrap();
    let start = || {
        let mut slow = command(&hub.url, home.path(), &predict("good", &[]));
        Running::start({
            slow.env("HF_HUB_DOWNLOAD_TIMEOUT", "90");
            slow
        })
    };
    let first = start();
    until("half of the weights", || part(home.path()).metadata().is_ok_and(|m| m.len() == 50_000));
    let second = start();
    second.says("another process");
    ends_at_once(second, "INT");
    hub.go_on();
    assert_eq!(first.end().0, Some(0), "the other is not disturbed");
}
