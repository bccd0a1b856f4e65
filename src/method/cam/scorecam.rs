//! Score-CAM: each channel of a layer's tokens becomes a mask, and weighs as much as the input shown through it scores.
//!
//! Wang et al., CVPR Workshops 2020. With A_d the channel's map: `M_d` = A_d enlarged to the image (corner samples
//! coincide, as in the reference package) and brought between 0 and 1; `s_d = y(x * M_d)`; `w = softmax_d(s)`; relevance
//! `max(0, sum_d w_d A_d)`, prefix tokens 0, `[T]`; `clamp=false` keeps the sign. The paper subtracts the score of a
//! baseline, which the softmax cancels. `layer`, `where` as in `gradcam`. D forward passes. Images only; class-specific.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_layer, Pool};
use crate::nn::numbers;
use crate::run::masking::{enlarged, masked_scores, unit_range, Corners};
use crate::run::point::{channel_maps, Point};
use crate::run::{Params, Reads, Run, Score};
use crate::scale::softmax;
use candle_core::Tensor;

pub(super) const ENTRY: Entry = Entry {
    name: "scorecam",
    aliases: &[],
    title: "channels weighted by the score of the input seen through them",
    paper: "Wang et al., CVPR Workshops 2020",
    class_specific: true,
    build,
};

/// The method, with its channel weights open to those who want them.
pub struct ScoreCam {
    point: Point,
    clamp: bool,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(ScoreCam::read(params)?))
}

impl ScoreCam {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        Ok(ScoreCam { point: Point::read(params)?, clamp: params.flag("clamp", true, "cut negative values off")? })
    }

    /// Channel maps `[D,rows,columns]`, and of each channel the logit of the image seen through it.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn channels(&self, run: &Run<'_>) -> Result<(Tensor, Vec<f64>)> {
        let subject = run.subject()?;
        let maps = channel_maps(run, self.point)?;
        let masks = unit_range(&enlarged(&maps, subject.size()?, Corners::Aligned)?, 1e-8)?;
        let scores = masked_scores(&subject, Score::Logit, &masks)?;
        Ok((maps, scores))
    }
}

impl Method for ScoreCam {
    fn check(&self, model: &Facts) -> Result<()> {
        model.images_only("a text cannot be seen through a channel's map")?;
        self.point.check(model)
    }

    fn reads(&self) -> Reads {
        Reads::States
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (maps, scores) = self.channels(run)?;
        let weights = softmax(&scores);
        let patches = numbers(&crate::run::masking::weighted_sum(&weights, &maps)?)?;
        let shown = patches.into_iter().map(|p| if self.clamp { p.max(0.0) } else { p });
        let tokens = std::iter::repeat_n(0.0, run.layout().prefix()).chain(shown).collect();
        of_layer(run, tokens, self.point.layer(run)?, Pool::Mean)
    }

    fn pixels(&self, model: &Facts) -> bool {
        model.staged() && !self.point.of_last_stage(model)
    }

    fn signed(&self) -> bool {
        !self.clamp
    }

    fn patience(&self, tokens: usize, layers: usize) -> Option<String> {
        crate::run::masking::patience("scorecam", "one run of the model a channel", tokens, layers)
    }
}
