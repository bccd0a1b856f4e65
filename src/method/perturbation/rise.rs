//! RISE: random masks, weighted by the score of the image seen through them.
//!
//! Petsiuk, Das & Saenko, BMVC 2018. Binary grids of `cells` x `cells`, each cell kept with `keep_probability`, enlarged
//! bilinearly and cropped at a random offset; `map = sum_n score_n mask_n / (N keep_probability)`, the score being the
//! probability of the image times the mask in normalised values (what is hidden fades to the mean colour). `[H,W]`,
//! patches the mean of their pixels. Unsigned, class-specific. The mean of the masks is not divided out.
//!
//! Parameters: `n` (default 512; the paper uses 4000 and more), `cells` (7), `keep_probability` (0.5), `score` (of a model
//! that gives values the value),
//! `resolution`, `suppress_grid`. The masks follow the run's seed and are the same for every image of a size. The
//! original resizes with mirrored borders, which differ within half a cell of an edge. N forward passes. Images only.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_pixels, PixelOptions, Pool};
use crate::nn::numbers;
use crate::run::masking::{enlarged, weighted_sum, Corners};
use crate::run::{Params, Reads, Run, Score, Subject};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// Masks that are summed at once.
const CHUNK: usize = 32;

pub(super) const ENTRY: Entry = Entry {
    name: "rise",
    aliases: &[],
    title: "random masks weighted by the score of what they show",
    paper: "Petsiuk et al., BMVC 2018",
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
            score: params.score(Score::Probability)?,
            options: PixelOptions::read(params, true)?,
        })
    }

    /// The masks of an input of this size, drawn but not yet enlarged.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] when given random numbers have another shape.
    pub fn masks(&self, run: &Run<'_>, size: (usize, usize)) -> Result<Masks> {
        let cell = (size.0.div_ceil(self.cells), size.1.div_ceil(self.cells));
        let grids = run.noise().bernoulli("rise-grid", self.keep, &[self.n, self.cells, self.cells])?;
        let offsets = numbers(&run.noise().offsets("rise-shift", self.n, cell)?)?;
        let offsets = offsets.chunks(2).map(|o| (o[0] as usize, o[1] as usize)).collect();
        Ok(Masks { grids, offsets, large: ((self.cells + 1) * cell.0, (self.cells + 1) * cell.1), size })
    }

    /// The score of the image seen through each mask.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn scores(&self, subject: &Subject<'_>, masks: &Masks) -> Result<Vec<f64>> {
        let pixels = subject.values()?.unsqueeze(0)?; // [1,3,H,W]
        subject.scores(self.score, self.n, |range| {
            let masks = masks.range(range)?.to_device(pixels.device())?.to_dtype(pixels.dtype())?;
            subject.with(&pixels.broadcast_mul(&masks.unsqueeze(1)?)?)
        })
    }
}

/// Random masks; made a few at a time, since thousands of them at full size do not fit into memory.
pub struct Masks {
    grids: Tensor,
    offsets: Vec<(usize, usize)>,
    large: (usize, usize),
    size: (usize, usize),
}

impl Masks {
    /// Some of the masks, `[N,H,W]`, from 0 to 1.
    ///
    /// # Errors
    /// Tensor operations.
    pub fn range(&self, range: Range<usize>) -> Result<Tensor> {
        let grids = self.grids.narrow(0, range.start, range.len())?;
        let large = enlarged(&grids, self.large, Corners::Free)?;
        let crop = |(i, &(top, left)): (usize, &(usize, usize))| -> Result<Tensor> {
            Ok(large.get(i)?.narrow(0, top, self.size.0)?.narrow(1, left, self.size.1)?.contiguous()?)
        };
        Ok(Tensor::stack(&self.offsets[range].iter().enumerate().map(crop).collect::<Result<Vec<_>>>()?, 0)?)
    }
}

impl Method for Rise {
    fn check(&self, model: &Facts) -> Result<()> {
        model.images_only("its masks are smooth patterns over a picture; texts have `leave-one-out`")
    }

    fn reads(&self) -> Reads {
        Reads::Logits
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let subject = run.subject()?;
        let masks = self.masks(run, subject.size()?)?;
        let scores = self.scores(&subject, &masks)?;
        let mut map = Tensor::zeros(subject.size()?, DType::F64, &Device::Cpu)?;
        for from in (0..self.n).step_by(CHUNK) {
            let range = from..(from + CHUNK).min(self.n);
            map = (map + weighted_sum(&scores[range.clone()], &masks.range(range)?.to_dtype(DType::F64)?)?)?;
        }
        let map = (map * (1.0 / (self.n as f64 * self.keep)))?;
        of_pixels(run, &map, Pool::Mean, self.options)
    }

    fn pixels(&self, _model: &Facts) -> bool {
        true
    }

    fn patience(&self, tokens: usize, layers: usize) -> Option<String> {
        let said = crate::run::masking::patience("rise", &format!("{} runs of the model", self.n), tokens, layers);
        said.filter(|_| self.n >= 100) // fewer take seconds
    }
}
