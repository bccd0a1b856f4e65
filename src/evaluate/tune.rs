//! Aggregation as a hyper-parameter: a grid of settings, and the search for the best of them.
//!
//! A setting string may offer choices, `aggregate:heads=grad|mean|max,layers=rollout|gae`; the grid is their product. The
//! search sees one image after another, every setting still alive being judged on the same cached passes; with a budget it
//! halves their number in rounds (successive halving, Jamieson & Talwalkar, AISTATS 2016), so that the best get most of it.

use super::{Candidate, Direction, Score};
use crate::error::{Error, Result};
use crate::method;

/// The grid of the command without `--method`, for a model of so many layers.
pub fn default_grid(layers: usize) -> String {
    let mut starts: Vec<usize> = [0, 1, 2, 3].iter().map(|q| q * layers / 4).collect();
    starts.dedup();
    let starts: Vec<String> = starts.iter().map(usize::to_string).collect();
    format!("aggregate:heads=grad|grad-post|mean|max|min,layers=rollout|gae|mean|last,start_layer={}", starts.join("|"))
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
/// [`Error::Usage`] for a grid beyond 10 000 settings, and for settings that do not parse.
pub fn expand(text: &str) -> Result<Grid> {
    let (name, given) = text.split_once(':').unwrap_or((text, ""));
    let pairs: Vec<(String, Vec<String>)> = given
        .split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(key, values)| (key.trim().to_string(), values.split('|').map(|v| v.trim().to_string()).collect()))
        .collect();
    let count = pairs.iter().map(|(_, v)| v.len()).product::<usize>();
    if count > 10_000 {
        return Err(Error::Usage(format!("`{text}` is a grid of {count} settings; at most 10000")));
    }
    let mut combinations: Vec<Vec<String>> = vec![Vec::new()];
    for (_, values) in &pairs {
        let longer =
            |c: &Vec<String>| values.iter().map(|v| [&c[..], std::slice::from_ref(v)].concat()).collect::<Vec<_>>();
        combinations = combinations.iter().flat_map(longer).collect();
    }
    let setting = |values: &Vec<String>| -> Result<Setting> {
        let keys: Vec<String> = pairs.iter().zip(values).map(|((k, _), v)| format!("{k}={v}")).collect();
        let spec = if keys.is_empty() { name.to_string() } else { format!("{name}:{}", keys.join(",")) };
        let chosen = pairs.iter().zip(values).filter(|((_, all), _)| all.len() > 1);
        let place = chosen.map(|(_, v)| v.clone()).collect();
        Ok(Setting { candidate: Candidate::Method(method::parse(&spec)?), place })
    };
    let settings = combinations.iter().map(setting).collect::<Result<Vec<_>>>()?;
    Ok(Grid { axes: pairs.into_iter().filter(|(_, v)| v.len() > 1).collect(), settings })
}

/// Which settings are still in the race, and what they have scored.
pub struct Race {
    scores: Vec<Vec<Score>>,
    alive: Vec<usize>,
    /// Images after which the number of settings is halved.
    halvings: Vec<usize>,
    seen: usize,
    pool: fn(&[&Score]) -> f64,
    direction: Direction,
}

impl Race {
    /// Of `settings` settings over `images` images, with at most about `budget` judgements.
    pub fn new(settings: usize, images: usize, budget: Option<usize>, of: &super::Entry) -> Self {
        Race {
            scores: vec![Vec::new(); settings],
            alive: (0..settings).collect(),
            halvings: budget.map_or_else(Vec::new, |b| halvings(settings, images, b)),
            seen: 0,
            pool: of.pool,
            direction: of.direction,
        }
    }

    /// The settings to judge on the next image.
    pub fn alive(&self) -> &[usize] {
        &self.alive
    }

    /// Adds the scores of one image: of each setting alive, in their order, those of its explanations.
    pub fn add(&mut self, scores: Vec<Vec<Score>>) {
        for (&setting, own) in self.alive.iter().zip(scores) {
            self.scores[setting].extend(own);
        }
        self.seen += 1;
        if self.halvings.contains(&self.seen) {
            let order = self.ranked();
            let keep = self.alive.len().div_ceil(2).max(1);
            let alive = self.alive.clone();
            self.alive = order.into_iter().filter(|s| alive.contains(s)).take(keep).collect();
            self.alive.sort_unstable();
        }
    }

    /// The figure of a setting; NaN without a score.
    pub fn value(&self, setting: usize) -> f64 {
        let scores: Vec<&Score> = self.scores[setting].iter().collect();
        if scores.is_empty() {
            f64::NAN
        } else {
            (self.pool)(&scores)
        }
    }

    /// Explanations a setting was judged on.
    pub fn judged(&self, setting: usize) -> usize {
        self.scores[setting].len()
    }

    /// Settings, best first: those judged on more come before those that dropped out earlier.
    pub fn ranked(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|&a, &b| {
            let better = match self.direction {
                Direction::Higher => self.value(b).total_cmp(&self.value(a)),
                Direction::Lower => self.value(a).total_cmp(&self.value(b)),
            };
            self.judged(b).cmp(&self.judged(a)).then(better).then(a.cmp(&b))
        });
        order
    }
}

/// Images after which settings are halved: rounds of equal cost, until one setting would be left or images run out.
fn halvings(settings: usize, images: usize, budget: usize) -> Vec<usize> {
    if settings * images <= budget {
        return Vec::new();
    }
    let rounds = (usize::BITS - settings.leading_zeros()) as usize; // about log2
    let (mut alive, mut seen, mut at) = (settings, 0, Vec::new());
    while alive > 1 && seen < images {
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

    #[test]
    fn a_race_keeps_the_best_and_spends_its_budget() {
        let metric = parse("pointing-game").unwrap();
        let mut race = Race::new(8, 100, Some(160), metric.entry);
        let mut judged = 0;
        for _ in 0..100 {
            let scores = race.alive().iter().map(|&s| vec![Score::from(s as f64)]).collect::<Vec<_>>();
            judged += scores.len();
            race.add(scores);
        }
        assert_eq!(race.alive(), [7]);
        assert_eq!(race.ranked()[..2], [7, 6]);
        assert!(judged < 300, "{judged}");
        assert_eq!(race.judged(7), 100);
    }
}
