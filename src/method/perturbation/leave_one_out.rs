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
use crate::run::baseline::check_mask;
use crate::run::removal::Removal;
use crate::run::{Params, Reads, Run, Score};

pub(super) const ENTRY: Entry = Entry {
    name: "leave-one-out",
    aliases: &["loo"],
    title: "drop of the score when a token or word is taken away",
    paper: "Li et al. 2016",
    class_specific: true,
    build,
};

struct LeaveOneOut {
    removal: Removal,
    words: bool,
    score: Score,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let about = "mask: the mask token, pad: the padding token, attention: not attended to, delete: cut out";
    let removal = params.one_of("replace", Removal::NAMES, about)?;
    let words = params.one_of("unit", &[("token", false), ("word", true)], "what is taken away at once")?;
    Ok(Box::new(LeaveOneOut { removal, words, score: params.score(Score::Logit)? }))
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

    fn reads(&self) -> Reads {
        Reads::Logits
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (subject, units) = (run.subject()?, self.units(run.layout()));
        let whole = run.own_score(self.score)?;
        let scores = self.removal.scores(run, &subject, self.score, units.clone())?;
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
