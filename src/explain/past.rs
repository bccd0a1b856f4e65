//! What of a run an earlier one has done, and the identity of each of its results.

use super::plan::{Known, Plan, WHOLE};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::input::source::refuse_inputs;
use crate::input::Source;
use crate::method::Configured;
use crate::model::Checkpoint;
use crate::render::save;
use crate::render::scale::Span;
use crate::resume::{past, Ledger, Written};
use crate::target::Request;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// What stands of a run.
pub struct Past {
    /// By input and slot.
    pub made: past::Past,
    /// What their identities have in common.
    pub stated: Stated,
    /// Methods of the run.
    methods: usize,
}

/// What every identity of a run has in common; none when nothing of the run states one.
#[derive(Clone)]
pub struct Stated(Option<Identity>);

impl Past {
    /// Looks at the outputs that are there. `common` makes what the identity holds beside contents, method and target; records
    /// are `stated` even where no ledger notes them.
    ///
    /// # Errors
    /// An output that is there, is not up to date, and may not be replaced; a checkpoint that cannot be read.
    pub fn look(
        plan: &Plan,
        checkpoint: &Checkpoint,
        sources: &[Source],
        stated: bool,
        common: impl FnOnce() -> Result<Identity>,
    ) -> Result<Self> {
        let slots = plan.requests.len() * plan.methods.len();
        let made =
            past::Past::new(plan.ledger_folder().map(|folder| Ledger::read(folder, plan.part)), sources.len(), slots);
        let mut own = Past { made, stated: Stated(None), methods: plan.methods.len() };
        let shared = plan.style.scale == Span::Shared;
        if own.made.is_noted() || stated {
            // One scale over the run is made of every input: then each output depends on all of them.
            own.stated.0 = Some(common()?.with("inputs", shared.then(|| Source::whole(sources))));
        }
        if !plan.replace || plan.resume {
            let names: Vec<_> = sources.iter().map(|s| s.stem.to_string_lossy().into_owned()).collect();
            let (common, pairs) =
                (&own.stated.0, || plan.requests.iter().flat_map(|r| plan.methods.iter().map(move |m| (r, m))));
            own.made.compare(&names, |input| {
                let source = sources.get(input)?;
                let (common, contents) = (common.as_ref()?, source.contents()?);
                Some(pairs().map(|(r, m)| identity_of(common, plan, source, &contents, r, m)).collect())
            });
        }
        if shared && !own.made.all() {
            own.made.forget();
        }
        let known = plan.known_paths(checkpoint, sources);
        refuse_inputs(known.iter().map(|(_, _, _, path)| path).chain(&plan.beside), sources)?;
        let place = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let beside: Vec<_> = plan.beside.iter().map(|path| place(path)).collect();
        let twice = known.iter().find(|(_, _, _, path)| beside.contains(&place(path)));
        if let Some((_, _, _, path)) = twice {
            let path = path.display();
            return Err(Error::Usage(format!(
                "{path} is a result of this run, and cannot hold its table or its maps; name another"
            )));
        }
        if !plan.replace {
            own.refuse_existing(plan, &known, sources)?;
        }
        Ok(own)
    }

    /// Takes away what a killed run has left where results go.
    pub fn sweep(plan: &Plan, sources: &[Source]) {
        let beside = plan.beside.iter().filter_map(|file| file.parent()).map(Path::to_path_buf);
        let own = |folder: &Path| sources.iter().filter_map(|s| s.stem.parent()).map(|own| folder.join(own)).collect();
        let results: BTreeSet<_> = plan.ledger_folder().map(own).unwrap_or_default();
        results.into_iter().chain(beside).collect::<BTreeSet<_>>().iter().for_each(|folder| save::sweep(folder));
    }

    /// What is there and not up to date stays, unless the user says otherwise.
    fn refuse_existing(&self, plan: &Plan, known: &[Known], sources: &[Source]) -> Result<()> {
        let mut existing = known.iter().filter(|(n, r, m, path)| !self.stands(*n, *r, *m) && path.exists());
        let Some((number, request, method, first)) = existing.next() else { return Ok(()) };
        let more = match existing.count() {
            0 => String::new(),
            n => format!("; {n} more exist"),
        };
        let differs = |source: &Source| -> Option<Vec<String>> {
            let (request, method) = (plan.requests.get(*request)?, plan.methods.get(*method)?);
            let asked = self.stated.identity(plan, source, &source.contents()?, request, method)?;
            self.made.differs(first, &asked)
        };
        let made = match sources.get(*number).and_then(differs) {
            Some(other) if !other.is_empty() => format!(", made with another {}", other.join(", another ")),
            _ => String::new(),
        };
        Err(Error::Usage(format!(
            "{} exists{made}; pass --overwrite to replace it, --resume to make anew what is not up to date, or another --out{more}",
            first.display()
        )))
    }

    /// Whether what a method gives for a request and an input stands.
    pub fn stands(&self, input: usize, request: usize, method: usize) -> bool {
        if method == WHOLE {
            return self.made.done(input);
        }
        self.made.stands(input, request * self.methods + method)
    }

    /// Notes what one input, request and method have given; answers why it could not.
    pub fn add(&mut self, asked: &Identity, files: Vec<Written>, records: Vec<Value>) -> Option<Error> {
        self.made.add(asked, files, records)
    }

    /// What of an input does not stand, by request and method.
    pub fn left(&self, input: usize) -> Vec<bool> {
        self.made.left(input)
    }
}

impl Stated {
    /// Whether anything of the run states what it depends on.
    pub fn any(&self) -> bool {
        self.0.is_some()
    }

    /// The identity of what a method gives for a request and an input; none when nothing states it.
    pub fn identity(
        &self,
        plan: &Plan,
        source: &Source,
        contents: &str,
        r: &Request,
        m: &Configured,
    ) -> Option<Identity> {
        Some(identity_of(self.0.as_ref()?, plan, source, contents, r, m))
    }
}

fn identity_of(
    common: &Identity,
    plan: &Plan,
    source: &Source,
    contents: &str,
    request: &Request,
    method: &Configured,
) -> Identity {
    let formats: Vec<_> = plan.file_formats(method).map(|f| f.name).collect();
    let own = Identity { input: contents.into(), target: vec![request.text.clone()], ..common.clone() };
    let own = own.by(method.entry.name, &method.params);
    let own =
        own.with("name", source.stem.to_string_lossy()).with("called", plan.name(method)).with("formats", formats);
    // A page depends on all that is in it.
    let texts = || plan.requests.iter().map(|r| r.text.clone()).chain(plan.methods.iter().map(|m| m.spec.clone()));
    own.with("page", plan.page.map(|_| texts().collect::<Vec<_>>()))
}
