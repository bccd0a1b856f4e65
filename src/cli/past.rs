//! What of a run an earlier one has done: outputs whose identity matches and which are still what was written.

use super::plan::{Known, Plan};
use super::sources::{Source, Sources};
use super::stems::refuse_inputs;
use super::voice;
use anyhow::{bail, Result};
use rayon::prelude::*;
use serde_json::Value;
use std::path::Path;
use vitx::identity::{self, Identity};
use vitx::method::Configured;
use vitx::model::Checkpoint;
use vitx::render::scale::Span;
use vitx::resume::{Ledger, Written};
use vitx::target::Request;

/// The ledger of a run's folder, and what of the run stands in it.
pub struct Past {
    ledger: Option<Ledger>,
    /// What every identity of the run has in common; none when nothing of the run states one.
    common: Option<Identity>,
    /// `[input][request * methods + method]`: the records of what stands.
    standing: Vec<Vec<Option<Vec<Value>>>>,
    /// Methods of the run.
    methods: usize,
}

impl Past {
    /// Looks at the outputs that are there. `common` makes what the identity holds beside contents, method and target; records
    /// are `stated` even where no ledger notes them.
    ///
    /// # Errors
    /// An output that is there, is not up to date, and may not be replaced; a checkpoint that cannot be read.
    pub fn look(
        plan: &Plan,
        checkpoint: &Checkpoint,
        sources: &Sources,
        stated: bool,
        common: impl FnOnce() -> vitx::Result<Identity>,
    ) -> Result<Self> {
        let pairs = plan.requests.len() * plan.methods.len();
        let mut past = Past {
            ledger: plan.ledger_folder().map(Ledger::read),
            common: None,
            standing: vec![vec![None; pairs]; sources.list.len()],
            methods: plan.methods.len(),
        };
        let shared = plan.style.scale == Span::Shared;
        if past.ledger.is_some() || stated {
            // One scale over the run is made of every input: then each output depends on all of them.
            past.common = Some(common()?.with("inputs", shared.then(|| whole(&sources.list))));
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
            let contents = names.contains(&*source.stem.to_string_lossy()).then(|| source.contents()).flatten();
            let Some(contents) = contents else { return vec![None; plan.requests.len() * plan.methods.len()] };
            let pairs = plan.requests.iter().flat_map(|r| plan.methods.iter().map(move |m| (r, m)));
            pairs.map(|(r, m)| ledger.standing(&self.identity(plan, source, &contents, r, m)?)).collect()
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
        let differs = |source: &Source| -> Option<Vec<String>> {
            let (request, method) = (plan.requests.get(*request)?, plan.methods.get(*method)?);
            let asked = self.identity(plan, source, &source.contents()?, request, method)?;
            self.ledger.as_ref()?.differs(first, &asked)
        };
        let made = match sources.list.get(*number).and_then(differs) {
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
        self.of(input).all(Option::is_some)
    }

    fn of(&self, input: usize) -> impl Iterator<Item = &Option<Vec<Value>>> {
        self.standing.get(input).into_iter().flatten()
    }

    /// Whether what a method gives for a request and an input stands.
    pub fn stands(&self, input: usize, request: usize, method: usize) -> bool {
        self.of(input).nth(request * self.methods + method).is_some_and(Option::is_some)
    }

    /// The records of what stands of an input, each once, as a run would print them now.
    pub fn records(&self, input: usize, name: &str, model: &str, status: &str) -> Vec<Value> {
        let mut records: Vec<Value> = Vec::new();
        for record in self.of(input).flatten().flatten() {
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
    pub fn add(&mut self, asked: &Identity, files: Vec<Written>, records: Vec<Value>) {
        if let Some(e) = self.ledger.as_mut().and_then(|ledger| ledger.add(asked, files, records)) {
            voice::say(&format!("warning: {e}; a later run will do these outputs again"));
        }
    }

    /// A file as it was written; none when nothing is noted.
    pub fn written(&self, path: &Path, bytes: &[u8]) -> Option<Written> {
        self.ledger.as_ref().map(|l| l.written(path, bytes))
    }

    /// Whether anything of the run states what it depends on.
    pub fn states(&self) -> bool {
        self.common.is_some()
    }

    /// The identity of what a method gives for a request and an input; none when nothing states it.
    pub fn identity(
        &self,
        plan: &Plan,
        source: &Source,
        contents: &str,
        request: &Request,
        method: &Configured,
    ) -> Option<Identity> {
        let formats: Vec<_> = plan.file_formats(method).map(|f| f.name).collect();
        let own = Identity { input: contents.into(), target: vec![request.text.clone()], ..self.common.clone()? };
        let own = own.by(method.entry.name, &method.params);
        Some(own.with("name", source.stem.to_string_lossy()).with("called", plan.name(method)).with("formats", formats))
    }
}

/// All inputs of a run as one.
fn whole(list: &[Source]) -> String {
    let stems: Vec<String> = list.iter().map(|s| s.stem.to_string_lossy().into_owned()).collect();
    let parts = list.par_iter().map(|s| s.contents().unwrap_or_default()).collect::<Vec<_>>();
    identity::of_parts(stems.iter().map(String::as_str).zip(parts))
}
