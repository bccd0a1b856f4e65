//! A point of the network whose tokens are read: what class activation maps and masks made of channels begin with.

use super::options::Params;
use super::pick::Layer;
use super::view::Run;
use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::Rules;
use candle_core::Tensor;

/// A point of the network whose tokens are read: the parameters `layer` and `where`.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    layer: Layer,
    /// None: behind the first layer norm, of texts entering the layer.
    place: Option<Place>,
}

/// Where in its layer a point lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Norm1,
    Hidden,
    Output,
}

impl Place {
    const NAMES: &'static [(&'static str, Option<Self>)] = &[
        ("auto", None),
        ("norm1", Some(Place::Norm1)),
        ("hidden", Some(Place::Hidden)),
        ("output", Some(Place::Output)),
    ];
}

impl Point {
    /// Reads the parameters.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        let layer = params.layer("layer", "last", "the layer whose tokens are read: its number from 0, or last")?;
        let about = "auto (norm1, texts: hidden), norm1: behind the first layer norm, hidden: entering the layer, output: leaving it";
        Ok(Point { layer, place: params.one_of("where", Place::NAMES, about)? })
    }

    /// The state entering the layer, unless another point was asked for.
    pub fn or_entering(self) -> Point {
        Point { place: self.place.or(Some(Place::Hidden)), ..self }
    }

    fn place(self, text: bool) -> Place {
        self.place.unwrap_or(if text { Place::Hidden } else { Place::Norm1 })
    }

    /// Refuses points that do not exist or say nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason.
    pub fn check(self, model: &Facts) -> Result<()> {
        self.layer.check("layer", model)?;
        if self.place == Some(Place::Norm1) && model.post_norm {
            let why = "where=norm1: this model's layer norms stand behind its sub-layers; use where=hidden";
            return Err(Error::Refused(why.into()));
        }
        if self.place == Some(Place::Output) && self.layer.index(model.layers) + 1 == model.layers && !model.patch_mean
        {
            let why = "the last layer's output has no gradient at the patches: the classifier reads the class token alone, and nothing behind that layer mixes tokens; use where=norm1 or an earlier layer";
            return Err(Error::Refused(why.into()));
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
            Place::Norm1 => {
                let gradient = run.state(run.read_gradient(&reversed, layer)?)?;
                Ok((self.activation(run)?, gradient))
            }
            Place::Hidden => run.state_and(&reversed.grads, layer),
            Place::Output => run.state_and(&reversed.grads, layer + 1),
        }
    }

    /// The tokens alone, `[T,D]`: no reverse pass.
    ///
    /// # Errors
    /// Whatever the forward pass reports.
    pub fn activation(self, run: &Run<'_>) -> Result<Tensor> {
        let layer = self.layer.index(run.layers());
        match self.place(run.is_text()) {
            Place::Norm1 => run.state(&run.block(layer).read(&run.record(layer)?.input)?),
            Place::Hidden => run.input(layer),
            Place::Output => run.output_state(layer),
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
