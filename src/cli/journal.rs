//! What `evaluate` has judged so far, kept so that an interrupted run can go on.
//!
//! A file of one JSON object a line. The first says what all figures depend on (the contents of the model's files); each
//! further one is an input, with what tells its contents from others. What has changed since is judged again.

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use vitx::evaluate::report::Shown;
use vitx::evaluate::Score;
use vitx::identity;
use vitx::render::save::save;

/// What one input gave, as the journal keeps it.
#[derive(Serialize, Deserialize, Debug, Default)]
pub struct Judged {
    pub input: usize,
    /// What was judged: see [`super::labelled::Labelled::identities`].
    pub identity: String,
    /// Why the input, or a method on it, could not be judged.
    pub failures: Vec<String>,
    /// What of the input was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    pub questions: Vec<Scored>,
}

/// The scores of one explained class of an input.
#[derive(Serialize, Deserialize, Debug)]
pub struct Scored {
    pub label: String,
    pub class: u32,
    pub predicted: u32,
    /// The explained class is what the model says.
    #[serde(default)]
    pub right: bool,
    /// `[candidate][metric]`
    pub scores: Vec<Vec<Option<Score>>>,
    /// `[candidate]`, for inputs that the report shows; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<Option<Shown>>,
}

/// The first line.
#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Head {
    /// The contents that every figure depends on.
    model: String,
}

/// Which run it is.
pub struct Run<'a> {
    /// The arguments that figures depend on: the journal's name.
    pub arguments: &'a Value,
    /// The contents of the model's files.
    pub model: String,
    /// The contents of each input.
    pub inputs: &'a [String],
}

/// What has been judged, a line an input in a file of this run's own.
pub struct Journal {
    path: PathBuf,
    /// None where the folder cannot be written.
    file: Option<File>,
    pub done: Vec<Judged>,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

impl Journal {
    /// The journal of a run. What an earlier run with the same arguments has judged is read with `resume`, as far as nothing
    /// has changed since, dropped with `overwrite`, and never lost without either. Where the folder cannot be written there
    /// is none, and a note says so.
    ///
    /// # Errors
    /// When there is an earlier run's journal and neither is asked for; with `resume`, when it cannot be read or written.
    pub fn open(run: &Run<'_>, resume: bool, overwrite: bool) -> Result<Self> {
        let name = &identity::of_bytes(run.arguments.to_string().as_bytes())[..16];
        let path = PathBuf::from(format!(".vitx-evaluate-{name}.jsonl"));
        let head = Head { model: run.model.clone() };
        let old = match std::fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) if !resume => return Ok(Self::without(path, &e.into())),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let (mut done, notes) = kept(&old, &head, run.inputs);
        if !resume && !overwrite && !done.is_empty() {
            bail!(
                "{} holds {} inputs judged by an interrupted run with these arguments: --resume goes on from there, \
                 --overwrite starts anew",
                path.display(),
                done.len()
            );
        }
        if !resume {
            done.clear();
        }
        match begin(&path, &head, &done) {
            Ok(file) => Ok(Journal { path, file: Some(file), done, notes: if resume { notes } else { Vec::new() } }),
            Err(e) if resume => Err(e),
            Err(e) => Ok(Self::without(path, &e)),
        }
    }

    fn without(path: PathBuf, why: &anyhow::Error) -> Self {
        let notes = vec![format!(
            "warning: no journal is kept, so that --resume could not go on after an interruption: {why:#}"
        )];
        Journal { path, file: None, done: Vec::new(), notes }
    }

    /// Whether every input of a group has been judged.
    pub fn has(&self, group: &[usize]) -> bool {
        self.of(group).count() == group.len()
    }

    /// What has been judged of a group.
    pub fn of<'j>(&'j self, group: &'j [usize]) -> impl Iterator<Item = &'j Judged> {
        self.done.iter().filter(|j| group.contains(&j.input))
    }

