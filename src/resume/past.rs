//! What of a run an earlier one has made: results whose identity matches and whose files are still what was written.

use super::{Ledger, Place, Written};
use crate::error::{Error, Result};
use crate::identity::Identity;
use rayon::prelude::*;
use serde_json::Value;
use std::path::Path;

/// The ledger of a run, and which of its results stand. A result has an input's number and a slot: which of the things that
/// are made of each input.
pub struct Past {
    ledger: Option<Ledger>,
    /// `[input][slot]`: where the records are of what stands.
    standing: Vec<Vec<Option<Place>>>,
}

impl Past {
    /// Of a run of so many inputs and slots, of which nothing is known yet. Without a ledger nothing ever stands.
    pub fn new(ledger: Option<Ledger>, inputs: usize, slots: usize) -> Self {
        Past { ledger, standing: vec![vec![None; slots]; inputs] }
    }

    /// Whether there is a ledger.
    pub fn is_noted(&self) -> bool {
        self.ledger.is_some()
    }

    /// Looks for what stands. Inputs go by the `names` that the ledger may hold; only of those that it does, `asked` is read:
    /// an input's contents may be large.
    pub fn compare(&mut self, names: &[String], asked: impl Fn(usize) -> Option<Vec<Identity>> + Sync) {
        let Some(ledger) = self.ledger.as_ref().filter(|l| !l.is_empty()) else { return };
        let inputs = self.standing.par_iter_mut().zip(names).enumerate().filter(|(_, (_, n))| ledger.knows(n));
        inputs.for_each(|(input, (own, _))| {
            for (slot, asked) in own.iter_mut().zip(asked(input).unwrap_or_default()) {
                *slot = ledger.standing(&asked);
            }
        });
    }

    /// Takes nothing for standing.
    pub fn forget(&mut self) {
        self.standing.iter_mut().flatten().for_each(|s| *s = None);
    }

    /// In which parts of its identity a file differs from what is asked now; none when no ledger knows the file.
    pub fn differs(&self, path: &Path, asked: &Identity) -> Option<Vec<String>> {
        self.ledger.as_ref()?.differs(path, asked)
    }

    /// Opens the ledger for writing; whether another run writes it too.
    ///
    /// # Errors
    /// As [`Ledger::begin`].
    pub fn begin(&mut self) -> Result<bool> {
        self.ledger.as_mut().map_or(Ok(false), Ledger::begin)
    }

    /// Whether every result of the run stands.
    pub fn all(&self) -> bool {
        self.standing.iter().flatten().all(Option::is_some)
    }

    /// Whether every result of an input stands.
    pub fn done(&self, input: usize) -> bool {
        self.of(input).all(Option::is_some)
    }

    /// Whether one result of an input stands.
    pub fn stands(&self, input: usize, slot: usize) -> bool {
        self.of(input).nth(slot).is_some_and(Option::is_some)
    }

    /// Which results of an input do not stand.
    pub fn left(&self, input: usize) -> Vec<bool> {
        self.of(input).map(Option::is_none).collect()
    }

    fn of(&self, input: usize) -> impl Iterator<Item = &Option<Place>> {
        self.standing.get(input).into_iter().flatten()
    }

    /// The records of what stands of an input, each once, as a run would give them now.
    ///
    /// # Errors
    /// As [`Ledger::records`].
    pub fn records(&self, input: usize, name: &str, model: &str) -> Result<Vec<Value>> {
        let mut records: Vec<Value> = Vec::new();
        let places = self.ledger.iter().flat_map(|ledger| self.of(input).flatten().map(move |place| (ledger, *place)));
        for record in
            places.map(|(ledger, place)| ledger.records(place)).collect::<Result<Vec<_>>>()?.into_iter().flatten()
        {
            let mut record: Value = record;
            record["input"] = name.into();
            if let Some(id) = record.get_mut("model").and_then(|m| m.get_mut("id")) {
                *id = model.into();
            }
            // Two targets may mean one output.
            let one = |key: &str, r: &Value| r[key] == record[key];
            let same = |r: &Value| {
                let named = ["outputs", "method", "target"].iter().all(|key| one(key, r));
                named && (r["outputs"].is_object() || *r == record)
            };
            if !records.iter().any(same) {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Notes what was asked, where there is a ledger. It is as [`Ledger::add`] has it.
    pub fn add(&mut self, asked: &Identity, files: Vec<Written>, records: Vec<Value>) -> Option<Error> {
        self.ledger.as_mut()?.add(asked, files, records)
    }

    /// A file as it was written; none when nothing is noted.
    pub fn written(&self, path: &Path, bytes: &[u8]) -> Option<Written> {
        self.ledger.as_ref().map(|l| l.written(path, bytes))
    }
}
