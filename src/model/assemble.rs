//! From a [`Spec`] and [`Weights`] to an [`Encoder`].

mod layers;

use super::naming::Naming;
use super::spec::{EmbeddingSpec, LinearSpec, Names, NormSpec, Part, Placed, Pooling, Spec, Spelling, StepSpec};
use super::task;
use super::weights::Weights;
use crate::encoder::{
    Block, Embedding, Encoder, Head, Neutral, Passes, PatchEmbedding, PatchPositions, Pool, Probe, Reading, Step,
    WordEmbedding,
};
use crate::error::{Error, Result};
use crate::explanation::Prefix;
use crate::nn::{Linear, Norm};
use crate::scale::Scale;
use candle_core::{DType, Device, Tensor};
use std::cell::RefCell;

/// What is done with the tensors' contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// They are read.
    Read,
    /// They are not: names, shapes and dtypes are checked, and the encoder that comes of it holds nothing.
    Checked,
}

/// Where the classifier comes from.
#[derive(Debug, Clone, Copy)]
pub enum Classifier<'a> {
    /// From the checkpoint; it has so many classes.
    Stored(usize),
    /// It is this.
    Given(&'a Linear),
}

/// Builds the encoder, reading every tensor once; with what the user may want to know of the weights.
///
/// # Errors
/// [`Error::Model`] as [`Weights::get`], and for a checkpoint without a classification head.
pub fn assemble(
    spec: &Spec,
    classifier: Classifier,
    weights: &Weights,
    contents: Contents,
    (dtype, device): (DType, &Device),
) -> Result<(Encoder, Vec<String>)> {
    let Some(usual) = spec.spellings.first() else {
        return Err(Error::Model("the family names no tensors".into()));
    };
    let naming = Naming::of(weights, &usual.names)?;
    let spelling = spec.spellings.get(spelt(spec, &naming)).unwrap_or(usual);
    let notes = RefCell::new(weights.notes());
    let names = &spelling.names;
    let loader = Loader { spec, names, naming, weights, contents, dtype, device, notes, last: RefCell::default() };
    let head = loader.head(classifier)?;
    let encoder = Encoder {
        embedding: loader.embedding()?,
        blocks: loader.blocks(&spelling.layers)?,
        final_norm: names.final_norm.map(|name| loader.norm(&spec.norm.named(name), spec.last_width())).transpose()?,
        head,
        neutral: Neutral::default(),
        passes: Passes::default(),
    };
    let mut notes = loader.notes.into_inner();
    notes.extend(loader.naming.notes(names.apart));
    Ok((encoder, notes))
}

/// Which of a family's spellings a file is in: whichever names its first layer's query.
fn spelt(spec: &Spec, naming: &Naming<'_>) -> usize {
    let first = |s: &Spelling| {
        let query = s.layers.first().map(|l| format!("{}.weight", l.projections[0].name));
        query.is_some_and(|name| naming.find(&name).is_some())
    };
    spec.spellings.iter().position(first).unwrap_or(0)
}

/// Whose names the tensors have, and how they differ; `family` is the `model_type`.
///
/// # Errors
/// [`Error::Model`] for weights of another family.
pub fn names(spec: &Spec, family: &str, weights: &Weights) -> Result<String> {
    let Some(usual) = spec.spellings.first() else {
        return Err(Error::Model("the family names no tensors".into()));
    };
    let naming = Naming::of(weights, &usual.names)?;
    let whose = match (family, spec.spellings.len(), spelt(spec, &naming)) {
        ("timm", ..) => "timm's own",
        (_, 1, _) => "those of transformers",
        (_, _, 0) => "those of transformers 4 and the hub",
        _ => "those of transformers 5",
    };
    Ok(format!("{whose}{}", naming.differs()))
}

struct Loader<'a> {
    spec: &'a Spec,
    names: &'a Names,
    naming: Naming<'a>,
    weights: &'a Weights,
    contents: Contents,
    dtype: DType,
    device: &'a Device,
    notes: RefCell<Vec<String>>,
    /// The tensor read last, by name: maps that are stored as one are read once.
    last: RefCell<Option<(String, Tensor)>>,
}

