//! Random numbers of stochastic methods: seeded, the same for every input whatever the batch size and thread count, or
//! given by the caller.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use std::collections::HashMap;
use std::ops::Range;

/// Where a method's random numbers come from.
#[derive(Debug, Default)]
pub struct Noise {
    seed: u64,
    given: HashMap<String, Tensor>,
}

impl Noise {
    /// Drawn from ChaCha8, whose stream is the same on every machine and in every version; each use has its own stream.
    pub fn seeded(seed: u64) -> Self {
        Noise { seed, given: HashMap::new() }
    }

    /// These tensors, by the name of their use, instead of drawn ones: to repeat a published run, or to test.
    pub fn given(tensors: HashMap<String, Tensor>) -> Self {
        Noise { seed: 0, given: tensors }
    }

    /// Standard normal numbers for `name`, f32.
    ///
    /// # Errors
    /// [`Error::Usage`] when given numbers have another shape.
    pub fn normal(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.draw(name, shape, StandardNormal)
    }

    /// Standard normal numbers for samples `range` of `name`, `[N,...]` with `shape` behind N, f32. Each sample has a stream
    /// of its own, so that samples can be drawn a few at a time.
    ///
    /// # Errors
    /// [`Error::Usage`] when given numbers have another shape.
    pub fn normal_samples(&self, name: &str, range: Range<usize>, shape: &[usize]) -> Result<Tensor> {
        if let Some(given) = self.given.get(name) {
            if given.dims().get(1..) != Some(shape) || given.dims()[0] < range.end {
                let (dims, end) = (given.dims(), range.end);
                return Err(Error::Usage(format!("noise `{name}` has shape {dims:?}, needed are {end} of {shape:?}")));
            }
            return Ok(given.narrow(0, range.start, range.len())?.to_dtype(DType::F32)?);
        }
        let sample = |i: usize| self.draw(&format!("{name}-{i}"), shape, StandardNormal);
        Ok(Tensor::stack(&range.map(sample).collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Uniform numbers in [0, 1) for `name`, f32.
    ///
    /// # Errors
    /// [`Error::Usage`] when given numbers have another shape.
    pub fn uniform(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.draw(name, shape, StandardUniform)
    }

    /// Zeros and ones, 1 with probability `p`, for `name`, f32.
    ///
    /// # Errors
    /// [`Error::Usage`] when given numbers have another shape.
    pub fn bernoulli(&self, name: &str, p: f64, shape: &[usize]) -> Result<Tensor> {
        self.draw(name, shape, StandardUniform.map(|u: f32| f32::from(u8::from(f64::from(u) < p))))
    }

    /// `[count,2]` pairs of whole numbers below `bounds` for `name`, f32.
    ///
    /// # Errors
    /// [`Error::Usage`] when given numbers have another shape.
    pub fn offsets(&self, name: &str, count: usize, bounds: (usize, usize)) -> Result<Tensor> {
        let column = |name: &str, bound: usize| {
            self.draw(name, &[count], StandardUniform.map(move |u: f32| (f64::from(u) * bound as f64).floor() as f32))
        };
        if self.given.contains_key(name) {
            return self.draw(name, &[count, 2], StandardUniform);
        }
        Ok(Tensor::stack(
            &[column(&format!("{name}-rows"), bounds.0)?, column(&format!("{name}-columns"), bounds.1)?],
            1,
        )?)
    }

    fn draw<D: Distribution<f32>>(&self, name: &str, shape: &[usize], distribution: D) -> Result<Tensor> {
        if let Some(given) = self.given.get(name) {
            if given.dims() != shape {
                return Err(Error::Usage(format!("noise `{name}` has shape {:?}, needed is {shape:?}", given.dims())));
            }
            return Ok(given.to_dtype(DType::F32)?);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(name.bytes().fold(0, |hash: u64, b| hash.wrapping_mul(31).wrapping_add(u64::from(b))));
        let numbers = (0..shape.iter().product()).map(|_| distribution.sample(&mut rng)).collect();
        Ok(Tensor::from_vec::<_, f32>(numbers, shape, &Device::Cpu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_seed_and_name_alone() -> Result<()> {
        let draw = |seed, name| Noise::seeded(seed).normal(name, &[8]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(draw(1, "rise"), draw(1, "rise"));
        assert_ne!(draw(1, "rise"), draw(2, "rise"));
        assert_ne!(draw(1, "rise"), draw(1, "vit-cx"));
        let given = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;
        let noise = Noise::given(HashMap::from([("a".into(), given)]));
        assert_eq!(noise.normal("a", &[2])?.to_vec1::<f32>()?, [1.0, 2.0]);
        assert!(noise.normal("a", &[3]).is_err());
        Ok(())
    }
}
