//! Localisation as segmentation: is the map the object's silhouette?
//!
//! Chefer, Gur & Wolf, CVPR 2021. The map at the input's resolution, brought to [0,1]; pixels above its mean are the object.
//! `pixel-accuracy`; `miou`, the mean of the intersections over unions of background and object; `average-precision` (mAP
//! over a data set) of the 2 H W scores (1 - r, r) against the one-hot labels, step-wise over distinct scores. Over a data
//! set counts are added before dividing, as the authors do; average precision is a mean. A constant map predicts
//! background everywhere. Inputs without a mask are left out, and so are void pixels of a mask: of counts and of scores (the
//! mean that cuts the map is over all of its pixels).

use crate::error::Result;
use crate::evaluate::contract::{mean, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::pixels;
use crate::evaluate::mask::Place;
use crate::run::Logits;

pub(in crate::evaluate) const PIXEL_ACCURACY: Entry = Entry {
    name: "pixel-accuracy",
    title: "share of pixels on the right side of the map's mean",
    paper: "Chefer, Gur & Wolf, CVPR 2021",
    direction: Direction::Higher,
    images: true,
    texts: false,
    needs: Needs::Mask,
    default: true,
    build: |_| Ok(Box::new(Segmentation(Kind::Accuracy))),
    pool: |scores| summed(scores, 0) / summed(scores, 1),
};

pub(in crate::evaluate) const MIOU: Entry = Entry {
    name: "miou",
    title: "overlap of the map above its mean with the object, and of the rest with the background",
    build: |_| Ok(Box::new(Segmentation(Kind::Overlap))),
    pool: |scores| {
        let iou = |i: usize| summed(scores, i) / summed(scores, i + 2).max(1.0);
        (iou(0) + iou(1)) / 2.0
    },
    ..PIXEL_ACCURACY
};

pub(in crate::evaluate) const AVERAGE_PRECISION: Entry = Entry {
    name: "average-precision",
    title: "does relevance rank the object's pixels above the background's?",
    build: |_| Ok(Box::new(Segmentation(Kind::Precision))),
    pool: mean,
    ..PIXEL_ACCURACY
};

fn summed(scores: &[&Score], at: usize) -> f64 {
    scores.iter().map(|s| s.counts.get(at).copied().unwrap_or(0.0)).sum()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accuracy,
    Overlap,
    Precision,
}

struct Segmentation(Kind);

/// `sum_k (recall_k - recall_{k-1}) precision_k` over distinct scores, highest first; NaN without a positive.
pub(super) fn average_precision(mut items: Vec<(f64, bool)>) -> f64 {
    items.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = items.iter().filter(|(_, p)| *p).count() as f64;
    let (mut hits, mut before, mut area) = (0.0, 0.0, 0.0);
    for (i, (score, positive)) in items.iter().enumerate() {
        hits += f64::from(u8::from(*positive));
        if items.get(i + 1).is_none_or(|next| next.0 != *score) {
            area += (hits - before) / positives * hits / (i + 1) as f64;
            before = hits;
        }
    }
    area
}

impl Metric for Segmentation {
    fn score(&self, case: &Case<'_, '_>, _: &[Logits]) -> Result<Option<Score>> {
        let Some(mask) = &case.truth.mask else { return Ok(None) };
        let map = pixels(case.explanation, case.run.subject()?.size()?)?;
        let low = map.iter().copied().fold(f64::INFINITY, f64::min);
        let high = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let unit: Vec<f64> = map.iter().map(|v| if high > low { (v - low) / (high - low) } else { 0.0 }).collect();
        if self.0 == Kind::Precision {
            let known = unit.iter().zip(mask).filter(|(_, m)| **m != Place::Void);
            let both = known.map(|(r, m)| (*r, *m == Place::Object)).flat_map(|(r, m)| [(1.0 - r, !m), (r, m)]);
            return Ok(Some(average_precision(both.collect()).into()));
        }
        let mean = unit.iter().sum::<f64>() / unit.len() as f64;
        let mut table = [[0.0; 2]; 2]; // [predicted][true]
        for (r, m) in unit.iter().zip(mask) {
            match m {
                Place::Void => {}
                Place::Object | Place::Background => {
                    table[usize::from(*r > mean)][usize::from(*m == Place::Object)] += 1.0;
                }
            }
        }
        if self.0 == Kind::Accuracy {
            let (right, all) = (table[0][0] + table[1][1], table.iter().flatten().sum::<f64>());
            return Ok(Some(Score { value: right / all, counts: vec![right, all], ..Score::default() }));
        }
        let wrong = table[0][1] + table[1][0];
        let (background, object) = (table[0][0], table[1][1]);
        let iou = |both: f64| both / (both + wrong).max(1.0);
        let counts = vec![background, object, background + wrong, object + wrong];
        Ok(Some(Score { value: (iou(background) + iou(object)) / 2.0, counts, ..Score::default() }))
    }

    fn convention(&self) -> String {
        match self.0 {
            Kind::Accuracy => "pixels above the map's mean are the object; counts added over images",
            Kind::Overlap => "mean IoU of object and background, map cut at its mean; counts added over images",
            Kind::Precision => "average precision of (1-r, r) against (background, object); mean over images",
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_as_one_step() {
        assert_eq!(average_precision(vec![(0.9, true), (0.5, false), (0.1, true)]), 0.5 + 0.5 * 2.0 / 3.0);
        assert_eq!(average_precision(vec![(0.5, true), (0.5, false)]), 0.5);
    }
}
