//! Ascent in a spectrum: Olah, Mordvintsev & Schubert, "Feature visualization", Distill 2017.
//!
//! The image is `I = F^-1(s z)`, z its free spectrum, `s(f) = 1 / max(|f|, 1/max(H,W))` the natural falling-off of
//! pictures. A step of gradient ascent on z changes I by `F^-1(s^2 F(dJ/dI))`: so the parametrisation is a filter on the
//! gradient, scaled here to leave a white gradient's mean square as it is.

use crate::error::Result;
use candle_core::{DType, Device, Tensor};
use rustfft::{num_complex::Complex, FftDirection, FftPlanner};

/// The filter for images of one size.
pub struct Fourier {
    size: (usize, usize),
    /// `[H*W]` factors on the spectrum.
    factors: Vec<f64>,
}

impl Fourier {
    /// For images of `height` x `width` pixels.
    pub fn new(height: usize, width: usize) -> Self {
        let frequency = |k: usize, n: usize| k.min(n - k) as f64 / n as f64; // cycles a pixel
        let least = 1.0 / height.max(width) as f64;
        let power = |i: usize| {
            let f = frequency(i / width, height).hypot(frequency(i % width, width));
            1.0 / f.max(least).powi(2)
        };
        let mut factors: Vec<f64> = (0..height * width).map(power).collect();
        let size = (factors.iter().map(|f| f * f).sum::<f64>() / factors.len() as f64).sqrt();
        factors.iter_mut().for_each(|f| *f /= size);
        Fourier { size: (height, width), factors }
    }

    /// The filtered gradient, `[C,H,W]`.
    pub fn precondition(&self, gradient: &Tensor) -> Result<Tensor> {
        let values: Vec<f64> = gradient.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let n = self.factors.len();
        let mut filtered = Vec::with_capacity(values.len());
        for channel in values.chunks(n) {
            let mut spectrum: Vec<Complex<f64>> = channel.iter().map(|v| Complex::new(*v, 0.0)).collect();
            self.transform(&mut spectrum, FftDirection::Forward);
            spectrum.iter_mut().zip(&self.factors).for_each(|(z, f)| *z *= f);
            self.transform(&mut spectrum, FftDirection::Inverse);
            filtered.extend(spectrum.iter().map(|z| z.re / n as f64));
        }
        Ok(Tensor::from_vec(filtered, gradient.shape(), &Device::Cpu)?
            .to_dtype(gradient.dtype())?
            .to_device(gradient.device())?)
    }

    /// Rows, then columns; unnormalised.
    fn transform(&self, plane: &mut [Complex<f64>], direction: FftDirection) {
        let (height, width) = self.size;
        let mut planner = FftPlanner::new();
        planner.plan_fft(width, direction).process(plane);
        let columns = planner.plan_fft(height, direction);
        let mut column = vec![Complex::default(); height];
        for x in 0..width {
            column.iter_mut().enumerate().for_each(|(y, c)| *c = plane[y * width + x]);
            columns.process(&mut column);
            column.iter().enumerate().for_each(|(y, c)| plane[y * width + x] = *c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn waves_keep_their_shape_and_low_ones_grow() -> Result<()> {
        let (h, w) = (6, 10);
        let fourier = Fourier::new(h, w);
        let gain = |k: usize| -> f64 {
            let wave = |i: usize| (2.0 * std::f64::consts::PI * (k * (i % w)) as f64 / w as f64).cos();
            let plane: Vec<f64> = (0..3 * h * w).map(|i| wave(i % (h * w))).collect();
            let plane = Tensor::from_vec(plane, (3, h, w), &Device::Cpu).unwrap();
            let out = fourier.precondition(&plane).unwrap();
            let factor = out.flatten_all().unwrap().get(0).unwrap().to_scalar::<f64>().unwrap();
            check::close(&out, &(plane * factor).unwrap(), 1e-12);
            factor
        };
        assert!(gain(1) > gain(2) && gain(2) > gain(5) && gain(5) > 0.0);
        assert!((gain(1) / gain(2) - 4.0).abs() < 1e-9, "1/f^2");
        Ok(())
    }
}
