//! `vitx explain`: the main job.

use super::args::{InputArgs, ModelArgs, ReportArgs};
use super::guard::guarded;
use super::job::{self, Job};
use super::outputs::{target_part, Request};
use super::past::{self, Past};
use super::plan::{Asked, OutputArgs, Plan};
use super::prepare::{batch_of, by_size, Preparer, Ready};
use super::record::Record;
use super::report::{interrupted, Reporter};
use super::resume::Written;
use super::sources::Source;
use super::style::StyleArgs;
use super::{devices, examples, offered};
use anyhow::{bail, Result};
use candle_core::Device;
use clap::Parser;
use serde_json::{json, Value};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vitx::explanation::Explanation;
use vitx::model::Model;
use vitx::render::scale::Scale;
use vitx::run::{Batch, Noise};
use vitx::target::Output;

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
    if plan.style.scale == Scale::Shared && args.input.shard.is_some() {
        bail!("--normalize shared with --shard: each part of the run would have a scale of its own; run it whole, or pass --normalize max");
    }
    let mut past = Past::look(&plan, &job.checkpoint, &job.sources, settings(&args, &job.device))?;
    let inputs = job.sources.list.len();
    let report = Reporter::new(args.report, inputs).resumable();
    if past.all() {
        for (number, source) in job.sources.list.iter().enumerate() {
            tell_done(&report, &plan, &past, &job.checkpoint.id, number, source)?;
        }
        report.note("up to date: every output is there already (--overwrite makes them anew)");
        return Ok(report.finish(inputs));
    }
    let model = Job::load(job.checkpoint, &args.model, &job.device, args.report)?;
    past.begin()?;
    let mut work = Work {
        preparer: Preparer::shaped(&model.checkpoint.processor, args.input.shape),
        report,
        args: &args,
        plan: &plan,
        model: &model,
        past,
        waiting: Vec::new(),
        written: HashMap::new(),
    };
    job::tell_patience(&work.report, &model.checkpoint, &plan.methods, args.input.shape.size);
    work.report.detail(&format!("model {} on {:?}, {} inputs", model.checkpoint.id, job.device.location(), inputs));
    let all: Vec<(usize, &Source)> = job.sources.list.iter().enumerate().collect();
    for chunk in all.chunks(usize::from(args.input.batch_size)) {
        work.chunk(chunk)?;
        if work.stopped() {
            break;
        }
    }
    work.draw_waiting()?;
    let done = (0..inputs).filter(|n| work.past.done(*n)).count();
    if done > 0 {
        work.report.note(&format!("up to date: the outputs of {done} of {inputs} inputs were there already"));
    }
    Ok(work.report.finish(inputs))
}

/// What an output depends on beside contents, method and target.
fn settings(args: &Args, device: &Device) -> Value {
    let shape = args.input.shape.told();
    json!({
        "size": shape["size"], "fit": shape["fit"], "window": shape["window"], "style": args.style.told(args.output.legend), "row": args.row,
        "seed": args.output.seed, "dtype": devices::name(args.model.dtype), "device": devices::class(device),
    })
}

/// The records of what stands of an input.
fn tell_done(report: &Reporter, plan: &Plan, past: &Past, model: &str, number: usize, source: &Source) -> Result<()> {
    let status = if plan.resume { "skipped" } else { "unchanged" };
    report.detail(&format!("{}: {status}", source.name));
    past.records(number, &source.name, model, status).iter().try_for_each(|record| report.json_line(record))
}

/// An input on its way through the model.
#[derive(Clone)]
pub(super) struct Going<'a> {
    pub(super) number: usize,
    pub(super) source: &'a Source,
    /// What was in it before it was read.
    pub(super) contents: Option<String>,
}

/// One explanation with all that drawing and reporting it takes.
pub(super) struct Item<'a> {
    pub(super) going: Going<'a>,
    pub(super) request: usize,
    pub(super) method: usize,
    pub(super) explanation: Explanation,
    pub(super) logits: Vec<f32>,
    pub(super) ms: f64,
    /// An earlier target means this output too, and its files.
    pub(super) again: bool,
}

/// Explanations, and of which inputs and targets there is nothing to explain.
type Explained<'a> = (Vec<Item<'a>>, Vec<(usize, usize, Record)>);

/// The run itself.
pub(super) struct Work<'a> {
    pub(super) args: &'a Args,
    pub(super) plan: &'a Plan,
    pub(super) model: &'a Model,
    pub(super) preparer: Preparer<'a>,
    pub(super) report: Reporter,
    pub(super) past: Past,
    /// Explanations that wait for the scale of the whole run.
    pub(super) waiting: Vec<Item<'a>>,
    /// What this run has written.
    pub(super) written: HashMap<PathBuf, Option<Written>>,
}

impl<'a> Work<'a> {
    /// Whether no further input is to be begun.
    pub(super) fn stopped(&self) -> bool {
        interrupted() || (self.args.input.fail_fast && self.report.failures() > 0)
    }

