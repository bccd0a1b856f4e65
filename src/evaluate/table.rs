//! Figures over a data set: pooled scores with bootstrap confidence intervals, beside the random control.

use super::contract::{Configured, Entry, Score};
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
        let entry = of.entry;
        let value = pooled(own, entry.pool);
        let by_image = grouped(own);
        let mut values: Vec<f64> =
            resampled(&by_image, seed).filter_map(|d| drawn(&by_image, &d, entry.pool)).collect();
        let (low, high) = interval(&mut values);
        let random_scores = self.of(random, metric);
        let compared = candidate != random && !random_scores.is_empty();
        Some(Figure {
            value,
            low,
            high,
            n: own.len(),
            images: by_image.len(),
            beats_random: compared.then(|| entry.direction.prefers(value, pooled(random_scores, entry.pool))),
            gain_over_random: gain(own, random_scores, entry, seed).filter(|_| compared),
        })
    }
}

/// How much better one candidate's scores are than another's: the 95 % percentile bootstrap interval of the difference of
/// their figures, paired by image, positive where the first is better. None without a common image.
pub fn gain(own: &[(usize, Score)], other: &[(usize, Score)], of: &Entry, seed: u64) -> Option<[f64; 2]> {
    let (own, other) = (grouped(own), grouped(other));
    let mut gains: Vec<f64> = resampled(&own, seed).filter_map(|d| difference(&own, &other, &d, of)).collect();
    if gains.is_empty() {
        return None;
    }
    let (low, high) = interval(&mut gains);
    Some([low, high])
}

/// How much better each of many candidates is than another: intervals that hold for all of them at once with 95 %
/// confidence, so that one among many does not pass for better by chance (the bootstrap distribution of the largest
/// standardised difference, Romano & Wolf, Econometrica 2005). None for a candidate judged on other images.
pub fn gains(own: &[&[(usize, Score)]], other: &[(usize, Score)], of: &Entry, seed: u64) -> Vec<Option<[f64; 2]>> {
    let other = grouped(other);
    let draws: Vec<Vec<usize>> = resampled(&other, seed).collect();
    let all: Vec<usize> = other.keys().copied().collect();
    let mut largest = vec![0.0f64; draws.len()];
    let estimate = |own: &&[(usize, Score)]| -> Option<(f64, f64)> {
        let own = grouped(own);
        if !own.keys().eq(other.keys()) {
            return None;
        }
        let gain = difference(&own, &other, &all, of)?;
        let away: Vec<f64> =
            draws.iter().map(|d| Some(difference(&own, &other, d, of)? - gain)).collect::<Option<_>>()?;
        let error = (away.iter().map(|a| a * a).sum::<f64>() / away.len() as f64).sqrt();
        if error > 0.0 {
            largest.iter_mut().zip(&away).for_each(|(l, a)| *l = l.max(a.abs() / error));
        }
        Some((gain, error))
    };
    let estimates: Vec<_> = own.iter().map(estimate).collect();
    let width = percentile(&mut largest, 0.95);
    estimates.into_iter().map(|e| e.map(|(gain, error)| [gain - width * error, gain + width * error])).collect()
}

/// The difference of two figures over some images, positive where the first is better.
fn difference(own: &Groups<'_>, other: &Groups<'_>, images: &[usize], of: &Entry) -> Option<f64> {
    let loss = |groups| drawn(groups, images, of.pool).map(|figure| of.direction.loss(figure));
    Some(loss(other)? - loss(own)?)
}

/// Images drawn anew from all of them: the same ones for every candidate judged on the same images, so that differences are paired.
fn resampled(groups: &Groups<'_>, seed: u64) -> impl Iterator<Item = Vec<usize>> {
    let images: Vec<usize> = groups.keys().copied().collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..RESAMPLES).map(move |_| images.iter().map(|_| images[below(&mut rng, images.len())]).collect())
}

/// The figure of drawn images; none where they have no score.
fn drawn(groups: &Groups<'_>, images: &[usize], pool: fn(&[&Score]) -> f64) -> Option<f64> {
    let scores: Vec<&Score> = images.iter().filter_map(|i| groups.get(i)).flatten().copied().collect();
    (!scores.is_empty()).then(|| pool(&scores))
}

/// Scores by image.
type Groups<'a> = BTreeMap<usize, Vec<&'a Score>>;

/// The figure of all scores.
pub fn pooled(scores: &[(usize, Score)], pool: fn(&[&Score]) -> f64) -> f64 {
    pool(&scores.iter().map(|(_, s)| s).collect::<Vec<_>>())
}

fn grouped(scores: &[(usize, Score)]) -> Groups<'_> {
    let mut groups = Groups::new();
    scores.iter().for_each(|(image, s)| groups.entry(*image).or_default().push(s));
    groups
}

/// A whole number below `n`, evenly (to within 2^-32).
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// The 2.5th and 97.5th percentile.
fn interval(values: &mut [f64]) -> (f64, f64) {
    (percentile(values, 0.025), percentile(values, 0.975))
}

/// The value that a share of the values lies below, without interpolation; NaN of none.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 - 1.0) * share).round().max(0.0);
    values.get(at as usize).copied().unwrap_or(f64::NAN)
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
    fn one_of_many_equal_candidates_does_not_pass_for_better() {
        let metric = parse("mass-inside").unwrap().entry;
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut noise = |better: f64| -> Vec<(usize, Score)> {
            let uniform = |rng: &mut ChaCha8Rng| f64::from(rng.next_u32()) / f64::from(u32::MAX);
            (0..40).map(|i| (i, (uniform(&mut rng) + better).into())).collect()
        };
        let baseline: Vec<(usize, Score)> = (0..40).map(|i| (i, 0.5.into())).collect();
        let many: Vec<_> = (0..100).map(|c| noise(if c == 99 { 0.4 } else { 0.0 })).collect();
        let single: Vec<bool> =
            many.iter().map(|own| gain(own, &baseline, metric, 3).is_some_and(|[low, _]| low > 0.0)).collect();
        assert!(single[..99].iter().any(|b| *b), "alone, some look better by chance");
        let slices: Vec<&[(usize, Score)]> = many.iter().map(Vec::as_slice).collect();
        let all = gains(&slices, &baseline, metric, 3);
        assert!(all[..99].iter().flatten().all(|[low, high]| *low < 0.0 && *high > 0.0));
        assert!(all[99].is_some_and(|[low, _]| low > 0.0), "{:?}", all[99]);
        assert_eq!(gains(&[&baseline, &baseline[1..]], &baseline, metric, 3), [Some([0.0, 0.0]), None]);
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
