//! ROAD: remove and debias. Hidden patches are filled in from what surrounds them, so that the hole's shape tells nothing.
//!
//! Rong et al., ICML 2022. At 20, 40, 60 and 80 % of the patches, each hidden pixel becomes the weighted mean of its eight
//! neighbours (1/6 straight, 1/12 diagonal; a linear system, solved to rounding, see [`filling`](super::filling)) plus Gaussian
//! noise of deviation `noise` (0.01). `order=combined` (default): half the class's probability with the least relevant hidden less
//! half that with the most relevant hidden, mean over the four shares; higher is better. `most` and `least` give one side
//! alone (of `most` the negative is taken, so that higher is better throughout).

use super::filling::fill;
use crate::error::Result;
use crate::evaluate::contract::{answered, mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::{image_layout, patches, ranked};
use crate::nn::numbers;
use crate::run::removal::pixels_of;
use crate::run::{Ask, Logits, Params, Score as Value};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

pub(in crate::evaluate) const ENTRY: Entry = Entry {
    name: "road",
    title: "does the class depend on the relevant patches when holes are filled in?",
    paper: "Rong et al., ICML 2022",
    direction: Direction::Higher,
    images: true,
    texts: false,
    needs: Needs::Nothing,
    default: false,
    build,
    pool: mean,
};

/// Shares that are hidden, in percent.
const SHARES: [usize; 4] = [20, 40, 60, 80];

/// What is hidden first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Combined,
    Most,
    Least,
}

impl Order {
    const NAMES: &'static [(&'static str, Self)] =
        &[("combined", Order::Combined), ("most", Order::Most), ("least", Order::Least)];
}

struct Road {
    order: Order,
    noise: f64,
}

fn build(params: &mut Params) -> Result<Box<dyn Metric>> {
    params.measures(Value::Probability);
    let about = "combined: least minus most relevant hidden, halved; or one of the two";
    let order = params.one_of("order", Order::NAMES, about)?;
    Ok(Box::new(Road { order, noise: params.number("noise", 0.01, "deviation of the filling's noise", 0.0..=10.0)? }))
}

impl Road {
    /// The image with each share of its patches filled in, the most or the least relevant.
    fn filled<'a>(&'a self, case: &'a Case<'_, '_>, most: bool) -> Result<Ask<'a>> {
        let (subject, layout) = (case.run.subject()?, image_layout(case.explanation)?);
        let order = ranked(&patches(case.explanation), most);
        let image = subject.values()?;
        let (c, h, w) = image.dims3()?;
        let values = numbers(&image)?;
        let noise = numbers(&case.run.noise().normal("road", &[c, h, w])?)?;
        let one = move |share: usize| -> Result<Vec<f64>> {
            let mut hidden = vec![false; h * w];
            for &patch in &order[..order.len() * share / 100] {
                pixels_of(layout, w, patch).for_each(|p| hidden[p] = true);
            }
            let mut out = values.clone();
            fill(&mut out, &hidden, (h, w))?;
            let unknown = (0..c * h * w).filter(|i| hidden[i % (h * w)]);
            unknown.for_each(|i| out[i] += noise[i] * self.noise);
            Ok(out)
        };
        Ok(Ask::new(SHARES.len(), move |range| {
            let n = range.len();
            let images = SHARES[range].par_iter().map(|&s| one(s)).collect::<Result<Vec<_>>>()?;
            let images = Tensor::from_vec(images.concat(), (n, c, h, w), &Device::Cpu)?;
            subject.with(&images.to_dtype(image.dtype())?.to_device(image.device())?)
        }))
    }
}

impl Metric for Road {
    fn asks<'a>(&'a self, case: &'a Case<'_, '_>) -> Result<Vec<Ask<'a>>> {
        let most_first: &[bool] = match self.order {
            Order::Most => &[true],
            Order::Least => &[false],
            Order::Combined => &[true, false],
        };
        most_first.iter().map(|&most| self.filled(case, most)).collect()
    }

    fn score(&self, case: &Case<'_, '_>, answers: &[Logits]) -> Result<Option<Score>> {
        let probabilities = |answer: &Logits| -> Vec<f64> {
            answer.iter().map(|row| case.run.score(Value::Probability, row)).collect()
        };
        let curve: Vec<f64> = match self.order {
            Order::Most => {
                let [most] = answered(answers)?;
                probabilities(most).iter().map(|p| -p).collect()
            }
            Order::Least => {
                let [least] = answered(answers)?;
                probabilities(least)
            }
            Order::Combined => {
                let [most, least] = answered(answers)?;
                probabilities(least).iter().zip(probabilities(most)).map(|(l, m)| (l - m) / 2.0).collect()
            }
        };
        let value = curve.iter().sum::<f64>() / curve.len() as f64;
        Ok(Some(Score::of_curve(value, SHARES.iter().map(|s| *s as f64 / 100.0).zip(curve))))
    }

    fn convention(&self) -> String {
        let what = match self.order {
            Order::Most => "minus the probability with the most relevant",
            Order::Least => "the probability with the least relevant",
            Order::Combined => "half the probability's difference, least minus most relevant",
        };
        format!("{what} 20, 40, 60, 80 % of patches filled in from around, mean")
    }

    fn axes(&self) -> Option<Axes> {
        let y = match self.order {
            Order::Most => "minus the probability, most relevant first",
            Order::Least => "probability, least relevant first",
            Order::Combined => "half the probability's difference",
        };
        Some(Axes::new("share of patches filled in", y))
    }
}