    /// Adds a whole group, in place of a part of it that a crash may have left. A full disk ends the journal, not the run; the
    /// note about it is returned.
    ///
    /// # Errors
    /// When the scores cannot be written as JSON.
    pub fn add(&mut self, group: Vec<Judged>) -> Result<Option<String>> {
        let text = lines(&group)?;
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()));
        self.done.retain(|d| group.iter().all(|j| j.input != d.input));
        self.done.extend(group);
        self.done.sort_by_key(|j| j.input);
        let Err(e) = written else { return Ok(None) };
        self.file = None;
        let path = self.path.display();
        Ok(Some(format!("warning: {path} cannot be written ({e}): --resume could not go on beyond here")))
    }

    /// The run is complete: nothing is left to resume.
    pub fn remove(self) {
        let _ = std::fs::remove_file(self.path); // a journal that stays does no harm
    }
}

/// What of an old journal still holds, and what to say of the rest.
fn kept(old: &[u8], head: &Head, inputs: &[String]) -> (Vec<Judged>, Vec<String>) {
    let old = String::from_utf8_lossy(old); // a bad byte costs its line
    let mut all = old.lines();
    let same = all.next().and_then(|l| serde_json::from_str::<Head>(l).ok()).is_some_and(|h| h == *head);
    // A line that a crash cut off does not parse and is judged again.
    let mut done: Vec<Judged> = all.filter_map(|l| serde_json::from_str(l).ok()).collect();
    done.reverse(); // of an input judged twice the later line counts
    done.sort_by_key(|j| j.input);
    done.dedup_by_key(|j| j.input);
    let before = done.len();
    if !same {
        let note = format!("the model's files have changed since: {} are judged again", counted(before));
        return (Vec::new(), if before > 0 { vec![note] } else { Vec::new() });
    }
    done.retain(|j| inputs.get(j.input) == Some(&j.identity));
    let changed = before - done.len();
    let note = format!("{} changed since (picture, text, label, mask or rationale): judged again", counted(changed));
    (done, if changed > 0 { vec![note] } else { Vec::new() })
}

fn counted(inputs: usize) -> String {
    if inputs == 1 {
        "1 input".into()
    } else {
        format!("{inputs} inputs")
    }
}

/// Written anew beside the old one and put in its place: a full disk leaves the old one whole.
fn begin(path: &PathBuf, head: &Head, done: &[Judged]) -> Result<File> {
    let text = serde_json::to_string(head)? + "\n" + &lines(done)?;
    save(path, text.as_bytes(), true)?;
    OpenOptions::new().append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

/// One JSON object a line.
fn lines(judged: &[Judged]) -> Result<String> {
    judged.iter().map(|j| Ok(serde_json::to_string(j)? + "\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_judged_again() {
        let judged = |input: usize, identity: &str| Judged { input, identity: identity.into(), ..Judged::default() };
        let head = |model: &str| Head { model: model.into() };
        let inputs = ["a", "b", "c"].map(String::from);
        let mut bytes = (serde_json::to_string(&head("m")).unwrap() + "\n").into_bytes();
        bytes.extend(lines(&[judged(0, "a"), judged(1, "old"), judged(2, "old"), judged(2, "c")]).unwrap().bytes());
        bytes.extend(b"\xff{\"input\":\n");
        let (done, notes) = kept(&bytes, &head("m"), &inputs);
        assert_eq!(done.iter().map(|j| j.input).collect::<Vec<_>>(), [0, 2]);
        assert!(notes[0].starts_with("1 input changed since"), "{notes:?}");
        let (done, notes) = kept(&bytes, &head("other"), &inputs);
        assert!(done.is_empty() && notes[0].contains("the model's files have changed"), "{notes:?}");
        assert_eq!(kept(b"", &head("m"), &inputs).1.len(), 0);
        // A journal of a version that wrote no head.
        let (done, _) = kept(lines(&[judged(0, "a")]).unwrap().as_bytes(), &head("m"), &inputs);
        assert!(done.is_empty());
    }
}
