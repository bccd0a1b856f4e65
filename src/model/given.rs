//! Classifiers that are not in a checkpoint: states of other inputs, with which those of the explained ones are compared.

use super::assemble::Contents;
use super::hypotheses::Hypotheses;
use super::spec::{Beside, Modality, Pooling, Spec, StepSpec};
use super::towers::{self, states, ZeroShot};
use super::weights::Weights;
use super::{inputs, tables, Checkpoint, Processor};
use crate::encoder::{Encoder, Keep};
use crate::error::{Error, Result};
use crate::input::prepare::Ready;
use crate::input::text::TextProcessor;
use crate::input::{Preparer, Shape, Source};
use crate::labels::Labels;
use crate::nn::{numbers, principal, Linear};
use crate::scale::Scale;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// Where the classifier comes from, if not from the checkpoint.
pub(super) enum Given {
    /// Texts are the classes of pictures.
    Texts(Box<ZeroShot>),
    /// These states are the classes.
    States(States),
    /// The length of a state is the only output.
    Length,
    /// The checkpoint's own; classes are texts beside the one that is read.
    Hypotheses(Hypotheses),
}

/// States that others are compared with.
pub(super) struct States {
    /// `[C,P]`, times what products are multiplied by.
    rows: Tensor,
    /// What is added to each, if anything.
    bias: Vec<f64>,
    /// What tells them from others.
    identity: String,
}

/// What a state is compared with: an input, or a vector that stands for one.
pub enum Reference {
    /// An input of the model.
    Input(Ready),
    /// As many numbers as a state has.
    Vector(Vec<f32>),
}

impl Given {
    /// The classifier `[C,P]`, of the dtype and on the device; none: the checkpoint's.
    ///
    /// # Errors
    /// As [`ZeroShot::classifier`].
    pub fn classifier(&self, weights: &Weights, contents: Contents, to: (DType, &Device)) -> Result<Option<Linear>> {
        Ok(Some(match self {
            Given::Hypotheses(_) => return Ok(None),
            Given::Texts(own) => own.classifier(weights, contents, to)?,
            Given::Length => Linear { weight: Tensor::ones((1, 1), to.0, to.1)?, bias: None },
            Given::States(States { rows, bias, .. }) => {
                let bias = (!bias.is_empty()).then(|| Tensor::from_slice(bias, bias.len(), to.1)?.to_dtype(to.0));
                let bias = bias.transpose()?;
                Linear { weight: rows.to_dtype(to.0)?.to_device(to.1)?, bias }
            }
        }))
    }

    /// What tells it from others.
    pub fn identity(&self) -> String {
        match self {
            Given::Texts(own) => own.identity.clone(),
            Given::States(own) => own.identity.clone(),
            Given::Length => "norm".into(),
            Given::Hypotheses(own) => own.identity(),
        }
    }
}

