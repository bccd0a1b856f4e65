//! Aggregation as a hyper-parameter: a grid of settings, and the search for the best of them.
//!
//! A setting string may offer choices, `aggregate:heads=grad|mean|max,layers=rollout|gae`; the grid is their product. The
//! search sees one image after another, every setting still alive being judged on the same cached passes; with a budget it
//! halves their number in rounds (successive halving, Jamieson & Talwalkar, AISTATS 2016), so that the best get most of it.
//!
//! The best of many settings owes part of its figure to chance. So a baseline runs in the race from start to end, and only a
//! setting that is better beyond doubt replaces it (see [`Race::choice`]).

use super::candidates::Candidate;
use super::contract::{Entry, Score};
use super::table::{gains, pooled};
use crate::encoder::Facts;
use crate::error::Result;
use crate::method;

/// The grid of the command without `--method`, for a model of so many layers.
pub fn default_grid(layers: usize) -> String {
    let mut starts: Vec<usize> = [0, 1, 2, 3].iter().map(|q| q * layers / 4).collect();
    starts.dedup();
    let starts: Vec<String> = starts.iter().map(usize::to_string).collect();
    format!("aggregate:heads=grad|grad-post|mean|max|min,layers=rollout|gae|mean|last,start_layer={}", starts.join("|"))
}

/// The metric of the command without `--metric`, for a model and for data that have masks or not.
pub fn default_metric(model: &Facts, masks: bool) -> &'static str {
    match (model.text, masks) {
        (true, _) => "comprehensiveness",
        (false, true) => "average-precision",
        (false, false) => "srg",
    }
}

/// One point of a grid.
pub struct Setting {
    /// What `--method` takes.
    pub candidate: Candidate,
    /// The chosen values, in the order of the axes.
    pub place: Vec<String>,
}

/// A grid of settings.
pub struct Grid {
    /// Keys with more than one value, and their values.
    pub axes: Vec<(String, Vec<String>)>,
    /// Every combination.
    pub settings: Vec<Setting>,
}

/// Expands `NAME:key=a|b|c,...`.
///
/// # Errors
/// As [`method::alternatives`], and for settings that do not parse.
pub fn expand(text: &str) -> Result<Grid> {
    let given = text.split_once(':').map_or("", |(_, given)| given);
    let pairs: Vec<(String, Vec<String>)> = given
        .split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(key, values)| (key.trim().to_string(), values.split('|').map(|v| v.trim().to_string()).collect()))
        .collect();
    let setting = |(spec, place): (String, Vec<String>)| -> Result<Setting> {
        Ok(Setting { candidate: Candidate::Method(method::parse(&spec)?), place })
    };
    let settings = method::alternatives(text)?.into_iter().map(setting).collect::<Result<Vec<_>>>()?;
    Ok(Grid { axes: pairs.into_iter().filter(|(_, v)| v.len() > 1).collect(), settings })
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

/// What a search compares: the settings of some grids, and the baseline.
pub struct Field {
    /// The grids.
    pub grids: Vec<Grid>,
    /// Their settings, in order, and behind them the baseline where it is none of them.
    pub candidates: Vec<Candidate>,
    /// How many settings the grids have.
    pub settings: usize,
    /// The baseline among the candidates.
    pub kept: usize,
}

impl Field {
    /// Of grids as they are typed, or the usual one for a model of so many layers; the baseline is by default the first grid
    /// without its choices, or the default method.
    ///
    /// # Errors
    /// As [`expand`].
    pub fn of(grids: &[String], baseline: Option<&str>, layers: usize) -> Result<Self> {
        let texts = if grids.is_empty() { vec![default_grid(layers)] } else { method::in_every_layer(grids, layers) };
        let baseline = match (baseline, texts.first().filter(|_| !grids.is_empty())) {
            (Some(given), _) => given.to_string(),
            (None, Some(grid)) => without_choices(grid),
            (None, None) => method::DEFAULTS[0].to_string(), // of pictures, whose grid is the usual one
        };
        let grids = texts.iter().map(|t| expand(t)).collect::<Result<Vec<_>>>()?;
        let baseline = Candidate::Method(method::parse(&baseline)?);
        let settings = grids.iter().flat_map(|g| &g.settings);
        let settings = settings.map(|s| method::parse(s.candidate.name()).map(Candidate::Method));
        let mut candidates = settings.collect::<Result<Vec<_>>>()?;
        let settings = candidates.len();
        let kept = candidates.iter().position(|c| c.same_method(&baseline)).unwrap_or(settings);
        if kept == settings {
            candidates.push(baseline);
        }
        Ok(Field { grids, candidates, settings, kept })
    }
}

