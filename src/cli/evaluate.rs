//! `vitx evaluate`: is the picture faithful? Methods and controls over a labelled set, as a table.

use super::args::ReportArgs;
use super::devices;
use super::guard::guarded;
use super::journal::{Journal, Judged, Run, Scored};
use super::labelled::{Checked, DataArgs, Labelled};
use super::offered;
use super::outputs::{refuse_ending, refuse_existing};
use super::prepare::Ready;
use super::report::{interrupted, Reporter};
use super::sanity;
use super::{job, voice, NOTHING_DONE};
use anyhow::Result;
use clap::Parser;
use serde_json::{json, Value};
use std::path::PathBuf;
use std::process::ExitCode;
use vitx::evaluate::judge::{judge, Waiting};
use vitx::evaluate::report::Shown;
use vitx::evaluate::{self, Candidate, Configured};
use vitx::explanation::Explanation;
use vitx::render::{scale, sheet, table, Scene, Style};
use vitx::target::right;

/// Judge methods by faithfulness and localisation over labelled data, beside random and centre controls
#[derive(Parser, Debug)]
#[command(after_help = super::examples::EVALUATE)]
pub struct Args {
    /// NAME[:key=value,...], several separated by commas, or `all`; raw attention and two controls are always added
    #[arg(long, default_value = "gae,grad-rollout,rollout,lrp,legrad,attn-lrp,gradcam", value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// Metrics, several separated by commas, or `all` (see `vitx metrics`); default: a choice that suits the data
    #[arg(long, value_name = "METRIC", value_parser = offered::METRICS, hide_possible_values = true)]
    metric: Vec<String>,
    /// Also compare maps with those of the model with random weights, and of another class, on the first N inputs
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "16")]
    sanity: Option<usize>,
    /// With --sanity: a checkpoint of the same shape trained on permuted labels, compared as well
    #[arg(long, value_name = "MODEL", requires = "sanity")]
    permuted_labels: Option<String>,
    /// Inputs whose perturbed copies go through the model together
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Continue an interrupted run with the same arguments
    #[arg(long)]
    resume: bool,
    /// Every score, a line each: input, class, method, metric, value
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// A page with figures, curves and single inputs
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The page shows the first N inputs one by one
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub report_inputs: usize,
    /// Replace existing files and, without --resume, forget what an interrupted run with the same arguments has judged
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    reporting: ReportArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    refuse_ending("--csv", args.csv.as_deref(), &["csv", "txt"])?;
    refuse_ending("--report", args.report.as_deref(), &["html", "htm"])?;
    let checked = Checked::open(&args.data, args.reporting)?;
    let metrics = evaluate::parse_list(&args.metric, &checked.facts)?;
    let (metrics, unsuited) = judging(&args.metric, metrics, &checked)?;
    let candidates = candidates(&args.method, &checked)?;
    if !args.overwrite {
        refuse_existing(args.csv.iter().chain(&args.report), "")?;
    }
    let model = checked.checkpoint().identity()?;
    let labelled = checked.load(&args.data, args.reporting)?;
    let inputs = labelled.inputs.len();
    let (arguments, identities) = (key(&args, &labelled, &candidates, &metrics), labelled.identities());
    let run = Run { arguments: &arguments, model, inputs: &identities };
    let mut journal = Journal::open(&run, args.resume, args.overwrite)?;
    let report = Reporter::new(args.reporting, inputs).resumable();
    unsuited.iter().chain(&journal.notes).for_each(|note| report.note(note));
    if !journal.done.is_empty() {
        report.note(&format!("{} of {inputs} inputs were judged before", journal.done.len()));
    }
    labelled.tell(&report)?;
    let mut noted = 0;
    let work = Work { args: &args, labelled: &labelled, candidates: &candidates, metrics: &metrics };
    // Groups are the same in a resumed run: on a GPU the last bits may differ with what goes through the model together.
    let all: Vec<usize> = (0..inputs).collect();
    for group in all.chunks(usize::from(args.batch_size)) {
        if !journal.has(group) {
            let mut judged = match work.judge(group, &report) {
                Err(vitx::Error::Interrupted) => break,
                other => other?,
            };
            judged.iter_mut().for_each(|j| j.identity.clone_from(&identities[j.input]));
            journal.add(judged)?.iter().for_each(|note| report.note(note));
        }
        for one in journal.of(group) {
            labelled.tell_notes(one.input, &one.notes, &mut noted, &report);
            for failure in &one.failures {
                report.failed(&labelled.inputs[one.input].name, failure)?;
            }
        }
        report.advance(group.len());
        if interrupted() {
            break;
        }
    }
    if interrupted() {
        return Ok(report.finish(inputs));
    }
    if journal.done.iter().all(|j| j.questions.is_empty()) {
        let all = labelled.all();
        journal.remove();
        report.finish(all);
        voice::say("error: nothing was judged: every input failed");
        return Ok(ExitCode::from(NOTHING_DONE));
    }
    let sanity = match args.sanity {
        Some(n) => Some(sanity::check(&work.sanity(n), args.permuted_labels.as_deref(), &args.data, &report)?),
        None => None,
    };
    work.tell(&journal.done, sanity.as_ref(), &report)?;
    journal.remove();
    Ok(report.finish(labelled.all()))
}

