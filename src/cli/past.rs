//! What of a run an earlier one has done: outputs whose identity matches and which are still what was written.

use super::outputs::{Format, Request};
use super::plan::{Known, Plan};
use super::resume::{Ledger, Written};
use super::sources::{Kind, Source, Sources};
use super::stems::refuse_inputs;
use anyhow::{bail, Result};
use rayon::prelude::*;
use serde_json::{json, Value};
use std::path::Path;
use vitx::identity;
use vitx::method::Configured;
use vitx::model::Checkpoint;
use vitx::render::scale::Scale;

/// The ledger of a run's folder, and what of the run stands in it.
pub struct Past {
    ledger: Option<Ledger>,
    /// What every identity of the run has in common.
    common: Value,
    /// `[input][request * methods + method]`: the records of what stands.
    standing: Vec<Vec<Option<Vec<Value>>>>,
    /// Methods of the run.
    methods: usize,
}

impl Past {
    /// Looks at the outputs that are there. `settings` is what the identity holds beside contents, method and target.
    ///
    /// # Errors
    /// An output that is there, is not up to date, and may not be replaced; a checkpoint that cannot be read.
    pub fn look(plan: &Plan, checkpoint: &Checkpoint, sources: &Sources, settings: Value) -> Result<Self> {
        let pairs = plan.requests.len() * plan.methods.len();
        let mut past = Past {
            ledger: plan.ledger_folder().map(Ledger::read),
            common: Value::Null,
            standing: vec![vec![None; pairs]; sources.list.len()],
            methods: plan.methods.len(),
        };
        let shared = plan.style.scale == Scale::Shared;
        if past.ledger.is_some() {
            // One scale over the run is made of every input: then each output depends on all of them.
            let run = shared.then(|| whole(&sources.list));
            past.common = settings;
            past.common["model"] = checkpoint.identity()?.into();
            past.common["inputs"] = json!(run);
        }
        if !plan.replace || plan.resume {
            past.compare(plan, sources);
        }
        if shared && !past.all() {
            past.standing.iter_mut().flatten().for_each(|s| *s = None);
        }
        let known = plan.known_paths(checkpoint, sources);
        refuse_inputs(known.iter().map(|(_, _, _, path)| path), &sources.list)?;
        if !plan.replace {
            past.refuse_existing(plan, &known, sources)?;
        }
        Ok(past)
    }

    fn compare(&mut self, plan: &Plan, sources: &Sources) {
        let Some(ledger) = self.ledger.as_ref().filter(|l| !l.is_empty()) else { return };
        let names = ledger.names();
        let of = |source: &Source| -> Vec<Option<Vec<Value>>> {
            // Only what has a name in the ledger is read.
            let contents = names.contains(&*source.stem.to_string_lossy()).then(|| contents(source)).flatten();
            let Some(contents) = contents else { return vec![None; plan.requests.len() * plan.methods.len()] };
            let pairs = plan.requests.iter().flat_map(|r| plan.methods.iter().map(move |m| (r, m)));
            pairs.map(|(r, m)| ledger.standing(&self.key(plan, source, &contents, r, m))).collect()
        };
        let standing = sources.list.par_iter().map(of).collect();
        self.standing = standing;
    }

    /// What is there and not up to date stays, unless the user says otherwise.
    fn refuse_existing(&self, plan: &Plan, known: &[Known], sources: &Sources) -> Result<()> {
        let mut existing = known.iter().filter(|(n, r, m, path)| !self.stands(*n, *r, *m) && path.exists());
        let Some((number, request, method, first)) = existing.next() else { return Ok(()) };
        let more = match existing.count() {
            0 => String::new(),
            n => format!("; {n} more exist"),
        };
        let source = &sources.list[*number];
        let key =
            contents(source).map(|c| self.key(plan, source, &c, &plan.requests[*request], &plan.methods[*method]));
        let made = match key.and_then(|key| self.ledger.as_ref()?.differs(first, &key)) {
            Some(other) if !other.is_empty() => format!(", made with another {}", other.join(", another ")),
            _ => String::new(),
        };
        bail!(
            "{} exists{made}; pass --overwrite to replace it, --resume to make anew what is not up to date, or another --out{more}",
            first.display()
        );
    }

