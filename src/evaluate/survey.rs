//! What the masks of a data set are, before anything is judged by them: how each was read, and what is wrong with some.

use super::dataset::MaskFile;
use super::mask::{Kind, Useless};
use crate::input::Input;
use image::{ImageDecoder, ImageReader};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Masks that are named one by one; of more the number is told.
const NAMED: usize = 8;

/// How the masks of a data set were read. Masks that cannot be read are not among them: their inputs fail.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    kinds: BTreeMap<Kind, usize>,
    empty: usize,
    full: usize,
    warnings: Vec<String>,
}

impl Survey {
    /// Reads the masks, each with the input it belongs to.
    pub fn of(masks: &[(&MaskFile, &Input)]) -> Self {
        let read = |(file, content): &(&MaskFile, &Input)| {
            let mask = file.read().ok()?;
            let stretched = size(content).and_then(|(size, turned)| mask.stretched(size, turned));
            Some((file.path.display().to_string(), mask.kind, mask.useless(), stretched))
        };
        let mut survey = Survey::default();
        for (name, kind, useless, stretched) in masks.par_iter().map(read).collect::<Vec<_>>().into_iter().flatten() {
            *survey.kinds.entry(kind).or_default() += 1;
            match useless {
                Some(Useless::Empty) => {
                    survey.empty += 1;
                    survey.warnings.push(format!("mask {name}: no pixel of it is the object: it is left out"));
                }
                Some(Useless::Full) => {
                    survey.full += 1;
                    survey.warnings.push(format!("mask {name}: no pixel of it is background: it is left out"));
                }
                None => survey.warnings.extend(stretched.map(|s| format!("mask {name}: {s}"))),
            }
        }
        survey
    }

    /// `0/1 in 3 files, 0/255 in 2; 1 empty: left out`. None without a mask.
    pub fn line(&self) -> Option<String> {
        let (first, rest) = {
            let mut kinds = self.kinds.iter();
            (kinds.next()?, kinds)
        };
        let files = if *first.1 == 1 { "file" } else { "files" };
        let mut line = format!("{} in {} {files}", first.0.name(), first.1);
        rest.for_each(|(kind, n)| line.push_str(&format!(", {} in {n}", kind.name())));
        let left_out: Vec<String> = [(self.empty, "empty"), (self.full, "full")]
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        if !left_out.is_empty() {
            line.push_str(&format!("; {}: left out", left_out.join(", ")));
        }
        Some(line)
    }

    /// What is wrong with single masks, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut told: Vec<String> = self.warnings.iter().take(NAMED).cloned().collect();
        if self.warnings.len() > NAMED {
            told.push(format!("{} more masks are empty, full or of another shape", self.warnings.len() - NAMED));
        }
        told
    }
}

/// Width and height of a picture as it is shown, and whether its file stores it lying on its side; none where its header does
/// not say.
fn size(content: &Input) -> Option<((u32, u32), bool)> {
    match content {
        Input::Picture(path) => shown_size(path),
        Input::Array(path, _) => {
            let file = std::io::BufReader::new(std::fs::File::open(path).ok()?);
            match npyz::NpyFile::new(file).ok()?.shape() {
                [.., h, w] => Some(((u32::try_from(*w).ok()?, u32::try_from(*h).ok()?), false)),
                _ => None,
            }
        }
        Input::Text(_) | Input::TextFile(_) | Input::Bytes(_) => None,
    }
}

fn shown_size(path: &Path) -> Option<((u32, u32), bool)> {
    use image::metadata::Orientation::{Rotate270, Rotate270FlipH, Rotate90, Rotate90FlipH};
    if !path.is_file() {
        return None;
    }
    let mut decoder = ImageReader::open(path).ok()?.with_guessed_format().ok()?.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(decoder.orientation().ok()?, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    Some((if turned { (height, width) } else { (width, height) }, turned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    #[test]
    fn kinds_are_counted_and_what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let save = |name: &str, (w, h): (u32, u32), on: u8, left: u32| {
            let path = dir.path().join(name);
            GrayImage::from_fn(w, h, |x, _| Luma([if x < left { on } else { 0 }])).save(&path).unwrap();
            MaskFile { path, object: None }
        };
        let picture = Input::Picture(save("p.png", (40, 20), 9, 7).path);
        let masks = [
            save("a.png", (40, 20), 1, 3),
            save("b.png", (20, 10), 1, 3),
            save("c.png", (40, 20), 255, 3),
            save("empty.png", (40, 20), 0, 3),
            save("full.png", (40, 20), 7, 40),
            save("turned.png", (20, 40), 255, 3),
        ];
        let pairs: Vec<_> = masks.iter().map(|m| (m, &picture)).collect();
        let survey = Survey::of(&pairs);
        assert_eq!(survey.line().unwrap(), "0/1 in 2 files, 0/255 in 2, one value in 2; 1 empty, 1 full: left out");
        let warnings = survey.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for (warning, part) in warnings.iter().zip(["no pixel of it is the object", "background", "on its side?"]) {
            assert!(warning.contains(part), "{warning}");
        }
        assert_eq!(Survey::of(&[]).line(), None);
        let many: Vec<_> = std::iter::repeat_n((&masks[3], &picture), 10).collect();
        assert!(Survey::of(&many).warnings()[8].starts_with("2 more masks"));
    }
}
