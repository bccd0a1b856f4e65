//! `vitx explain`: the main job.

mod deliver;

use crate::cli::args::{InputArgs, ModelArgs, OutputArgs, ReportArgs, ShapeArgs};
use crate::cli::job::Job;
use crate::cli::report::{interrupted, Reporter};
use crate::cli::style::StyleArgs;
use crate::cli::{examples, offered};
use anyhow::{bail, Result};
use candle_core::Device;
use clap::Parser;
use std::process::ExitCode;
use vitx::explain::desk::{Desk, Going, Item};
use vitx::explain::maps::Maps;
use vitx::explain::pages::Index;
use vitx::explain::past::Past;
use vitx::explain::places::{Files, Places};
use vitx::explain::plan::{Choices, Plan};
use vitx::explain::rows::Rows;
use vitx::explain::{likeness::turned, Asked as Question};
use vitx::identity::Identity;
use vitx::input::Source;
use vitx::model::{Checkpoint, Model};
use vitx::render::Style;
use vitx::target::texts;

/// Explain what a classifier saw: heatmaps over images, coloured tokens for texts
#[derive(Parser, Debug)]
#[command(after_help = examples::EXPLAIN)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// NAME[:key=value,...], several separated by commas, a|b for each of two values, or `all` (see
    /// `vitx methods`; default: gae, of texts attn-lrp, of Swin gradcam)
    #[arg(long, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// predicted, a label, a class number (id:N always), top:K, above:P (every class of such a probability), A-B (why A rather
    /// than B), -LABEL (what lowers it), or text:TEXT for models that compare; repeatable or separated by commas
    #[arg(short, long, default_value = "predicted", value_name = "TARGET", value_parser = offered::TARGETS, hide_possible_values = true, allow_hyphen_values = true)]
    target: Vec<String>,
    /// What is explained where pictures are compared with texts: the picture, or the words of each text that is named
    #[arg(long, default_value = "picture", value_name = "WHAT", value_parser = ["picture", "text"])]
    explain: String,
    /// With similarity:REF or dot:REF: explain each REF too, for its likeness to the inputs
    #[arg(long)]
    both: bool,
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
pub fn run(mut args: Args) -> Result<ExitCode> {
    let late = args.output.table.as_ref().is_some_and(|table| Rows::late(table));
    if args.both && (late || args.output.arrays.is_some()) {
        bail!("--both makes two runs: pass a .csv or .jsonl file to --table, and leave --arrays out");
    }
    let (code, inputs) = explained(&mut args, false)?;
    if !args.both || interrupted() {
        return Ok(code);
    }
    (args.input.inputs, args.input.text, args.target) = turned(&args.target, &inputs)?;
    let (other, _) = explained(&mut args, true)?;
    Ok(if code == ExitCode::SUCCESS { other } else { code })
}

