//! Max-sensitivity: how much does the map change when the input hardly does?
//!
//! Yeh et al., NeurIPS 2019. The largest `|e(x + d) - e(x)| / |e(x)|` over `n` perturbations d, uniform in [-radius, radius]
//! for every value of the input (normalised pixels, word vectors), e the relevance of all tokens, the explained class fixed.
//! The norm is Euclidean. Lower is better. Methods that need token ids (leave-one-out and the baselines of text methods)
//! cannot be run on changed word vectors and have no figure.

use crate::error::{Error, Result};
use crate::evaluate::contract::{mean, Case, Direction, Entry, Metric, Needs, Score};
use crate::run::{Batch, Logits, Params};

pub(in crate::evaluate) const ENTRY: Entry = Entry {
    name: "max-sensitivity",
    title: "how much does the map change when the input hardly does?",
    paper: "Yeh et al., NeurIPS 2019",
    direction: Direction::Lower,
    images: true,
    texts: true,
    needs: Needs::Nothing,
    default: false,
    build,
    pool: mean,
};

struct Sensitivity {
    n: usize,
    radius: f64,
}

fn build(params: &mut Params) -> Result<Box<dyn Metric>> {
    let n = params.count("n", 10, "perturbations", 1..=10_000)?;
    Ok(Box::new(Sensitivity { n, radius: params.number("radius", 0.02, "their largest entry", 0.0..=10.0)? }))
}

impl Metric for Sensitivity {
    fn score(&self, case: &Case<'_, '_>, _: &[Logits]) -> Result<Option<Score>> {
        let (run, subject) = (case.run, case.run.subject()?);
        let x = subject.values()?;
        let noise = run.noise().uniform("max-sensitivity", &[&[self.n], x.dims()].concat())?;
        let noise = noise.to_device(x.device())?.to_dtype(x.dtype())?;
        let length = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let own = &case.explanation.relevance;
        let size = length(&mut own.iter().copied());
        let mut worst: f64 = 0.0;
        for k in 0..self.n {
            let moved = (noise.get(k)?.affine(2.0 * self.radius, -self.radius)? + &x)?;
            let inputs = subject.with(&moved.unsqueeze(0)?)?;
            let batch = Batch::new(run.encoder(), inputs, vec![run.layout().clone()])?.reading(case.candidate.reads());
            let pass = batch.pass(vec![run.output()])?;
            let again = match case.candidate.explain(&pass.run(0)) {
                Ok(again) => again,
                Err(Error::Refused(_)) => return Ok(None),
                Err(e) => return Err(e),
            };
            let change = length(&mut again.relevance.iter().zip(own).map(|(a, b)| a - b));
            worst = worst.max(change / size.max(f64::MIN_POSITIVE));
        }
        Ok(Some(worst.into()))
    }

    fn convention(&self) -> String {
        format!("largest relative change of the map under {} perturbations of at most {}", self.n, self.radius)
    }
}
