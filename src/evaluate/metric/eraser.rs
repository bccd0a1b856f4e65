//! Comprehensiveness and sufficiency: does the class go without the rationale, and stay with it alone?
//!
//! DeYoung et al., ACL 2020 (ERASER); AOPC after Samek et al. 2017. q of 1, 5, 10, 20, 50 %, `k = max(1, ceil(q n))` of the n
//! ordinary tokens, the k most relevant being the rationale; special tokens always stay. `comprehensiveness = p(x) - p(x
//! without it)`, `sufficiency = p(x) - p(it alone)`; the figure is the mean over the five bins (the paper's formula divides
//! by one more and counts k = 0; the released code averages the bins). `removal`: `delete` cuts tokens out (default),
//! `mask` writes the mask token.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::evaluate::contract::{mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::ranked_tokens;
use crate::run::baseline::check_mask;
use crate::run::removal::Removal;
use crate::run::{Ask, Logits, Params, Score as Value};

pub(in crate::evaluate) const COMPREHENSIVENESS: Entry = Entry {
    name: "comprehensiveness",
    title: "does the class go without the most relevant tokens?",
    paper: "DeYoung et al., ACL 2020",
    direction: Direction::Higher,
    images: false,
    texts: true,
    needs: Needs::Nothing,
    default: true,
    build: |params| build(params, false),
    pool: mean,
};

pub(in crate::evaluate) const SUFFICIENCY: Entry = Entry {
    name: "sufficiency",
    title: "does the class stay with the most relevant tokens alone?",
    direction: Direction::Lower,
    build: |params| build(params, true),
    ..COMPREHENSIVENESS
};

/// Shares of the tokens, in percent.
const BINS: [usize; 5] = [1, 5, 10, 20, 50];

/// How tokens go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Delete,
    Mask,
}

impl How {
    const NAMES: &'static [(&'static str, Self)] = &[("delete", How::Delete), ("mask", How::Mask)];

    fn done(self) -> &'static str {
        match self {
            How::Delete => "cut out",
            How::Mask => "masked",
        }
    }
}

struct Eraser {
    keep: bool,
    removal: How,
}

fn build(params: &mut Params, keep: bool) -> Result<Box<dyn Metric>> {
    params.measures(Value::Probability);
    let removal = params.one_of("removal", How::NAMES, "cut tokens out, or write the mask token")?;
    Ok(Box::new(Eraser { keep, removal }))
}

impl Metric for Eraser {
    fn asks<'a>(&'a self, case: &'a Case<'_, '_>) -> Result<Vec<Ask<'a>>> {
        let order = ranked_tokens(case, true);
        if order.is_empty() {
            return Err(Error::Refused("the text has no ordinary tokens that could be taken out".into()));
        }
        let gone = |percent: usize| {
            let k = (order.len() * percent).div_ceil(100).clamp(1, order.len());
            if self.keep {
                order[k..].to_vec()
            } else {
                order[..k].to_vec()
            }
        };
        let sets: Vec<Vec<usize>> = BINS.iter().map(|&b| gone(b)).collect();
        let removal = match self.removal {
            How::Delete => Removal::Delete,
            How::Mask => Removal::Mask,
        };
        removal.asks(case.run, &case.run.subject()?, sets)
    }

    fn score(&self, case: &Case<'_, '_>, answers: &[Logits]) -> Result<Option<Score>> {
        let whole = case.run.own_score(Value::Probability)?;
        let left = answers.iter().flatten().map(|row| case.run.score(Value::Probability, row));
        let curve: Vec<f64> = left.map(|s| whole - s).collect();
        let value = curve.iter().sum::<f64>() / curve.len() as f64;
        Ok(Some(Score::of_curve(value, BINS.iter().map(|b| *b as f64 / 100.0).zip(curve))))
    }

    fn convention(&self) -> String {
        let how = self.removal.done();
        let what = if self.keep { "all but the most relevant" } else { "the most relevant" };
        format!("fall of the probability with {what} 1, 5, 10, 20, 50 % of tokens {how}, mean")
    }

    fn axes(&self) -> Option<Axes> {
        let how = if self.keep { "kept" } else { self.removal.done() };
        Some(Axes::new(format!("share of tokens {how}, most relevant first"), "fall of the probability"))
    }

    fn check(&self, model: &Facts) -> Result<()> {
        match self.removal {
            How::Delete => Ok(()),
            How::Mask => check_mask(model),
        }
    }
}
