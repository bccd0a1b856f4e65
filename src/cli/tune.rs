//! `vitx tune`: which aggregation is best, found on one part of the data and measured on another.

use super::args::ReportArgs;
use super::evaluate::explained;
use super::job;
use super::labelled::{batch, preparer, Checked, DataArgs, Labelled};
use super::outputs::refuse_existing;
use super::report::{interrupted, Reporter};
use super::INTERRUPTED;
use anyhow::{bail, Result};
use clap::Parser;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use vitx::evaluate::tune::{default_grid, expand, Grid, Race};
use vitx::evaluate::{self, Candidate, Case, Configured, Direction, Score};
use vitx::method::{self, Facts};
use vitx::render::{grid, save};

/// Search head and layer aggregation, start layer, or any parameters, and print the best --method string
#[derive(Parser, Debug)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// Grids NAME:key=a|b|c,...; repeatable. Default: heads x layers x start_layer of `aggregate`
    #[arg(long, value_name = "GRID")]
    method: Vec<String>,
    /// The metric that decides (default: average-precision where there are masks, else srg; comprehensiveness for texts)
    #[arg(long, value_name = "METRIC")]
    metric: Option<String>,
    /// About how many explanations may be judged; settings are then halved in rounds (successive halving)
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
    let checked = Checked::open(&args.data, args.report)?;
    if !args.overwrite {
        refuse_existing(args.out.iter(), "")?;
    }
    let metric = metric(&args, &checked.facts)?;
    let texts = match args.method.is_empty() {
        true => vec![default_grid(checked.facts.layers)],
        false => args.method.clone(),
    };
    let grids = texts.iter().map(|t| expand(t)).collect::<vitx::Result<Vec<_>>>()?;
    for setting in grids.iter().flat_map(|g| &g.settings) {
        job::methods(&[setting.candidate.name().to_string()], checked.checkpoint())?;
    }
    let labelled = checked.load(&args.data)?;
    if labelled.inputs.len() < 2 {
        bail!("one input cannot be split into a part to search on and a part to measure on");
    }
    let report = Reporter::new(args.report, labelled.inputs.len());
    let (search, held_out) = split(labelled.inputs.len(), args.held_out, args.data.seed);
    let work = Work { args: &args, labelled: &labelled, metric: &metric, report: &report };
    let candidates: Vec<&Candidate> = grids.iter().flat_map(|g| &g.settings).map(|s| &s.candidate).collect();
    let mut race = Race::new(candidates.len(), search.len(), args.budget, metric.entry);
    for &input in &search {
        let alive: Vec<&Candidate> = race.alive().iter().map(|&s| candidates[s]).collect();
        let scores = match work.scores(input, &alive) {
            Err(vitx::Error::Interrupted) => break,
            Err(e) => {
                report.note(&format!("error: {}: {e}", labelled.inputs[input].name));
                vec![Vec::new(); alive.len()]
            }
            Ok(scores) => scores,
        };
        race.add(scores);
        report.advance(1);
    }
    if interrupted() {
        report.finish(1);
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let order = race.ranked();
    let Some(&best) = order.iter().find(|&&s| race.judged(s) > 0) else {
        bail!("metric `{}` has no figure on this data (does it have masks or rationales?)", metric.spec);
    };
    let default = Candidate::Method(method::parse(method::DEFAULT)?);
    let measured: Vec<usize> = order.iter().copied().take(args.top.max(1)).collect();
    let mut finalists: Vec<&Candidate> = measured.iter().map(|&s| candidates[s]).collect();
    finalists.push(&default);
    let figures = work.held_out(&held_out, &finalists)?;
    work.tell(&race, &candidates, &measured, &figures, (search.len(), held_out.len()))?;
    if let Some(path) = &args.out {
        save::save(path, &picture(&grids, &race, &metric)?, args.overwrite)?;
        report.note(&format!("grid: {}", path.display()));
    }
    report.line(&format!("--method {}", candidates[best].name()))?;
    Ok(report.finish(1))
}