impl Checkpoint {
    /// It as a model whose outputs are similarities to `references`, named as they are to be called: the cosine of both states, or with
    /// `dot` their product. A state is what its head would read: the class token, or the mean of the tokens.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::Usage`] for a vector of another length.
    pub fn similar_to(mut self, references: Vec<(String, Reference)>, dot: bool, to: (DType, &Device)) -> Result<Self> {
        let width = match self.spec.beside.as_deref() {
            Some(beside) => beside.width,
            None => self.spec.last_width(),
        };
        self.spec.pooling = self.spec.bare();
        if self.spec.beside.is_none() && self.modality() == Modality::Image {
            self.spec.steps = Vec::new();
        }
        if !dot && !self.spec.steps.iter().any(|step| matches!(step, StepSpec::Unit)) {
            self.spec.steps.push(StepSpec::Unit);
        }
        if dot && self.spec.beside.is_some() {
            self.spec.steps.retain(|step| !matches!(step, StepSpec::Unit));
        }
        let labels: Vec<String> = references.iter().map(|(name, _)| name.clone()).collect();
        let mut vectors: BTreeMap<usize, Tensor> = BTreeMap::new();
        let mut ready = Vec::new();
        for (number, (name, reference)) in references.into_iter().enumerate() {
            match reference {
                Reference::Input(input) => ready.push((number, input)),
                Reference::Vector(own) if own.len() == width => {
                    let length = own.iter().map(|x| x * x).sum::<f32>().sqrt();
                    let scale = if dot { 1.0 } else { 1.0 / f64::from(length) };
                    vectors.insert(number, (Tensor::from_vec(own, (1, width), &Device::Cpu)? * scale)?);
                }
                Reference::Vector(own) => {
                    return Err(Error::Usage(format!(
                        "{name}: a vector of {} numbers, and a state of model `{}` has {width}",
                        own.len(),
                        self.id
                    )))
                }
            }
        }
        let numbers: Vec<usize> = ready.iter().map(|(number, _)| *number).collect();
        if !ready.is_empty() {
            let tower = self.tower(&self.spec, width, to)?;
            let found = states(&tower, ready, self.pad_id())?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            for (row, number) in numbers.iter().enumerate() {
                vectors.insert(*number, found.narrow(0, row, 1)?);
            }
        }
        let rows = Tensor::cat(&vectors.values().collect::<Vec<_>>(), 0)?;
        let kind = if dot { "dot" } else { "cosine" };
        self.compared((rows, Vec::new()), labels, kind)?;
        self.scale = Scale::Value;
        Ok(self)
    }

    /// It as a model whose output is the length of a state.
    pub fn lengths(mut self) -> Self {
        self.spec.pooling = self.spec.bare();
        self.spec.steps.retain(|step| self.spec.beside.is_some() && !matches!(step, StepSpec::Unit));
        self.spec.steps.push(StepSpec::Length);
        self.spec.headless = false;
        self.labels = Labels::new(vec!["norm".into()]);
        self.scale = Scale::Value;
        self.given = Some(Given::Length);
        self
    }

    /// It as a model whose outputs are the mean projections of a picture's patches on principal components of the patches of all
    /// `inputs`: those of the states behind the last norm, centred; the first component is 1, and its number of largest magnitude is
    /// positive.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::Usage`] for texts, for more components than states have numbers, and where all patches are
    /// alike.
    pub fn components(
        mut self,
        (inputs, shape): (&[Source], Shape),
        wanted: &[usize],
        to: (DType, &Device),
    ) -> Result<Self> {
        let width = self.spec.last_width();
        if self.modality() == Modality::Text {
            return Err(Error::Usage("component:K is for pictures: components of their patches".into()));
        }
        if let Some(none) = wanted.iter().find(|k| !(1..=width).contains(*k)) {
            return Err(Error::Usage(format!("component:{none}: a state has components 1 to {width}")));
        }
        (self.spec.pooling, self.spec.steps, self.spec.beside) = (Pooling::PatchMean, Vec::new(), None);
        let (mean, mut spread) = self.spread((inputs, shape), to)?;
        let mut rows: BTreeMap<usize, Tensor> = BTreeMap::new();
        for number in 1..=wanted.iter().copied().max().unwrap_or(0) {
            let Some((direction, variance)) = principal(&spread)? else {
                return Err(Error::Usage(format!("component:{number}: the patches do not vary in so many directions")));
            };
            let column = direction.unsqueeze(1)?;
            spread = (spread - (column.matmul(&column.t()?)? * variance)?)?;
            rows.insert(number, direction.unsqueeze(0)?);
        }
        let own: Vec<&Tensor> = wanted.iter().filter_map(|k| rows.get(k)).collect();
        let rows = Tensor::cat(&own, 0)?; // [C,D]
        let centre = rows.matmul(&mean.unsqueeze(1)?)?.squeeze(1)?.neg()?.to_vec1::<f64>()?;
        let labels = wanted.iter().map(|k| format!("component {k}")).collect();
        self.compared((rows.to_dtype(DType::F32)?, centre), labels, "components")?;
        self.scale = Scale::Value;
        Ok(self)
    }

