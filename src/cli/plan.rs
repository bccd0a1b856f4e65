//! A resolved `explain`: methods, targets, formats and places, everything that can be checked without weights.

use super::offered;
use super::sources::Sources;
use super::style::Drawn;
use anyhow::{bail, Context, Result};
use std::path::{Path, PathBuf};
use vitx::encoder::Facts;
use vitx::explain::pages::Place;
use vitx::explain::rows::ENDINGS;
use vitx::explanation::RowRequest;
use vitx::method::Configured;
use vitx::model::{Checkpoint, Modality};
use vitx::render::names::target_part;
use vitx::render::out::{refuse_ending, Format, Out};
use vitx::render::{chosen, Draws, Style};
use vitx::target::{Request, Target};

/// Where results go, and in which formats.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// A directory, the file of the one output, or `-` for stdout
    /// (default: here; `vitx-out` when a folder is explained)
    #[arg(short, long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// overlay, heatmap, npy (and npy-pixels), json; ansi for texts; repeatable (default: overlay for images, ansi for texts)
    #[arg(short, long, value_delimiter = ',', value_name = "FORMAT", value_parser = offered::FORMATS, hide_possible_values = true)]
    pub format: Vec<String>,
    /// Draw a caption and a colour bar below the picture
    #[arg(long)]
    pub legend: bool,
    /// A table of the run, one row an input, method and target, written as it goes: a .csv or .jsonl file
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Seed of methods that draw random numbers
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Skip what an earlier run has finished from the same contents of model and input with the same settings, and make
    /// the rest anew
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Make every output anew (default: what is up to date is kept, anything else that exists is an error)
    #[arg(long)]
    pub overwrite: bool,
}

/// What was asked for.
pub struct Asked<'a> {
    pub method: &'a [String],
    pub target: &'a [String],
    pub row: Option<&'a str>,
    pub output: &'a OutputArgs,
}

/// A resolved `explain`.
pub struct Plan {
    pub methods: Vec<Configured>,
    facts: Facts,
    pub requests: Vec<Request>,
    pub formats: Vec<Format>,
    /// Each input has a page; of more than one there is an index.
    pub page: Option<Format>,
    pub indexed: bool,
    pub out: Out,
    pub style: Style,
    pub row: Option<RowRequest>,
    pub seed: u64,
    pub replace: bool,
    pub resume: bool,
    /// Text results go to stdout and not to files.
    pub to_stdout: bool,
}

impl Plan {
    /// Resolves the arguments against a model and its inputs.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn resolve(
        asked: &Asked<'_>,
        mut style: Style,
        json: bool,
        checkpoint: &Checkpoint,
        sources: &Sources,
    ) -> Result<Self> {
        let (text, facts) = (checkpoint.modality() == Modality::Text, checkpoint.facts());
        let methods = vitx::explain::methods(asked.method, checkpoint)?;
        let requests = vitx::explain::requests(asked.target, checkpoint);
        let requests = requests.with_context(|| format!("model `{}`", checkpoint.id))?;
        let formats = chosen(&asked.output.format, text)?;
        let drawn = formats.iter().find(|f| f.draws > Draws::Numbers);
        if let (Some(m), Some(f)) = (methods.iter().find(|m| m.matrix()), drawn) {
            bail!("method `{}` gives a matrix [T,T], which `{}` cannot draw; pass --format npy", m.spec, f.name);
        }
        let row = asked.row.map(|r| RowRequest::parse(r, text)).transpose()?;
        if let (Some(m), true) = (methods.iter().find(|m| m.method.rows().is_none()), row.is_some()) {
            return Err(m.no_rows().into());
        }
        let targets: usize = requests.iter().map(|r| r.most(checkpoint.labels.len())).sum();
        let files: usize = methods
            .iter()
            .map(|m| formats.iter().filter(|f| !f.whole && f.suits(m.method.pixels(&facts))).count())
            .sum();
        let page = formats.iter().copied().find(|f| f.whole);
        let outputs = sources.list.len() * (targets * files + usize::from(page.is_some()));
        let to_stdout = text && asked.output.out.is_none() && formats.iter().any(|f| f.name == "ansi");
        let out = Out::choose(asked.output.out.as_deref(), sources.from_folder, &formats, outputs)?;
        if out == Out::Stdout && json {
            bail!("--out - and --json both write to stdout; choose one");
        }
        if !to_stdout && out != Out::Stdout {
            // A file is plain unless it is named as holding escape sequences.
            style.colour = formats.iter().any(|f| f.name == "ansi");
        }
        refuse_ending("--table", asked.output.table.as_deref(), ENDINGS)?;
        let plan = Plan {
            methods,
            facts,
            requests,
            formats,
            page,
            indexed: page.is_some() && sources.list.len() > 1,
            out,
            style,
            row,
            seed: asked.output.seed,
            replace: asked.output.overwrite || asked.output.resume,
            resume: asked.output.resume,
            to_stdout,
        };
        if asked.output.legend && !plan.drawn().heat {
            bail!("--legend would change nothing: it is drawn below pictures, and this run draws none; leave it out");
        }
        Ok(plan)
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
        suiting.filter(|f| !f.whole && !(self.to_stdout && f.name == "ansi"))
    }

    /// Where the page of an input goes.
    pub fn place(&self, stem: &Path) -> Option<Place> {
        let page = self.out.whole(stem, self.page?);
        Some(Place::new(page, self.indexed))
    }

    /// What of the style is seen.
    pub fn drawn(&self) -> Drawn {
        let most = self.formats.iter().map(|f| f.draws).max().unwrap_or(Draws::Numbers);
        let most = if self.facts.text { most.min(Draws::Tokens) } else { most };
        let text = self.facts.text && most > Draws::Numbers;
        Drawn { colour: most > Draws::Numbers, text, heat: most >= Draws::Heat, blend: most == Draws::Overlay }
    }

    /// Every output whose name does not depend on what the model says.
    pub fn known_paths(&self, checkpoint: &Checkpoint, sources: &Sources) -> Vec<Known> {
        let known = |r: &Request| !matches!(r.target, Target::Top(_) | Target::Above { .. });
        let mut paths = Vec::new();
        for (number, source) in sources.list.iter().enumerate() {
            for (r, request) in self.requests.iter().enumerate().filter(|(_, r)| known(r)) {
                let outputs = request.resolve(&vec![0.0; checkpoint.labels.len()]);
                let Some(&output) = outputs.first() else { continue };
                let target = target_part(request, output, &checkpoint.labels);
                for (m, method) in self.methods.iter().enumerate() {
                    let name = self.name(method);
                    let path = |f| (number, r, m, self.out.path(&source.stem, &name, &target, f));
                    paths.extend(self.file_formats(method).map(path));
                    paths.extend(self.place(&source.stem).map(|place| (number, r, m, place.page)));
                }
            }
        }
        paths.retain(|(_, _, _, p)| p != Path::new("-"));
        paths
    }

    /// What of an input is to be made, of what does not stand: a page holds all of it.
    pub fn left(&self, left: Vec<bool>) -> Vec<bool> {
        let all = self.page.is_some() && left.contains(&true);
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
