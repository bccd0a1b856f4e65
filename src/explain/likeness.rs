//! Outputs that are no classes of a checkpoint: how like an input is to others, and how long its state is.

use crate::error::{Error, Result};
use crate::input::array;
use crate::input::prepare::Input;
use crate::input::text::Text;
use crate::input::{Preparer, Ready, Shape, Source};
use crate::model::{Checkpoint, Classes, Modality, Reference};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What targets ask of states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Likeness {
    /// Cosines with the states of these, `similarity:REF`.
    Cosine(Vec<String>),
    /// Products with them, `dot:REF`.
    Dot(Vec<String>),
    /// Their length, `norm`.
    Norm,
    /// The patches' mean projections on these principal components of the run's patches, `component:K`.
    Components(Vec<usize>),
}

impl Likeness {
    /// What these targets ask; none where they mean classes.
    ///
    /// # Errors
    /// [`Error::Usage`] for targets of several kinds, and a component that is no number.
    pub fn asked(targets: &[String]) -> Result<Option<Self>> {
        let kind = |target: &String| -> Result<Option<Likeness>> {
            let target = target.trim();
            let plain = target.strip_prefix('-').unwrap_or(target);
            let of = |start: &str| plain.strip_prefix(start).map(|name| vec![name.to_string()]);
            if let Some(number) = plain.strip_prefix("component:") {
                let wrong = || Error::Usage(format!("target `{target}`: K in component:K is a number from 1 on"));
                return Ok(Some(Likeness::Components(vec![number.parse().map_err(|_| wrong())?])));
            }
            Ok(match plain {
                "norm" => Some(Likeness::Norm),
                _ => of("similarity:").map(Likeness::Cosine).or_else(|| of("dot:").map(Likeness::Dot)),
            })
        };
        let mut all = targets.iter().map(kind).collect::<Result<Vec<_>>>()?.into_iter();
        let Some(first) = all.next() else { return Ok(None) };
        let joined = all.try_fold(first, |known, more| match (known, more) {
            (None, None) => Some(None),
            (Some(Likeness::Cosine(known)), Some(Likeness::Cosine(more))) => {
                Some(Some(Likeness::Cosine([known, more].concat())))
            }
            (Some(Likeness::Dot(known)), Some(Likeness::Dot(more))) => {
                Some(Some(Likeness::Dot([known, more].concat())))
            }
            (Some(Likeness::Components(known)), Some(Likeness::Components(more))) => {
                Some(Some(Likeness::Components([known, more].concat())))
            }
            (Some(Likeness::Norm), Some(Likeness::Norm)) => Some(Some(Likeness::Norm)),
            _ => None,
        });
        let mixed = "similarity:REF, dot:REF, norm, component:K and classes are outputs of different models; run vitx once for each";
        joined.ok_or_else(|| Error::Usage(format!("targets: {mixed}")))
    }

    /// The model whose outputs these are; `inputs` are those of the run.
    ///
    /// # Errors
    /// As [`Checkpoint::similar_to`], and a reference that cannot be read.
    pub fn model(
        self,
        checkpoint: Checkpoint,
        (inputs, shape): (&[Source], Shape),
        to: (candle_core::DType, &candle_core::Device),
    ) -> Result<Checkpoint> {
        let dot = matches!(self, Likeness::Dot(_));
        match self {
            Likeness::Norm => Ok(checkpoint.lengths()),
            Likeness::Components(mut wanted) => {
                wanted.sort_unstable();
                wanted.dedup();
                checkpoint.components((inputs, shape), &wanted, to)
            }
            Likeness::Cosine(mut names) | Likeness::Dot(mut names) => {
                let mut seen = HashSet::new();
                names.retain(|name| seen.insert(name.clone()));
                let read = |name: String| -> Result<(String, Reference)> {
                    let reference = reference(&name, &checkpoint, shape);
                    Ok((name.clone(), reference.map_err(|e| Error::Usage(format!("target `{name}`: {e}")))?))
                };
                let references = names.into_iter().map(read).collect::<Result<_>>()?;
                checkpoint.similar_to(references, dot, to)
            }
        }
    }
}