    /// Opens the ledger for writing.
    ///
    /// # Errors
    /// When the output folder cannot be written to.
    pub fn begin(&mut self) -> vitx::Result<()> {
        self.ledger.as_mut().map_or(Ok(()), Ledger::begin)
    }

    /// Whether every output of the run stands.
    pub fn all(&self) -> bool {
        self.standing.iter().flatten().all(Option::is_some)
    }

    /// Whether every output of an input stands.
    pub fn done(&self, input: usize) -> bool {
        self.standing[input].iter().all(Option::is_some)
    }

    /// Whether what a method gives for a request and an input stands.
    pub fn stands(&self, input: usize, request: usize, method: usize) -> bool {
        self.standing[input][request * self.methods + method].is_some()
    }

    /// The records of what stands of an input, each once, as a run would print them now.
    pub fn records(&self, input: usize, name: &str, model: &str, status: &str) -> Vec<Value> {
        let mut records: Vec<Value> = Vec::new();
        for record in self.standing[input].iter().flatten().flatten() {
            let mut record = record.clone();
            record["status"] = status.into();
            record["input"] = name.into();
            if let Some(id) = record.get_mut("model").and_then(|m| m.get_mut("id")) {
                *id = model.into();
            }
            // Two targets may mean one output.
            let same = |r: &Value| r["outputs"] == record["outputs"] && (r["outputs"].is_object() || *r == record);
            if !records.iter().any(same) {
                records.push(record);
            }
        }
        records
    }

    /// Notes what one input, request and method have given.
    pub fn add(&mut self, key: Value, files: Vec<Written>, records: Vec<Value>) {
        if let Some(ledger) = &mut self.ledger {
            ledger.add(key, files, records);
        }
    }

    /// A file as it was written; none when nothing is noted.
    pub fn written(&self, path: &Path, bytes: &[u8]) -> Option<Written> {
        self.ledger.as_ref().map(|l| l.written(path, bytes))
    }

    /// Whether anything is noted.
    pub fn notes(&self) -> bool {
        self.ledger.is_some()
    }

    /// The identity of what a method gives for a request and an input.
    pub fn key(&self, plan: &Plan, source: &Source, contents: &str, request: &Request, method: &Configured) -> Value {
        let formats: Vec<_> = plan.file_formats(method).map(Format::name).collect();
        let mut key = self.common.clone();
        for (part, value) in [
            ("name", json!(source.stem.to_string_lossy())),
            ("input", json!(contents)),
            ("method", json!({"name": plan.name(method), "params": method.params})),
            ("target", json!(request.text)),
            ("formats", json!(formats)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
        ] {
            key[part] = value;
        }
        key
    }
}

/// The contents of an input, whatever it is called; none when it cannot be read.
pub fn contents(source: &Source) -> Option<String> {
    match &source.kind {
        Kind::Picture(path) | Kind::TextFile(path) => identity::of_file(path).ok(),
        Kind::Array(path, index) => Some(format!("{}[{}]", identity::of_file(path).ok()?, index.unwrap_or(0))),
        Kind::Text(text) => Some(identity::of_bytes(json!([text.first, text.second]).to_string().as_bytes())),
        Kind::Unreadable(_) => None,
    }
}

/// All inputs of a run as one.
fn whole(list: &[Source]) -> String {
    let stems: Vec<String> = list.iter().map(|s| s.stem.to_string_lossy().into_owned()).collect();
    let parts = list.par_iter().map(|s| contents(s).unwrap_or_default()).collect::<Vec<_>>();
    identity::of_parts(stems.iter().map(String::as_str).zip(parts))
}
