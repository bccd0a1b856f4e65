//! Leave-one-out: how much the score drops when a token, or a word, is taken away.
//!
//! Li, Monroe & Jurafsky 2016. `replace`: `mask` (default) puts the mask token in its place, `pad` the padding token
//! (still attended to), `attention` hides it from attention, `delete` cuts it out (later tokens move up, token types
//! travel with their token; special tokens are not tried and get 0). Positions otherwise stay. `unit=word` takes all
//! pieces of a word away at once and divides the drop among them equally. `score`: logit (default) or probability.
//! Signed, `[T]`, class-specific; T + 1 forward passes. Texts only; images have `occlusion`.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::baseline::{check_mask, mask_id};
use crate::run::{Params, Run, Score, Subject};

pub(super) const ENTRY: Entry = Entry {
    name: "leave-one-out",
    aliases: &["loo"],
    title: "drop of the score when a token or word is taken away",
    paper: "Li et al. 2016",
    class_specific: true,
    build,
};

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

struct LeaveOneOut {
    removal: Removal,
    words: bool,
    score: Score,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let about = "mask: the mask token, pad: the padding token, attention: not attended to, delete: cut out";
    let removal = Removal::named(params.choice("replace", &["mask", "pad", "attention", "delete"], about)?);
    let words = params.choice("unit", &["token", "word"], "what is taken away at once")? == "word";
    Ok(Box::new(LeaveOneOut { removal, words, score: params.score(["logit", "probability"])? }))
}

impl LeaveOneOut {
    /// Sets of tokens that are taken away together.
    fn units(&self, layout: &Layout) -> Vec<Vec<usize>> {
        let Layout::Text(text) = layout else { return Vec::new() };
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut last = None;
        for (t, token) in text.tokens.iter().enumerate() {
            if token.special && self.removal == Removal::Delete {
                continue;
            }
            match units.last_mut() {
                Some(unit) if self.words && token.word.is_some() && token.word == last => unit.push(t),
                _ => units.push(vec![t]),
            }
            last = token.word;
        }
        units
    }
}

impl Method for LeaveOneOut {
    fn check(&self, model: &Facts) -> Result<()> {
        if !model.text {
            return Err(Error::Refused("it is defined for texts only: images have `occlusion`".into()));
        }
        if self.removal == Removal::Mask {
            check_mask(model)?;
        }
        Ok(())
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (subject, units) = (run.subject()?, self.units(run.layout()));
        let whole = subject.own_score(self.score)?;
        let scores = self.removal.scores(run, &subject, self.score, &units)?;
        let mut relevance = vec![0f32; run.tokens()];
        for (unit, score) in units.iter().zip(scores) {
            let share = (whole - score) / unit.len() as f64;
            unit.iter().for_each(|&t| relevance[t] = share as f32);
        }
        Ok(relevance.into())
    }

    fn signed(&self) -> bool {
        true
    }
}
