//! ViT-CX: causal scores of masks made from a layer's feature maps.
//!
//! Xie, Li, Cao & Zhang, IJCAI 2023. The channels of a layer's tokens, enlarged to the image and brought between 0 and 1, are
//! masks; masks whose cosine distance stays below `delta` are merged (agglomerative clustering, complete linkage) and
//! their sums brought between 0 and 1 again: `M_i`, i < N. With noise `e_i = noise_std * normal`:
//! `s_i = p(x M_i + e_i (1 - M_i)) - p(x + e_i (1 - M_i)) + p(x)`, and the relevance of a pixel is
//! `(1/N) sum_i s_i M_i / sum_j M_j`, 0 where no mask reaches, which takes out the bias towards pixels under many masks.
//! `[H,W]`, patches the mean of their pixels; unsigned in practice, class-specific. Of a model that gives values p is the value.
//!
//! As the authors' code, and against their text, pairs merge by *distance* below delta. Two noise images are used in turn
//! where the authors draw one a mask. All prefix tokens are left out. Parameters: `layer`, `where` (as in `gradcam`),
//! `delta` (0.1), `noise_std` (0.1), `resolution`, `suppress_grid`. D^2 distances and 2 N + 1 forward passes. Images only.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_pixels, PixelOptions, Pool};
use crate::run::masking::{enlarged, unit_range, weighted_sum, Corners};
use crate::run::point::{channel_maps, Point};
use crate::run::{Params, Reads, Run, Score, Subject};
use candle_core::{DType, Device, Tensor, D};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "vit-cx",
    aliases: &["vitcx"],
    title: "causal effect of clustered feature maps used as masks",
    paper: "Xie et al., IJCAI 2023",
    class_specific: true,
    build,
};

/// Noise images, used in turn.
const NOISES: usize = 2;

/// The method, with its steps open to tests and to those who want the intermediate results.
pub struct VitCx {
    point: Point,
    delta: f64,
    noise_std: f64,
    options: PixelOptions,
}

/// What the method computes on its way.
pub struct Causes {
    /// `[D,H,W]` a mask a channel.
    pub features: Tensor,
    /// The cluster of each channel, numbered by smallest member.
    pub labels: Vec<usize>,
    /// `[N,H,W]` a mask a cluster.
    pub masks: Tensor,
    /// Probability of the image seen through each mask, noise elsewhere.
    pub masked: Vec<f64>,
    /// Probability of the image with the same noise on top.
    pub noisy: Vec<f64>,
    /// Causal score of each mask.
    pub scores: Vec<f64>,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    Ok(Box::new(VitCx::read(params)?))
}

impl VitCx {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        Ok(VitCx {
            point: Point::read(params)?,
            delta: params.number("delta", 0.1, "masks closer than this cosine distance are merged", 0.0..=2.0)?,
            noise_std: params.number("noise_std", 0.1, "standard deviation of the noise behind masks", 0.0..=10.0)?,
            options: PixelOptions::read(params, true)?,
        })
    }

    /// Masks and scores of one input.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn causes(&self, run: &Run<'_>) -> Result<Causes> {
        let subject = run.subject()?;
        let maps = channel_maps(run, self.point)?;
        let features = unit_range(&enlarged(&maps, subject.size()?, Corners::Free)?, 0.0)?; // [D,H,W]
        let labels = clusters(&features, self.delta)?;
        let masks = unit_range(&merged(&features, &labels)?, 0.0)?; // [N,H,W]
        let (masked, noisy) = self.probabilities(run, &subject, &masks)?;
        let own = run.own_score(Score::Probability)?;
        let scores = masked.iter().zip(&noisy).map(|(m, n)| m - n + own).collect();
        Ok(Causes { features, labels, masks, masked, noisy, scores })
    }

    fn probabilities(&self, run: &Run<'_>, subject: &Subject<'_>, masks: &Tensor) -> Result<(Vec<f64>, Vec<f64>)> {
        let pixels = subject.values()?; // [C,H,W]
        let (c, h, w) = pixels.dims3()?;
        let noise = run.noise().normal("vit-cx", &[NOISES, c, h, w])?;
        let noise = (noise.to_device(pixels.device())?.to_dtype(pixels.dtype())? * self.noise_std)?;
        let n = masks.dim(0)?;
        // The first n variants show the image through a mask, the second n the whole image under the same noise.
        let variant = |i: usize| -> Result<Tensor> {
            let mask = masks.get(i % n)?.unsqueeze(0)?;
            let behind = noise.get((i % n) % NOISES)?.broadcast_mul(&mask.affine(-1.0, 1.0)?)?;
            let image = if i < n { pixels.broadcast_mul(&mask)? } else { pixels.clone() };
            Ok((image + behind)?)
        };
        let make =
            |range: Range<usize>| subject.with(&Tensor::stack(&range.map(variant).collect::<Result<Vec<_>>>()?, 0)?);
        let mut all = subject.scores(Score::Probability, 2 * n, make)?;
        let noisy = all.split_off(n);
        Ok((all, noisy))
    }
}

