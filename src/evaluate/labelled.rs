//! A labelled data set as one model reads it: which inputs there are, what is asked of them, and what was left out.

use super::contract::{Configured, Needs};
use super::dataset::{self, Data};
use super::questions::{group, Asked, Readings};
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::identity;
use crate::model::{Checkpoint, Modality};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Labelled inputs, their labels resolved.
#[derive(Debug)]
pub struct Labelled {
    /// Of the data set, for titles.
    pub name: String,
    /// What can be judged.
    pub inputs: Vec<Asked>,
    /// Samples that were left out, with the reason.
    pub failures: Vec<(String, String)>,
    /// How the masks were read.
    pub masks: Survey,
    /// How labels were found, and what of the data was left out.
    pub notes: Vec<String>,
}

impl Labelled {
    /// The data of `path` (see [`super::dataset::read`]) for a model: its first `limit` inputs. Labels that the model does
    /// not have are failures of their samples.
    ///
    /// # Errors
    /// [`Error::Usage`] for texts where the model reads pictures, and the other way; and when no label is known.
    pub fn of(path: &Path, data: Data, checkpoint: &Checkpoint, limit: Option<usize>) -> Result<Self> {
        checkpoint.reads_once()?;
        let texts = data.texts(path)?;
        if (checkpoint.modality() == Modality::Text) != texts {
            let reads = if texts { "pictures, but the data are texts" } else { "texts, but the data are pictures" };
            return Err(Error::Usage(format!("model `{}` reads {reads}", checkpoint.id)));
        }
        let left_out = (!data.left_out.is_empty()).then(|| format!("left out of --data: {}", data.left_out.join("; ")));
        let readings = Readings::of(&data.samples, checkpoint);
        let labelled = data.samples.iter().any(|sample| sample.label.is_some());
        let told = (labelled && path.is_dir() || readings.numbers > 0).then(|| readings.told(path.is_dir()));
        let (mut inputs, mut failures) = group(data.samples, checkpoint);
        failures.extend(data.failures);
        inputs.truncate(limit.unwrap_or(usize::MAX));
        if inputs.is_empty() {
            let first = failures.pop().map(|(name, why)| format!("; {name}: {why}")).unwrap_or_default();
            let path = path.display();
            return Err(Error::Usage(format!("--data {path}: no label of it is one of the model's{first}")));
        }
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        let notes = told.into_iter().chain(left_out).collect();
        Ok(Labelled { name, inputs, failures, masks: Survey::default(), notes })
    }

    /// The same for what asks for no labels: where the model has none of them, the data count as data without labels, and that
    /// is noted.
    ///
    /// # Errors
    /// As [`Labelled::of`].
    pub fn loosely(path: &Path, mut data: Data, checkpoint: &Checkpoint, limit: Option<usize>) -> Result<Self> {
        let strange = Readings::of(&data.samples, checkpoint).strange();
        let what = if path.is_dir() { "folder" } else { "label" };
        match strange {
            true if path.is_dir() => data = dataset::unlabelled(path), // its folders are no classes
            true => data.samples.iter_mut().for_each(|sample| sample.label = None),
            false => {}
        }
        let mut own = Labelled::of(path, data, checkpoint, limit)?;
        let note =
            || format!("no {what} of the data is called like a class of the model: they count as data without labels");
        own.notes.extend(strange.then(note));
        Ok(own)
    }

    /// Looks at all masks once.
    pub fn survey(&mut self) {
        let mut known = BTreeSet::new();
        let asked = self.inputs.iter().flat_map(|i| i.questions.iter().map(move |q| (q, i)));
        let masks: Vec<_> = asked
            .filter_map(|(q, i)| Some((q.mask.as_ref()?, &i.input)))
            .filter(|(mask, _)| known.insert((&mask.path, &mask.object)))
            .collect();
        self.masks = Survey::of(&masks);
    }

    /// What is to be said of it before anything is judged: how labels and masks were read, and what was left out.
    pub fn told(&self) -> Vec<String> {
        let notes = self.notes.iter().map(|n| format!("note: {n}"));
        let masks = self.masks.line().map(|line| format!("masks: {line}"));
        notes.chain(masks).chain(self.masks.warnings().iter().map(|w| format!("warning: {w}"))).collect()
    }

    /// Whether any input has a mask.
    pub fn has_masks(&self) -> bool {
        self.inputs.iter().flat_map(|i| &i.questions).any(|q| q.mask.is_some())
    }

    /// What a metric needs and no input has.
    pub fn lacks(&self, metric: &Configured) -> Option<&'static str> {
        let mut questions = self.inputs.iter().flat_map(|i| &i.questions);
        let found = match metric.entry.needs {
            Needs::Nothing => true,
            Needs::Mask => self.has_masks(),
            Needs::Rationale => questions.any(|q| q.rationale.is_some()),
        };
        metric.entry.needs.what().filter(|_| !found)
    }

    /// Refuses a metric that was asked for and that no input has anything for.
    ///
    /// # Errors
    /// [`Error::Usage`] saying what is lacking.
    pub fn refuse_lacking(&self, metric: &Configured) -> Result<()> {
        match self.lacks(metric) {
            None => Ok(()),
            Some(what) => {
                Err(Error::Usage(format!("metric `{}` needs {what}, and no input of the data has one", metric.spec)))
            }
        }
    }

    /// Of metrics, those the data have something for, and what is to be said of the others. With `named` none is left out:
    /// what lacks its masks or rationales is refused.
    ///
    /// # Errors
    /// As [`Labelled::refuse_lacking`].
    pub fn judging(&self, metrics: Vec<Configured>, named: bool) -> Result<(Vec<Configured>, Option<String>)> {
        if named {
            metrics.iter().try_for_each(|m| self.refuse_lacking(m))?;
        }
        let (metrics, without): (Vec<_>, Vec<_>) = metrics.into_iter().partition(|m| self.lacks(m).is_none());
        let names: Vec<&str> = without.iter().map(|m| m.entry.name).collect();
        let what = without.first().and_then(|m| self.lacks(m)).unwrap_or_default();
        let note = format!("note: without {what}, left out: {}", names.join(", "));
        Ok((metrics, (!names.is_empty()).then_some(note)))
    }

    /// The name of an input.
    pub fn name(&self, number: usize) -> &str {
        self.inputs.get(number).map_or("", |i| &i.name)
    }

    /// Inputs and samples that could not be used: how many there are of both together.
    pub fn all(&self) -> usize {
        let names = self.inputs.iter().map(|i| &i.name).chain(self.failures.iter().map(|(name, _)| name));
        names.collect::<BTreeSet<_>>().len()
    }

    /// What tells each input from another: the contents of its picture or text and of its masks, its labels and rationales.
    /// An input that was changed in place has another identity.
    pub fn identities(&self) -> Vec<String> {
        let paths: BTreeSet<&Path> = self.inputs.iter().flat_map(Asked::files).collect();
        let paths: Vec<&Path> = paths.into_iter().collect();
        // What cannot be read is its own reason: it fails later, and is tried again once it can be read.
        let of = |path: &&Path| (path.to_path_buf(), identity::of_file(path).unwrap_or_else(|e| e.to_string()));
        let files: HashMap<PathBuf, String> = paths.par_iter().map(of).collect();
        self.inputs.iter().map(|input| input.identity(&files)).collect()
    }
}
