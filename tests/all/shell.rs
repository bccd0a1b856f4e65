//! The command line's word: names, resuming, pipes, panics and exit codes.

use crate::cli::*;
use crate::support::*;
use assert_cmd::cargo::cargo_bin;
use std::process::{Command, Stdio};

/// Commands that print without reading an input.
const LISTS: &[&[&str]] = &[
    &["methods"],
    &["methods", "gae"],
    &["methods", "--json"],
    &["methods", "--markdown"],
    &["metrics"],
    &["models"],
    &["inspect", "demo-vit"],
    &["completions", "bash"],
    &["man"],
    &["--help"],
    &["explain", "--help"],
    &["--version"],
];

#[test]
fn a_closed_pipe_is_0_and_a_full_disk_an_error_for_every_list() {
    let dir = tempfile::tempdir().unwrap();
    for args in LISTS {
        let run = |stdout: Stdio, close: bool| {
            let mut command = Command::new(cargo_bin!("vitx"));
            let mut child =
                command.args(*args).stdout(stdout).stderr(Stdio::piped()).current_dir(dir.path()).spawn().unwrap();
            if close {
                drop(child.stdout.take());
            }
            child.wait_with_output().unwrap()
        };
        let closed = run(Stdio::piped(), true);
        assert_eq!((closed.status.code(), stderr(&closed).as_str()), (Some(0), ""), "{args:?}");
        #[cfg(target_os = "linux")]
        {
            let full = run(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into(), false);
            assert_eq!(full.status.code(), Some(2), "{args:?}: {}", stderr(&full));
            assert!(stderr(&full).contains("cannot be written to stdout"), "{args:?}: {}", stderr(&full));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stderr_never_ends_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    std::fs::write(dir.path().join("broken.jpg"), "x").unwrap();
    let mut command = Command::new(cargo_bin!("vitx"));
    command.args(["predict", "--json", "broken.jpg", &asset("cat.jpg")]).current_dir(dir.path()).stderr(full);
    let output = command.stdout(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let status: Vec<_> = records(&output).iter().map(|r| r["status"].clone()).collect();
    assert_eq!(status, ["error", "ok"]);
}

#[test]
fn completions_know_methods_metrics_targets_and_formats() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&vitx(dir.path(), &["completions", shell]));
        for name in ["gradcam-plusplus", "mass-inside", "predicted", "npy-pixels", "coolwarm"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn a_mistake_gets_the_right_hint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("photo"), "").unwrap();
    for (args, part) in [
        (vec!["cat.jpg"], "did you mean `vitx explain cat.jpg`"),
        (vec!["photo"], "did you mean `vitx explain photo`"),
        (vec!["--text", "x"], "did you mean `vitx explain --text"),
        (vec!["explan"], "explain"),
        (vec!["methods", "GradCAM++"], "did you mean `gradcam-plusplus`"),
        (vec!["methods", "gea"], "did you mean `gae`"),
        (vec!["explain", "--method", "gradcam++", "cat.jpg"], "cannot read cat.jpg"),
    ] {
        let output = vitx(dir.path(), &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(part), "{args:?}: {}", stderr(&output));
    }
}