/// Inputs below which no difference is beyond doubt: of 5, all favour one of two equal settings once in 16 times.
const FEWEST: usize = 6;

/// Which settings are still in the race, and what they have scored.
pub struct Race {
    scores: Vec<Vec<(usize, Score)>>,
    baseline: usize,
    alive: Vec<usize>,
    /// Inputs after which the number of settings is halved.
    halvings: Vec<usize>,
    seen: usize,
    metric: &'static Entry,
}

/// What the race recommends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// First by its figure.
    pub best: usize,
    /// The one to use.
    pub chosen: usize,
}

impl Race {
    /// Of `settings` settings over `inputs` inputs, with at most about `budget` judgements. The setting `baseline` never
    /// drops out.
    pub fn new(settings: usize, inputs: usize, budget: Option<usize>, baseline: usize, metric: &'static Entry) -> Self {
        Race {
            scores: vec![Vec::new(); settings],
            baseline,
            alive: (0..settings).collect(),
            halvings: budget.map_or_else(Vec::new, |b| halvings(settings, inputs, b)),
            seen: 0,
            metric,
        }
    }

    /// The settings to judge on the next input.
    pub fn alive(&self) -> &[usize] {
        &self.alive
    }

    /// Adds the scores of an input: of each setting alive, in their order, those of its explanations.
    pub fn add(&mut self, input: usize, scores: Vec<Vec<Score>>) {
        for (&setting, own) in self.alive.iter().zip(scores) {
            self.scores[setting].extend(own.into_iter().map(|score| (input, score)));
        }
        self.seen += 1;
        if self.halvings.contains(&self.seen) {
            let order = self.ranked().into_iter().filter(|s| *s != self.baseline && self.alive.contains(s));
            let mut alive: Vec<usize> = order.take((self.alive.len() - 1).div_ceil(2)).collect();
            alive.push(self.baseline);
            alive.sort_unstable();
            self.alive = alive;
        }
    }

    /// The scores of a setting, each with the number of its input.
    pub fn scores(&self, setting: usize) -> &[(usize, Score)] {
        &self.scores[setting]
    }

    /// The figure of a setting; NaN without a score.
    pub fn value(&self, setting: usize) -> f64 {
        let scores = self.scores(setting);
        if scores.is_empty() {
            f64::NAN
        } else {
            pooled(scores, self.metric.pool)
        }
    }

    /// Settings, best first: those judged on more come before those that dropped out earlier.
    pub fn ranked(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        let figures: Vec<f64> = order.iter().map(|&s| self.metric.direction.loss(self.value(s))).collect();
        order.sort_by(|&a, &b| {
            let judged = self.scores[b].len().cmp(&self.scores[a].len());
            judged.then(figures[a].total_cmp(&figures[b])).then(a.cmp(&b))
        });
        order
    }

    /// How much better each setting is than the baseline, intervals that hold at once for all that are left (see [`gains`]);
    /// none for those that dropped out.
    pub fn gains(&self, seed: u64) -> Vec<Option<[f64; 2]>> {
        let scores: Vec<&[(usize, Score)]> = self.scores.iter().map(Vec::as_slice).collect();
        gains(&scores, &self.scores[self.baseline], self.metric, seed)
    }

    /// The best setting, and the one to use: that whose gain over the baseline, of `gains`, has the highest lower end, if this
    /// is above 0 on no fewer than six inputs, else the baseline. None without a score.
    pub fn choice(&self, gains: &[Option<[f64; 2]>]) -> Option<Choice> {
        let ranked = self.ranked();
        let best = *ranked.iter().find(|&&s| !self.scores[s].is_empty())?;
        if self.scores[self.baseline].is_empty() {
            return Some(Choice { best, chosen: best });
        }
        let mut inputs: Vec<usize> = self.scores[self.baseline].iter().map(|(input, _)| *input).collect();
        inputs.dedup();
        let (mut chosen, mut surest) = (self.baseline, 0.0);
        for &setting in ranked.iter().filter(|_| inputs.len() >= FEWEST) {
            if let Some([low, _]) = gains[setting].filter(|[low, _]| *low > surest) {
                (chosen, surest) = (setting, low);
            }
        }
        Some(Choice { best, chosen })
    }
}

