//! `vitx explain`: the main job.

use super::args::{InputArgs, ModelArgs, ReportArgs};
use super::job::{self, Job};
use super::offered;
use super::outputs::{target_part, Format, Out, Request};
use super::plan::{Asked, OutputArgs, Plan};
use super::prepare::{batch_of, by_size, Preparer, Ready};
use super::record::{Done, Record};
use super::report::{interrupted, Reporter};
use super::resume::{identity, Ledger};
use super::sources::Source;
use super::style::StyleArgs;
use anyhow::Result;
use clap::Parser;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vitx::explanation::Explanation;
use vitx::input::image::View;
use vitx::method::{Batch, Configured, Noise};
use vitx::model::Model;
use vitx::render::scale::{Range, Scale};
use vitx::render::{save, Scene, Style};
use vitx::target::{Output, Target};

/// Explain what a classifier saw: heatmaps over images, coloured tokens for texts
#[derive(Parser, Debug)]
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
    let model = Job::load(job.checkpoint, &args.model, &job.device, args.report)?;
    let inputs = job.sources.list.len();
    let ledger = plan.ledger(job.sources.from_folder, args.output.out.is_some())?;
    let mut work = Work {
        preparer: Preparer::new(&model.checkpoint.processor, args.input.shape.size, args.input.shape.fit),
        report: Reporter::new(args.report, inputs).resumable(),
        args: &args,
        plan: &plan,
        model: &model,
        ledger,
        waiting: Vec::new(),
    };
    job::tell_patience(&work.report, &model.checkpoint, &plan.methods, args.input.shape.size);
    work.report.detail(&format!("model {} on {:?}, {} inputs", model.checkpoint.id, job.device.location(), inputs));
    for chunk in job.sources.list.chunks(usize::from(args.input.batch_size)) {
        work.chunk(chunk)?;
        if interrupted() || (args.input.fail_fast && work.report.failures() > 0) {
            break;
        }
    }
    work.draw_waiting()?;
    Ok(work.report.finish(inputs))
}

/// One explanation with all that drawing and reporting it takes.
struct Item<'a> {
    source: &'a Source,
    request: &'a Request,
    method: &'a Configured,
    explanation: Explanation,
    logits: Vec<f32>,
    ms: f64,
}

/// The run itself.
struct Work<'a> {
    args: &'a Args,
    plan: &'a Plan,
    model: &'a Model,
    preparer: Preparer<'a>,
    report: Reporter,
    ledger: Option<Ledger>,
    /// Explanations that wait for the scale of the whole run.
    waiting: Vec<Item<'a>>,
}

