//! `vitx tune`: which aggregation is best, found on one part of the data and measured on another.

use super::args::ReportArgs;
use super::figures::explained;
use super::guard::guarded;
use super::job;
use super::labelled::{Checked, DataArgs, Labelled, Prepared};
use super::offered;
use super::outputs::{refuse_ending, refuse_existing};
use super::report::{interrupted, Reporter};
use anyhow::{bail, Result};
use clap::Parser;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;
use serde_json::json;
use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use vitx::evaluate::judge::{judge, Waiting};
use vitx::evaluate::table::{gain, pooled};
use vitx::evaluate::tune::{default_grid, expand, Choice, Grid, Race};
use vitx::evaluate::{self, Candidate, Configured, Score};
use vitx::method;
use vitx::render::{grid, save};

/// Search head and layer aggregation, start layer, or any parameters, and print the best --method string
#[derive(Parser, Debug)]
#[command(after_help = super::examples::TUNE)]
pub struct Args {
    /// Grids NAME:key=a|b|c,...; repeatable. Default: heads x layers x start_layer of `aggregate`
    #[arg(long, value_name = "GRID", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// The setting that is kept unless another is better beyond doubt: the interval of its gain, which holds for all settings
    /// at once with 95 % confidence, lies above 0 (default: gae, or the method of the first grid without its choices)
    #[arg(long, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    baseline: Option<String>,
    /// The metric that decides (default: average-precision where there are masks, else srg; comprehensiveness for texts)
    #[arg(long, value_name = "METRIC", value_parser = offered::METRICS, hide_possible_values = true)]
    metric: Option<String>,
    /// About how many explanations may be judged; settings are then halved in rounds (successive halving), and intervals hold
    /// for those left at the end
    #[arg(long, value_name = "N")]
    budget: Option<usize>,
    /// Share of the inputs that the search does not see
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    held_out: f64,
    /// Settings to list, and to measure on the held-out inputs
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// A PNG of the grid
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    if !(0.0..1.0).contains(&args.held_out) || args.held_out == 0.0 {
        bail!(
            "--held-out {}: expected a share between 0 and 1; a figure on the inputs it was picked on says little",
            args.held_out
        );
    }
    refuse_ending("--out", args.out.as_deref(), &["png"])?;
    let checked = Checked::open(&args.data, args.report)?;
    if !args.overwrite {
        refuse_existing(args.out.iter(), "")?;
    }
    let metric = metric(&args, &checked)?;
    let texts = match args.method.is_empty() {
        true => vec![default_grid(checked.facts.layers)],
        false => args.method.clone(),
    };
    let grids = texts.iter().map(|t| expand(t)).collect::<vitx::Result<Vec<_>>>()?;
    let baseline = match (&args.baseline, args.method.first()) {
        (Some(given), _) => given.clone(),
        (None, Some(grid)) => without_choices(grid),
        (None, None) => method::DEFAULT.to_string(),
    };
    let baseline = Candidate::Method(method::parse(&baseline)?);
    let mut candidates: Vec<&Candidate> = grids.iter().flat_map(|g| &g.settings).map(|s| &s.candidate).collect();
    let settings = candidates.len();
    let kept = candidates.iter().position(|c| c.same_method(&baseline)).unwrap_or(settings);
    if kept == settings {
        candidates.push(&baseline);
    }
    for candidate in &candidates {
        job::methods(&[candidate.name().to_string()], checked.checkpoint())?;
    }
    let labelled = checked.load(&args.data, args.report)?;
    if labelled.inputs.len() < 2 {
        bail!("one input cannot be split into a part to search on and a part to measure on");
    }
    let inputs = labelled.inputs.len();
    let report = Reporter::new(args.report, inputs);
    labelled.tell(&report)?;
    let (search, held_out) = split(inputs, args.held_out, args.data.seed);
    let work = Work { args: &args, labelled: &labelled, metric: &metric, report: &report, noted: Cell::new(0) };
    let mut race = Race::new(candidates.len(), search.len(), args.budget, kept, metric.entry);
    for &input in &search {
        let alive: Vec<&Candidate> = race.alive().iter().map(|&s| candidates[s]).collect();
        let scores = match work.scores(input, &alive) {
            Err(vitx::Error::Interrupted) => break,
            Err(e) => {
                report.failed(&labelled.inputs[input].name, &e.to_string())?;
                vec![Vec::new(); alive.len()]
            }
            Ok(scores) => scores,
        };
        race.add(input, scores);
        report.advance(1);
    }
    if interrupted() {
        return Ok(report.finish(inputs));
    }
    let gains = race.gains(args.data.seed);
    let Some(choice) = race.choice(&gains) else {
        bail!(
            "metric `{}` has no figure on the inputs that were searched: all of them failed or have no score",
            metric.spec
        );
    };
    let ranked = race.ranked();
    let mut finalists: Vec<usize> = ranked.iter().copied().take(args.top.max(1)).collect();
    for setting in [choice.chosen, kept] {
        if !finalists.contains(&setting) {
            finalists.push(setting);
        }
    }
    let held: Vec<&Candidate> = finalists.iter().map(|&s| candidates[s]).collect();
    let measured = work.held_out(&held_out, &held)?;
    let base = finalists.iter().position(|&s| s == kept).unwrap_or(0);
    let line = |(&s, own): (&usize, &Scores)| Line {
        rank: ranked.iter().position(|&r| r == s).map_or(0, |r| r + 1),
        method: candidates[s].name(),
        search: race.value(s),
        judged: race.scores(s).len(),
        gain: gains[s].filter(|_| s != kept),
        held_out: pooled(own, metric.entry.pool),
        held_out_gain: gain(own, &measured[base], metric.entry, args.data.seed).filter(|_| s != kept),
        baseline: s == kept,
        chosen: s == choice.chosen,
    };
    let lines: Vec<Line> = finalists.iter().zip(&measured).map(line).collect();
    work.tell(&lines, settings, (search.len(), held_out.len()))?;
    work.caution(choice, &candidates, &lines);
    if let Some(path) = &args.out {
        save::save(path, &picture(&grids, &race, &metric)?, args.overwrite)?;
        report.note(&format!("grid: {}", path.display()));
    }
    report.line(&format!("--method {}", candidates[choice.chosen].name()))?;
    Ok(report.finish(labelled.all()))
}