    /// Explains some inputs together.
    fn chunk(&mut self, sources: &[(usize, &'a Source)]) -> Result<()> {
        let mut ready: Vec<(Going<'a>, Ready)> = Vec::new();
        for &(number, source) in sources {
            tell_done(&self.report, self.plan, &self.past, &self.model.checkpoint.id, number, source)?;
            if self.past.done(number) {
                continue;
            }
            let contents = if self.past.notes() { past::contents(source) } else { None };
            match self.preparer.prepare(source) {
                Ok(r) => {
                    self.report.truncation(&source.name, r.truncated());
                    self.report.remarks(&source.name, r.remarks());
                    ready.push((Going { number, source, contents }, r));
                }
                Err(e) => self.report.failed(&source.name, &e.to_string())?,
            }
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
        match guarded(|| self.explain(&going, &ready)) {
            Err(vitx::Error::Interrupted) => Ok(()), // the run ends; nothing of this input was written
            Ok((items, nothing)) => {
                nothing
                    .into_iter()
                    .try_for_each(|(row, request, record)| self.tell_nothing(&going[row], request, &record))?;
                self.deliver(items, &going, &ready)
            }
            Err(e) if going.len() == 1 => self.report.failed(&going[0].source.name, &e.to_string()),
            Err(_) => going.into_iter().zip(ready).try_for_each(|one| self.batch(vec![one])),
        }
    }

    /// All methods and targets of a batch: one forward pass, and one reverse pass a target. Beside the explanations the inputs
    /// of which a target means no output.
    fn explain(&self, going: &[Going<'a>], ready: &[Ready]) -> vitx::Result<Explained<'a>> {
        let start = Instant::now();
        let (inputs, layouts) = batch_of(self.model, ready)?;
        let row = |layout| self.plan.row.as_ref().map(|r| r.token(layout)).transpose();
        let rows = layouts.iter().map(row).collect::<vitx::Result<Vec<_>>>()?;
        let batch = Batch::new(&self.model.encoder, inputs, layouts)?
            .watched(self.report.watch())
            .with_noise(Noise::seeded(self.plan.seed));
        let logits = batch.logits()?;
        let mut shared_ms = start.elapsed().as_secs_f64() * 1e3 / going.len() as f64;
        let (mut items, mut nothing): Explained<'a> = (Vec::new(), Vec::new());
        for (number, request) in self.plan.requests.iter().enumerate() {
            let outputs: Vec<Vec<Output>> = logits.iter().map(|l| request.resolve(l)).collect();
            for (row, one) in going.iter().enumerate().filter(|(row, _)| outputs[*row].is_empty()) {
                if (0..self.plan.methods.len()).any(|m| !self.past.stands(one.number, number, m)) {
                    nothing.push((row, number, self.nothing(one.source, request, &logits[row])));
                }
            }
            for slot in 0..outputs.iter().map(Vec::len).max().unwrap_or(0) {
                // An input with fewer outputs goes along with some class, and is not asked about.
                let of = |own: &Vec<Output>| own.get(slot).copied().unwrap_or(Output::of(0));
                let pass = batch.pass(outputs.iter().map(of).collect())?.with_rows(rows.clone())?;
                for (m, method) in self.plan.methods.iter().enumerate() {
                    for (row, one) in going.iter().enumerate() {
                        let Some(&output) = outputs[row].get(slot) else { continue };
                        if self.past.stands(one.number, number, m) {
                            continue;
                        }
                        let start = Instant::now();
                        let before = items.iter().find(|i| self.same(i, one.number, number, m, output));
                        let explanation = match before {
                            Some(item) => item.explanation.clone(),
                            None => method.explain(&pass.run(row))?,
                        };
                        let again = before.is_some();
                        let ms = start.elapsed().as_secs_f64() * 1e3 + std::mem::take(&mut shared_ms);
                        let (going, logits) = (one.clone(), logits[row].clone());
                        items.push(Item { going, request: number, method: m, explanation, logits, ms, again });
                    }
                }
            }
        }
        Ok((items, nothing))
    }

    /// Whether an earlier target has asked an input for this output too, and for its files.
    fn same(&self, item: &Item<'a>, input: usize, request: usize, method: usize, output: Output) -> bool {
        let part = |r: usize| target_part(&self.plan.requests[r], output, &self.model.checkpoint.labels);
        item.going.number == input
            && item.method == method
            && item.explanation.output == output
            && part(item.request) == part(request)
    }

    /// The record of an input of which a target means no output.
    fn nothing(&self, source: &Source, request: &Request, logits: &[f32]) -> Record {
        let note = request.nothing(logits, &self.model.checkpoint.labels, self.model.checkpoint.scale);
        Record::Nothing { input: source.name.clone(), target: request.text.clone(), note }
    }

    fn tell_nothing(&mut self, going: &Going<'a>, request: usize, record: &Record) -> Result<()> {
        if let Record::Nothing { input, note, .. } = record {
            self.report.note(&format!("note: {input}: {note}"));
        }
        if let Some(contents) = &going.contents {
            for method in &self.plan.methods {
                let key = self.past.key(self.plan, going.source, contents, &self.plan.requests[request], method);
                self.past.add(key, Vec::new(), vec![record.value()?]);
            }
        }
        self.report.record(record)
    }
}
