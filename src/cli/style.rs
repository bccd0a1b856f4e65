//! How maps are coloured: arguments that `explain`, `compare` and `heads` share.

use anyhow::{bail, Result};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use vitx::render::colormap::{Colormap, COLORMAPS};
use vitx::render::scale::Scale;
use vitx::render::{Style, Upsample};

/// Colours, opacity, enlargement and scale.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Drawing")]
pub struct StyleArgs {
    /// Colours (default: viridis, or coolwarm for methods with signed relevance)
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(COLORMAPS.iter().map(|(n, _)| *n)))]
    colormap: Option<String>,
    /// Opacity of the heat over the picture, 0 to 1
    #[arg(long, default_value_t = 0.55, value_name = "A")]
    alpha: f32,
    /// How the patch grid becomes pixels
    #[arg(long, default_value = "bilinear", value_enum)]
    upsample: UpsampleArg,
    /// auto (minmax; maps of single pixels: percentile:99.5), minmax, max, percentile:P, none, or shared (one scale over
    /// the whole run or sheet)
    #[arg(long, default_value = "auto", value_name = "HOW")]
    normalize: String,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum UpsampleArg {
    /// Linear between patch centres
    Bilinear,
    /// Cubic between patch centres
    Bicubic,
    /// One flat tile a patch
    Nearest,
}

impl StyleArgs {
    /// The style they mean; colour in text only on a terminal and without `NO_COLOR`.
    ///
    /// # Errors
    /// For an opacity or a scale that does not exist.
    pub fn style(&self, legend: bool) -> Result<Style> {
        if !(0.0..=1.0).contains(&self.alpha) {
            bail!("--alpha {}: expected a number from 0 (picture only) to 1 (heat only)", self.alpha);
        }
        let find = |name: &String| COLORMAPS.iter().find(|(n, _)| n == name).map(|(_, map)| *map);
        let colormap: Option<Colormap> = self.colormap.as_ref().and_then(find);
        Ok(Style {
            colormap,
            alpha: self.alpha,
            upsample: match self.upsample {
                UpsampleArg::Bilinear => Upsample::Bilinear,
                UpsampleArg::Bicubic => Upsample::Bicubic,
                UpsampleArg::Nearest => Upsample::Nearest,
            },
            scale: Scale::parse(&self.normalize)?,
            legend,
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        })
    }
}
