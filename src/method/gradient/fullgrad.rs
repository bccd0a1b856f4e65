//! FullGrad: gradient times state, and the relevance of every constant the model adds.
//!
//! Srinivas & Fleuret, NeurIPS 2019. With `s^l = sum_d x^l g^l` at the state entering layer l and `k^l` the relevance of
//! the constants (biases, norm shifts) of layer l, L being the head: `fullgrad = s^0 + sum_l k^l`, `fullgrad-plus =
//! sum_{l<L} s^l + sum_{l<=L} k^l` (Mehri et al. 2024, 2025: every state once, every constant once). Signed, `[T]`,
//! class-specific; no ReLU and no channel mixing. What merged tokens have (Swin) goes to equal parts to those they stand for.
//!
//! `libra=true`: LibraGrad's reverse pass, under which states and constants from any layer on sum to the logit; the
//! record carries both sums and the gap. `score=probability`: from the class's softmax probability (no completeness).

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::account::checks;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_layer, Pool};
use crate::nn::{numbers, Rules};
use crate::run::{Params, Reads, Run, Score, Seed};
use candle_core::{Tensor, D};

pub(super) const FULLGRAD: Entry = Entry {
    name: "fullgrad",
    aliases: &[],
    title: "gradient x embedding plus the relevance of all biases",
    paper: "Srinivas & Fleuret, NeurIPS 2019",
    class_specific: true,
    build: |params| build(params, false),
};

pub(super) const FULLGRAD_PLUS: Entry = Entry {
    name: "fullgrad-plus",
    aliases: &[],
    title: "gradient x state of every layer plus all biases",
    paper: "Mehri et al., CVPR 2025",
    class_specific: true,
    build: |params| build(params, true),
};

struct FullGrad {
    every_layer: bool,
    rules: Rules,
    score: Score,
}

fn build(params: &mut Params, every_layer: bool) -> Result<Box<dyn Method>> {
    let rules = params.libra()?;
    Ok(Box::new(FullGrad { every_layer, rules, score: params.score(Score::Logit)? }))
}

impl Method for FullGrad {
    fn reads(&self) -> Reads {
        Reads::Constants
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let seed = if self.score == Score::Logit { Seed::Logit } else { Seed::Probability };
        let reversed = run.reverse_from(&self.rules, seed)?;
        let states = 0..if self.every_layer { run.layers() } else { 1 };
        let share = |l: usize| -> Result<Tensor> {
            let (state, gradient) = run.state_and(&reversed, l)?;
            run.spread(&(state * gradient)?.sum(D::Minus1)?, l)
        };
        let mut parts = states.map(share).collect::<Result<Vec<_>>>()?;
        parts.extend(run.constants(&reversed)?);
        let mut relevance = of_layer(run, numbers(&Tensor::stack(&parts, 0)?.sum(0)?)?, 0, Pool::Sum)?;
        if self.rules.conserves() && self.score == Score::Logit {
            relevance.checks = checks(run, &self.rules)?;
        }
        Ok(relevance)
    }

    fn pixels(&self, model: &Facts) -> bool {
        model.staged()
    }

    fn signed(&self) -> bool {
        true
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }
}
