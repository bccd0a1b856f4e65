//! What a study has judged so far, kept so that an interrupted one can go on: a [`Ledger`] of its own, a line an input.
//!
//! It is named by what was asked for; what each line was judged from stands in it. What has changed since is judged again.

use super::contract::Score;
use super::report::Shown;
use crate::error::{Error, Result};
use crate::identity::{differing, Identity};
use crate::resume::Ledger;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Names of journals begin so.
const PREFIX: &str = ".vitx-evaluate-";

/// What one input gave.
#[derive(Serialize, Deserialize, Debug, Default, Clone)]
pub struct Judged {
    /// Its number.
    pub input: usize,
    /// Why the input, or a method on it, could not be judged.
    pub failures: Vec<String>,
    /// What of the input was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it was asked.
    pub questions: Vec<Scored>,
}

/// The scores of one explained class of an input.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Scored {
    /// The labelled class, by name.
    pub label: String,
    /// The explained class.
    pub class: u32,
    /// The likeliest class.
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

/// What has been judged, in memory and where it can be found again.
pub struct Journal {
    /// None where nothing is kept.
    ledger: Option<Ledger>,
    /// What all lines have in common.
    study: Identity,
    /// What tells each input from others.
    inputs: Vec<String>,
    /// By input.
    pub done: Vec<Judged>,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

impl Journal {
    /// One that keeps nothing.
    pub fn off() -> Self {
        Journal { ledger: None, study: Identity::default(), inputs: Vec::new(), done: Vec::new(), notes: Vec::new() }
    }

    /// The journal of a study in a folder; `inputs` as [`super::labelled::Labelled::identities`] has them. What an earlier run
    /// with the same settings has judged is read with `resume`, as far as nothing has changed since, dropped with
    /// `overwrite`, and never lost without either. Where the folder cannot be written there is none, and a note says so.
    ///
    /// # Errors
    /// When there is an earlier run's journal and neither is asked for; with `resume`, when it cannot be read or written.
    pub fn open(folder: &Path, study: Identity, inputs: Vec<String>, resume: bool, overwrite: bool) -> Result<Self> {
        let path = folder.join(format!("{PREFIX}{}.jsonl", &study.asked().digest()[..16]));
        let mut journal = Journal { study, inputs, ..Self::off() };
        match File::open(&path).map_err(|e| (e.kind(), Error::io(&path, e))) {
            Err((kind, e)) if kind != ErrorKind::NotFound && resume => return Err(e),
            Err((kind, e)) if kind != ErrorKind::NotFound => return Ok(journal.without(&e)),
            _ => {}
        }
        let mut ledger = Ledger::read_file(&path);
        let mut notes = journal.read(&ledger)?;
        if resume && ledger.is_empty() {
            notes.extend(others(folder));
        }
        if !resume && !overwrite && !journal.done.is_empty() {
            return Err(Error::Usage(format!(
                "{} holds {} inputs judged by an interrupted run with these arguments: --resume goes on from there, \
                 --overwrite starts anew",
                path.display(),
                journal.done.len()
            )));
        }
        let begun = match resume {
            true => ledger.begin(),
            false => ledger.clear().and_then(|()| ledger.begin()),
        };
        if !resume {
            journal.done.clear();
        }
        match begun {
            Ok(_) => Ok(Journal { ledger: Some(ledger), notes: if resume { notes } else { Vec::new() }, ..journal }),
            Err(e) if resume => Err(e),
            Err(e) => Ok(journal.without(&e)),
        }
    }

    fn without(self, why: &Error) -> Self {
        let note =
            format!("warning: no journal is kept, so that --resume could not go on after an interruption: {why}");
        Journal { ledger: None, done: Vec::new(), notes: vec![note], ..self }
    }

    /// What an input was judged from.
    fn identity(&self, input: usize) -> Identity {
        let contents = self.inputs.get(input).cloned().unwrap_or_default();
        Identity { input: contents, ..self.study.clone() }.with("number", input)
    }

