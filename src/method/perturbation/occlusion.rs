//! Occlusion: how much the score drops when a window of patches is covered.
//!
//! Zeiler & Fergus, ECCV 2014. A window of `window` x `window` patches visits every position at a `stride` of patches
//! (the last row and column of positions touch the border); `drop = score(x) - score(x, window set to the baseline)`. A
//! patch gets the mean drop of the windows that cover it, `[T]`; prefix tokens 0. `baseline`: `mean` (the image's mean
//! colour, default), `zero`, `black`, `blur`; `score`: logit (default) or probability. Signed, class-specific. For texts
//! see `leave-one-out`.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::method::contract::{Entry, Method, Relevance};
use crate::run::baseline::ImageBaseline;
use crate::run::modes::led_by;
use crate::run::{Params, Reads, Run, Score};
use candle_core::Tensor;
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "occlusion",
    aliases: &[],
    title: "drop of the score when patches are covered",
    paper: "Zeiler & Fergus, ECCV 2014",
    class_specific: true,
    build,
};

struct Occlusion {
    window: usize,
    stride: usize,
    baseline: ImageBaseline,
    score: Score,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let window = params.count("window", 1, "side of the window in patches", 1..=1024)?;
    let stride =
        params.count("stride", 1, "patches from one position to the next, at most the window's side", 1..=1024)?;
    if stride > window {
        return Err(Error::Usage(format!(
            "method `occlusion`: stride={stride} leaves patches between windows of {window}"
        )));
    }
    let baselines = led_by(ImageBaseline::NAMES, ImageBaseline::Mean);
    let baseline = params.one_of("baseline", &baselines, "what covers: mean, zero, black, blur")?;
    Ok(Box::new(Occlusion { window, stride, baseline, score: params.score(Score::Logit)? }))
}

/// First patches of the windows along one axis; the last window touches the border.
fn positions(patches: usize, window: usize, stride: usize) -> Vec<usize> {
    let last = patches.saturating_sub(window);
    (0..last).step_by(stride).chain([last]).collect()
}

impl Method for Occlusion {
    fn check(&self, model: &Facts) -> Result<()> {
        model.images_only("texts have `leave-one-out`")
    }

    fn reads(&self) -> Reads {
        Reads::Logits
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let Layout::Image(layout) = run.layout() else {
            return Err(Error::Refused("occlusion is for images; texts have leave-one-out".into()));
        };
        let ((rows, columns), (ph, pw)) = (layout.grid, layout.patch);
        let (wh, ww) = (self.window.min(rows), self.window.min(columns));
        let mut windows = Vec::new();
        for r in positions(rows, wh, self.stride) {
            windows.extend(positions(columns, ww, self.stride).into_iter().map(|c| (r, c)));
        }
        let subject = run.subject()?;
        let pixels = subject.values()?;
        let covered = self.baseline.of(&pixels, run.encoder())?;
        let variant = |&(r, c): &(usize, usize)| -> Result<Tensor> {
            let (ys, xs) = (r * ph..(r + wh) * ph, c * pw..(c + ww) * pw);
            let patch = covered.narrow(1, ys.start, ys.len())?.narrow(2, xs.start, xs.len())?.contiguous()?;
            Ok(pixels.slice_assign(&[0..pixels.dim(0)?, ys, xs], &patch)?)
        };
        let make = |range: Range<usize>| {
            let variants = windows[range].iter().map(variant).collect::<Result<Vec<_>>>()?;
            subject.with(&Tensor::stack(&variants, 0)?)
        };
        let (whole, scores) = (run.own_score(self.score)?, subject.scores(self.score, windows.len(), make)?);
        let (mut drops, mut hits) = (vec![0.0; rows * columns], vec![0.0; rows * columns]);
        for (&(r, c), score) in windows.iter().zip(&scores) {
            for patch in (r..r + wh).flat_map(|y| (c..c + ww).map(move |x| y * columns + x)) {
                drops[patch] += whole - score;
                hits[patch] += 1.0;
            }
        }
        let patches = drops.iter().zip(&hits).map(|(d, h)| (d / h) as f32);
        let tokens: Vec<f32> = std::iter::repeat_n(0.0, run.layout().prefix()).chain(patches).collect();
        Ok(tokens.into())
    }

    fn signed(&self) -> bool {
        true
    }

    fn patience(&self, tokens: usize, layers: usize) -> Option<String> {
        crate::run::masking::patience("occlusion", "one run of the model a window", tokens, layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_patch() {
        assert_eq!(positions(4, 1, 1), [0, 1, 2, 3]);
        assert_eq!(positions(4, 2, 1), [0, 1, 2]);
        assert_eq!(positions(7, 3, 3), [0, 3, 4]);
        assert_eq!(positions(2, 2, 2), [0]);
    }
}
