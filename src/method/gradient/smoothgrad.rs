//! SmoothGrad and its kin: gradients at noisy copies of the input, joined.
//!
//! `smoothgrad`: `mean G_i` (Smilkov et al. 2017); `smoothgrad-squared`: `mean G_i^2` (Hooker et al. 2019); `vargrad`:
//! the variance of G_i, divisor n (Adebayo et al. 2018). `G_i` is the gradient at `x + sigma e_i`, e_i standard normal,
//! `sigma = spread (max - min)` of the input's values. Images: map `max_channels |.|` after joining, patches its mean.
//! Texts: the norm over a token's vector, `[T]`. Unsigned, class-specific.
//!
//! Parameters: `n` (default 32 samples; the papers use 50 and more), `spread` (default 0.15, the paper's 10 to 20 %),
//! `resolution`, `suppress_grid`. The noise follows the run's seed and is the same for every input of a size.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::combine::values;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_pixels, PixelOptions, Pool, Reduce};
use crate::nn::Rules;
use crate::run::{Params, Reads, Run};
use candle_core::Tensor;

macro_rules! entry {
    ($name:literal, $kind:expr, $title:literal, $paper:literal) => {
        Entry {
            name: $name,
            aliases: &[],
            title: $title,
            paper: $paper,
            class_specific: true,
            build: |params| build($kind, params),
        }
    };
}

pub(super) const SMOOTHGRAD: Entry =
    entry!("smoothgrad", Kind::Mean, "gradient averaged over noisy copies of the input", "Smilkov et al. 2017");
pub(super) const SMOOTHGRAD_SQUARED: Entry = entry!(
    "smoothgrad-squared",
    Kind::Squared,
    "squared gradient averaged over noisy copies",
    "Hooker et al., NeurIPS 2019"
);
pub(super) const VARGRAD: Entry =
    entry!("vargrad", Kind::Variance, "variance of the gradient over noisy copies", "Adebayo et al., NeurIPS 2018");

/// How gradients are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Their mean.
    Mean,
    /// The mean of their squares.
    Squared,
    /// Their variance, divisor n.
    Variance,
}

/// The methods, with the joined gradient open to those who want it.
pub struct SmoothGrad {
    kind: Kind,
    n: usize,
    spread: f64,
    options: PixelOptions,
}

fn build(kind: Kind, params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(SmoothGrad::read(kind, params)?))
}

impl SmoothGrad {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(kind: Kind, params: &mut Params) -> Result<Self> {
        let n = params.count("n", 32, "noisy copies", 1..=100_000)?;
        let about = "standard deviation of the noise as a share of the value range";
        let spread = params.number("spread", 0.15, about, 0.0..=10.0)?;
        Ok(SmoothGrad { kind, n, spread, options: PixelOptions::read(params, false)? })
    }

    /// The joined gradient, shaped like the input: `[C,H,W]` or `[T,D]`.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn joined(&self, run: &Run<'_>) -> Result<Tensor> {
        let subject = run.subject()?;
        let x = subject.values()?;
        let flat = x.flatten_all()?;
        let range = (flat.max(0)? - flat.min(0)?)?;
        let sigma = (range * self.spread)?;
        let (mut mean, mut squares) = (x.zeros_like()?, x.zeros_like()?);
        let noisy = |range: std::ops::Range<usize>| -> Result<Tensor> {
            let noise = run.noise().normal_samples("smoothgrad", range, x.dims())?;
            let noise = noise.to_device(x.device())?.to_dtype(x.dtype())?;
            Ok(noise.broadcast_mul(&sigma)?.broadcast_add(&x)?)
        };
        // Welford's update: the variance comes from deviations, not from the difference of two large means.
        subject.gradients(self.n, noisy, |i, gradient| {
            let away = (gradient - &mean)?;
            mean = (&mean + (&away * (1.0 / (i + 1) as f64))?)?;
            squares = match self.kind {
                Kind::Variance => (&squares + (away * (gradient - &mean)?)?)?,
                Kind::Mean | Kind::Squared => (&squares + gradient.sqr()?)?,
            };
            Ok(())
        })?;
        Ok(match self.kind {
            Kind::Mean => mean,
            Kind::Squared | Kind::Variance => (squares * (1.0 / self.n as f64))?,
        })
    }
}

impl Method for SmoothGrad {
    fn reads(&self) -> Reads {
        Reads::Logits
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let joined = self.joined(run)?; // [C,H,W] or [T,D]
        if run.is_text() {
            return values(&Reduce::L2.apply(&joined)?);
        }
        of_pixels(run, &joined.abs()?.max(0)?, Pool::Mean, self.options)
    }

    fn pixels(&self, _model: &Facts) -> bool {
        true
    }

    fn sizes_only(&self) -> bool {
        true
    }

    fn rules(&self) -> Vec<Rules> {
        vec![Rules::GRADIENT]
    }
}
