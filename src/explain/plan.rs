//! A resolved `explain`: methods, targets, formats and places, everything that can be checked without weights.

use super::pages::Place;
use super::rows::ENDINGS;
use super::{maps, methods, requests};
use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::explanation::RowRequest;
use crate::input::Source;
use crate::method::{Configured, DEFAULTS};
use crate::model::{Checkpoint, Modality};
use crate::render::figure::Kind;
use crate::render::names::target_part;
use crate::render::out::{refuse_ending, Format, Out};
use crate::render::scale::Span;
use crate::render::{chosen, Blend, Draws, Style};
use crate::target::{Request, Target};
use std::path::{Path, PathBuf};

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Choices<'a> {
    /// As [`super::methods`] reads them.
    pub method: &'a [String],
    /// As [`super::requests`] reads them.
    pub target: &'a [String],
    /// The output token that is explained instead of the method's own choice.
    pub row: Option<&'a str>,
    /// A folder, a file, or `-` for stdout.
    pub out: Option<&'a Path>,
    /// Names of renderers.
    pub format: &'a [String],
    /// A file for a table of the run.
    pub table: Option<&'a Path>,
    /// A file for the maps of the run.
    pub arrays: Option<&'a Path>,
    /// Of random numbers.
    pub seed: u64,
    /// Which part of the inputs this run has, of how many.
    pub part: Option<(usize, usize)>,
    /// Keep what is up to date, and make the rest anew.
    pub resume: bool,
    /// Make everything anew.
    pub overwrite: bool,
    /// Records go to stdout.
    pub json: bool,
}

/// A resolved `explain`.
pub struct Plan {
    /// The methods.
    pub methods: Vec<Configured>,
    facts: Facts,
    /// The targets.
    pub requests: Vec<Request>,
    /// In a fixed order.
    pub formats: Vec<Format>,
    /// Each input has a page; of more than one there is an index.
    pub page: Option<Format>,
    /// Whether there is.
    pub indexed: bool,
    /// Where results go.
    pub out: Out,
    /// How they are drawn.
    pub style: Style,
    /// The output token that is explained instead of the method's own choice.
    pub row: Option<RowRequest>,
    /// Of random numbers.
    pub seed: u64,
    /// Which part of the inputs this run has, of how many.
    pub part: Option<(usize, usize)>,
    /// What exists may be replaced.
    pub replace: bool,
    /// What is up to date is kept.
    pub resume: bool,
    /// Text results go to stdout and not to files.
    pub to_stdout: bool,
    /// Files of the whole run beside its results: a table, and an array of all maps.
    pub beside: Vec<PathBuf>,
    /// Every input is explained again, since the array of all maps is made of them; files that are up to date stay.
    pub again: bool,
}

/// Bytes of attention in the only page of a run: with it 8 methods and 2 targets stay below 2 MB.
const ALONE: usize = 1_150_000;
/// The same in one of many.
const AMONG_OTHERS: usize = 200_000;

/// In the place of request and method: the file is of all of them.
pub(super) const WHOLE: usize = usize::MAX;

