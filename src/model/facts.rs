//! What a checkpoint says before its weights are read: facts for methods, its tokens, and what a run will need.

use super::{Checkpoint, EmbeddingSpec, Modality, Processor};
use crate::device;
use crate::encoder::{Facts, NormPlacement, Pooling};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::input::prepare::Shape;
use candle_core::{DType, Device};

/// What a run in f32 with one input at a time needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Number of weights.
    pub parameters: usize,
    /// Tokens of an input; of texts the most.
    pub tokens: usize,
    /// Bytes of the weights.
    pub weights: usize,
    /// About how many bytes a forward and a reverse pass hold.
    pub pass: usize,
}

impl Checkpoint {
    /// What methods may need to know of it.
    pub fn facts(&self) -> Facts {
        let spec = &self.spec;
        Facts {
            text: self.family.modality == Modality::Text,
            gated: spec.gated,
            patch_mean: spec.pooling == Pooling::ClassAndPatchMean,
            mask_token: matches!(&self.processor, Processor::Text(t) if t.mask_id().is_some()),
            layers: spec.layers,
            heads: spec.heads,
            class_token: true, // every family read today classifies from its first token
            distillation_token: matches!(spec.embedding, EmbeddingSpec::Patches { distillation: true, .. }),
            reads_distillation: spec.pooling == Pooling::FirstAndSecond,
            post_norm: spec.placement == NormPlacement::Post,
            scale: self.scale,
        }
    }

    /// Height and width in pixels of what it reads of a picture whose size is not known yet; none: it reads texts.
    pub fn input_size(&self, shape: Shape) -> Option<(usize, usize)> {
        match (&self.processor, &self.spec.embedding) {
            (Processor::Image(p), EmbeddingSpec::Patches { image, .. }) => {
                Some(shape.size.or(p.input_size()).unwrap_or(*image))
            }
            _ => None,
        }
    }

    /// Tokens of such a picture; of texts the most that it reads.
    pub fn tokens(&self, shape: Shape) -> usize {
        match (&self.processor, &self.spec.embedding, self.input_size(shape)) {
            (_, EmbeddingSpec::Patches { patch, .. }, Some((h, w))) => {
                self.spec.embedding.prefix() + (h / patch.0) * (w / patch.1)
            }
            (Processor::Text(p), _, _) => p.max_tokens(),
            _ => 0,
        }
    }

    /// Refuses sizes that its inputs cannot have.
    ///
    /// # Errors
    /// [`Error::Usage`] saying why.
    pub fn check_shape(&self, shape: Shape) -> Result<()> {
        let refused = |why: String| Err(Error::Usage(why));
        match (&self.spec.embedding, shape.fit, shape.size) {
            (EmbeddingSpec::Words { .. }, Some(_), _) => {
                refused(format!("--fit is for image models; `{}` reads texts", self.id))
            }
            (EmbeddingSpec::Words { .. }, None, Some(_)) => {
                refused(format!("--size is for image models; `{}` reads texts", self.id))
            }
            (EmbeddingSpec::Patches { patch, .. }, _, Some((h, w))) if h < patch.0 || w < patch.1 => {
                refused(format!("--size {h}x{w} is smaller than one patch of the model ({}x{})", patch.0, patch.1))
            }
            (_, Some(_), None) if self.processor.varies() => {
                refused(format!("--fit needs --size: the processor of `{}` has no input size of its own", self.id))
            }
            _ => Ok(()),
        }
    }

    /// The identity of what a command makes with it, where it is run and how its inputs are shaped; the command adds what
    /// else its results depend on.
    ///
    /// # Errors
    /// As [`Checkpoint::identity`].
    pub fn stated(&self, command: &str, (dtype, on): (DType, &Device), shape: Shape) -> Result<Identity> {
        Ok(Identity {
            model: self.identity()?,
            dtype: dtype.as_str().into(),
            device: device::class(on).into(),
            size: shape.size,
            fit: shape.fit.map(|fit| fit.name().into()),
            window: shape.window.map(|w| (w.low, w.high)),
            ..Identity::of(command)
        })
    }

    /// What a run will need.
    ///
    /// # Errors
    /// When the weights cannot be read.
    pub fn demand(&self) -> Result<Demand> {
        let (s, tokens, parameters) = (&self.spec, self.tokens(Shape::default()), self.parameters()?);
        // A recorded forward pass keeps per layer the states [T,D] (query, key, value, context and four more), the
        // feed-forward [T,F] and the attention [H,T,T]; the reverse pass about half as much again.
        let layer = tokens * (8 * s.width + s.feed_forward) + s.heads * tokens * tokens;
        Ok(Demand { parameters, tokens, weights: 4 * parameters, pass: 4 * s.layers * layer * 3 / 2 })
    }
}