/// A grid's method with the keys that have one value.
fn without_choices(grid: &str) -> String {
    let (name, keys) = grid.split_once(':').unwrap_or((grid, ""));
    let fixed: Vec<&str> = keys.split(',').filter(|k| !k.is_empty() && !k.contains('|')).collect();
    if fixed.is_empty() {
        name.to_string()
    } else {
        format!("{name}:{}", fixed.join(","))
    }
}

fn metric(args: &Args, checked: &Checked) -> Result<Configured> {
    let facts = &checked.facts;
    let default = match (facts.text, checked.masks()) {
        (true, _) => "comprehensiveness",
        (false, true) => "average-precision",
        (false, false) => "srg",
    };
    let mut list = evaluate::parse_list(&[args.metric.as_deref().unwrap_or(default)], facts)?;
    if list.len() != 1 {
        bail!("--metric takes one metric: there must be one order");
    }
    checked.refuse_lacking(&list[0])?;
    Ok(list.remove(0))
}

/// Inputs to search on and inputs to measure on, shuffled by the seed.
fn split(inputs: usize, held_out: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..inputs).collect();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    for i in (1..inputs).rev() {
        order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    let kept = ((inputs as f64 * held_out).round() as usize).clamp(1, inputs - 1);
    let measure = order.split_off(inputs - kept);
    (order, measure)
}

/// Scores on several inputs, each with the input's number.
type Scores = Vec<(usize, Score)>;

/// One setting in the table. Gains are over the baseline.
#[derive(Serialize)]
struct Line<'a> {
    rank: usize,
    method: &'a str,
    search: f64,
    judged: usize,
    gain: Option<[f64; 2]>,
    held_out: f64,
    held_out_gain: Option<[f64; 2]>,
    baseline: bool,
    chosen: bool,
}

struct Work<'a> {
    args: &'a Args,
    labelled: &'a Labelled,
    metric: &'a Configured,
    report: &'a Reporter,
    /// Inputs of which a part was left out.
    noted: Cell<usize>,
}

