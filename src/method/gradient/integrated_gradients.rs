//! Integrated Gradients: the gradient along the straight line from a baseline to the input, times what changes.
//!
//! Sundararajan, Taly & Yan, ICML 2017. `(x - x0) * sum_k w_k G(x0 + a_k (x - x0))`: `quadrature=gauss-legendre`
//! (default; m-point Legendre nodes between 0 and 1) or `midpoint` (`a_k = (k - 1/2)/m`, the midpoint Riemann sum). Summed over
//! channels and patches, or over a word's vector; signed, `[T]` and `[H,W]`. `steps` (default 32) go through the model
//! in batches.
//!
//! `baseline` for images: `black` (default), `zero` (the processor's mean colour), `blur`, `mean` (the image's mean
//! colour); for texts: `pad` (default), `mask`, `zero`; position and type embeddings are never varied. `reduce=l2`: the
//! length over a word's vector.
//!
//! Completeness: attributions sum to `y(x) - y(x0)`. The record has `completeness_delta`, the sum less that difference in
//! logits, and `completeness_error`, its share of the difference; above 5 % there is a warning. Class-specific.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::combine::values;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_pixels, PixelOptions, Pool, Reduce};
use crate::nn::{numbers, Rules};
use crate::run::baseline::{check_mask, ImageBaseline, TextBaseline};
use crate::run::modes::name_of;
use crate::run::{Params, Reads, Run, Score};
use candle_core::{Device, Tensor};

pub(super) const ENTRY: Entry = Entry {
    name: "integrated-gradients",
    aliases: &["ig"],
    title: "gradient integrated from a baseline to the input",
    paper: "Sundararajan et al., ICML 2017",
    class_specific: true,
    build,
};

/// Share of the explained difference above which the sum is called incomplete.
const TOLERATED: f64 = 0.05;

/// Where the line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Auto,
    Zero,
    Image(ImageBaseline),
    Text(TextBaseline),
}

impl Start {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("auto", Start::Auto),
        ("black", Start::Image(ImageBaseline::Black)),
        ("zero", Start::Zero),
        ("blur", Start::Image(ImageBaseline::Blur)),
        ("mean", Start::Image(ImageBaseline::Mean)),
        ("pad", Start::Text(TextBaseline::Pad)),
        ("mask", Start::Text(TextBaseline::Mask)),
    ];

    /// None for what texts begin with.
    fn of_images(self) -> Option<ImageBaseline> {
        match self {
            Start::Auto => Some(ImageBaseline::Black),
            Start::Zero => Some(ImageBaseline::Zero),
            Start::Image(baseline) => Some(baseline),
            Start::Text(_) => None,
        }
    }

    /// None for what images begin with.
    fn of_texts(self) -> Option<TextBaseline> {
        match self {
            Start::Auto => Some(TextBaseline::Pad),
            Start::Zero => Some(TextBaseline::Zero),
            Start::Text(baseline) => Some(baseline),
            Start::Image(_) => None,
        }
    }
}

/// How the line is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quadrature {
    GaussLegendre,
    Midpoint,
}

impl Quadrature {
    const NAMES: &'static [(&'static str, Self)] =
        &[("gauss-legendre", Quadrature::GaussLegendre), ("midpoint", Quadrature::Midpoint)];

    /// Places on [0,1] and their weights.
    fn nodes(self, steps: usize) -> Vec<(f64, f64)> {
        match self {
            Quadrature::GaussLegendre => gauss_legendre(steps),
            Quadrature::Midpoint => (0..steps).map(|k| ((k as f64 + 0.5) / steps as f64, 1.0 / steps as f64)).collect(),
        }
    }
}

/// The method, with its attribution open to those who want it.
pub struct IntegratedGradients {
    start: Start,
    nodes: Vec<(f64, f64)>,
    reduce: Reduce,
    options: PixelOptions,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(IntegratedGradients::read(params)?))
}

impl IntegratedGradients {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        let about = "auto (black, pad); images: black, zero, blur, mean; texts: pad, mask, zero";
        let start = params.one_of("baseline", Start::NAMES, about)?;
        let rule = params.one_of("quadrature", Quadrature::NAMES, "how the line is sampled")?;
        let steps = params.count("steps", 32, "points on the line", 1..=4096)?;
        let reduce = Reduce::read(params)?;
        Ok(IntegratedGradients { start, nodes: rule.nodes(steps), reduce, options: PixelOptions::read(params, false)? })
    }

    /// The attribution, shaped like the input, and the difference in logits it should sum to.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn attribution(&self, run: &Run<'_>) -> Result<(Tensor, f64)> {
        let subject = run.subject()?;
        let (x, x0) = (subject.values()?, self.start(run)?);
        let way = (&x - &x0)?;
        let along = |range: std::ops::Range<usize>| -> Result<Tensor> {
            let places: Vec<f64> = self.nodes[range].iter().map(|(a, _)| *a).collect();
            let shape = [&[places.len()][..], &vec![1; x.rank()]].concat();
            let places = Tensor::from_vec(places, shape, &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
            Ok(places.broadcast_mul(&way.unsqueeze(0)?)?.broadcast_add(&x0)?)
        };
        let mut sum = x.zeros_like()?;
        subject.gradients(self.nodes.len(), along, |k, gradient| {
            sum = (&sum + (gradient * self.nodes[k].1)?)?;
            Ok(())
        })?;
        let before: f64 = subject.scores(Score::Logit, 1, |_| subject.with(&x0.unsqueeze(0)?))?.iter().sum(); // of one
        Ok(((sum * way)?, run.logit()? - before))
    }
}

