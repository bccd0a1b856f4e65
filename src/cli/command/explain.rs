//! `vitx explain`: the main job.

mod deliver;

use crate::cli::args::{InputArgs, ModelArgs, ReportArgs};
use crate::cli::job::Job;
use crate::cli::past::Past;
use crate::cli::plan::{Asked, OutputArgs, Plan};
use crate::cli::report::{interrupted, Reporter};
use crate::cli::style::StyleArgs;
use crate::cli::{examples, offered};
use anyhow::{bail, Result};
use candle_core::Device;
use clap::Parser;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use vitx::explain::{self, Answer, Answers, Nothing};
use vitx::guard::guarded;
use vitx::identity::Identity;
use vitx::input::prepare::by_size;
use vitx::input::Source;
use vitx::input::{Preparer, Ready};
use vitx::model::{Checkpoint, Model};
use vitx::render::json::Record;
use vitx::render::scale::Span;
use vitx::resume::Written;

/// Explain what a classifier saw: heatmaps over images, coloured tokens for texts
#[derive(Parser, Debug)]
#[command(after_help = examples::EXPLAIN)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// NAME[:key=value,...], several separated by commas, or `all` (see `vitx methods`)
    #[arg(long, default_value = vitx::method::DEFAULT, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// predicted, a label, a class number (id:N always), top:K, above:P (every class of such a probability), A-B (why A rather
    /// than B), or -LABEL (what lowers it); repeatable or separated by commas
    #[arg(short, long, default_value = "predicted", value_name = "TARGET", value_parser = offered::TARGETS, hide_possible_values = true, allow_hyphen_values = true)]
    target: Vec<String>,
    /// Explain another output token than the class token: a patch as row,column, a word piece, or a token's number
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    row: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    style: StyleArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let style = args.style.style(args.output.legend)?;
    let job = Job::resolve(&args.model, &args.input, args.report, args.output.out.as_deref())?;
    let asked = Asked { method: &args.method, target: &args.target, row: args.row.as_deref(), output: &args.output };
    let plan = Plan::resolve(&asked, style, args.report.json, &job.checkpoint, &job.sources)?;
    args.style.refuse_idle(plan.drawn())?;
    if plan.style.scale == Span::Shared && args.input.shard.is_some() {
        bail!("--normalize shared with --shard: each part of the run would have a scale of its own; run it whole, or pass --normalize max");
    }
    let stated = args.report.json || plan.formats.iter().any(|f| f.name == "json");
    let common = || common(&args, &plan, &job.checkpoint, &job.device);
    let mut past = Past::look(&plan, &job.checkpoint, &job.sources, stated, common)?;
    let inputs = job.sources.list.len();
    let report = Reporter::new(args.report, inputs).resumable();
    if past.made.all() {
        for (number, source) in job.sources.list.iter().enumerate() {
            tell_done(&report, &plan, &past, &job.checkpoint.id, number, source)?;
        }
        report.note("up to date: every output is there already (--overwrite makes them anew)");
        return Ok(report.finish(inputs));
    }
    let model = Job::load(job.checkpoint, &args.model, &job.device, args.report)?;
    past.made.begin()?;
    let mut work = Work {
        preparer: Preparer::new(&model.checkpoint.processor, args.input.shape.shape()),
        report,
        args: &args,
        plan: &plan,
        model: &model,
        past,
        waiting: Vec::new(),
        written: HashMap::new(),
    };
    work.report.patience(&model.checkpoint, &plan.methods, args.input.shape.shape());
    work.report.detail(&format!("model {} on {:?}, {} inputs", model.checkpoint.id, job.device.location(), inputs));
    let all: Vec<(usize, &Source)> = job.sources.list.iter().enumerate().collect();
    for chunk in all.chunks(usize::from(args.input.batch_size)) {
        work.chunk(chunk)?;
        if work.stopped() {
            break;
        }
    }
    work.draw_waiting()?;
    let done = (0..inputs).filter(|n| work.past.made.done(*n)).count();
    if done > 0 {
        work.report.note(&format!("up to date: the outputs of {done} of {inputs} inputs were there already"));
    }
    Ok(work.report.finish(inputs))
}

/// What every output of the run depends on.
fn common(args: &Args, plan: &Plan, checkpoint: &Checkpoint, device: &Device) -> vitx::Result<Identity> {
    let common = checkpoint.stated("explain", (args.model.dtype.dtype(), device), args.input.shape.shape())?;
    let style = if plan.drawn().colour { plan.style.stated() } else { Default::default() };
    Ok(Identity { style, row: args.row.clone(), seed: plan.seed, ..common })
}