impl Loader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.shaped(name, shape, shape)
    }

    /// A tensor that is stored in one shape and used in another of as many elements.
    fn shaped(&self, name: &str, shape: &[usize], used: &[usize]) -> Result<Tensor> {
        let stored = self.naming.used(name, shape)?;
        match self.contents {
            Contents::Read => Ok(self.weights.get(&stored, shape, self.dtype, self.device)?.reshape(used)?),
            Contents::Checked => {
                self.weights.check(&stored, shape)?;
                Ok(Tensor::zeros(1, self.dtype, &Device::Cpu)?.broadcast_as(used)?)
            }
        }
    }

    /// A tensor that is stored in one of two shapes.
    fn either(&self, name: &str, [first, second]: [&[usize]; 2], used: &[usize]) -> Result<Tensor> {
        let stored = self.naming.find(name).and_then(|stored| self.weights.entries().get(&stored));
        let shape = if stored.is_some_and(|entry| entry.shape == second) { second } else { first };
        self.shaped(name, shape, used)
    }

    fn linear(&self, spec: &LinearSpec) -> Result<Linear> {
        let weight = self.part(&format!("{}{}weight", spec.name, spec.between), spec.part, &[spec.out, spec.input])?;
        let bias = match (&spec.bias_name, spec.bias) {
            (_, false) => None,
            (Some(name), true) => Some(self.tensor(name, &[spec.out])?),
            (None, true) => Some(self.part(&format!("{}{}bias", spec.name, spec.between), spec.part, &[spec.out])?),
        };
        Ok(Linear { weight, bias })
    }

    /// A tensor, or a part of the rows of a stored one.
    fn part(&self, name: &str, part: Option<Part>, shape: &[usize]) -> Result<Tensor> {
        let (Some(part), [rows, rest @ ..]) = (part, shape) else { return self.tensor(name, shape) };
        let (Part::Block { which, of } | Part::OfHeads { which, of, .. }) = part;
        let known = self.last.borrow().as_ref().filter(|(last, _)| last == name).map(|(_, t)| t.clone());
        let stored = match known {
            Some(stored) => stored,
            None => self.tensor(name, &[&[rows * of], rest].concat())?,
        };
        *self.last.borrow_mut() = (which + 1 < of).then(|| (name.to_string(), stored.clone()));
        Ok(match part {
            Part::Block { .. } => stored.narrow(0, which * rows, *rows)?.contiguous()?,
            Part::OfHeads { heads, .. } => {
                let by_head = stored.reshape([&[heads, of, rows / heads], rest].concat())?; // [H,of,E,..]
                by_head.narrow(1, which, 1)?.contiguous()?.reshape(shape)?
            }
        })
    }

    fn norm(&self, spec: &NormSpec, width: usize) -> Result<Norm> {
        let d = [width];
        let weight = self.tensor(&format!("{}.weight", spec.name), &d)?;
        let bias = spec.kind.bias.then(|| self.tensor(&format!("{}.bias", spec.name), &d)).transpose()?;
        Ok(Norm { weight, bias, eps: spec.kind.eps, centre: spec.kind.centre })
    }

    fn embedding(&self) -> Result<Embedding> {
        let ([inputs, norm], places) = (self.names.inputs, self.names.places);
        let (d, at) = (self.spec.width, |name: &str| self.at(name));
        match &self.spec.embedding {
            EmbeddingSpec::Patches { .. } => self.patches().map(Embedding::Patches),
            EmbeddingSpec::Words { vocabulary, positions, table, types, padding_id, narrow } => {
                let d = narrow.as_ref().map_or(d, |map| map.input);
                let positions = || self.tensor(&at(places), &[*positions, d]);
                Ok(Embedding::Words(WordEmbedding {
                    words: self.tensor(&at(&format!("{inputs}.weight")), &[*vocabulary, d])?,
                    positions: table.then(positions).transpose()?,
                    types: match *types {
                        0 => None,
                        n => Some(self.tensor(&at("token_type_embeddings.weight"), &[n, d])?),
                    },
                    norm: match norm {
                        "" => None,
                        norm => Some(self.norm(&self.spec.norm.named(at(norm)), d)?),
                    },
                    widened: narrow.as_ref().map(|map| self.linear(map)).transpose()?,
                    padding_id: *padding_id,
                }))
            }
        }
    }

    /// The embedding of pictures.
    fn patches(&self) -> Result<PatchEmbedding> {
        let &EmbeddingSpec::Patches {
            image,
            patch,
            channels,
            class,
            bias,
            distillation,
            registers,
            table,
            placed,
            ref front,
        } = &self.spec.embedding
        else {
            return Err(Error::Fault("the patches of a family of texts".into()));
        };
        let (d, inputs, places) = (self.spec.width, self.names.inputs[0], self.names.places);
        let at = |name: &str| self.at(name);
        let [class_token, distillation_token, register_tokens] = self.names.tokens;
        let grid = (image.0 / patch.0, image.1 / patch.1);
        let token = |name: &str| self.either(&at(name), [&[1, 1, d], &[d]], &[d]);
        let mut positioned = Vec::new();
        if class {
            positioned.push((Prefix::Class, token(class_token)?));
        }
        if distillation {
            positioned.push((Prefix::Distillation, token(distillation_token)?));
        }
        let registers = match registers {
            0 => None,
            n => Some(self.shaped(&at(register_tokens), &[1, n, d], &[n, d])?),
        };
        let patches = grid.0 * grid.1;
        let (stored, flat) = ([d, channels, patch.0, patch.1], [d, channels.saturating_mul(patch.0 * patch.1)]);
        let weight = self.shaped(&at(&format!("{inputs}.weight")), &stored, &flat)?;
        let bias = bias.then(|| self.tensor(&at(&format!("{inputs}.bias")), &[d])).transpose()?;
        let stored = |rows: usize| self.either(&at(places), [&[1, rows, d], &[rows, d]], &[rows, d]);
        let (prefix, mut registers) = (positioned.len(), registers);
        let positions = |kernel| -> Result<PatchPositions> {
            let table = match placed {
                Placed::Usual => stored(prefix + patches)?,
                // Tokens without a place have one of zeros.
                Placed::Patches => stored(patches)?.pad_with_zeros(0, prefix, 0)?,
                Placed::All => {
                    let own = registers.as_ref().map_or(Ok(0), |r| r.dim(0))?;
                    let table = stored(prefix + own + patches)?;
                    if let Some(registers) = registers.as_mut().filter(|_| self.contents == Contents::Read) {
                        *registers = (&*registers + table.narrow(0, prefix, own)?)?;
                    }
                    let rest = table.narrow(0, prefix + own, patches)?;
                    Tensor::cat(&[table.narrow(0, 0, prefix)?, rest], 0)?
                }
            };
            Ok(PatchPositions { table, grid, kernel })
        };
        let (projection, positions) = (Linear { weight, bias }, table.map(positions).transpose()?);
        let norm = front.as_ref().map(|norm| self.norm(norm, d)).transpose()?;
        let merges = self.spec.merges();
        Ok(PatchEmbedding { projection, patch, merges, positioned, registers, positions, norm })
    }

    /// A tensor of the embedding.
    fn at(&self, name: &str) -> String {
        match self.names.embeddings {
            "" => name.to_string(),
            prefix => format!("{prefix}.{name}"),
        }
    }

    fn head(&self, classifier: Classifier) -> Result<Head> {
        let s = self.spec;
        let classes = match classifier {
            Classifier::Stored(classes) => classes,
            Classifier::Given(classifier) => {
                let (mut pools, steps) = (self.pools(s.pooling)?, self.steps()?);
                let pool = pools.pop().ok_or_else(|| Error::Model("a head that reads nothing".into()))?;
                let reading = Reading { pool, steps, classifier: classifier.clone() };
                return Ok(Head { readings: vec![reading], scale: Scale::Softmax });
            }
        };
        if s.headless && task::of_tensors(&self.naming.outside()).is_none() {
            return self.bare_head();
        }
        let (pooling, classifiers) = self.classifiers()?;
        let width = s.last_width();
        let input = if pooling == Pooling::ClassAndPatchMean { 2 * width } else { width };
        let reading = |(pool, name): (Pool, &String)| -> Result<Reading> {
            let steps = self.steps()?;
            let classifier = self.linear(&LinearSpec::whole(name, (classes, input), s.classifier_bias))?;
            Ok(Reading { pool, steps, classifier })
        };
        let readings = self.pools(pooling)?.into_iter().zip(&classifiers).map(reading).collect::<Result<_>>()?;
        Ok(Head { readings, scale: Scale::Softmax })
    }

    /// What each reading pools.
    fn pools(&self, pooling: Pooling) -> Result<Vec<Pool>> {
        let prefix = self.spec.embedding.prefix();
        Ok(match pooling {
            Pooling::Probe => vec![Pool::Probe(Box::new(self.probe()?))],
            Pooling::First => vec![Pool::Token(0)],
            Pooling::Last => vec![Pool::Last],
            Pooling::Max => vec![Pool::Max],
            Pooling::FirstAndSecond => vec![Pool::Token(0), Pool::Token(1)],
            Pooling::ClassAndPatchMean => vec![Pool::Beside(vec![Pool::Token(0), Pool::Mean { from: prefix }])],
            Pooling::Mean => vec![Pool::Mean { from: 0 }],
            Pooling::PatchMean => vec![Pool::Mean { from: prefix }],
        })
    }

    fn probe(&self) -> Result<Probe> {
        let spec = self.spec.probe.as_deref();
        let spec = spec.ok_or_else(|| Error::Model("the family's head has no query".into()))?;
        let Block { attention, feed_forward, .. } = self.block(&spec.layer)?;
        let query = self.tensor(&spec.query, &[1, 1, self.spec.width])?;
        Ok(Probe { query, from: self.spec.embedding.prefix(), attention: attention.op, feed_forward })
    }

    fn steps(&self) -> Result<Vec<Step>> {
        self.spec.steps.iter().map(|step| self.step(step)).collect()
    }

    fn step(&self, step: &StepSpec) -> Result<Step> {
        match step {
            StepSpec::Linear(linear) if self.naming.find(&format!("{}.weight", linear.name)).is_none() => {
                Err(Error::Model(format!(
                    "`{}.weight` is missing: a classifier without it reads each token by itself (names, parts of speech), and vitx explains classifiers of whole texts",
                    linear.name
                )))
            }
            StepSpec::Linear(linear) => self.linear(linear).map(Step::Linear),
            StepSpec::Unit => Ok(Step::Unit),
            StepSpec::Length => Ok(Step::Length),
            StepSpec::Activation(activation) => Ok(Step::Activation(*activation)),
            StepSpec::Norm(norm) => self.norm(norm, self.spec.last_width()).map(Step::Norm),
        }
    }

    /// The head that the tensors show, the one that config.json names before others.
    fn classifiers(&self) -> Result<(Pooling, Vec<String>)> {
        let n = self.names;
        let all = |names: &[&str]| names.iter().all(|c| self.naming.find(&format!("{c}.weight")).is_some());
        let named = std::iter::once((self.spec.pooling, n.classifiers)).chain(n.other_heads.iter().copied());
        if let Some((pooling, names)) = named.into_iter().find(|(_, names)| all(names)) {
            return Ok((pooling, names.iter().map(ToString::to_string).collect()));
        }
        let [name] = n.classifiers else { return Err(self.no_head()) };
        let [number] = &self.naming.sequence(name)[..] else { return Err(self.no_head()) };
        self.notes.borrow_mut().push(format!(
            "the head is `{name}.{number}`, part of a sequence of layers; the others have no weights and are taken for dropout"
        ));
        Ok((self.spec.pooling, vec![format!("{name}.{number}")]))
    }

    /// What stands in for the head of a backbone: what stands for a whole input, number by number.
    fn bare_head(&self) -> Result<Head> {
        let weight = Tensor::eye(self.spec.last_width(), self.dtype, self.device)?;
        let classifier = Linear { weight, bias: None };
        let pools = self.pools(self.spec.bare())?.into_iter();
        let reading = |pool| Reading { pool, steps: Vec::new(), classifier: classifier.clone() };
        Ok(Head { readings: pools.map(reading).collect(), scale: Scale::Value })
    }

    fn no_head(&self) -> Error {
        let family = self.names.embeddings.split('.').next().unwrap_or_default();
        let wanted = self.names.classifiers.first().copied().unwrap_or_default();
        let outside = self.naming.outside();
        let why = match (task::of_tensors(&outside), &outside[..]) {
            (Some(what), _) => format!("its head {what}"),
            (None, []) => format!("it is a backbone ({family})"),
            (None, outside) => {
                let some: Vec<_> = outside.iter().take(4).map(|n| format!("`{n}`")).collect();
                format!("beside the backbone ({family}) it holds {}", some.join(", "))
            }
        };
        Error::Model(format!(
            "this checkpoint has no classification head (`{wanted}.weight` is missing): {why}, and vitx explains classifiers; use a fine-tuned checkpoint of the same family (`vitx models` names some)"
        ))
    }
}
