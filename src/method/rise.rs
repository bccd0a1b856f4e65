//! RISE: random masks, weighted by the score of the image seen through them.
//!
//! Petsiuk, Das & Saenko, BMVC 2018. Binary grids of `cells` x `cells`, each cell kept with `keep_probability`, enlarged
//! bilinearly and cropped at a random offset; `map = sum_n score_n mask_n / (N keep_probability)`, the score being the
//! probability of the image times the mask in normalised values (what is hidden fades to the mean colour). `[H,W]`,
//! patches the mean of their pixels. Unsigned, class-specific. The mean of the masks is not divided out.
//!
//! Parameters: `n` (default 512; the paper uses 4000 and more), `cells` (7), `keep_probability` (0.5), `score`,
//! `resolution`, `suppress_grid`. The masks follow the run's seed and are the same for every image of a size. The
//! original resizes with mirrored borders, which differ within half a cell of an edge. N forward passes. Images only.

use super::combine::numbers;
use super::input_map::{of_pixels, PixelOptions, Pool};
use super::masking::{enlarged, masked_scores, weighted_sum, Corners};
use super::{Entry, Facts, Method, Params, Relevance, Run, Score};
use crate::error::Result;
use candle_core::Tensor;

pub(super) const ENTRY: Entry = Entry {
    name: "rise",
    aliases: &[],
    title: "random masks weighted by the score of what they show",
    paper: "Petsiuk et al., BMVC 2018",
    group: "perturbation",
    class_specific: true,
    build,
};

/// The method, with its masks and scores open to those who want them.
pub struct Rise {
    n: usize,
    cells: usize,
    keep: f64,
    score: Score,
    options: PixelOptions,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(Rise::read(params)?))
}

impl Rise {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        Ok(Rise {
            n: params.count("n", 512, "random masks", 1..=1_000_000)?,
            cells: params.count("cells", 7, "cells along a side of a mask's grid", 1..=512)?,
            keep: params.number("keep_probability", 0.5, "probability that a cell is shown", 0.01..=1.0)?,
            score: params.score(["probability", "logit"])?,
            options: PixelOptions::read(params, true)?,
        })
    }

    /// The masks `[N,H,W]`, and the score of the image seen through each.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn scored(&self, run: &Run<'_>) -> Result<(Tensor, Vec<f64>)> {
        let subject = run.subject()?;
        let pixels = subject.values()?;
        let masks = self.masks(run, subject.size()?)?.to_device(pixels.device())?.to_dtype(pixels.dtype())?;
        let scores = masked_scores(&subject, self.score, &masks)?;
        Ok((masks, scores))
    }

    /// `[N,H,W]` masks in [0,1].
    fn masks(&self, run: &Run<'_>, (height, width): (usize, usize)) -> Result<Tensor> {
        let cell = (height.div_ceil(self.cells), width.div_ceil(self.cells));
        let grids = run.noise().bernoulli("rise-grid", self.keep, &[self.n, self.cells, self.cells])?;
        let large = enlarged(&grids, ((self.cells + 1) * cell.0, (self.cells + 1) * cell.1), Corners::Free)?;
        let offsets = numbers(&run.noise().offsets("rise-shift", self.n, cell)?)?;
        let crop = |i: usize| -> Result<Tensor> {
            let (top, left) = (offsets[2 * i] as usize, offsets[2 * i + 1] as usize);
            Ok(large.get(i)?.narrow(0, top, height)?.narrow(1, left, width)?.contiguous()?)
        };
        Ok(Tensor::stack(&(0..self.n).map(crop).collect::<Result<Vec<_>>>()?, 0)?)
    }
}

impl Method for Rise {
    fn check(&self, model: &Facts) -> Result<()> {
        model.images_only("its masks are smooth patterns over a picture; texts have `leave-one-out`")
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (masks, scores) = self.scored(run)?;
        let map = (weighted_sum(&scores, &masks)? * (1.0 / (self.n as f64 * self.keep)))?;
        of_pixels(run, &map, Pool::Mean, self.options)
    }

    fn pixels(&self) -> bool {
        true
    }

    fn patience(&self, tokens: usize, layers: usize) -> Option<String> {
        super::masking::patience("rise", &format!("{} runs of the model", self.n), tokens, layers)
    }
}
