//! A point of the network whose tokens are read: what class activation maps and masks made of channels begin with.

use super::batch::Reads;
use super::options::Params;
use super::pick::At;
use super::view::Run;
use crate::encoder::{Facts, Stage, Wiring};
use crate::error::{Error, Result};
use crate::nn::Rules;
use candle_core::Tensor;

/// A point of the network whose tokens are read: the parameters `layer` and `where`.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    layer: At,
    /// None: behind the first layer norm, of texts entering the layer.
    place: Option<Stage>,
}

impl Point {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        let about =
            "the layer whose tokens are read: its number from 0, last, or stageN: the last one of a stage (Swin)";
        let layer = params.layer_or_stage("layer", "last", about)?;
        Ok(Point { layer, place: params.one_of("where", Stage::NAMES, Stage::ABOUT)? })
    }

    /// The state entering the layer, unless another point was asked for.
    pub fn or_entering(self) -> Point {
        Point { place: self.place.or(Some(Stage::Entering)), ..self }
    }

    fn place(self, run: &Run<'_>) -> Stage {
        let in_front = run.encoder().blocks.first().is_some_and(|block| block.wiring == Wiring::Pre);
        self.place.unwrap_or(if run.is_text() || !in_front { Stage::Entering } else { Stage::BehindNorm })
    }

    /// The number of its layer.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such stage.
    pub fn layer(self, run: &Run<'_>) -> Result<usize> {
        match self.layer {
            At::Layer(layer) => Ok(layer.index(run.layers())),
            At::Stage(stage) => run.encoder().end_of_stage(stage).ok_or_else(|| no_stage(stage)),
        }
    }

    /// Whether its layer is one of the last stage, whose tokens are those of explanations.
    pub fn of_last_stage(self, model: &Facts) -> bool {
        match self.layer {
            At::Layer(layer) => layer.index(model.layers) >= model.last_stage,
            At::Stage(stage) => stage == model.stages,
        }
    }

    /// What reading it and its gradient needs of the passes.
    pub fn reads(self) -> Reads {
        match self.place {
            Some(Stage::Leaving) => Reads::Everything, // of a stage's last layer what reached it before tokens are merged
            _ => Reads::Gradients,
        }
    }

    /// Refuses points that do not exist or say nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason.
    pub fn check(self, model: &Facts) -> Result<()> {
        let last = match self.layer {
            At::Layer(layer) => {
                layer.check("layer", model)?;
                layer.index(model.layers) + 1 == model.layers
            }
            At::Stage(stage) if !(1..=model.stages).contains(&stage) || !model.staged() => return Err(no_stage(stage)),
            At::Stage(stage) => stage == model.stages,
        };
        if self.place == Some(Stage::BehindNorm) && model.post_norm {
            return Err(Error::Refused(format!(
                "where={}: this model's layer norms stand behind its sub-layers; use where={}",
                Stage::BehindNorm.name(),
                Stage::Entering.name()
            )));
        }
        if self.place == Some(Stage::Leaving) && last && !model.patch_mean && !model.mean {
            return Err(Error::Refused(format!(
                "the last layer's output has no gradient at the patches: the classifier reads the class token alone, and nothing behind that layer mixes tokens; use where={} or an earlier layer",
                Stage::BehindNorm.name()
            )));
        }
        Ok(())
    }

    /// Tokens and what a reverse pass carries to them, `[T,D]` each.
    ///
    /// # Errors
    /// Whatever the passes report.
    pub fn tokens(self, run: &Run<'_>, rules: &Rules) -> Result<(Tensor, Tensor)> {
        let reversed = run.reverse(rules)?;
        let layer = self.layer(run)?;
        match self.place(run) {
            Stage::BehindNorm => {
                let gradient = run.state(&run.carried(&reversed, layer)?.read)?;
                Ok((self.activation(run)?, gradient))
            }
            Stage::Entering => run.state_and(&reversed, layer),
            Stage::Leaving => run.left_and(&reversed, layer),
        }
    }

    /// The tokens alone, `[T,D]`: no reverse pass.
    ///
    /// # Errors
    /// Whatever the forward pass reports.
    pub fn activation(self, run: &Run<'_>) -> Result<Tensor> {
        let layer = self.layer(run)?;
        match self.place(run) {
            Stage::BehindNorm => {
                run.block(layer).read(&run.input(layer)?.unsqueeze(0)?)?.squeeze(0).map_err(Into::into)
            }
            Stage::Entering => run.input(layer),
            Stage::Leaving => run.output_state(layer),
        }
    }
}

/// A layer's tokens as maps, `[D,rows,columns]`, prefix tokens dropped.
pub fn channel_maps(run: &Run<'_>, point: Point) -> Result<Tensor> {
    let Some((rows, columns)) = run.grid(point.layer(run)?)? else {
        return Err(Error::Refused("a text has no maps".into()));
    };
    let (tokens, skip) = (point.activation(run)?, run.layout().prefix());
    let patches = tokens.narrow(0, skip, tokens.dim(0)? - skip)?;
    let d = patches.dim(1)?;
    Ok(patches.t()?.contiguous()?.reshape((d, rows, columns))?)
}

fn no_stage(stage: usize) -> Error {
    Error::Usage(format!(
        "layer=stage{stage}: this model has no such stage (`vitx inspect` shows them); name a layer's number"
    ))
}
