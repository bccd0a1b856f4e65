//! What a checkpoint says before its weights are read: facts for methods, its tokens, and what a run will need.

use super::spec::ScoresSpec;
use super::{Checkpoint, EmbeddingSpec, Modality, Pooling, Processor, Task};
use crate::device;
use crate::encoder::{Facts, Wiring};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::input::prepare::Shape;
use crate::nn::Reach;
use candle_core::{DType, Device};
use serde::Serialize;
use serde_json::{json, Value};

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

/// A stage of a model whose tokens are merged between stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageFacts {
    /// Its first and its last layer.
    pub layers: (usize, usize),
    /// Rows and columns of its tokens.
    pub grid: (usize, usize),
    /// D
    pub width: usize,
    /// H
    pub heads: usize,
}

impl std::fmt::Display for StageFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let StageFacts { layers: (first, last), grid: (rows, columns), width, heads } = self;
        write!(f, "layers {first}-{last} on {rows}x{columns} tokens, width {width}, {heads} heads")
    }
}

impl Checkpoint {
    /// Its stages, where tokens are merged between stages; else none.
    pub fn stages(&self) -> Vec<StageFacts> {
        let (merges, mut grid) = (self.spec.merges(), self.grid(self.input_size(Shape::default()).unwrap_or_default()));
        let (mut stages, mut first) = (Vec::new(), 0);
        for (number, layer) in self.spec.layers().iter().enumerate() {
            if merges > 0 && (layer.merging.is_some() || number + 1 == self.spec.layers().len()) {
                let (layers, heads) = ((first, number), layer.heads);
                stages.push(StageFacts { layers, grid, width: layer.width(), heads });
                (first, grid) = (number + 1, (grid.0 / 2, grid.1 / 2));
            }
        }
        stages
    }