/// How it went, and what the inputs are called; `further`: the run goes on from another.
fn explained(args: &mut Args, further: bool) -> Result<(ExitCode, Vec<String>)> {
    if args.both {
        turned(&args.target, &[])?;
    }
    args.model.classes.targets = texts(&args.target);
    let style = Style { panel: args.output.panel, ..args.style.style(args.output.legend)? };
    let job = Job::resolve(&args.model, &args.input, args.report, args.output.out.as_deref())?;
    let (words, pictures, shape) = (args.explain == "text", job.sources.list.len(), args.input.shape());
    let job = job.asked(&args.target, words, &args.model, shape)?;
    if words {
        args.target = (0..pictures).map(|picture| format!("id:{picture}")).collect();
        args.input.shape = ShapeArgs::default();
    }
    let (method, target, row, output) = (&args.method[..], &args.target[..], args.row.as_deref(), &args.output);
    let OutputArgs { out, format, legend: _, panel: _, table, arrays, seed, resume, overwrite } = output;
    let (out, table, arrays, json) = (out.as_deref(), table.as_deref(), arrays.as_deref(), args.report.json);
    let (seed, part, resume, overwrite) = (*seed, args.input.shard, *resume, *overwrite);
    let asked = Choices { method, target, row, out, format, table, arrays, seed, part, resume, overwrite, json };
    let sources = (&job.sources.list[..], job.sources.from_folder);
    let plan = Plan::resolve(&asked, style, &job.checkpoint, sources)?;
    args.style.refuse_idle(plan.drawn())?;
    let stated = args.report.json || plan.formats.iter().any(|f| f.name == "json");
    let common = || common(args, &plan, &job.checkpoint, &job.device);
    let mut past = Past::look(&plan, &job.checkpoint, &job.sources.list, stated, common)?;
    Past::sweep(&plan, &job.sources.list);
    let (inputs, names) = (job.sources.list.len(), job.sources.list.iter().map(|s| s.name.clone()).collect());
    let report = Reporter::new(args.report, inputs).resumable();
    if let Some(folder) = plan.ledger_folder().filter(|_| plan.indexed) {
        Index::check(folder)?;
    }
    let maps = arrays.map(|file| Maps::begin(file, plan.replace)).transpose()?;
    let table = args.output.table.clone();
    if past.made.all() && !plan.again {
        return Ok((tell_standing(report.tabled(table.as_deref(), further)?, &plan, &past, &job)?, names));
    }
    let model = Job::load(job.checkpoint, &args.model, &job.device, args.report)?;
    if past.made.begin()? {
        report.note("note: another run of vitx writes into this folder too; each keeps what it makes, but what both make is made twice");
    }
    let report = report.tabled(table.as_deref(), further)?;
    report.patience(&model.checkpoint, &plan.methods, args.input.shape());
    report.detail(&format!("model {} on {:?}, {} inputs", model.checkpoint.id, job.device.location(), inputs));
    let Plan { methods, requests, seed, row, style, .. } = &plan;
    let (row, memory) = (row.as_ref(), args.model.memory());
    let question = Question { model: &model, methods, requests, row, seed: *seed, memory, links: plan.links() };
    let (stated, together) = (past.stated.clone(), usize::from(args.input.batch_size));
    let front = Places { plan: &plan, stated: &stated, labels: &model.checkpoint.labels, gathers: arrays.is_some() };
    let desk = Desk::new(question, (args.input.shape(), together), style, &front);
    let steps = report.watch();
    let watch = |done: usize, total: usize| steps(done, total);
    let goings = job.sources.list.iter().enumerate().map(|(number, source)| Going {
        number,
        source,
        left: plan.left(past.left(number)),
        contents: None,
    });
    let goings: Vec<_> = goings.collect();
    let (args, plan, model, desk) = (&*args, &plan, &model, &desk);
    let mut work = Work {
        args,
        plan,
        model,
        desk,
        report,
        past,
        waiting: Vec::new(),
        files: Files::default(),
        full: false,
        index: Index::default(),
        maps,
    };
    desk.work((&goings, together), &watch, |came| work.chunk(came))?;
    work.draw_waiting()?;
    work.write_index()?;
    if work.full {
        work.report.note("the run ends there; what was finished is complete (continue with --resume)");
    }
    let done = (0..inputs).filter(|n| work.past.made.done(*n)).count();
    if done > 0 && !work.plan.again {
        work.report.note(&format!("up to date: the outputs of {done} of {inputs} inputs were there already"));
    }
    Ok((work.report.finish(inputs), names))
}

/// A run of which everything is there already.
fn tell_standing(report: Reporter, plan: &Plan, past: &Past, job: &Job) -> Result<ExitCode> {
    let (mut index, model) = (Index::default(), &job.checkpoint.id);
    for (number, source) in job.sources.list.iter().enumerate() {
        tell_done(&report, plan, past, model, number, source)?;
        let standing = past.made.records(number, &source.name, model)?;
        index.note(number, &standing, plan, &source.stem);
    }
    index.finish(plan, model)?;
    report.note("up to date: every output is there already (--overwrite makes them anew)");
    Ok(report.finish(job.sources.list.len()))
}

/// What every output of the run depends on.
fn common(args: &Args, plan: &Plan, checkpoint: &Checkpoint, device: &Device) -> vitx::Result<Identity> {
    let common = checkpoint.stated("explain", (args.model.dtype, device), args.input.shape())?;
    let style = if plan.drawn().colour { plan.style.stated() } else { Default::default() };
    Ok(Identity { style, row: args.row.clone(), seed: plan.seed, ..common })
}

/// The records of what stands of an input.
fn tell_done(report: &Reporter, plan: &Plan, past: &Past, model: &str, number: usize, source: &Source) -> Result<()> {
    let status = if plan.resume { "skipped" } else { "unchanged" };
    report.detail(&format!("{}: {status}", source.name));
    past.made.records(number, &source.name, model)?.into_iter().try_for_each(|record| report.standing(record, status))
}

/// What is written and said of a run, in the order of the inputs.
struct Work<'a> {
    args: &'a Args,
    plan: &'a Plan,
    model: &'a Model,
    desk: &'a Desk<'a>,
    report: Reporter,
    past: Past,
    /// Explanations that wait for the scale of the whole run.
    waiting: Vec<Item<'a>>,
    /// What this run has written.
    files: Files,
    /// Whether nothing more can be written there.
    full: bool,
    /// Of the pages.
    index: Index,
    /// Of all pictures.
    maps: Option<Maps>,
}
