//! Figures over a data set: pooled scores with bootstrap confidence intervals, beside the random control.

use super::{Configured, Direction, Score};
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeMap;

/// Resamplings of a confidence interval.
const RESAMPLES: usize = 1000;

/// One figure of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The pooled score.
    pub value: f64,
    /// 95 % percentile bootstrap over images (or texts): lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Explanations it is made of.
    pub n: usize,
    /// Images or texts they belong to.
    pub images: usize,
    /// Whether it is better than the random control's on the same inputs; none for controls.
    pub beats_random: Option<bool>,
    /// The interval of its difference to the random control, paired by image: lower and upper end.
    pub gain_over_random: Option<[f64; 2]>,
}

/// All scores of a run: by candidate and metric, a score with the number of its image each, in order.
#[derive(Debug, Default)]
pub struct Scores(BTreeMap<(usize, usize), Vec<(usize, Score)>>);

impl Scores {
    /// Adds the score of one explanation.
    pub fn add(&mut self, candidate: usize, metric: usize, image: usize, score: Score) {
        self.0.entry((candidate, metric)).or_default().push((image, score));
    }

    /// The scores of a candidate under a metric.
    pub fn of(&self, candidate: usize, metric: usize) -> &[(usize, Score)] {
        self.0.get(&(candidate, metric)).map_or(&[], Vec::as_slice)
    }

    /// The figure of a candidate; none without a score. `random` is the random control's number.
    pub fn figure(&self, candidate: usize, metric: usize, of: &Configured, random: usize, seed: u64) -> Option<Figure> {
        let own = self.of(candidate, metric);
        if own.is_empty() {
            return None;
        }
        let pool = of.entry.pool;
        let value = pooled(own, pool);
        let by_image = grouped(own);
        let random_scores = self.of(random, metric);
        let random_by_image = grouped(random_scores);
        // The same images are drawn for every candidate, so that differences are paired.
        let images: Vec<usize> = by_image.keys().copied().collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut values, mut gains) = (Vec::with_capacity(RESAMPLES), Vec::new());
        for _ in 0..RESAMPLES {
            let drawn: Vec<usize> = images.iter().map(|_| images[below(&mut rng, images.len())]).collect();
            let score = |groups: &BTreeMap<usize, Vec<&Score>>| {
                let scores: Vec<&Score> = drawn.iter().filter_map(|i| groups.get(i)).flatten().copied().collect();
                (!scores.is_empty()).then(|| pool(&scores))
            };
            let Some(value) = score(&by_image) else { continue };
            values.push(value);
            gains.extend(score(&random_by_image).map(|r| value - r));
        }
        let (low, high) = interval(&mut values);
        let compared = candidate != random && !random_scores.is_empty();
        let direction = of.entry.direction;
        Some(Figure {
            value,
            low,
            high,
            n: own.len(),
            images: images.len(),
            beats_random: compared.then(|| direction.prefers(value, pooled(random_scores, pool))),
            gain_over_random: compared.then(|| {
                let (low, high) = interval(&mut gains);
                match direction {
                    Direction::Higher => [low, high],
                    Direction::Lower => [-high, -low],
                }
            }),
        })
    }
}

fn pooled(scores: &[(usize, Score)], pool: fn(&[&Score]) -> f64) -> f64 {
    pool(&scores.iter().map(|(_, s)| s).collect::<Vec<_>>())
}

fn grouped(scores: &[(usize, Score)]) -> BTreeMap<usize, Vec<&Score>> {
    let mut groups: BTreeMap<usize, Vec<&Score>> = BTreeMap::new();
    scores.iter().for_each(|(image, s)| groups.entry(*image).or_default().push(s));
    groups
}

/// A whole number below `n`, evenly (to within 2^-32).
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// The 2.5th and 97.5th percentile.
fn interval(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get(((values.len() as f64 - 1.0) * share).round().max(0.0) as usize).copied();
    (at(0.025).unwrap_or(f64::NAN), at(0.975).unwrap_or(f64::NAN))
}

/// Spearman's rank correlation of two maps' sizes; none when one of them is constant.
pub fn rank_correlation(a: &[f32], b: &[f32]) -> Option<f64> {
    let ranks = |values: &[f32]| -> Vec<f64> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&i, &j| values[i].abs().total_cmp(&values[j].abs()));
        let mut ranks = vec![0.0; values.len()];
        let mut start = 0;
        while start < order.len() {
            let same = |&i: &usize| values[i].abs() == values[order[start]].abs();
            let end = start + order[start..].iter().take_while(|i| same(i)).count();
            let rank = (start + end - 1) as f64 / 2.0; // ties share their mean rank
            order[start..end].iter().for_each(|&i| ranks[i] = rank);
            start = end;
        }
        ranks
    };
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let size = (product(&a, &a) * product(&b, &b)).sqrt();
    (size > 0.0).then(|| product(&a, &b) / size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::parse;

    #[test]
    fn figures_have_intervals_and_know_the_control() {
        let metric = parse("pointing-game").unwrap();
        let mut scores = Scores::default();
        for image in 0..40 {
            scores.add(0, 0, image, f64::from(u8::from(image % 4 != 0)).into());
            scores.add(1, 0, image, f64::from(u8::from(image % 4 == 0)).into());
        }
        let good = scores.figure(0, 0, &metric, 1, 7).unwrap();
        assert_eq!((good.value, good.n, good.images, good.beats_random), (0.75, 40, 40, Some(true)));
        assert!(good.low < 0.75 && good.high > 0.75 && good.low > 0.5, "{good:?}");
        let [low, high] = good.gain_over_random.unwrap();
        assert!(low > 0.0 && high > low);
        let control = scores.figure(1, 0, &metric, 1, 7).unwrap();
        assert_eq!((control.value, control.beats_random), (0.25, None));
        assert_eq!(scores.figure(0, 0, &metric, 1, 7).unwrap(), good, "seeded");
        assert!(scores.figure(5, 0, &metric, 1, 7).is_none());
    }

    #[test]
    fn rank_correlations_share_ties_and_ignore_signs() {
        assert_eq!(rank_correlation(&[1.0, -2.0, 3.0], &[10.0, 20.0, -30.0]), Some(1.0));
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(rank_correlation(&[1.0, 1.0], &[3.0, 2.0]), None);
        let tied = rank_correlation(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0]).unwrap();
        assert!((tied - 0.866_025_403_784_438_6).abs() < 1e-12, "{tied}");
    }
}