/// Nodes and weights of the m-point rule on [0,1]: roots of the Legendre polynomial by Newton's method.
fn gauss_legendre(m: usize) -> Vec<(f64, f64)> {
    let legendre = |x: f64| -> (f64, f64) {
        let (mut before, mut p) = (1.0, x);
        for k in 2..=m {
            let k = k as f64;
            (before, p) = (p, ((2.0 * k - 1.0) * x * p - (k - 1.0) * before) / k);
        }
        (p, m as f64 * (x * p - before) / (x * x - 1.0)) // value and derivative
    };
    let node = |i: usize| {
        let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (m as f64 + 0.5)).cos();
        for _ in 0..100 {
            let (p, slope) = legendre(x);
            x -= p / slope;
            if (p / slope).abs() < 1e-15 {
                break;
            }
        }
        let slope = legendre(x).1;
        (0.5 * (1.0 - x), 1.0 / ((1.0 - x * x) * slope * slope)) // weight 2/(..) on [-1,1], half of it on [0,1]
    };
    if m == 1 {
        return vec![(0.5, 1.0)];
    }
    (0..m).map(node).collect()
}

impl IntegratedGradients {
    fn start(&self, run: &Run<'_>) -> Result<Tensor> {
        let (subject, encoder) = (run.subject()?, run.encoder());
        let wrong = || self.refusal(run.is_text());
        if run.is_text() {
            return self.start.of_texts().ok_or_else(wrong)?.of(&subject, run.layout(), encoder);
        }
        self.start.of_images().ok_or_else(wrong)?.of(&subject.values()?, encoder)
    }

    fn refusal(&self, text: bool) -> Error {
        let (what, choices) = if text { ("texts", "pad, mask, zero") } else { ("images", "black, zero, blur, mean") };
        Error::Refused(format!(
            "baseline={} is not for {what}; theirs are {choices}",
            name_of(Start::NAMES, self.start)
        ))
    }
}

impl Method for IntegratedGradients {
    fn check(&self, model: &Facts) -> Result<()> {
        if self.start == Start::Text(TextBaseline::Mask) {
            check_mask(model)?;
        }
        let known = if model.text { self.start.of_texts().is_some() } else { self.start.of_images().is_some() };
        if known {
            Ok(())
        } else {
            Err(self.refusal(model.text))
        }
    }

    fn reads(&self) -> Reads {
        Reads::Logits
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (attribution, difference) = self.attribution(run)?;
        let mut relevance = if run.is_text() {
            values(&self.reduce.apply(&attribution)?)?
        } else {
            of_pixels(run, &attribution.sum(0)?, Pool::Sum, self.options)?
        };
        let delta = numbers(&attribution)?.iter().sum::<f64>() - difference;
        let error = delta.abs() / difference.abs().max(f64::MIN_POSITIVE);
        for (key, value) in
            [("completeness_delta", delta), ("completeness_difference", difference), ("completeness_error", error)]
        {
            relevance.checks.insert(key.into(), value.into());
        }
        if error > TOLERATED {
            let steps = self.nodes.len();
            let warning =
                format!("attributions miss the logit's change by {:.0} %; raise steps (now {steps})", error * 100.0);
            relevance.checks.insert("warning".into(), warning.into());
        }
        Ok(relevance)
    }

    fn signed(&self) -> bool {
        self.reduce == Reduce::Sum
    }

    fn pixels(&self, _model: &Facts) -> bool {
        true
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::GRADIENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadratures_integrate_polynomials() {
        for m in [1, 2, 5, 8, 32, 64] {
            let nodes = gauss_legendre(m);
            for power in [0, 1, 2 * m - 1] {
                let got: f64 = nodes.iter().map(|(a, w)| w * a.powi(power as i32)).sum();
                assert!((got - 1.0 / (power as f64 + 1.0)).abs() < 1e-12, "{m} points, power {power}: {got}");
            }
        }
    }
}
