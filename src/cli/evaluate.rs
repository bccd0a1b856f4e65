//! `vitx evaluate`: is the picture faithful? Methods and controls over a labelled set, as a table.

use super::args::ReportArgs;
use super::guard::guarded;
use super::journal::{Journal, Judged, Run, Scored};
use super::labelled::{data_name, Checked, DataArgs, Labelled};
use super::offered;
use super::outputs::refuse_existing;
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
use vitx::evaluate::report::{html, Curves, Input as ReportInput, Map, Report, Row, Sanity, Shown};
use vitx::evaluate::table::Scores;
use vitx::evaluate::{self, Axes, Candidate, Configured, Direction, Needs, Score};
use vitx::explanation::Explanation;
use vitx::render::{save, scale, sheet, table, Scene, Style};
use vitx::target::{right, Scale};

/// Judge methods by faithfulness and localisation over labelled data, beside random and centre controls
#[derive(Parser, Debug)]
#[command(after_help = super::examples::EVALUATE)]
pub struct Args {
    #[command(flatten)]
    pub data: DataArgs,
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
    csv: Option<PathBuf>,
    /// A page with figures, curves and single inputs
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The page shows the first N inputs one by one
    #[arg(long, default_value_t = 16, value_name = "N")]
    report_inputs: usize,
    /// Replace existing files and, without --resume, forget what an interrupted run with the same arguments has judged
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    reporting: ReportArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
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
    let lacks = |m: &Configured| match m.entry.needs {
        Needs::Nothing => None,
        Needs::Mask => (!checked.masks()).then_some("masks"),
        Needs::Rationale => (!checked.rationales()).then_some("rationales"),
    };
    let named = !given.is_empty() && given != ["all"];
    let refused = metrics.iter().find_map(|m| lacks(m).map(|what| (m, what)));
    if let (true, Some((metric, what))) = (named, refused) {
        anyhow::bail!("metric `{}` needs {what}, and no input of the data has one", metric.spec);
    }
    let (metrics, without): (Vec<_>, Vec<_>) = metrics.into_iter().partition(|m| lacks(m).is_none());
    let names: Vec<&str> = without.iter().map(|m| m.entry.name).collect();
    let what = without.first().and_then(lacks).unwrap_or_default();
    let note = format!("note: without {what}, left out: {}", names.join(", "));
    Ok((metrics, (!names.is_empty()).then_some(note)))
}

