//! What `evaluate` has judged so far, kept so that an interrupted run can go on.

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use vitx::evaluate::report::Shown;
use vitx::evaluate::Score;
use vitx::render::save::save;

/// What one input gave, as the journal keeps it.
#[derive(Serialize, Deserialize, Debug, Default)]
pub struct Judged {
    pub input: usize,
    /// Why the input, or a method on it, could not be judged.
    pub failures: Vec<String>,
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

/// What has been judged, a line an input in a file of this run's own.
pub struct Journal {
    path: PathBuf,
    file: File,
    pub done: Vec<Judged>,
}

impl Journal {
    /// The journal of the run that `key` tells from others. What an earlier run of that key has judged is read with
    /// `resume`, dropped with `overwrite`, and never lost without either.
    ///
    /// # Errors
    /// When there is an earlier run's journal and neither is asked for; when the file cannot be written.
    pub fn open(key: &Value, resume: bool, overwrite: bool) -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        key.to_string().hash(&mut hasher);
        let path = PathBuf::from(format!(".vitx-evaluate-{:016x}.jsonl", hasher.finish()));
        let old = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        // A line that a crash cut off does not parse and is judged again.
        let mut done: Vec<Judged> = old.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
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
        done.reverse(); // of an input judged twice the later line counts
        done.sort_by_key(|j| j.input);
        done.dedup_by_key(|j| j.input);
        // Written anew beside the old one and put in its place: a full disk leaves the old one whole.
        save(&path, lines(&done)?.as_bytes(), true)?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Journal { path, file, done })
    }

    /// Whether every input of a group has been judged.
    pub fn has(&self, group: &[usize]) -> bool {
        self.of(group).count() == group.len()
    }

    /// What has been judged of a group.
    pub fn of<'j>(&'j self, group: &'j [usize]) -> impl Iterator<Item = &'j Judged> {
        self.done.iter().filter(|j| group.contains(&j.input))
    }

    /// Adds a whole group, in place of a part of it that a crash may have left.
    pub fn add(&mut self, group: Vec<Judged>) -> Result<()> {
        let written = self.file.write_all(lines(&group)?.as_bytes());
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.done.retain(|d| group.iter().all(|j| j.input != d.input));
        self.done.extend(group);
        self.done.sort_by_key(|j| j.input);
        Ok(())
    }

    /// The run is complete: nothing is left to resume.
    pub fn remove(self) {
        let _ = std::fs::remove_file(self.path); // a journal that stays does no harm
    }
}

/// One JSON object a line.
fn lines(judged: &[Judged]) -> Result<String> {
    judged.iter().map(|j| Ok(serde_json::to_string(j)? + "\n")).collect()
}