/// The records of what stands of an input.
fn tell_done(report: &Reporter, plan: &Plan, past: &Past, model: &str, number: usize, source: &Source) -> Result<()> {
    let status = if plan.resume { "skipped" } else { "unchanged" };
    report.detail(&format!("{}: {status}", source.name));
    past.made.records(number, &source.name, model, status).iter().try_for_each(|record| report.json_line(record))
}

/// An input on its way through the model.
#[derive(Clone)]
struct Going<'a> {
    number: usize,
    source: &'a Source,
    /// What was in it before it was read.
    contents: Option<String>,
}

/// One explanation, and of which input.
struct Item<'a> {
    going: Going<'a>,
    answer: Answer,
}

/// The run itself.
struct Work<'a> {
    args: &'a Args,
    plan: &'a Plan,
    model: &'a Model,
    preparer: Preparer<'a>,
    report: Reporter,
    past: Past,
    /// Explanations that wait for the scale of the whole run.
    waiting: Vec<Item<'a>>,
    /// What this run has written.
    written: HashMap<PathBuf, Option<Written>>,
}

impl<'a> Work<'a> {
    /// Whether no further input is to be begun.
    fn stopped(&self) -> bool {
        interrupted() || (self.args.input.fail_fast && self.report.failures() > 0)
    }

    /// Explains some inputs together.
    fn chunk(&mut self, sources: &[(usize, &'a Source)]) -> Result<()> {
        let mut ready: Vec<(Going<'a>, Ready)> = Vec::new();
        for &(number, source) in sources {
            tell_done(&self.report, self.plan, &self.past, &self.model.checkpoint.id, number, source)?;
            if self.past.made.done(number) {
                continue;
            }
            let contents = if self.past.states() { source.contents() } else { None };
            let going = Going { number, source, contents };
            ready.extend(self.report.prepared(source, &mut self.preparer)?.map(|r| (going, r)));
            if self.stopped() {
                return Ok(());
            }
        }
        for same in by_size(ready) {
            self.batch(same)?;
        }
        self.report.advance(sources.len());
        Ok(())
    }

    /// Explains inputs of one size; should that fail, each alone, so that one input cannot spoil the others.
    fn batch(&mut self, ready: Vec<(Going<'a>, Ready)>) -> Result<()> {
        if self.stopped() {
            return Ok(());
        }
        let (going, ready): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
        match (guarded(|| self.explain(&going, &ready)), &going[..]) {
            (Err(vitx::Error::Interrupted), _) => Ok(()), // the run ends; nothing of this input was written
            (Ok(Answers { made, nothing }), _) => {
                nothing.into_iter().try_for_each(|n| match going.get(n.place) {
                    Some(one) => self.tell_nothing(one, n),
                    None => Ok(()),
                })?;
                let item = |answer: Answer| Some(Item { going: going.get(answer.place)?.clone(), answer });
                self.deliver(made.into_iter().filter_map(item).collect(), &going, &ready)
            }
            (Err(e), [one]) => self.report.failed(&one.source.name, &e.to_string()),
            (Err(_), _) => going.into_iter().zip(ready).try_for_each(|one| self.batch(vec![one])),
        }
    }

    /// All methods and targets of a batch, but what stands.
    fn explain(&self, going: &[Going<'a>], ready: &[Ready]) -> vitx::Result<Answers> {
        let Plan { methods, requests, seed, .. } = self.plan;
        let asked = explain::Asked {
            model: self.model,
            methods,
            requests,
            row: self.plan.row.as_ref(),
            seed: *seed,
            memory: self.args.model.memory(),
        };
        let wanted = |place: usize, request: usize, method: usize| {
            going.get(place).is_some_and(|one| !self.past.stands(one.number, request, method))
        };
        asked.explain(ready, self.report.watch(), &wanted)
    }

    fn tell_nothing(&mut self, going: &Going<'a>, nothing: Nothing) -> Result<()> {
        let Some(request) = self.plan.requests.get(nothing.request) else { return Ok(()) };
        let (input, target) = (going.source.name.clone(), request.text.clone());
        self.report.note(&format!("note: {input}: {}", nothing.note));
        let record = Record::Nothing { input, target, note: nothing.note };
        for (contents, method) in going.contents.iter().flat_map(|c| self.plan.methods.iter().map(move |m| (c, m))) {
            if let Some(asked) = self.past.identity(self.plan, going.source, contents, request, method) {
                self.past.add(&asked, Vec::new(), vec![record.value()?]);
            }
        }
        self.report.record(&record)
    }
}
