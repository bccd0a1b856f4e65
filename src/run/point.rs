//! A point of the network whose tokens are read: what class activation maps and masks made of channels begin with.

use super::batch::Reads;
use super::options::Params;
use super::pick::Layer;
use super::view::Run;
use crate::encoder::{Facts, Stage};
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::Rules;
use candle_core::Tensor;

/// A point of the network whose tokens are read: the parameters `layer` and `where`.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    layer: Layer,
    /// None: behind the first layer norm, of texts entering the layer.
    place: Option<Stage>,
}

impl Point {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        let layer = params.layer("layer", "last", "the layer whose tokens are read: its number from 0, or last")?;
        Ok(Point { layer, place: params.one_of("where", Stage::NAMES, Stage::ABOUT)? })
    }

    /// The state entering the layer, unless another point was asked for.
    pub fn or_entering(self) -> Point {
        Point { place: self.place.or(Some(Stage::Entering)), ..self }
    }

    fn place(self, text: bool) -> Stage {
        self.place.unwrap_or(if text { Stage::Entering } else { Stage::BehindNorm })
    }

    /// What reading it and its gradient needs of the passes.
    pub fn reads(self) -> Reads {
        match self.place {
            Some(Stage::Leaving) => Reads::States,
            _ => Reads::Gradients,
        }
    }

    /// Refuses points that do not exist or say nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason.
    pub fn check(self, model: &Facts) -> Result<()> {
        self.layer.check("layer", model)?;
        if self.place == Some(Stage::BehindNorm) && model.post_norm {
            return Err(Error::Refused(format!(
                "where={}: this model's layer norms stand behind its sub-layers; use where={}",
                Stage::BehindNorm.name(),
                Stage::Entering.name()
            )));
        }
        if self.place == Some(Stage::Leaving)
            && self.layer.index(model.layers) + 1 == model.layers
            && !model.patch_mean
            && !model.mean
        {
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
        let layer = self.layer.index(run.layers());
        match self.place(run.is_text()) {
            Stage::BehindNorm => {
                let gradient = run.state(&run.carried(&reversed, layer)?.read)?;
                Ok((self.activation(run)?, gradient))
            }
            Stage::Entering => run.state_and(&reversed, layer),
            Stage::Leaving => run.state_and(&reversed, layer + 1),
        }
    }

    /// The tokens alone, `[T,D]`: no reverse pass.
    ///
    /// # Errors
    /// Whatever the forward pass reports.
    pub fn activation(self, run: &Run<'_>) -> Result<Tensor> {
        let layer = self.layer.index(run.layers());
        match self.place(run.is_text()) {
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
    let Layout::Image(layout) = run.layout() else {
        return Err(Error::Refused("a text has no maps".into()));
    };
    let (tokens, skip) = (point.activation(run)?, run.layout().prefix());
    let patches = tokens.narrow(0, skip, tokens.dim(0)? - skip)?;
    let d = patches.dim(1)?;
    Ok(patches.t()?.contiguous()?.reshape((d, layout.grid.0, layout.grid.1))?)
}