impl Plan {
    /// Resolves the arguments against a model and its inputs.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn resolve(
        asked: &Choices<'_>,
        mut style: Style,
        checkpoint: &Checkpoint,
        (sources, from_folder): (&[Source], bool),
    ) -> Result<Self> {
        let (text, facts) = (checkpoint.modality() == Modality::Text, checkpoint.facts());
        let by_row = [DEFAULTS[0].to_string()]; // a token's own row is asked of a method that has some
        let named = if asked.method.is_empty() && asked.row.is_some() { &by_row } else { asked.method };
        let methods = methods(named, checkpoint)?;
        let of_model = |e: Error| Error::Usage(format!("model `{}`: {e}", checkpoint.id));
        let requests = requests(asked.target, checkpoint).map_err(of_model)?;
        let formats = chosen(asked.format, text)?;
        let drawn = formats.iter().find(|f| f.draws > Draws::Numbers);
        if let (Some(m), Some(f)) = (methods.iter().find(|m| m.matrix()), drawn) {
            return Err(Error::Usage(format!(
                "method `{}` gives a matrix [T,T], which `{}` cannot draw; pass --format npy",
                m.spec, f.name
            )));
        }
        let row = asked.row.map(|r| RowRequest::parse(r, text)).transpose()?;
        if let (Some(m), true) = (methods.iter().find(|m| m.method.rows().is_none()), row.is_some()) {
            return Err(m.no_rows());
        }
        let targets: usize = requests.iter().map(|r| r.most(checkpoint.labels.len())).sum();
        let files: usize = methods
            .iter()
            .map(|m| formats.iter().filter(|f| !f.whole && f.suits(m.method.pixels(&facts))).count())
            .sum();
        let page = formats.iter().copied().find(|f| f.whole);
        let outputs = sources.len() * (targets * files + usize::from(page.is_some()));
        let to_stdout = text && asked.out.is_none() && formats.iter().any(|f| f.name == "ansi");
        let out = Out::choose(asked.out, from_folder, &formats, outputs)?;
        if out == Out::Stdout && asked.json {
            return Err(Error::Usage("--out - and --json both write to stdout; choose one".into()));
        }
        if !to_stdout && out != Out::Stdout {
            // A file is plain unless it is named as holding escape sequences.
            style.colour = formats.iter().any(|f| f.name == "ansi");
        }
        refuse_ending("--table", asked.table, ENDINGS)?;
        refuse_ending("--arrays", asked.arrays, maps::ENDING)?;
        if asked.arrays.is_some() && text {
            return Err(Error::Usage("--arrays is for pictures: texts differ in length; pass --format npy, or --table FILE.jsonl with --json".into()));
        }
        if let Some(m) = methods.iter().find(|m| m.matrix() && asked.arrays.is_some()) {
            return Err(Error::Usage(format!("--arrays holds maps, and method `{}` gives a matrix [T,T]", m.spec)));
        }
        let plan = Plan {
            methods,
            facts,
            requests,
            formats,
            page,
            indexed: page.is_some() && sources.len() > 1,
            out,
            style,
            row,
            seed: asked.seed,
            part: asked.part,
            replace: asked.overwrite || asked.resume,
            resume: asked.resume,
            to_stdout,
            beside: asked.table.into_iter().chain(asked.arrays).map(Path::to_path_buf).collect(),
            again: asked.arrays.is_some(),
        };
        plan.refuse_idle()?;
        if plan.style.scale == Span::Shared && plan.part.is_some() {
            return Err(Error::Usage("--normalize shared with --shard: each part of the run would have a scale of its own; run it whole, or pass --normalize max".into()));
        }
        Ok(plan)
    }

    /// Refuses what was asked for and would change nothing.
    fn refuse_idle(&self) -> Result<()> {
        let Drawn { heat, blend, .. } = self.drawn();
        let idle = |what: String, why: &str| {
            Err(Error::Usage(format!("{what} would change nothing: {why}, and this run draws none; leave it out")))
        };
        match self.style.blend {
            _ if self.style.legend && !heat => idle("--legend".into(), "it is drawn below pictures"),
            _ if self.style.panel && !(heat && blend) => idle("--panel".into(), "it is for overlays"),
            own @ (Blend::Contour | Blend::Mask(_)) if blend && !heat => {
                idle(format!("--blend {own}"), "it is for pictures, of which a page has its own")
            }
            _ => Ok(()),
        }
    }

    /// What files call a method: as it was given, with the output token if one was asked for.
    pub fn name(&self, method: &Configured) -> String {
        match &self.row {
            None => method.spec.clone(),
            Some(row) => format!("{}-row={row}", method.spec),
        }
    }

    /// Formats that become files for a method.
    pub fn file_formats<'s>(&'s self, method: &'s Configured) -> impl Iterator<Item = Format> + 's {
        let suiting = self.formats.iter().copied().filter(|f| f.suits(method.method.pixels(&self.facts)));
        suiting.filter(|f| !(f.whole || self.to_stdout && f.name == "ansi"))
    }

    /// Bytes of attention between tokens that each page may hold: of many pages less, and none where all of them wait for one scale.
    pub fn links(&self) -> usize {
        match self.page {
            None => 0,
            Some(_) if !self.indexed => ALONE,
            Some(_) if self.style.scale == Span::Shared => 0,
            Some(_) => AMONG_OTHERS,
        }
    }

    /// Where the page of an input goes.
    pub fn place(&self, stem: &Path) -> Option<Place> {
        let page = self.out.whole(stem, self.page?);
        Some(Place::new(page, self.indexed))
    }

    /// What of the style is seen. A page enlarges its maps itself.
    pub fn drawn(&self) -> Drawn {
        let most = |formats: &mut dyn Iterator<Item = &Format>| {
            let most = formats.map(|f| f.draws).max().unwrap_or(Draws::Numbers);
            if self.facts.text {
                most.min(Draws::Tokens)
            } else {
                most
            }
        };
        let kinds = || self.formats.iter().filter_map(|f| Kind::of(f.name));
        let all = most(&mut self.formats.iter());
        let files = most(&mut self.formats.iter().filter(|f| !f.whole));
        Drawn {
            colour: all > Draws::Numbers,
            text: self.facts.text && all > Draws::Numbers,
            heat: files >= Draws::Heat,
            blend: all == Draws::Overlay,
            figure: kinds().next().is_some(),
            fixed: kinds().any(|kind| kind != Kind::Svg),
            lettered: self.facts.text || self.style.legend || self.style.print.title.is_some(),
        }
    }

    /// Every output whose name does not depend on what the model says.
    pub fn known_paths(&self, checkpoint: &Checkpoint, sources: &[Source]) -> Vec<Known> {
        let known = |r: &Request| !matches!(r.target, Target::Top(_) | Target::Above { .. });
        let mut paths = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let whole = self.place(&source.stem).into_iter().flat_map(|place| [Some(place.page), place.thumbnail]);
            paths.extend(whole.flatten().map(|path| (number, WHOLE, WHOLE, path)));
            for (r, request) in self.requests.iter().enumerate().filter(|(_, r)| known(r)) {
                let outputs = request.resolve(&vec![0.0; checkpoint.labels.len()]);
                let Some(&output) = outputs.first() else { continue };
                let target = target_part(request, output, &checkpoint.labels);
                for (m, method) in self.methods.iter().enumerate() {
                    let name = self.name(method);
                    let path = |f| (number, r, m, self.out.path(&source.stem, &name, &target, f));
                    paths.extend(self.file_formats(method).map(path));
                }
            }
        }
        paths.retain(|(_, _, _, p)| p != Path::new("-"));
        paths
    }

    /// What of an input is to be made, of what does not stand: a page holds all of it, and an array all of the run.
    pub fn left(&self, left: Vec<bool>) -> Vec<bool> {
        let all = self.again || (self.page.is_some() && left.contains(&true));
        left.into_iter().map(|own| own || all).collect()
    }

    /// The folder whose ledger notes this run; none when nothing becomes a file that a later run could find again.
    pub fn ledger_folder(&self) -> Option<&Path> {
        match &self.out {
            _ if self.to_stdout => None,
            Out::Stdout => None,
            Out::File(file) => file.parent(),
            Out::Folder(folder) => Some(folder),
        }
    }
}

/// An output, and the numbers of its input, request and method.
pub type Known = (usize, usize, usize, PathBuf);

/// What a run draws.
#[derive(Debug, Clone, Copy)]
pub struct Drawn {
    /// Relevance as colour, of pictures or texts.
    pub colour: bool,
    /// Of texts.
    pub text: bool,
    /// Heat, enlarged to pixels.
    pub heat: bool,
    /// Heat over a picture.
    pub blend: bool,
    /// Figures, laid out by [`crate::render::Print`].
    pub figure: bool,
    /// Some of them as PDF or PNG, which have fonts and inches of their own.
    pub fixed: bool,
    /// With letters in them, on their ground.
    pub lettered: bool,
}