    /// What methods may need to know of it.
    pub fn facts(&self) -> Facts {
        let spec = &self.spec;
        let mean =
            matches!(spec.pooling, Pooling::Mean | Pooling::Max | Pooling::PatchMean | Pooling::Last | Pooling::Probe);
        Facts {
            text: self.modality() == Modality::Text,
            gated: spec.gated(),
            patch_mean: spec.pooling == Pooling::ClassAndPatchMean,
            mask_token: matches!(&self.processor, Processor::Text(t) if t.mask_id().is_some()),
            layers: spec.layers().len(),
            heads: spec.heads(),
            class_token: !mean,
            mean,
            distillation_token: matches!(spec.embedding, EmbeddingSpec::Patches { distillation: true, .. }),
            reads_distillation: spec.pooling == Pooling::FirstAndSecond,
            post_norm: spec.wiring != Wiring::Pre,
            stages: spec.merges() + 1,
            last_stage: spec.layers().iter().rposition(|layer| layer.merging.is_some()).map_or(0, |end| end + 1),
            inner_norm: spec.wiring == Wiring::ResPost || spec.layers().iter().any(|layer| layer.inner[0].is_some()),
            scale: self.scale,
            headless: spec.headless,
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

    /// Rows and columns of the patches of a picture of so many pixels.
    fn grid(&self, (height, width): (usize, usize)) -> (usize, usize) {
        let (merges, (down, across)) = (self.spec.merges(), self.spec.cell().unwrap_or((1, 1)));
        ((height / down.max(1)) << merges, (width / across.max(1)) << merges)
    }

    /// Tokens of such a picture in the first layer; of texts the most that it reads.
    pub fn tokens(&self, shape: Shape) -> usize {
        match (&self.processor, &self.spec.embedding, self.input_size(shape)) {
            (_, EmbeddingSpec::Patches { .. }, Some(size)) => {
                let (rows, columns) = self.grid(size);
                self.spec.embedding.prefix() + rows * columns
            }
            (Processor::Text(p), _, _) => p.max_tokens(),
            _ => 0,
        }
    }

    /// Refuses inputs of the other kind.
    ///
    /// # Errors
    /// [`Error::Usage`] saying what it reads.
    pub fn check_modality(&self, texts: bool) -> Result<()> {
        let (id, title) = (&self.id, self.family.title);
        match (self.modality(), texts) {
            (Modality::Text, false) => Err(Error::Usage(format!(
                "model `{id}` ({title}) reads texts; pass --text \"...\", --text-file FILE or a .txt file"
            ))),
            (Modality::Image, true) => {
                Err(Error::Usage(format!("model `{id}` ({title}) reads images; pass image files or folders")))
            }
            (Modality::Text, true) | (Modality::Image, false) => Ok(()),
        }
    }

    /// Refuses sizes that its inputs cannot have.
    ///
    /// # Errors
    /// [`Error::Usage`] saying why.
    pub fn check_shape(&self, shape: Shape) -> Result<()> {
        let refused = |why: String| Err(Error::Usage(why));
        if shape.stride.is_some() && matches!(self.spec.embedding, EmbeddingSpec::Patches { .. }) {
            return refused(format!("--stride is for text models; `{}` reads images", self.id));
        }
        match (&self.spec.embedding, shape.fit, shape.size) {
            (EmbeddingSpec::Words { .. }, Some(_), _) => {
                refused(format!("--fit is for image models; `{}` reads texts", self.id))
            }
            (EmbeddingSpec::Words { .. }, None, Some(_)) => {
                refused(format!("--size is for image models; `{}` reads texts", self.id))
            }
            (EmbeddingSpec::Patches { .. }, _, Some((h, w)))
                if self.spec.cell().is_some_and(|cell| h < cell.0 || w < cell.1) =>
            {
                let (down, across) = self.spec.cell().unwrap_or_default();
                refused(format!("--size {h}x{w} is smaller than one patch of the model ({down}x{across})"))
            }
            (_, Some(_), None) if self.processor.varies() => {
                refused(format!("--fit needs --size: the processor of `{}` has no input size of its own", self.id))
            }
            _ => Ok(()),
        }
    }

    /// The layers that are meant, each once; all when none is named.
    ///
    /// # Errors
    /// [`Error::Usage`] for a layer that is not there.
    pub fn layers(&self, named: &[String]) -> Result<Vec<usize>> {
        layers(named, self.spec.layers().len(), &self.id)
    }

    /// The identity of what a command makes with it, where it is run and how its inputs are shaped; the command adds what
    /// else its results depend on.
    ///
    /// # Errors
    /// As [`Checkpoint::identity`].
    pub fn stated(&self, command: &str, (dtype, on): (DType, &Device), shape: Shape) -> Result<Identity> {
        let of = Identity {
            model: self.identity()?,
            dtype: dtype.as_str().into(),
            device: device::class(on).into(),
            size: shape.size,
            fit: shape.fit.map(|fit| fit.name().into()),
            window: shape.window.map(|w| (w.low, w.high)),
            ..Identity::of(command)
        };
        Ok(match shape.stride {
            Some(stride) => of.with("stride", stride),
            None => of,
        })
    }

    /// What it reads, in a phrase.
    pub fn reads(&self) -> String {
        match (&self.spec.embedding, self.input_size(Shape::default())) {
            (EmbeddingSpec::Patches { patch, .. }, Some((h, w))) => {
                let ((rows, columns), prefix) = (self.grid((h, w)), self.spec.embedding.prefix());
                let own = format!("{h}x{w} pixels, {rows}x{columns} patches of {}x{}", patch.0, patch.1);
                match self.spec.merges() {
                    0 => format!("{own}, {prefix} prefix tokens"),
                    merges => format!("{own}, merged stage by stage to {}x{}", rows >> merges, columns >> merges),
                }
            }
            _ => format!("at most {} tokens", self.tokens(Shape::default())),
        }
    }

    /// How its layers are built, and what its head reads, in a line.
    pub fn structure(&self) -> String {
        let s = &self.spec;
        let norms = match s.wiring {
            Wiring::Pre => "norms in front",
            Wiring::Post => "norms behind",
            Wiring::ResPost => "norms behind each operation",
        };
        let windows = s.layers().iter().any(|layer| matches!(layer.reach, Reach::Windows(_)));
        let windows = if windows { ", attention within windows" } else { "" };
        let added = match &s.embedding {
            EmbeddingSpec::Patches { table, .. } => table.is_some(),
            EmbeddingSpec::Words { table, .. } => *table,
        };
        let places = match (s.layers().first().map(|l| &l.scores), added) {
            (Some(ScoresSpec::Rotary(_)), _) => "rotary positions",
            (Some(ScoresSpec::Table { .. }), false) => "relative positions",
            (Some(ScoresSpec::Table { .. }), true) => "positions in the embedding and relative ones",
            (Some(ScoresSpec::Disentangled(_)), _) => "contents and places apart",
            (Some(ScoresSpec::Cosine(_)), _) => "cosines and relative positions",
            (Some(ScoresSpec::Dot) | None, true) => "positions in the embedding",
            (Some(ScoresSpec::Dot) | None, false) => "no positions",
        };
        let gate = if s.gated() { ", gated feed-forward" } else { "" };
        let read = match s.pooling {
            _ if s.headless => "no head",
            _ if s.task == Task::Tokens => "the head labels each token",
            _ if s.task == Task::Spans => "the head says of each token how well an answer begins and ends there",
            Pooling::First => "the head reads the first token",
            Pooling::Last => "the head reads the last token",
            Pooling::Max => "the head reads the greatest of each number over all tokens",
            Pooling::Probe => "the head attends to all tokens with a query of its own",
            Pooling::FirstAndSecond => "two heads, on the class and the distillation token",
            Pooling::ClassAndPatchMean => "the head reads the class token beside the mean of the patches",
            Pooling::Mean => "the head reads the mean of all tokens",
            Pooling::PatchMean => "the head reads the mean of the patches",
        };
        format!("{norms}{windows}, {places}{gate}; {read}")
    }

    /// All that is known of it, as a record.
    pub fn record(&self, demand: Demand) -> Value {
        let s = &self.spec;
        let classes = if s.headless { 0 } else { self.labels.len() };
        json!({
            "id": self.id, "revision": self.revision, "family": self.family.name, "classes": classes,
            "head": (!s.headless).then(|| self.scale.name()), "structure": self.structure(),
            "labels": (0..classes as u32).map(|i| self.labels.name(i)).collect::<Vec<_>>(),
            "input": self.reads(), "tokens": demand.tokens, "layers": s.layers().len(), "heads": s.heads(), "width": s.last_width(),
            "feed_forward": s.feed_forward(), "stages": self.stages(), "parameters": demand.parameters,
            "memory": {"weights": demand.weights, "pass": demand.pass}, "notes": self.notes,
        })
    }

    /// What a run will need.
    ///
    /// # Errors
    /// When the weights cannot be read.
    pub fn demand(&self) -> Result<Demand> {
        let (tokens, parameters) = (self.tokens(Shape::default()), self.parameters()?);
        // A recorded forward pass keeps per layer the states [T,D] (query, key, value, context and four more), the
        // feed-forward [T,F] and the attention [H,T,T]; the reverse pass about half as much again.
        let (mut own, mut kept) = (tokens, 0usize);
        for layer in self.spec.layers() {
            let states = own.saturating_mul(8 * layer.width() + layer.out.input);
            let attention = layer.heads.saturating_mul(own).saturating_mul(layer.reach.keys(own));
            kept = states.saturating_add(attention).saturating_add(kept);
            own >>= if layer.merging.is_some() { 2 } else { 0 };
        }
        // What the config says may be more than can be counted.
        Ok(Demand { parameters, tokens, weights: parameters.saturating_mul(4), pass: kept.saturating_mul(6) })
    }
}

fn layers(named: &[String], layers: usize, model: &str) -> Result<Vec<usize>> {
    if named.is_empty() {
        return Ok((0..layers).collect());
    }
    let mut list = Vec::new();
    for name in named.iter().map(|n| n.trim()) {
        let layer = match name {
            "last" => layers.checked_sub(1),
            number => number.parse().ok().filter(|l| *l < layers),
        };
        match layer {
            Some(layer) if !list.contains(&layer) => list.push(layer),
            Some(_) => {}
            None => {
                let last = layers.saturating_sub(1);
                return Err(Error::Usage(format!(
                    "--layer {name}: model `{model}` has layers 0 to {last} (or `last`)"
                )));
            }
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbers_or_the_last() {
        let read = |names: &[&str]| layers(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>(), 6, "m");
        assert_eq!(read(&["last"]).unwrap(), [5]);
        assert_eq!(read(&["0", "4"]).unwrap(), [0, 4]);
        assert_eq!(read(&["5", "last", " 1"]).unwrap(), [5, 1]);
        assert_eq!(read(&[]).unwrap().len(), 6);
        for bad in ["6", "-1", "first", ""] {
            assert!(read(&[bad]).unwrap_err().to_string().contains("layers 0 to 5"), "{bad}");
        }
    }
}