    /// The mean of the patches' states `[D]` and how they vary about it `[D,D]`, in f64.
    fn spread(&self, (inputs, shape): (&[Source], Shape), to: (DType, &Device)) -> Result<(Tensor, Tensor)> {
        let (width, prefix) = (self.spec.last_width(), self.spec.embedding.prefix());
        let tower = self.tower(&self.spec, width, to)?;
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu);
        let (mut sum, mut products, mut count) = (zeros(&[width])?, zeros(&[width, width])?, 0.0);
        let mut preparer = Preparer::new(&self.processor, shape);
        // What cannot be read is reported when its turn comes.
        for ready in inputs.iter().filter_map(|source| source.prepare(&mut preparer).ok()) {
            let last = tower.forward(&inputs::batch(&[&ready], 0, tower.device())?, Keep::Last)?.last;
            let patches = tower.normed(&last)?.narrow(1, prefix, last.dim(1)? - prefix)?.squeeze(0)?;
            let patches = patches.to_device(&Device::Cpu)?.to_dtype(DType::F64)?; // [N,D]
            sum = (sum + patches.sum(0)?)?;
            products = (products + patches.t()?.contiguous()?.matmul(&patches)?)?;
            count += patches.dim(0)? as f64;
        }
        if count == 0.0 {
            return Err(Error::Usage("component:K: no input can be read".into()));
        }
        let mean = (sum / count)?;
        let column = mean.unsqueeze(1)?;
        let spread = ((products / count)? - column.matmul(&column.t()?)?)?;
        Ok((mean, spread))
    }

    /// The text tower as a model of its own, whose outputs are how pictures, named as they are to be called, go with a text.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::Usage`] for a model without a text tower.
    pub fn of_texts(mut self, pictures: Vec<(String, Ready)>, to: (DType, &Device)) -> Result<Self> {
        let Some(beside) = self.spec.beside.take() else {
            return Err(Error::Usage(format!(
                "--explain text is for models that compare pictures with texts, such as CLIP; `{}` is none",
                self.id
            )));
        };
        let Beside { spec, width, scale, bias, logits, filled } = *beside;
        let labels: Vec<String> = pictures.iter().map(|(name, _)| name.clone()).collect();
        let ready = pictures.into_iter().map(|(_, ready)| ready).enumerate().collect();
        let found = states(&self.tower(&self.spec, width, to)?, ready, 0)?.to_device(&Device::Cpu)?;
        let weights = self.files.weights()?;
        let factor = towers::number(&weights, scale)?.exp();
        let bias = bias.map(|name| towers::number(&weights, name)).transpose()?;
        let texts = TextProcessor::read(&|name| self.files.read(name), self.family.name, tables(&spec)?)?;
        self.processor = Processor::Text(Box::new(if filled { texts.filling_up() } else { texts }));
        self.spec = spec;
        let bias = bias.map_or_else(Vec::new, |bias| vec![bias; labels.len()]);
        self.compared(((found.to_dtype(DType::F32)? * factor)?, bias), labels, "texts")?;
        // One picture is no choice among several.
        self.scale = if logits == Scale::Softmax { Scale::Value } else { logits };
        Ok(self)
    }

    fn compared(&mut self, (rows, bias): (Tensor, Vec<f64>), labels: Vec<String>, kind: &str) -> Result<()> {
        let all = [numbers(&rows.flatten_all()?)?, bias.clone()].concat();
        let bytes: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
        let identity = format!("{kind} {}", crate::identity::of_bytes(&bytes));
        self.labels = Labels::new(labels);
        self.spec.headless = false;
        self.given = Some(Given::States(States { rows, bias, identity }));
        Ok(())
    }

    /// One of its towers, whose outputs are its states.
    fn tower(&self, spec: &Spec, width: usize, to: (DType, &Device)) -> Result<Encoder> {
        towers::bare((spec, width), &self.files.weights()?, Contents::Read, to)
    }

    fn pad_id(&self) -> u32 {
        match &self.processor {
            Processor::Text(texts) => texts.pad_id(),
            Processor::Image(_) => 0,
        }
    }

    /// Whether it reads pictures or texts.
    pub fn modality(&self) -> Modality {
        match &self.processor {
            Processor::Text(_) => Modality::Text,
            Processor::Image(_) => Modality::Image,
        }
    }
}
