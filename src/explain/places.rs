//! Where the results of a planned run go, and what each depends on.

use super::desk::Front;
use super::pages::Place;
use super::past::Stated;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::input::Source;
use crate::labels::Labels;
use crate::method::Configured;
use crate::render::names::target_part;
use crate::render::out::{Format, Out};
use crate::render::save;
use crate::target::{Output, Request};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Where results go, and what they depend on.
pub struct Places<'a> {
    /// What was asked for.
    pub plan: &'a Plan,
    /// What all of it depends on.
    pub stated: &'a Stated,
    /// Names of the model's classes.
    pub labels: &'a Labels,
    /// Whether the maps go into one array.
    pub gathers: bool,
}

impl Front for Places<'_> {
    fn places(
        &self,
        source: &Source,
        (request, method): (&Request, &Configured),
        output: Output,
    ) -> Vec<(Format, PathBuf)> {
        let (name, target) = (self.plan.name(method), target_part(request, output, self.labels));
        let path = |f: Format| (f, self.plan.out.path(&source.stem, &name, &target, f));
        self.plan.file_formats(method).map(path).collect()
    }

    fn identity(
        &self,
        source: &Source,
        contents: &str,
        (request, method): (&Request, &Configured),
    ) -> Option<Identity> {
        self.stated.identity(self.plan, source, contents, request, method)
    }

    fn states(&self) -> bool {
        self.stated.any()
    }

    fn shows(&self) -> bool {
        self.plan.to_stdout && self.plan.out != Out::Stdout
    }

    fn gathers(&self) -> bool {
        self.gathers
    }

    fn page(&self, source: &Source) -> Option<Place> {
        self.plan.place(&source.stem)
    }
}

/// The files that a run has written, by hashes of their paths: of a long run there are many. That two of a million share one has a
/// chance of 3 in 10^8, and costs one of the two.
#[derive(Debug, Default)]
pub struct Files(HashSet<u64>);

impl Files {
    /// Writes a file of a planned run, once.
    ///
    /// # Errors
    /// [`Error::Input`] for a place that the run has written to already; as [`save::save`].
    pub fn write(&mut self, plan: &Plan, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        if !self.0.insert(hasher.finish()) {
            return Err(Error::Input(format!(
                "{} is another result of this run already; pass an --out of its own for this one",
                path.display()
            )));
        }
        // An input's results are made again for its page or the run's array, though files of some stand.
        let again = plan.again || plan.page.is_some();
        if again && std::fs::read(path).is_ok_and(|known| known == bytes) {
            return Ok(());
        }
        save::save(path, bytes, plan.replace)
    }
}
