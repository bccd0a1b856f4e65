//! How tokens are taken out of a text.

use super::baseline::mask_id;
use super::variants::{Score, Subject};
use super::view::Run;
use crate::error::Result;

/// How tokens are taken out of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The mask token stands in their place.
    Mask,
    /// The padding token does, attended to.
    Pad,
    /// They stay, but nothing attends to them.
    Attention,
    /// They are cut out.
    Delete,
}

impl Removal {
    /// The choice of this name.
    pub fn named(name: &str) -> Self {
        match name {
            "pad" => Removal::Pad,
            "attention" => Removal::Attention,
            "delete" => Removal::Delete,
            _ => Removal::Mask,
        }
    }

    /// Scores of a text without these tokens, one score a set.
    ///
    /// # Errors
    /// [`Error::Refused`] where the mask token is missing; whatever the passes report.
    pub fn scores(self, run: &Run<'_>, subject: &Subject<'_>, score: Score, sets: &[Vec<usize>]) -> Result<Vec<f64>> {
        let own = subject.ids()?;
        let replaced = |filler: u32| {
            subject.scores(score, sets.len(), |range| {
                let variant = |set: &Vec<usize>| {
                    let mut ids = own.to_vec();
                    set.iter().for_each(|&t| ids[t] = filler);
                    ids
                };
                subject.with_ids(&sets[range].iter().map(variant).collect::<Vec<_>>())
            })
        };
        match self {
            Removal::Mask => replaced(mask_id(run.encoder())?),
            Removal::Pad => replaced(run.encoder().neutral.pad_id),
            Removal::Attention => subject.scores(score, sets.len(), |range| {
                let kept = |set: &Vec<usize>| (0..own.len()).map(|t| !set.contains(&t)).collect();
                subject.with_mask(&sets[range].iter().map(kept).collect::<Vec<Vec<bool>>>())
            }),
            Removal::Delete => sets
                .iter()
                .map(|set| {
                    let kept: Vec<usize> = (0..own.len()).filter(|t| !set.contains(t)).collect();
                    Ok(subject.scores(score, 1, |_| subject.cut_to(&kept))?[0])
                })
                .collect(),
        }
    }
}
