//! Pictures and texts in one space: where a picture's tower stands beside a text's, the embeddings of the classes' texts are
//! the classifier of pictures (CLIP, Radford et al., ICML 2021).

use super::assemble::{assemble, Classifier, Contents};
use super::inputs;
use super::spec::{Beside, Spec};
use super::weights::{missing, Weights};
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::input::prepare::{by_size, Ready};
use crate::input::text::{lines, Text, TextProcessor, Tokenised};
use crate::labels::Labels;
use crate::nn::Linear;
use crate::scale::Scale;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Inputs that go through a tower together.
const TOGETHER: usize = 32;

/// What a user says of a model's outputs.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// What the logits are, where the checkpoint does not say it.
    pub head: Option<Scale>,
    /// The classes of a model that compares pictures with texts.
    pub classes: Option<Classes>,
}

/// Classes that a user names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes {
    /// In class order.
    pub names: Vec<String>,
    /// A text with `{}` for the name; none: the name is the text.
    pub template: Option<String>,
}

impl Classes {
    /// Those of a list or of the lines of a file, and the texts of targets that are none of them; none where there is neither.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Usage`] for one that is no text and for a template without a class.
    pub fn named(
        (list, file): (&[String], Option<&Path>),
        targets: &[String],
        template: Option<&str>,
    ) -> Result<Option<Self>> {
        let mut names: Vec<String> = list.iter().map(|name| name.trim().to_string()).collect();
        if let Some(file) = file {
            for line in lines(&std::fs::read(file).map_err(|e| Error::io(file, e))?) {
                let line = String::from_utf8(line)
                    .map_err(|_| Error::Usage(format!("--classes-file {}: is not UTF-8 text", file.display())))?;
                names.extend(Some(line.trim().to_string()).filter(|name| !name.is_empty()));
            }
        }
        for text in targets {
            if !names.contains(text) {
                names.push(text.clone());
            }
        }
        if names.is_empty() && (file.is_some() || template.is_some()) {
            return Err(Error::Usage(
                "no class is named: pass --classes, or a --classes-file with a line for each".into(),
            ));
        }
        let template = template.map(String::from);
        Ok((!names.is_empty()).then_some(Classes { names, template }))
    }

    /// The texts that stand for the classes.
    ///
    /// # Errors
    /// [`Error::Usage`] for no class, an empty one, one that is named twice, and a template without a place for it.
    pub fn texts(&self) -> Result<Vec<String>> {
        if let Some(template) = self.template.as_deref().filter(|t| !t.contains("{}")) {
            return Err(Error::Usage(format!("--prompt `{template}` has no {{}} for the class")));
        }
        if self.names.is_empty() {
            return Err(Error::Usage("no class is named".into()));
        }
        for (number, name) in self.names.iter().enumerate() {
            match name.trim() {
                "" => return Err(Error::Usage(format!("class {} has no name", number + 1))),
                _ if self.names[..number].contains(name) => {
                    return Err(Error::Usage(format!("class `{name}` is named twice")));
                }
                _ => {}
            }
        }
        let text = |name: &String| self.template.as_ref().map_or_else(|| name.clone(), |t| t.replace("{}", name));
        Ok(self.names.iter().map(text).collect())
    }
}

/// The text side of a classifier whose classes are texts.
pub(super) struct ZeroShot {
    beside: Beside,
    pad_id: u32,
    texts: Vec<Tokenised>,
    /// What tells it from others: the texts.
    pub identity: String,
    /// The classes' names.
    pub labels: Labels,
}

impl ZeroShot {
    /// Tokenises the classes' texts.
    ///
    /// # Errors
    /// As [`Classes::texts`]; [`Error::Usage`] for a text that is longer than the tower reads.
    pub fn new(classes: &Classes, beside: Beside, processor: &TextProcessor) -> Result<Self> {
        let all = classes.texts()?;
        let tokenised = |first: &String| {
            let read = processor.apply(&Text { first: first.clone(), second: None });
            let read = read.map_err(|e| Error::Usage(format!("class text `{first}`: {e}")))?;
            match read.layout.truncation() {
                Some(_) => Err(Error::Usage(format!(
                    "class text `{first}` is longer than the {} tokens that the model reads of a text",
                    processor.max_tokens()
                ))),
                None => Ok(read),
            }
        };
        Ok(ZeroShot {
            pad_id: processor.pad_id(),
            texts: all.iter().map(tokenised).collect::<Result<_>>()?,
            identity: serde_json::Value::from(all).to_string(),
            labels: Labels::new(classes.names.clone()),
            beside,
        })
    }