    /// Takes what of a ledger still holds; what there is to say of the rest.
    fn read(&mut self, ledger: &Ledger) -> Result<Vec<String>> {
        for input in 0..self.inputs.len() {
            let records = ledger.standing(&self.identity(input)).map(|place| ledger.records(place)).transpose()?;
            let judged = records.and_then(|mut r| serde_json::from_value::<Judged>(r.pop()?).ok());
            self.done.extend(judged.map(|judged| Judged { input, ..judged }));
        }
        let asked = self.study.value().map_err(unwritten)?;
        let (mut study, mut contents) = (BTreeSet::new(), BTreeSet::new());
        let mut parts = BTreeSet::new();
        for key in ledger.keys() {
            let number = key.get("number").and_then(serde_json::Value::as_u64).map(|n| n as usize);
            if number.is_some_and(|n| self.done.iter().any(|j| j.input == n)) {
                continue;
            }
            let mut differ = differing(&asked, &key);
            differ.retain(|part| part != "input");
            let lines = if differ.is_empty() { &mut contents } else { &mut study };
            lines.insert(number);
            parts.extend(differ);
        }
        let what = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["model"] => "the model's files have changed".to_string(),
            ["version"] => "vitx has changed".to_string(),
            ref parts => format!("another {}", parts.join(", another ")),
        };
        let mut notes = Vec::new();
        if !study.is_empty() {
            notes.push(format!("{what} since: {} are judged again", counted(study.len())));
        }
        if !contents.is_empty() {
            notes.push(format!(
                "{} changed since (picture, text, label, mask or rationale): judged again",
                counted(contents.len())
            ));
        }
        Ok(notes)
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
        let mut failed = None;
        for judged in &group {
            let asked = self.identity(judged.input);
            let record = serde_json::to_value(judged).map_err(unwritten)?;
            failed = failed.or(self.ledger.as_mut().and_then(|ledger| ledger.add(&asked, Vec::new(), vec![record])));
        }
        self.done.retain(|d| group.iter().all(|j| j.input != d.input));
        self.done.extend(group);
        self.done.sort_by_key(|j| j.input);
        let Some(e) = failed else { return Ok(None) };
        self.ledger = None;
        Ok(Some(format!("warning: {e}: --resume could not go on beyond here")))
    }

    /// The study is complete: nothing is left to resume.
    pub fn remove(self) {
        let _ = self.ledger.map(|mut ledger| ledger.clear()); // a journal that stays does no harm
    }
}

/// What is to be said of a folder that has journals, and not the one that is asked for.
fn others(folder: &Path) -> Option<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let files = std::fs::read_dir(folder).ok()?.filter_map(std::result::Result::ok);
    let files =
        files.filter(|e| e.metadata().is_ok_and(|m| m.len() > 0)).filter_map(|e| e.file_name().into_string().ok());
    let found = files.filter(|name| name.starts_with(PREFIX)).count();
    (found > 0).then(|| {
        format!(
            "note: nothing to resume: the {found} journals here ({PREFIX}*) are of other settings or another version"
        )
    })
}

fn unwritten(e: serde_json::Error) -> Error {
    Error::Input(format!("scores cannot be written as JSON: {e}"))
}

fn counted(inputs: usize) -> String {
    if inputs == 1 {
        "1 input".into()
    } else {
        format!("{inputs} inputs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_judged_again() {
        let dir = tempfile::tempdir().unwrap();
        let study = |model: &str| Identity { model: model.into(), ..Identity::of("evaluate") };
        let open = |model: &str, inputs: [&str; 3], resume| {
            Journal::open(dir.path(), study(model), inputs.map(String::from).to_vec(), resume, false)
        };
        let judged = |input: usize| Judged { input, notes: vec![format!("{input}")], ..Judged::default() };
        let mut first = open("m", ["a", "b", "c"], false).unwrap();
        assert!(first.add(vec![judged(0), judged(1)]).unwrap().is_none());
        let numbers = |j: &Journal| j.done.iter().map(|j| (j.input, j.notes.concat())).collect::<Vec<_>>();
        let error = open("m", ["a", "b", "c"], false).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("holds 2 inputs") && error.contains("--resume"), "{error}");
        let mut again = open("m", ["a", "other", "c"], true).unwrap();
        assert_eq!(numbers(&again), [(0, "0".into())]);
        assert!(again.notes[0].starts_with("1 input changed since"), "{:?}", again.notes);
        again.add(vec![judged(1), judged(2)]).unwrap();
        let whole = open("m", ["a", "other", "c"], true).unwrap();
        assert_eq!((whole.done.len(), whole.notes.len()), (3, 0), "{:?}", whole.notes);
        let trained = open("trained on", ["a", "other", "c"], true).unwrap();
        assert!(trained.done.is_empty() && trained.notes[0].contains("the model's files have changed since: 3 inputs"));
        let other =
            Journal::open(dir.path(), Identity { seed: 1, ..study("m") }, vec!["a".into()], true, false).unwrap();
        assert!(
            other.done.is_empty() && other.notes[0].contains("nothing to resume: the 1 journals"),
            "{:?}",
            other.notes
        );
        other.remove();
        whole.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
