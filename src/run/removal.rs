//! How parts of an input are taken out: tokens of a text, pixels of an image.

use super::ask::Ask;
use super::baseline::mask_id;
use super::variants::{Score, Subject};
use super::view::Run;
use crate::error::Result;
use crate::explanation::ImageLayout;
use candle_core::{DType, Device, Tensor};

/// How tokens are taken out of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The mask token stands in their place.
    Mask,
    /// The padding token does, attended to.
    Pad,
    /// They stay, but nothing attends to them.
    Attention,
    /// They are cut out.
    Delete,
}

impl Removal {
    /// By name.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("mask", Removal::Mask),
        ("pad", Removal::Pad),
        ("attention", Removal::Attention),
        ("delete", Removal::Delete),
    ];

    /// A text without these tokens, one variant a set: one ask where all have one length, else one a set, in their order.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] where the mask token is missing, or the input has no ids.
    pub fn asks<'a>(self, run: &Run<'_>, subject: &Subject<'a>, sets: Vec<Vec<usize>>) -> Result<Vec<Ask<'a>>> {
        Ok(match self {
            Removal::Mask => vec![replaced(subject, mask_id(run.encoder())?, sets)],
            Removal::Pad => vec![replaced(subject, run.encoder().neutral.pad_id, sets)],
            Removal::Attention => {
                let (subject, tokens) = (subject.clone(), subject.ids()?.len());
                vec![Ask::new(sets.len(), move |range| {
                    let kept = |set: &Vec<usize>| (0..tokens).map(|t| !set.contains(&t)).collect();
                    subject.with_mask(&sets[range].iter().map(kept).collect::<Vec<Vec<bool>>>())
                })]
            }
            Removal::Delete => {
                let tokens = subject.ids()?.len();
                let one = |set: Vec<usize>| {
                    let subject = subject.clone();
                    let kept: Vec<usize> = (0..tokens).filter(|t| !set.contains(t)).collect();
                    Ask::new(1, move |_| subject.cut_to(&kept))
                };
                sets.into_iter().map(one).collect()
            }
        })
    }

    /// Scores of a text without these tokens, one score a set.
    ///
    /// # Errors
    /// As [`Removal::asks`]; whatever the passes report.
    pub fn scores(self, run: &Run<'_>, subject: &Subject<'_>, score: Score, sets: Vec<Vec<usize>>) -> Result<Vec<f64>> {
        let answers = subject.answers(&self.asks(run, subject, sets)?)?;
        Ok(answers.iter().flatten().map(|row| run.score(score, row)).collect())
    }
}

/// A text with another token in place of these, one variant a set.
pub fn replaced<'a>(subject: &Subject<'a>, filler: u32, sets: Vec<Vec<usize>>) -> Ask<'a> {
    let subject = subject.clone();
    Ask::new(sets.len(), move |range| {
        let variant = |set: &Vec<usize>| {
            let mut ids = subject.ids()?.to_vec();
            set.iter().for_each(|&t| ids[t] = filler);
            Ok(ids)
        };
        subject.with_ids(&sets[range].iter().map(variant).collect::<Result<Vec<_>>>()?)
    })
}

/// An image that turns from `start` into `end` `[C,H,W]` at the pixels `switched(k)`, for `points` values of k.
///
/// # Errors
/// Tensor operations.
pub fn switched<'a>(
    subject: Subject<'a>,
    (start, end): (&Tensor, &Tensor),
    points: usize,
    switched: impl Fn(usize) -> Vec<usize> + 'a,
) -> Result<Ask<'a>> {
    let (c, h, w) = start.dims3()?;
    let flat = |t: &Tensor| -> Result<Vec<f32>> {
        Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    };
    let (from, to, device) = (flat(start)?, flat(end)?, start.device().clone());
    Ok(Ask::new(points, move |range| {
        let n = range.len();
        let mut images = Vec::with_capacity(n * from.len());
        for k in range {
            let begin = images.len();
            images.extend_from_slice(&from);
            for pixel in switched(k) {
                for channel in 0..c {
                    images[begin + channel * h * w + pixel] = to[channel * h * w + pixel];
                }
            }
        }
        subject.with(&Tensor::from_vec(images, (n, c, h, w), &Device::Cpu)?.to_device(&device)?)
    }))
}

/// The pixels of a patch.
pub fn pixels_of(layout: &ImageLayout, width: usize, patch: usize) -> impl Iterator<Item = usize> {
    let (ph, pw) = layout.patch;
    let (row, column) = (patch / layout.grid.1, patch % layout.grid.1);
    (row * ph..(row + 1) * ph).flat_map(move |y| (column * pw..(column + 1) * pw).map(move |x| y * width + x))
}