/// A file of a vector, an input file, or for text models a text.
fn reference(name: &str, checkpoint: &Checkpoint, shape: Shape) -> Result<Reference> {
    let path = Path::new(name);
    if path.extension().is_some_and(|end| end == "npy") && array::shape(path)?.len() <= 2 {
        return array::vector(path).map(Reference::Vector);
    }
    let source = match (checkpoint.modality(), path.is_file()) {
        (Modality::Text, false) => {
            let text = Text { first: name.to_string(), second: None };
            Source { name: name.into(), stem: "reference".into(), input: Ok(Input::Text(text)) }
        }
        (_, _) => {
            let all = Source::of_file(path, "reference".into());
            all.into_iter().next().ok_or_else(|| Error::Input("holds no input".into()))?
        }
    };
    let ready = source.prepare(&mut Preparer::new(&checkpoint.processor, shape))?;
    match (&ready, checkpoint.modality()) {
        (Ready::Picture(_), Modality::Image) | (Ready::Text(_), Modality::Text) => Ok(Reference::Input(ready)),
        _ => Err(Error::Usage("is of another kind than the model reads".into())),
    }
}

/// What is to be explained the other way round: the references of targets, for likeness to the inputs. Files, texts and targets.
///
/// # Errors
/// [`Error::Usage`] for targets that are no likeness to an input.
pub fn turned(targets: &[String], inputs: &[String]) -> Result<(Vec<PathBuf>, Vec<String>, Vec<String>)> {
    let (kind, names) = match Likeness::asked(targets)? {
        Some(Likeness::Cosine(names)) => ("similarity", names),
        Some(Likeness::Dot(names)) => ("dot", names),
        Some(Likeness::Norm | Likeness::Components(_)) | None => {
            return Err(Error::Usage("--both explains the other side of similarity:REF or dot:REF".into()))
        }
    };
    if let Some(vector) = names.iter().find(|name| array::shape(Path::new(name)).is_ok_and(|shape| shape.len() <= 2)) {
        return Err(Error::Usage(format!("--both: {vector} is a vector, of which nothing can be explained")));
    }
    let (files, texts): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| Path::new(name).is_file());
    let targets = inputs.iter().map(|input| format!("{kind}:{input}")).collect();
    Ok((files.into_iter().map(PathBuf::from).collect(), texts, targets))
}

/// The texts of classes as inputs, and the text tower of a model that compares, whose outputs are pictures named by their stems.
///
/// # Errors
/// [`Error::Usage`] where no text is named, [`Error::Input`] naming a picture that cannot be read, and as
/// [`Checkpoint::of_texts`].
pub fn words_of(
    classes: &Classes,
    pictures: &[Source],
    checkpoint: Checkpoint,
    shape: Shape,
    to: (candle_core::DType, &candle_core::Device),
) -> Result<(Vec<Source>, Checkpoint)> {
    if classes.names.is_empty() {
        return Err(Error::Usage("--explain text: name the texts, as in -t \"text:a photo of a cat\"".into()));
    }
    let read = |source: &Source| {
        let ready = source.prepare(&mut Preparer::new(&checkpoint.processor, shape));
        let ready = ready.map_err(|e| Error::Input(format!("{}: {e}", source.name)))?;
        Ok((source.stem.to_string_lossy().into_owned(), ready))
    };
    let pictures = pictures.iter().map(read).collect::<Result<_>>()?;
    let text = |first: String| Text { first, second: None };
    let texts = Source::of_texts(classes.texts()?.into_iter().map(text).collect());
    Ok((texts, checkpoint.of_texts(pictures, to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_of_one_kind() {
        let asked = |targets: &[&str]| Likeness::asked(&targets.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        assert_eq!(asked(&["predicted", "cat"]).unwrap(), None);
        let two = Likeness::Cosine(vec!["a.jpg".into(), "b, c.jpg".into()]);
        assert_eq!(asked(&["similarity:a.jpg", "-similarity:b, c.jpg"]).unwrap(), Some(two));
        assert_eq!(asked(&["dot:v.npy"]).unwrap(), Some(Likeness::Dot(vec!["v.npy".into()])));
        assert_eq!(asked(&["norm", "-norm"]).unwrap(), Some(Likeness::Norm));
        assert_eq!(asked(&["component:2", "-component:1"]).unwrap(), Some(Likeness::Components(vec![2, 1])));
        assert!(asked(&["component:x"]).is_err());
        assert!(asked(&["norm", "cat"]).is_err() && asked(&["similarity:a", "dot:a"]).is_err());
    }
}