fn metric(args: &Args, facts: &Facts) -> Result<Configured> {
    let masks =
        std::fs::read_to_string(&args.data.data).is_ok_and(|t| t.lines().next().is_some_and(|l| l.contains("mask")));
    let default = match (facts.text, masks) {
        (true, _) => "comprehensiveness",
        (false, true) => "average-precision",
        (false, false) => "srg",
    };
    let mut list = evaluate::parse_list(&[args.metric.as_deref().unwrap_or(default)], facts)?;
    if list.len() != 1 {
        bail!("--metric takes one metric: there must be one order");
    }
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

struct Work<'a> {
    args: &'a Args,
    labelled: &'a Labelled,
    metric: &'a Configured,
    report: &'a Reporter,
}

impl Work<'_> {
    /// Scores of some candidates on one input: a list over its labelled classes each, from one set of passes.
    fn scores(&self, number: usize, candidates: &[&Candidate]) -> vitx::Result<Vec<Vec<Score>>> {
        let (input, model) = (&self.labelled.inputs[number], &self.labelled.model);
        let ready = preparer(model, &self.args.data).prepare(&input.source())?;
        let batch = batch(model, &ready, self.args.data.seed, self.report)?;
        let logits = batch.logits()?.remove(0);
        let mut all = vec![Vec::new(); candidates.len()];
        for question in &input.questions {
            let pass = batch.pass(vec![question.output(self.args.data.target, &logits)])?;
            let run = pass.run(0);
            let truth = question.truth(&ready, run.layout())?;
            for (own, candidate) in all.iter_mut().zip(candidates) {
                let explanation = candidate.explain(&run)?;
                let case = Case { run: &run, explanation: &explanation, truth: &truth, candidate };
                own.extend(self.metric.metric.score(&case)?);
            }
        }
        Ok(all)
    }

    /// The figure of each finalist on the inputs the search did not see.
    fn held_out(&self, inputs: &[usize], finalists: &[&Candidate]) -> Result<Vec<f64>> {
        let mut scores: Vec<Vec<Score>> = vec![Vec::new(); finalists.len()];
        for &input in inputs {
            match self.scores(input, finalists) {
                Err(e @ vitx::Error::Interrupted) => return Err(e.into()),
                Err(e) => self.report.note(&format!("error: {}: {e}", self.labelled.inputs[input].name)),
                Ok(own) => scores.iter_mut().zip(own).for_each(|(all, own)| all.extend(own)),
            }
            self.report.advance(1);
        }
        let pool = |own: &Vec<Score>| (self.metric.entry.pool)(&own.iter().collect::<Vec<_>>());
        Ok(scores.iter().map(pool).collect())
    }

    fn tell(
        &self,
        race: &Race,
        candidates: &[&Candidate],
        measured: &[usize],
        figures: &[f64],
        (searched, held_out): (usize, usize),
    ) -> Result<()> {
        let default = figures.last().copied().unwrap_or(f64::NAN);
        if self.report.json() {
            for (rank, (&s, figure)) in measured.iter().zip(figures).enumerate() {
                self.report.json_line(&json!({
                    "status": "ok", "rank": rank + 1, "method": candidates[s].name(), "metric": self.metric.spec,
                    "direction": self.metric.entry.direction, "search": race.value(s), "judged": race.judged(s),
                    "held_out": figure, "default_held_out": default,
                }))?;
            }
            return Ok(());
        }
        self.report.line(&format!(
            "{} settings, searched on {searched} inputs, measured on {held_out} others, seed {}",
            candidates.len(),
            self.args.data.seed
        ))?;
        self.report.line(&explained(self.metric))?;
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(["rank", "setting", "search", "judged", "held out"]);
        for (rank, (&s, figure)) in measured.iter().zip(figures).enumerate() {
            let cells = [candidates[s].name().to_string(), format!("{:.4}", race.value(s)), race.judged(s).to_string()];
            table.add_row(std::iter::once((rank + 1).to_string()).chain(cells).chain([format!("{figure:.4}")]));
        }
        table.add_row(["", &format!("{} (default)", method::DEFAULT), "", "", &format!("{default:.4}")]);
        self.report.line(&table.trim_fmt())?;
        let best = figures.first().copied().unwrap_or(f64::NAN);
        let worse = match self.metric.entry.direction {
            Direction::Higher => best < default,
            Direction::Lower => best > default,
        };
        if worse {
            self.report.note(
                "note: the winner is worse than the default on the held-out inputs: more data, or keep the default",
            );
        }
        Ok(())
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
            let value = (race.judged(first + i) > 0).then(|| race.value(first + i));
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