/// What tells this run from others that do not give the same figures.
fn key(args: &Args, labelled: &Labelled, candidates: &[Candidate], metrics: &[Configured]) -> Value {
    json!({
        "head": labelled.model.checkpoint.scale.name(),
        "model": [labelled.model.checkpoint.id, labelled.model.checkpoint.revision, format!("{:?}", args.data.model.dtype)],
        "device": format!("{:?}", labelled.model.encoder.device().location()),
        "data": args.data.data, "target": format!("{:?}", args.data.target), "seed": args.data.seed,
        "limit": args.data.limit,
        "batch_size": args.batch_size, "shown": args.report.as_ref().map(|_| args.report_inputs),
        "size": format!("{:?} {:?}", args.data.size, args.data.fit),
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

struct Work<'a> {
    args: &'a Args,
    labelled: &'a Labelled,
    candidates: &'a [Candidate],
    metrics: &'a [Configured],
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

    fn random(&self) -> usize {
        self.candidates.iter().position(|c| matches!(c, Candidate::Random)).unwrap_or(0)
    }

    fn scores(&self, judged: &[Judged]) -> Scores {
        let mut scores = Scores::default();
        for (input, scored) in judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j.input, q))) {
            for (candidate, own) in scored.scores.iter().enumerate() {
                for (metric, score) in own.iter().enumerate() {
                    if let Some(score) = score {
                        scores.add(candidate, metric, input, score.clone());
                    }
                }
            }
        }
        scores
    }

    /// Candidates, best first by the first metric with figures; controls last.
    fn rows(&self, scores: &Scores) -> Vec<Row> {
        let (random, seed) = (self.random(), self.args.data.seed);
        let figure = |c: usize, m: usize| scores.figure(c, m, &self.metrics[m], random, seed);
        let row = |(c, candidate): (usize, &Candidate)| Row {
            name: candidate.name().to_string(),
            figures: (0..self.metrics.len()).map(|m| figure(c, m)).collect(),
        };
        let mut rows: Vec<Row> = self.candidates.iter().enumerate().map(row).collect();
        let controls = rows.split_off(self.candidates.iter().filter(|c| !c.is_control()).count());
        let first = (0..self.metrics.len()).find(|&m| rows.iter().any(|r| r.figures[m].is_some()));
        if let Some(m) = first {
            let direction = self.metrics[m].entry.direction;
            let key = |r: &Row| r.figures[m].as_ref().map_or(f64::INFINITY, |f| direction.loss(f.value));
            rows.sort_by(|a, b| key(a).total_cmp(&key(b)));
        }
        rows.into_iter().chain(controls).collect()
    }

    fn tell(&self, judged: &[Judged], sanity: Option<&sanity::Found>, report: &Reporter) -> Result<()> {
        let scores = self.scores(judged);
        let rows = self.rows(&scores);
        let setup = self.setup(judged);
        if report.json() {
            self.tell_json(&rows, sanity, report)?;
        } else {
            setup.iter().try_for_each(|(name, value)| report.line(&format!("{name}: {value}")))?;
            report.line(&text_table(&rows, self.metrics))?;
            self.metrics.iter().try_for_each(|m| report.line(&explained(m)))?;
            report
                .line("(in brackets: 95 % bootstrap interval over inputs; `!`: not better than the random control)")?;
            if let Some(found) = sanity {
                report.line(&found.text())?;
            }
        }
        if let Some(path) = &self.args.csv {
            save::save(path, &self.csv(judged)?, self.args.overwrite)?;
        }
        if let Some(path) = &self.args.report {
            let page = self.page(judged, rows, setup, sanity.map(|s| s.correlations.clone()))?;
            save::save(path, page.as_bytes(), self.args.overwrite)?;
            report.note(&format!("report: {}", path.display()));
        }
        Ok(())
    }

    fn setup(&self, judged: &[Judged]) -> Vec<(String, String)> {
        let questions = judged.iter().flat_map(|j| &j.questions);
        let (right, all) = questions.fold((0, 0), |(r, n), q| (r + usize::from(q.right), n + 1));
        let used = judged.iter().filter(|j| !j.questions.is_empty()).count();
        let kind = if self.labelled.facts.text { "texts" } else { "images" };
        let line = |name: &str, value: String| (name.to_string(), value);
        let said = match self.labelled.model.checkpoint.scale {
            Scale::Softmax => format!("{right} of {all} are the prediction"),
            Scale::Sigmoid => format!("{right} of {all} have a probability above 0.5"),
            Scale::Value => "the model gives values".to_string(),
        };
        let noted = judged.iter().filter(|j| !j.notes.is_empty()).count();
        let masks = self.labelled.masks.line().map(|m| line("masks", m));
        let cut = (noted > 0).then(|| line("left out", format!("a part of {noted} {kind} (see the warnings)")));
        let mut setup = vec![
            line("model", self.labelled.model.checkpoint.id.clone()),
            line("data", format!("{}: {used} {kind}, {all} explained classes", data_name(&self.args.data.data))),
            line("explained", format!("the {:?} class ({said})", self.args.data.target).to_lowercase()),
            line("seed", self.args.data.seed.to_string()),
        ];
        setup.extend(masks.into_iter().chain(cut));
        setup
    }

    fn tell_json(&self, rows: &[Row], sanity: Option<&sanity::Found>, report: &Reporter) -> Result<()> {
        for row in rows {
            for (metric, figure) in self.metrics.iter().zip(&row.figures) {
                let mut record = json!({
                    "status": "ok", "method": row.name, "metric": metric.spec,
                    "direction": metric.entry.direction, "convention": metric.convention(), "figure": figure,
                });
                if figure.is_none() {
                    record["status"] = "error".into();
                    record["error"] = "no input has a score of it".into();
                }
                report.json_line(&record)?;
            }
        }
        sanity.map_or(Ok(()), |found| found.records().iter().try_for_each(|r| report.json_line(r)))
    }

    fn csv(&self, judged: &[Judged]) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["input", "label", "class", "predicted", "method", "metric", "value"])?;
        for (judged, q) in judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j, q))) {
            let name = &self.labelled.inputs[judged.input].name;
            for (candidate, own) in self.candidates.iter().zip(&q.scores) {
                for (metric, score) in self.metrics.iter().zip(own) {
                    let Some(score) = score else { continue };
                    let (class, predicted, value) =
                        (q.class.to_string(), q.predicted.to_string(), score.value.to_string());
                    let record = [name, &q.label, &class, &predicted, candidate.name(), &metric.spec, &value];
                    writer.write_record(record)?;
                }
            }
        }
        Ok(writer.into_inner()?)
    }

    fn page(
        &self,
        judged: &[Judged],
        rows: Vec<Row>,
        setup: Vec<(String, String)>,
        sanity: Option<Sanity>,
    ) -> Result<String> {
        let shown = judged.iter().flat_map(|j| j.questions.iter().map(move |q| (j.input, q)));
        let inputs = shown.filter(|(_, q)| !q.maps.is_empty()).map(|(input, q)| self.shown(input, q)).collect();
        let failed = judged
            .iter()
            .flat_map(|j| j.failures.iter().map(|f| (self.labelled.inputs[j.input].name.clone(), f.clone())));
        let page = Report {
            title: format!("{} on {}", self.labelled.model.checkpoint.id, data_name(&self.args.data.data)),
            setup,
            metrics: self.metrics,
            rows,
            curves: self.curves(judged),
            sanity,
            inputs,
            failures: self.labelled.failures.iter().cloned().chain(failed).collect(),
        };
        Ok(html(&page)?)
    }

    /// Mean curves of metrics that have them; curves with points at other places than the first are left out.
    fn curves(&self, judged: &[Judged]) -> Vec<Curves> {
        let scores = self.scores(judged);
        let mean = |c: usize, m: usize| -> Option<Vec<(f64, f64)>> {
            let own = scores.of(c, m);
            let at = &own.first()?.1.at;
            let same: Vec<&Vec<f64>> = own.iter().filter(|(_, s)| s.at == *at).map(|(_, s)| &s.curve).collect();
            let height = |k: usize| same.iter().map(|c| c[k]).sum::<f64>() / same.len() as f64;
            (at.len() > 1).then(|| at.iter().enumerate().map(|(k, x)| (*x, height(k))).collect())
        };
        let of = |(m, metric): (usize, &Configured)| {
            let line = |(c, candidate): (usize, &Candidate)| Some((candidate.name().to_string(), mean(c, m)?));
            let lines: Vec<_> = self.candidates.iter().enumerate().filter_map(line).collect();
            let axes: Axes = metric.axes()?;
            (!lines.is_empty()).then(|| Curves { metric: metric.spec.clone(), axes, lines })
        };
        self.metrics.iter().enumerate().filter_map(of).collect()
    }

    /// One class of an input with all its maps.
    fn shown(&self, input: usize, scored: &Scored) -> ReportInput {
        let map = |((candidate, shown), scores): ((&Candidate, &Option<Shown>), &Vec<Option<Score>>)| {
            let scores = scores.iter().map(|s| s.as_ref().map(|s| s.value)).collect();
            Some(Map { name: candidate.name().to_string(), shown: shown.clone()?, scores })
        };
        let maps = self.candidates.iter().zip(&scored.maps).zip(&scored.scores).filter_map(map).collect();
        let predicted = self.labelled.model.checkpoint.labels.name(scored.predicted);
        let name = &self.labelled.inputs[input].name;
        ReportInput { heading: format!("{name}: {} (predicted: {predicted})", scored.label), maps }
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

/// `name (higher is better): how`
pub fn explained(metric: &Configured) -> String {
    let better = if metric.entry.direction == Direction::Higher { "higher" } else { "lower" };
    format!("{} ({better} is better): {}", metric.spec, metric.convention())
}

/// The aligned table: a row a candidate, a column a metric.
pub fn text_table(rows: &[Row], metrics: &[Configured]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    let head = metrics.iter().map(|m| format!("{} {}", m.spec, m.entry.direction.arrow()));
    table.set_header(std::iter::once("method".to_string()).chain(head));
    for row in rows {
        let cells = row.figures.iter().map(|f| match f {
            None => "-".to_string(),
            Some(f) => {
                let mark = if f.beats_random == Some(false) { " !" } else { "" };
                format!("{:.3} [{:.3}, {:.3}]{mark}", f.value, f.low, f.high)
            }
        });
        table.add_row(std::iter::once(row.name.clone()).chain(cells));
    }
    table.trim_fmt()
}
