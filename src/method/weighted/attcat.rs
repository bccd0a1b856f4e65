//! AttCAT: each layer's gradient times state, weighted by the attention a token receives, summed over layers.
//!
//! Qiang et al., NeurIPS 2022. `sum_l (sum_d x^l_jd g^l_jd) r^l_j`, r the mean over heads and output tokens of
//! `A^l_h[i,j]`, x and g the state entering the layer (`state=input`, default, the authors' code), leaving it (`output`),
//! or leaving it without the last layer (`official`, LibraGrad's code). Signed, `[T]`, class-specific. `libra=true`: g of
//! LibraGrad's reverse pass (Mehri et al., CVPR 2025).

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::combine::{stacked, values};
use crate::method::contract::{Entry, Method, Relevance};
use crate::nn::Rules;
use crate::run::{Params, Reads, Run};
use candle_core::D;

pub(super) const ENTRY: Entry = Entry {
    name: "attcat",
    aliases: &[],
    title: "gradient x state of every layer, weighted by received attention",
    paper: "Qiang et al., NeurIPS 2022",
    class_specific: true,
    build,
};

/// Whose states and gradients are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Those entering the layers.
    Input,
    /// Those leaving them.
    Output,
    /// Those leaving all but the last.
    Official,
}

impl State {
    const NAMES: &'static [(&'static str, Self)] =
        &[("input", State::Input), ("output", State::Output), ("official", State::Official)];
}

struct AttCat {
    state: State,
    rules: Rules,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let about = "states entering layers, leaving them, or leaving all but the last";
    let state = params.one_of("state", State::NAMES, about)?;
    Ok(Box::new(AttCat { state, rules: params.libra()? }))
}

impl Method for AttCat {
    fn check(&self, model: &Facts) -> Result<()> {
        if self.state == State::Official && model.layers < 2 {
            return Err(Error::Refused("state=official leaves out the last layer, and this model has no other".into()));
        }
        Ok(())
    }

    fn reads(&self) -> Reads {
        Reads::States
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let reversed = run.reverse(&self.rules)?;
        let (layers, behind) = match self.state {
            State::Input => (run.layers(), 0),
            State::Output => (run.layers(), 1),
            State::Official => (run.layers().saturating_sub(1), 1),
        };
        let each = (0..layers).map(|l| {
            let (state, gradient) = run.state_and(&reversed, l + behind)?;
            let received = run.attention(l)?.mean((0, 1))?; // [T]
            Ok(((state * gradient)?.sum(D::Minus1)? * received)?)
        });
        values(&stacked(each)?.sum(0)?)
    }

    fn signed(&self) -> bool {
        true
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }
}