/// Complete-linkage clusters of masks `[D,H,W]` by cosine distance, cut where the distance reaches `delta`.
fn clusters(masks: &Tensor, delta: f64) -> Result<Vec<usize>> {
    let (d, h, w) = masks.dims3()?;
    let flat = masks.reshape((d, h * w))?;
    let lengths = flat.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    let empty = lengths.eq(0.0)?.to_dtype(flat.dtype())?;
    let unit = flat.broadcast_div(&(lengths + empty)?)?; // an empty mask stays 0: cosine 0
    let cosine = unit.matmul(&unit.t()?)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let mut condensed: Vec<f64> = Vec::with_capacity(d * (d.saturating_sub(1)) / 2);
    for (i, row) in cosine.iter().enumerate() {
        condensed.extend(row[i + 1..].iter().map(|c| 1.0 - c));
    }
    if condensed.iter().any(|c| !c.is_finite()) {
        return Err(Error::Numeric("vit-cx: a feature map is not finite".into()));
    }
    let tree = kodama::linkage(&mut condensed, d, kodama::Method::Complete);
    let mut label: Vec<usize> = (0..d).collect(); // smallest member of each channel's cluster
    let mut members: Vec<Vec<usize>> = (0..d).map(|i| vec![i]).collect();
    for step in tree.steps() {
        let joined = [members[step.cluster1].clone(), members[step.cluster2].clone()].concat();
        if step.dissimilarity < delta {
            let least = joined.iter().map(|&m| label[m]).min().unwrap_or(0);
            joined.iter().for_each(|&m| label[m] = least);
        }
        members.push(joined);
    }
    let mut leaders = label.clone();
    leaders.sort_unstable();
    leaders.dedup();
    Ok(label.iter().map(|l| leaders.partition_point(|k| k < l)).collect())
}

/// Sums of the masks of each cluster, `[N,H,W]`.
fn merged(masks: &Tensor, labels: &[usize]) -> Result<Tensor> {
    let n = labels.iter().max().map_or(0, |m| m + 1);
    let sum = |cluster: usize| -> Result<Tensor> {
        let own = labels.iter().enumerate().filter(|(_, l)| **l == cluster).map(|(i, _)| i as u32);
        let index = Tensor::from_iter(own, masks.device())?;
        Ok(masks.index_select(&index, 0)?.sum(0)?)
    };
    Ok(Tensor::stack(&(0..n).map(sum).collect::<Result<Vec<_>>>()?, 0)?)
}

impl Method for VitCx {
    fn check(&self, model: &Facts) -> Result<()> {
        model.images_only("its masks are enlarged feature maps")?;
        self.point.check(model)
    }

    fn reads(&self) -> Reads {
        Reads::States
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let causes = self.causes(run)?;
        let n = causes.scores.len() as f64;
        let cover = causes.masks.sum(0)?; // [H,W]
        let bare = cover.eq(0.0)?.to_dtype(cover.dtype())?;
        let map = (weighted_sum(&causes.scores, &causes.masks)? / (cover + bare)?)?;
        let mut relevance = of_pixels(run, &(map * (1.0 / n))?, Pool::Mean, self.options)?;
        relevance.checks.insert("clusters".into(), causes.scores.len().into());
        Ok(relevance)
    }

    fn pixels(&self, _model: &Facts) -> bool {
        true
    }

    fn patience(&self, tokens: usize, layers: usize) -> Option<String> {
        crate::run::masking::patience("vit-cx", "up to two runs of the model a channel", tokens, layers)
    }
}
