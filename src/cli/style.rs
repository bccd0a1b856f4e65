//! How maps are coloured: arguments that `explain`, `compare` and `heads` share.

use super::args::named;
use super::offered;
use anyhow::{bail, Result};
use clap::builder::PossibleValuesParser;
use clap::Args;
use std::io::IsTerminal;
use vitx::explain::plan::Drawn;
use vitx::explanation::{Units, Words};
use vitx::render::colormap::{Colormap, COLORMAPS};
use vitx::render::scale::Span;
use vitx::render::{Blend, Evidence, Style, Upsample};

/// Colours, opacity, enlargement and scale.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Drawing")]
pub struct StyleArgs {
    /// Colours (default: inferno, or coolwarm for methods with signed relevance)
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(COLORMAPS.iter().map(|(n, _)| *n)))]
    colormap: Option<String>,
    /// How the heat lies over the picture: fade (over grey), fade-plain, veil, contour (lines), or mask:P (P percent kept)
    /// [default: fade]
    #[arg(long, value_name = "BLEND", value_parser = offered::BLENDS, hide_possible_values = true)]
    blend: Option<String>,
    /// What is drawn: all, positive, absolute, or top:P (the greatest P percent) [default: all]
    #[arg(long, value_name = "WHAT", value_parser = offered::EVIDENCE, hide_possible_values = true)]
    evidence: Option<String>,
    /// Its opacity, 0 to 1, where it is greatest [default: 0.85, of a veil 0.55]
    #[arg(long, value_name = "A")]
    alpha: Option<f32>,
    /// How the patch grid becomes pixels [default: bicubic]
    #[arg(long, value_name = "UPSAMPLE", value_parser = named(Upsample::NAMES))]
    upsample: Option<Upsample>,
    /// Of texts: words, or word pieces (npy and records always hold pieces) [default: sum]
    #[arg(long, value_name = "HOW", value_parser = named(Words::NAMES))]
    words: Option<Words>,
    /// Show the special tokens of texts too
    #[arg(long)]
    special: bool,
    /// auto (minmax; maps of single pixels: percentile:99.5), minmax, max, percentile:P, none, or shared (one scale over
    /// the whole run or sheet) [default: auto]
    #[arg(long, value_name = "HOW", value_parser = offered::SCALES, hide_possible_values = true)]
    normalize: Option<String>,
}

impl StyleArgs {
    /// The style they mean; colour in text only on a terminal and without `NO_COLOR`.
    ///
    /// # Errors
    /// For an opacity or a scale that does not exist.
    pub fn style(&self, legend: bool) -> Result<Style> {
        let usual = Style::default();
        if let Some(alpha) = self.alpha.filter(|alpha| !(0.0..=1.0).contains(alpha)) {
            bail!("--alpha {alpha}: expected a number from 0 (picture only) to 1 (heat only)");
        }
        let find = |name: &String| COLORMAPS.iter().find(|(n, _)| n == name).map(|(_, map)| *map);
        let colormap: Option<Colormap> = self.colormap.as_ref().and_then(find);
        Ok(Style {
            colormap,
            blend: self.blend.as_deref().map_or(Ok(usual.blend), Blend::parse)?,
            evidence: self.evidence.as_deref().map_or(Ok(usual.evidence), Evidence::parse)?,
            alpha: self.alpha,
            upsample: self.upsample.unwrap_or(usual.upsample),
            scale: self.normalize.as_deref().map_or(Ok(usual.scale), Span::parse)?,
            legend,
            panel: usual.panel,
            units: Units { words: self.words.unwrap_or_default(), special: self.special },
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        })
    }

    /// Refuses what was asked for and would change nothing.
    ///
    /// # Errors
    /// Naming the flag and what it is for.
    pub fn refuse_idle(&self, drawn: Drawn) -> Result<()> {
        for (flag, given, used, needs) in [
            ("--colormap", self.colormap.is_some(), drawn.colour, "colours, and this run only writes numbers"),
            ("--normalize", self.normalize.is_some(), drawn.colour, "colours, and this run only writes numbers"),
            ("--words", self.words.is_some(), drawn.text, "texts in colour, and this run draws none"),
            ("--special", self.special, drawn.text, "texts in colour, and this run draws none"),
            ("--upsample", self.upsample.is_some(), drawn.heat, "heat over pictures, and this run draws none"),
            ("--blend", self.blend.is_some(), drawn.blend, "heat blended with a picture, and this run draws none"),
            ("--evidence", self.evidence.is_some(), drawn.colour, "colours, and this run only writes numbers"),
            ("--alpha", self.alpha.is_some(), drawn.blend, "heat blended with a picture, and this run draws none"),
        ] {
            if given && !used {
                bail!("{flag} would change nothing: it is for {needs}; leave it out");
            }
        }
        Ok(())
    }

    /// `--normalize`, if it was given.
    pub fn scale(&self) -> Option<&str> {
        self.normalize.as_deref()
    }
}