/// The metrics that the data have something for. One that is named and lacks its masks or rationales is refused; of the
/// defaults it is left out, and a note says so.
fn judging(given: &[String], metrics: Vec<Configured>, checked: &Checked) -> Result<(Vec<Configured>, Option<String>)> {
    if !given.is_empty() && given != ["all"] {
        metrics.iter().try_for_each(|m| checked.refuse_lacking(m))?;
    }
    let (metrics, without): (Vec<_>, Vec<_>) = metrics.into_iter().partition(|m| checked.lacks(m).is_none());
    let names: Vec<&str> = without.iter().map(|m| m.entry.name).collect();
    let what = without.first().and_then(|m| checked.lacks(m)).unwrap_or_default();
    let note = format!("note: without {what}, left out: {}", names.join(", "));
    Ok((metrics, (!names.is_empty()).then_some(note)))
}

/// What tells this run from others that do not give the same figures.
fn key(args: &Args, labelled: &Labelled, candidates: &[Candidate], metrics: &[Configured]) -> Value {
    let shape = args.data.shape.told();
    json!({
        "head": labelled.model.checkpoint.scale.name(),
        "model": [labelled.model.checkpoint.id, labelled.model.checkpoint.revision],
        "dtype": devices::name(args.data.model.dtype),
        "device": devices::class(labelled.model.encoder.device()),
        "data": args.data.data, "target": args.data.target.name(), "seed": args.data.seed,
        "limit": args.data.limit,
        "batch_size": args.batch_size, "shown": args.report.as_ref().map(|_| args.report_inputs),
        "size": shape["size"], "fit": shape["fit"], "window": shape["window"],
        "methods": candidates.iter().map(Candidate::name).collect::<Vec<_>>(),
        "metrics": metrics.iter().map(|m| &m.spec).collect::<Vec<_>>(), "version": env!("CARGO_PKG_VERSION"),
    })
}

/// The methods, raw attention beside them, and the controls.
fn candidates(methods: &[String], checked: &Checked) -> Result<Vec<Candidate>> {
    let mut list = job::methods(methods, checked.checkpoint())?;
    if !list.iter().any(|m| m.spec == "attention") {
        list.push(vitx::method::parse("attention")?);
    }
    if let Some(m) = list.iter().find(|m| m.matrix()) {
        anyhow::bail!("method `{}`: a whole matrix cannot be judged", m.spec);
    }
    let methods = list.into_iter().map(Candidate::Method);
    Ok(methods.chain([Candidate::Gaussian, Candidate::Random]).collect())
}

/// What is judged, by what.
pub struct Work<'a> {
    pub args: &'a Args,
    pub labelled: &'a Labelled,
    pub candidates: &'a [Candidate],
    pub metrics: &'a [Configured],
}