impl Work<'_> {
    /// Scores of some candidates on one input: a list over its labelled classes each, from one set of passes.
    fn scores(&self, number: usize, candidates: &[&Candidate]) -> vitx::Result<Vec<Vec<Score>>> {
        guarded(|| self.judged(number, candidates))
    }

    fn judged(&self, number: usize, candidates: &[&Candidate]) -> vitx::Result<Vec<Vec<Score>>> {
        let prepared = self.labelled.prepared(number, &self.args.data, self.report)?;
        let Prepared { batch, questions, notes, .. } = prepared;
        let mut noted = self.noted.get();
        self.labelled.tell_notes(number, &notes, &mut noted, self.report);
        self.noted.set(noted);
        let mut waiting = Vec::new();
        for (output, truth) in &questions {
            let pass = batch.pass(vec![*output])?;
            for candidate in candidates {
                let explanation = candidate.explain(&pass.run(0))?;
                waiting.push(Waiting { batch: &batch, output: *output, explanation, truth, candidate });
            }
        }
        let mut all = vec![Vec::new(); candidates.len()];
        let judged = judge(&self.labelled.model.encoder, &waiting, std::slice::from_ref(self.metric))?;
        for (i, score) in judged.into_iter().flatten().enumerate() {
            all[i % candidates.len()].extend(score?); // one metric: as many scores as explanations
        }
        Ok(all)
    }

    /// The scores of each finalist on the inputs the search did not see.
    fn held_out(&self, inputs: &[usize], finalists: &[&Candidate]) -> Result<Vec<Scores>> {
        let mut scores = vec![Scores::new(); finalists.len()];
        for &input in inputs {
            match self.scores(input, finalists) {
                Err(e @ vitx::Error::Interrupted) => return Err(e.into()),
                Err(e) => self.report.failed(&self.labelled.inputs[input].name, &e.to_string())?,
                Ok(own) => {
                    scores.iter_mut().zip(own).for_each(|(all, own)| all.extend(own.into_iter().map(|s| (input, s))))
                }
            }
            self.report.advance(1);
        }
        Ok(scores)
    }

    fn tell(&self, lines: &[Line<'_>], settings: usize, (searched, held_out): (usize, usize)) -> Result<()> {
        let (spec, direction) = (&self.metric.spec, self.metric.entry.direction);
        for line in lines {
            let mut record = json!({"status": "ok", "metric": spec, "direction": direction});
            if let (Some(all), serde_json::Value::Object(own)) = (record.as_object_mut(), serde_json::to_value(line)?) {
                all.extend(own);
            }
            self.report.json_line(&record)?;
        }
        self.report.line(&format!(
            "{settings} settings, searched on {searched} inputs, measured on {held_out} others, seed {}",
            self.args.data.seed
        ))?;
        self.report.line(&explained(self.metric))?;
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(["rank", "setting", "judged", "search", "gain", "held out", "gain"]);
        let gain = |line: &Line<'_>, gain: Option<[f64; 2]>| match gain {
            Some([low, high]) => format!("[{low:+.4}, {high:+.4}]"),
            None if line.baseline => "(baseline)".to_string(),
            None => String::new(),
        };
        for line in lines {
            table.add_row([
                format!("{}{}", line.rank, if line.chosen { " *" } else { "" }),
                line.method.to_string(),
                line.judged.to_string(),
                format!("{:.4}", line.search),
                gain(line, line.gain),
                format!("{:.4}", line.held_out),
                gain(line, line.held_out_gain),
            ]);
        }
        self.report.line(&table.trim_fmt())?;
        self.report.line(
            "(gain over the baseline, positive is better: 95 % bootstrap intervals paired by input, in the search for all settings \
             at once; *: the surest gain of the search, or the baseline)",
        )
    }

    /// Says what speaks against the chosen setting, or for keeping the baseline.
    fn caution(&self, choice: Choice, candidates: &[&Candidate], lines: &[Line<'_>]) {
        let held_out = |wanted: &dyn Fn(&&Line<'_>) -> bool| lines.iter().find(wanted).map(|l| l.held_out);
        let (chosen, baseline) = (held_out(&|l| l.chosen), held_out(&|l| l.baseline));
        if lines.iter().any(|l| l.chosen && l.baseline) {
            if choice.best != choice.chosen {
                self.report.note(&format!(
                    "note: `{}` scored best in the search, but no setting is better than `{}` beyond doubt: it is kept",
                    candidates[choice.best].name(),
                    candidates[choice.chosen].name()
                ));
            }
        } else if chosen.zip(baseline).is_some_and(|(c, b)| self.metric.entry.direction.prefers(b, c)) {
            self.report.note(
                "warning: the chosen setting is worse than the baseline on the held-out inputs: use more data, or keep the \
                 baseline",
            );
        }
    }
}

/// The first grid with more than one value, its last axis across.
fn picture(grids: &[Grid], race: &Race, metric: &Configured) -> Result<Vec<u8>> {
    let mut first = 0;
    for grid in grids {
        let Some(((_, across), down)) = grid.axes.split_last() else {
            first += grid.settings.len();
            continue;
        };
        let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
        for (i, setting) in grid.settings.iter().enumerate() {
            let Some((last, above)) = setting.place.split_last() else { continue };
            let name = if down.is_empty() { "all".to_string() } else { above.join(", ") };
            let at = across.iter().position(|v| v == last).unwrap_or(0);
            if !rows.iter().any(|(n, _)| *n == name) {
                rows.push((name.clone(), vec![None; across.len()]));
            }
            let value = Some(race.value(first + i)).filter(|v| v.is_finite());
            if let Some((_, row)) = rows.iter_mut().find(|(n, _)| *n == name) {
                row[at] = value;
            }
        }
        let axes: Vec<&str> = grid.axes.iter().map(|(k, _)| k.as_str()).collect();
        let title = format!("{} by {}", metric.spec, axes.join(" x "));
        return Ok(grid::Grid { title, columns: across.clone(), rows }.render()?);
    }
    bail!("--out: the grid has one setting only; offer several values, such as heads=mean|max")
}