impl<'a> Work<'a> {
    /// Explains some inputs together.
    fn chunk(&mut self, sources: &'a [Source]) -> Result<()> {
        let mut ready: Vec<(&'a Source, Ready)> = Vec::new();
        for source in sources {
            if self.plan.resume && self.is_done(source) {
                self.report.detail(&format!("{}: done before", source.name));
                self.report.record(&Record::Skipped { input: source.name.clone() })?;
                continue;
            }
            match self.preparer.prepare(source) {
                Ok(r) => {
                    self.report.truncation(&source.name, r.truncated());
                    ready.push((source, r));
                }
                Err(e) => self.report.failed(&source.name, &e.to_string())?,
            }
            if self.report.failures() > 0 && self.args.input.fail_fast {
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
    fn batch(&mut self, ready: Vec<(&'a Source, Ready)>) -> Result<()> {
        let (sources, ready): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
        match self.explain(&sources, &ready) {
            Err(vitx::Error::Interrupted) => Ok(()), // the run ends; nothing of this input was written
            Ok((items, nothing)) => {
                nothing.iter().try_for_each(|record| self.tell_nothing(record))?;
                self.deliver(items, &sources, &ready)
            }
            Err(e) if sources.len() == 1 => self.report.failed(&sources[0].name, &e.to_string()),
            Err(_) => sources.into_iter().zip(ready).try_for_each(|one| self.batch(vec![one])),
        }
    }

    /// All methods and targets of a batch: one forward pass, and one reverse pass a target. Beside the explanations the inputs
    /// of which a target means no output.
    fn explain(&self, sources: &[&'a Source], ready: &[Ready]) -> vitx::Result<(Vec<Item<'a>>, Vec<Record>)> {
        let start = Instant::now();
        let (inputs, layouts) = batch_of(self.model, ready)?;
        let row = |layout| self.plan.row.as_ref().map(|r| r.token(layout)).transpose();
        let rows = layouts.iter().map(row).collect::<vitx::Result<Vec<_>>>()?;
        let batch = Batch::new(&self.model.encoder, inputs, layouts)?
            .watched(self.report.watch())
            .with_noise(Noise::seeded(self.plan.seed));
        let logits = batch.logits()?;
        let mut shared_ms = start.elapsed().as_secs_f64() * 1e3 / sources.len() as f64;
        let (mut items, mut nothing) = (Vec::new(), Vec::new());
        for (number, request) in self.plan.requests.iter().enumerate() {
            let mut outputs: Vec<Vec<Output>> = logits.iter().map(|l| request.resolve(l)).collect();
            for (row, own) in outputs.iter_mut().enumerate() {
                if own.is_empty() {
                    nothing.push(self.nothing(sources[row], request, &logits[row]));
                }
                own.retain(|output| !self.asked_before(number, *output, &logits[row]));
            }
            for slot in 0..outputs.iter().map(Vec::len).max().unwrap_or(0) {
                // An input with fewer outputs goes along with some class, and is not asked about.
                let of = |own: &Vec<Output>| own.get(slot).copied().unwrap_or(Output::of(0));
                let pass = batch.pass(outputs.iter().map(of).collect())?.with_rows(rows.clone())?;
                for method in &self.plan.methods {
                    for (row, source) in sources.iter().enumerate().filter(|(row, _)| outputs[*row].len() > slot) {
                        let start = Instant::now();
                        let explanation = method.explain(&pass.run(row))?;
                        let ms = start.elapsed().as_secs_f64() * 1e3 + std::mem::take(&mut shared_ms);
                        items.push(Item { source, request, method, explanation, logits: logits[row].clone(), ms });
                    }
                }
            }
        }
        Ok((items, nothing))
    }

    /// Whether an earlier target means this output too, and its files.
    fn asked_before(&self, number: usize, output: Output, logits: &[f32]) -> bool {
        let part = |request| target_part(request, output, &self.model.checkpoint.labels);
        let own = part(&self.plan.requests[number]);
        let mut before = self.plan.requests[..number].iter();
        before.any(|r| r.resolve(logits).contains(&output) && part(r) == own)
    }

    /// The record of an input of which a target means no output.
    fn nothing(&self, source: &Source, request: &Request, logits: &[f32]) -> Record {
        let best = Target::Predicted.resolve(logits).first().map(|output| {
            let label = output.label(&self.model.checkpoint.labels);
            format!("the likeliest is {label} {}", output.said(logits, self.model.checkpoint.scale))
        });
        let above = request.text.rsplit("above:").next().unwrap_or_default();
        let note = format!("nothing is above {above}; {}", best.unwrap_or_default());
        Record::Nothing { input: source.name.clone(), target: request.text.clone(), note }
    }

    fn tell_nothing(&self, record: &Record) -> Result<()> {
        if let Record::Nothing { input, note, .. } = record {
            self.report.note(&format!("note: {input}: {note}"));
        }
        self.report.record(record)
    }

    /// Draws and reports, or sets aside when the scale needs the whole run.
    fn deliver(&mut self, items: Vec<Item<'a>>, sources: &[&'a Source], ready: &[Ready]) -> Result<()> {
        if self.plan.style.scale == Scale::Shared {
            self.waiting.extend(items);
            return Ok(());
        }
        for (source, ready) in sources.iter().zip(ready) {
            let own: Vec<&Item<'a>> = items.iter().filter(|i| std::ptr::eq(i.source, *source)).collect();
            self.draw_all(&own, ready, &BTreeMap::new())?;
        }
        Ok(())
    }

    /// Draws what waited for the scale of the whole run: one range a method.
    fn draw_waiting(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut ranges: BTreeMap<&str, Range> = BTreeMap::new();
        for item in &waiting {
            let range = Scale::Shared.range(&item.explanation);
            ranges.entry(&item.method.spec).and_modify(|r| *r = r.union(range)).or_insert(range);
        }
        for own in waiting.chunk_by(|a, b| std::ptr::eq(a.source, b.source)) {
            match self.preparer.prepare(own[0].source) {
                Ok(ready) => self.draw_all(&own.iter().collect::<Vec<_>>(), &ready, &ranges)?,
                Err(e) => self.report.failed(&own[0].source.name, &e.to_string())?,
            }
        }
        Ok(())
    }

    /// Draws all explanations of one input; the first failure is the input's.
    fn draw_all(&mut self, items: &[&Item<'a>], ready: &Ready, ranges: &BTreeMap<&str, Range>) -> Result<()> {
        for item in items {
            if let Err(e) = self.draw(item, ready, ranges.get(item.method.spec.as_str()).copied())? {
                return self.report.failed(&item.source.name, &e.to_string());
            }
        }
        for request in &self.plan.requests {
            for method in &self.plan.methods {
                let own = items.iter().filter(|i| std::ptr::eq(i.request, request) && std::ptr::eq(i.method, method));
                let files: Vec<PathBuf> = own.flat_map(|i| self.paths(i)).collect();
                if let Some(ledger) = self.ledger.as_mut().filter(|_| !files.is_empty()) {
                    ledger.add(&key(self.model, self.plan, self.args, items[0].source, request, method), &files)?;
                }
            }
        }
        Ok(())
    }

    /// Writes one explanation in every format. The outer error ends the run, the inner one is the input's.
    fn draw(&self, item: &Item<'a>, ready: &Ready, shared: Option<Range>) -> Result<vitx::Result<()>> {
        let start = Instant::now();
        let mut done = Done::new(&item.source.name, self.model, &item.logits, &item.explanation, self.plan.seed);
        if done.checks.contains_key("constant") {
            self.report.note(&format!(
                "warning: {}: the {} map is constant ({}): it says nothing",
                item.source.name, item.method.spec, done.relevance.max
            ));
        }
        if let Some(warning) = done.checks.get("warning").and_then(Value::as_str) {
            self.report.note(&format!("warning: {}: {}: {warning}", item.source.name, item.method.spec));
        }
        let output = item.explanation.output;
        let said = output.said(&item.logits, self.model.checkpoint.scale);
        let headline = format!("{} {said} ({}, {})", done.target.label, output.which(), item.method.spec);
        let scene = scene(ready, &headline, shared, &self.plan.style);
        let paths: Vec<(Format, PathBuf)> = self.plan.file_formats(item.method).zip(self.paths(item)).collect();
        for (format, path) in &paths {
            done.outputs.insert(format.name().into(), Value::from(path.display().to_string()));
        }
        done.ms = ((item.ms + start.elapsed().as_secs_f64() * 1e3) * 10.0).round() / 10.0;
        let record = Record::Ok(Box::new(done));
        for (format, path) in &paths {
            let bytes = match format {
                Format::Drawn(renderer) => match (renderer.render)(&scene, &item.explanation) {
                    Ok(bytes) => bytes,
                    Err(e) => return Ok(Err(e)),
                },
                Format::Json => [serde_json::to_vec_pretty(&record)?, b"\n".to_vec()].concat(),
            };
            if self.plan.out == Out::Stdout {
                self.report.stdout(&bytes)?;
            } else if let Err(e) = save::save(path, &bytes, self.plan.replace) {
                return Ok(Err(e));
            }
        }
        self.tell(item, &record, &headline, &scene, &paths)?;
        Ok(Ok(()))
    }

    /// The result on stdout: a record, or a line and, for texts, the tokens.
    fn tell(
        &self,
        item: &Item<'a>,
        record: &Record,
        headline: &str,
        scene: &Scene<'_>,
        paths: &[(Format, PathBuf)],
    ) -> Result<()> {
        if self.plan.out == Out::Stdout {
            self.report.detail(&format!("{}: {headline}", item.source.name));
            return Ok(());
        }
        self.report.record(record)?;
        if self.plan.to_stdout {
            self.report.line(headline)?;
            let renderer = vitx::render::find("ansi")?;
            let tokens = (renderer.render)(scene, &item.explanation)?;
            return self.report.line(String::from_utf8_lossy(&tokens).trim_end_matches('\n'));
        }
        let files: Vec<_> = paths.iter().map(|(_, p)| p.display().to_string()).collect();
        self.report.line(&format!("{}: {headline} -> {}", item.source.name, files.join(" ")))
    }

    fn paths(&self, item: &Item<'a>) -> Vec<PathBuf> {
        let target = target_part(item.request, item.explanation.output, &self.model.checkpoint.labels);
        let name = self.plan.name(item.method);
        self.plan.file_formats(item.method).map(|f| self.plan.out.path(&item.source.stem, &name, &target, f)).collect()
    }

    /// Whether an earlier run has finished every method and target of this input.
    fn is_done(&self, source: &Source) -> bool {
        let Some(ledger) = &self.ledger else { return false };
        let mut keys =
            self.plan.requests.iter().flat_map(|r| {
                self.plan.methods.iter().map(move |m| key(self.model, self.plan, self.args, source, r, m))
            });
        keys.all(|k| ledger.has(&k))
    }
}

fn scene<'s>(ready: &'s Ready, caption: &str, shared: Option<Range>, style: &'s Style) -> Scene<'s> {
    let (picture, view, input) = match ready {
        Ready::Picture(p) => (Some(&p.0), p.1.view, p.1.size),
        Ready::Text(_) => (None, View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 }, (0, 0)),
    };
    Scene { picture, view, input, caption: caption.to_string(), shared, style }
}

/// What must agree for `--resume` to skip an input's method and target.
fn key(model: &Model, plan: &Plan, args: &Args, source: &Source, request: &Request, method: &Configured) -> Value {
    let formats: Vec<_> = plan.file_formats(method).map(Format::name).collect();
    let style = &plan.style;
    json!({
        "input": identity(source),
        "model": [model.checkpoint.id, model.checkpoint.revision, format!("{:?}", args.model.dtype)],
        "method": plan.name(method),
        "target": request.text,
        "size": format!("{:?} {:?}", args.input.shape.size, args.input.shape.fit),
        "formats": formats,
        "style": format!("{:?} {} {:?} {:?} {}", style.colormap, style.alpha, style.upsample, style.scale, style.legend),
        "seed": plan.seed,
    })
}
