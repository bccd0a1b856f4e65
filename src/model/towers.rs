//! Pictures and texts in one space: where a picture's tower stands beside a text's, the embeddings of the classes' texts are
//! the classifier of pictures (CLIP, Radford et al., ICML 2021).

use super::assemble::{assemble, Classifier, Contents};
use super::inputs::token_inputs;
use super::spec::Beside;
use super::weights::{missing, Weights};
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::input::text::{lines, Text, TextProcessor, Tokenised};
use crate::labels::Labels;
use crate::nn::Linear;
use crate::scale::Scale;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Texts that go through the tower together.
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
    /// model's scale; and what there is to say of the weights.
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
        let weight = match contents {
            Contents::Read => (self.embeddings(&self.tower(weights, contents, (dtype, device))?)? * scale)?,
            Contents::Checked => {
                self.tower(weights, contents, (dtype, device))?;
                Tensor::zeros((classes, self.beside.width), dtype, &Device::Cpu)?
            }
        };
        Ok(Linear { weight, bias: bias.transpose()? })
    }

    fn tower(&self, weights: &Weights, contents: Contents, to: (DType, &Device)) -> Result<Encoder> {
        let bare = Linear { weight: Tensor::eye(self.beside.width, to.0, to.1)?, bias: None };
        Ok(assemble(&self.beside.spec, Classifier::Given(&bare), weights, contents, to)?.0)
    }

    /// `[C,P]`; texts of one length go together.
    fn embeddings(&self, tower: &Encoder) -> Result<Tensor> {
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, text) in self.texts.iter().enumerate() {
            by_length.entry(text.ids.len()).or_default().push(number);
        }
        let mut rows: BTreeMap<usize, Tensor> = BTreeMap::new();
        for some in by_length.values().flat_map(|same| same.chunks(TOGETHER)) {
            let texts: Vec<&Tokenised> = some.iter().map(|number| &self.texts[*number]).collect();
            let states = tower.logits(&token_inputs(&texts, self.pad_id, tower.device())?)?;
            for (row, number) in some.iter().enumerate() {
                rows.insert(*number, states.narrow(0, row, 1)?);
            }
        }
        Ok(Tensor::cat(&rows.values().collect::<Vec<_>>(), 0)?)
    }
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