/// Inputs after which settings are halved: rounds of equal cost, until one setting would be left or inputs run out.
fn halvings(settings: usize, inputs: usize, budget: usize) -> Vec<usize> {
    if settings * inputs <= budget {
        return Vec::new();
    }
    let rounds = (usize::BITS - settings.leading_zeros()) as usize; // about log2
    let (mut alive, mut seen, mut at) = (settings, 0, Vec::new());
    while alive > 1 && seen < inputs {
        seen += (budget / rounds / alive).max(1);
        at.push(seen);
        alive = alive.div_ceil(2);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::parse;

    #[test]
    fn grids_are_products() {
        let grid = expand("aggregate:heads=grad|mean,layers=rollout|gae|last,start_layer=1").unwrap();
        assert_eq!(grid.settings.len(), 6);
        assert_eq!(grid.axes.len(), 2);
        assert_eq!(grid.settings[5].candidate.name(), "aggregate:heads=mean,layers=last,start_layer=1");
        assert_eq!(grid.settings[5].place, ["mean", "last"]);
        assert_eq!(expand("gae").unwrap().settings.len(), 1);
        assert!(expand("aggregate:heads=grad|median").is_err());
        assert_eq!(expand(&default_grid(12)).unwrap().settings.len(), 5 * 4 * 4);
    }

    /// A race whose setting `s` scores `figure(s, input)`.
    fn run(mut race: Race, inputs: usize, figure: impl Fn(usize, usize) -> f64) -> (Race, usize) {
        let mut judged = 0;
        for input in 0..inputs {
            let scores: Vec<_> = race.alive().iter().map(|&s| vec![Score::from(figure(s, input))]).collect();
            judged += scores.len();
            race.add(input, scores);
        }
        (race, judged)
    }

    #[test]
    fn a_race_keeps_the_best_and_spends_its_budget() {
        let metric = parse("pointing-game").unwrap().entry;
        let (race, judged) = run(Race::new(8, 100, Some(160), 0, metric), 100, |s, _| s as f64);
        assert_eq!(race.alive(), [0, 7], "the baseline stays");
        assert_eq!(race.ranked()[..2], [7, 0]);
        assert!(judged < 160 + 2 * 100, "beside the budget, only the last two on every input: {judged}");
        assert_eq!(race.scores(7).len(), 100);
        assert_eq!(race.choice(&race.gains(0)).unwrap().chosen, 7);
    }

    #[test]
    fn the_baseline_stays_unless_another_is_better_beyond_doubt() {
        let choice = |metric: &str, inputs: usize, figure: &dyn Fn(usize, usize) -> f64| {
            let metric = parse(metric).unwrap().entry;
            let race = run(Race::new(3, inputs, None, 1, metric), inputs, figure).0;
            race.choice(&race.gains(7)).unwrap()
        };
        // Better by half on eleven inputs, worse by half on ten.
        let found = choice("mass-inside", 21, &|s, i| match (s, i % 2) {
            (2, 0) => 1.5,
            (2, _) => 0.5,
            _ => 1.0,
        });
        assert_eq!(found, Choice { best: 2, chosen: 1 });
        // The sure gain is taken, not the large one.
        let found = choice("mass-inside", 21, &|s, i| match (s, i % 2) {
            (2, 0) => 1.5,
            (2, _) => 0.6,
            (0, _) => 1.01,
            _ => 1.0,
        });
        assert_eq!(found, Choice { best: 2, chosen: 0 });
        // Always better: chosen, but not on a handful of inputs.
        assert_eq!(choice("mass-inside", 6, &|s, _| s as f64).chosen, 2);
        assert_eq!(choice("mass-inside", 5, &|s, _| s as f64).chosen, 1);
        // Lower is better.
        assert_eq!(choice("deletion", 20, &|s, _| s as f64).chosen, 0);
        // The same figures everywhere: nothing to gain.
        assert_eq!(choice("deletion", 20, &|_, i| i as f64).chosen, 1);
    }
}