impl<'a> Work<'a> {
    fn sanity(&self, inputs: usize) -> sanity::Subject<'a> {
        sanity::Subject {
            labelled: self.labelled,
            candidates: self.candidates,
            metrics: self.metrics,
            inputs: inputs.min(self.labelled.inputs.len()),
        }
    }

    /// All candidates and metrics on some inputs. What fails for all of them together, a panic included, is tried again one by
    /// one: it is the error of the input it happens on.
    fn judge(&self, group: &[usize], report: &Reporter) -> vitx::Result<Vec<Judged>> {
        match (guarded(|| self.together(group, report)), group) {
            (Err(vitx::Error::Interrupted), _) => Err(vitx::Error::Interrupted),
            (Err(e), &[input]) => Ok(vec![Judged { input, failures: vec![e.to_string()], ..Judged::default() }]),
            (Err(_), _) => {
                let alone = group.iter().map(|n| self.judge(std::slice::from_ref(n), report));
                Ok(alone.collect::<vitx::Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
            (Ok(judged), _) => Ok(judged),
        }
    }

    /// One forward pass an input, shared reverse passes, and the perturbed inputs of all of them together.
    fn together(&self, group: &[usize], report: &Reporter) -> vitx::Result<Vec<Judged>> {
        let mut all: Vec<Judged> = group.iter().map(|&n| Judged { input: n, ..Judged::default() }).collect();
        let mut prepared = Vec::new();
        for (place, &number) in group.iter().enumerate() {
            match self.labelled.prepared(number, &self.args.data, report) {
                Err(vitx::Error::Interrupted) => return Err(vitx::Error::Interrupted),
                Err(e) => all[place].failures.push(e.to_string()),
                Ok(one) => {
                    all[place].notes.clone_from(&one.notes);
                    prepared.push((place, one));
                }
            }
        }
        let mut waiting = Vec::new();
        let mut places = Vec::new();
        for (place, one) in &prepared {
            let shown = self.args.report.is_some() && group[*place] < self.args.report_inputs;
            for (question, (output, truth)) in one.questions.iter().enumerate() {
                let mut maps = vec![None; if shown { self.candidates.len() } else { 0 }];
                let pass = one.batch.pass(vec![*output])?;
                for (c, candidate) in self.candidates.iter().enumerate() {
                    let explained = candidate.explain(&pass.run(0)).and_then(|e| {
                        let map = shown.then(|| picture(&one.ready, &e)).transpose()?;
                        Ok((e, map))
                    });
                    match explained {
                        Err(vitx::Error::Interrupted) => return Err(vitx::Error::Interrupted),
                        Err(e) => all[*place].failures.push(format!("{}: {e}", candidate.name())),
                        Ok((explanation, map)) => {
                            if let Some(own) = maps.get_mut(c) {
                                *own = map;
                            }
                            let (batch, output) = (&one.batch, *output);
                            waiting.push(Waiting { batch, output, explanation, truth, candidate });
                            places.push((*place, question, c));
                        }
                    }
                }
                let label = self.labelled.inputs[group[*place]].questions[question].label.clone();
                let scores = vec![vec![None; self.metrics.len()]; self.candidates.len()];
                let (class, predicted) = (output.class, one.predicted);
                let logits: Vec<f64> = one.logits.iter().map(|l| f64::from(*l)).collect();
                let right = right(class, &logits, self.labelled.model.checkpoint.scale);
                all[*place].questions.push(Scored { label, class, predicted, right, scores, maps });
            }
        }
        let scores = judge(&self.labelled.model.encoder, &waiting, self.metrics)?;
        for ((place, question, c), own) in places.into_iter().zip(scores) {
            for (m, score) in own.into_iter().enumerate() {
                match score {
                    Ok(score) => all[place].questions[question].scores[c][m] = score,
                    Err(e) => {
                        let (candidate, metric) = (self.candidates[c].name(), &self.metrics[m].spec);
                        all[place].failures.push(format!("{candidate}, {metric}: {e}"));
                    }
                }
            }
        }
        Ok(all)
    }
}

/// What an explanation looks like on the report.
fn picture(ready: &Ready, e: &Explanation) -> vitx::Result<Shown> {
    let style = Style::default();
    match ready {
        Ready::Picture(p) => {
            let (view, input) = (p.1.view, p.1.size);
            let scene = Scene { picture: Some(&p.0), view, input, caption: String::new(), shared: None, style: &style };
            Ok(Shown::png(&sheet::thumbnail(&scene, e, 168)?))
        }
        Ready::Text(_) => Ok(Shown::Html(table::line(e, scale::Scale::Auto.range(e), &style)?)),
    }
}
