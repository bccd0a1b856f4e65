//! Agreement with rationales that people marked: token F1 and the area under the precision-recall curve.
//!
//! DeYoung et al., ACL 2020 (ERASER). Over the ordinary tokens of a text with a rationale of k tokens: `token-f1` is the F1
//! of the k most relevant tokens (so precision and recall are equal), `token-auprc` the average precision of relevance as a
//! score, step-wise over distinct scores. Inputs without a rationale are left out.

use super::segmentation::average_precision;
use crate::error::Result;
use crate::evaluate::contract::{mean, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::ranked_tokens;
use crate::run::Logits;

pub(in crate::evaluate) const TOKEN_F1: Entry = Entry {
    name: "token-f1",
    title: "are the most relevant tokens those of the rationale?",
    paper: "DeYoung et al., ACL 2020",
    direction: Direction::Higher,
    images: false,
    texts: true,
    needs: Needs::Rationale,
    default: true,
    build: |_| Ok(Box::new(Agreement { curve: false })),
    pool: mean,
};

pub(in crate::evaluate) const TOKEN_AUPRC: Entry = Entry {
    name: "token-auprc",
    title: "does relevance rank the rationale's tokens first?",
    build: |_| Ok(Box::new(Agreement { curve: true })),
    ..TOKEN_F1
};

struct Agreement {
    curve: bool,
}

impl Metric for Agreement {
    fn score(&self, case: &Case<'_, '_>, _: &[Logits]) -> Result<Option<Score>> {
        let Some(marked) = &case.truth.rationale else { return Ok(None) };
        let order = ranked_tokens(case, true);
        let k = order.iter().filter(|&&t| marked[t]).count();
        if k == 0 {
            return Ok(None);
        }
        let value = if self.curve {
            let items = order.iter().map(|&t| (f64::from(case.explanation.relevance[t]), marked[t]));
            average_precision(items.collect())
        } else {
            order[..k].iter().filter(|&&t| marked[t]).count() as f64 / k as f64
        };
        Ok(Some(value.into()))
    }

    fn convention(&self) -> String {
        if self.curve {
            "average precision of relevance over ordinary tokens, rationale's tokens positive".into()
        } else {
            "F1 of as many tokens as the rationale has, most relevant first".into()
        }
    }
}