    /// The classifier `[C,P]` of pictures' embeddings, each of length 1: the texts' embeddings, of length 1 too, times the
    /// model's scale.
    ///
    /// # Errors
    /// As [`assemble`], and what the passes report.
    pub fn classifier(
        &self,
        weights: &Weights,
        contents: Contents,
        (dtype, device): (DType, &Device),
    ) -> Result<Linear> {
        let classes = self.texts.len();
        let number = |name: &str| match contents {
            Contents::Read => number(weights, name),
            Contents::Checked => Ok(0.0),
        };
        let scale = number(self.beside.scale)?.exp();
        let bias = self
            .beside
            .bias
            .map(|name| Tensor::full(number(name)?, classes, device)?.to_dtype(dtype).map_err(Error::from));
        let tower = bare((&self.beside.spec, self.beside.width), weights, contents, (dtype, device))?;
        let weight = match contents {
            Contents::Read => {
                let texts = self.texts.iter().cloned().map(Ready::Text).enumerate().collect();
                (states(&tower, texts, self.pad_id)? * scale)?
            }
            Contents::Checked => Tensor::zeros((classes, self.beside.width), dtype, &Device::Cpu)?,
        };
        Ok(Linear { weight, bias: bias.transpose()? })
    }
}

/// A tower whose outputs are its states, of so many numbers.
///
/// # Errors
/// As [`assemble`].
pub(super) fn bare(
    (spec, width): (&Spec, usize),
    weights: &Weights,
    contents: Contents,
    to: (DType, &Device),
) -> Result<Encoder> {
    let bare = Linear { weight: Tensor::eye(width, to.0, to.1)?, bias: None };
    Ok(assemble(spec, Classifier::Given(&bare), weights, contents, to)?.0)
}

/// A model's states, `[N,P]` in the order of the inputs; inputs of one size go together.
///
/// # Errors
/// What the passes report.
pub(super) fn states(encoder: &Encoder, inputs: Vec<(usize, Ready)>, pad_id: u32) -> Result<Tensor> {
    let mut rows: BTreeMap<usize, Tensor> = BTreeMap::new();
    for same in by_size(inputs) {
        for some in same.chunks(TOGETHER) {
            let ready: Vec<&Ready> = some.iter().map(|(_, ready)| ready).collect();
            let states = encoder.logits(&inputs::batch(&ready, pad_id, encoder.device())?)?;
            for (row, (number, _)) in some.iter().enumerate() {
                rows.insert(*number, states.narrow(0, row, 1)?);
            }
        }
    }
    Ok(Tensor::cat(&rows.values().collect::<Vec<_>>(), 0)?)
}

/// A number that the weights hold by itself.
///
/// # Errors
/// As [`Weights::get`].
pub(super) fn number(weights: &Weights, name: &str) -> Result<f64> {
    let entry = weights.entries().get(name).ok_or_else(|| missing(name, &[]))?;
    let stored = weights.get(name, &entry.shape, DType::F64, &Device::Cpu)?.flatten_all()?.to_vec1::<f64>()?;
    stored.first().copied().ok_or_else(|| missing(name, &[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_become_texts() {
        let of = |names: &[&str], template: Option<&str>| {
            let names = names.iter().map(ToString::to_string).collect();
            Classes { names, template: template.map(String::from) }.texts()
        };
        assert_eq!(of(&["cat", "dog"], Some("a photo of a {}")).unwrap(), ["a photo of a cat", "a photo of a dog"]);
        assert_eq!(of(&["cat"], None).unwrap(), ["cat"]);
        for (names, template, part) in [
            (&["cat"][..], Some("a photo"), "no {}"),
            (&[], None, "no class"),
            (&["cat", " "], None, "class 2"),
            (&["cat", "cat"], None, "twice"),
        ] {
            assert!(of(names, template).unwrap_err().to_string().contains(part), "{names:?}");
        }
    }
}
