//! How maps are coloured: arguments that `explain`, `compare` and `heads` share.

use super::args::named;
use super::offered;
use anyhow::{bail, Result};
use clap::builder::PossibleValuesParser;
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use vitx::explain::plan::Drawn;
use vitx::explanation::{Units, Words};
use vitx::render::colormap::{Colormap, COLORMAPS};
use vitx::render::scale::Span;
use vitx::render::{Blend, Evidence, Print, Style, Upsample};

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
    #[command(flatten)]
    figure: FigureArgs,
}

/// Figures with real text: svg, pdf, png of texts, and sheets.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Figures (svg, pdf, png of texts, sheets)")]
struct FigureArgs {
    /// Pixels across [default: the picture's own; of PDF 3.25 inches; of texts 800, of PDF and PNG 6.5 inches]
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(64..=20000))]
    width: Option<u32>,
    /// Pixels an inch of PDF and PNG [default: 300]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(36..=2400))]
    dpi: Option<u32>,
    /// Height of letters in points [default: as suits the width]
    #[arg(long, value_name = "PT", value_parser = clap::value_parser!(u16).range(3..=288))]
    font_size: Option<u16>,
    /// A font file for letters that DejaVu Sans lacks, before the system's own
    #[arg(long, value_name = "FILE")]
    font: Option<PathBuf>,
    /// A line above everything
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    title: Option<String>,
    /// What everything lies on [default: white]
    #[arg(long, value_name = "GROUND", value_parser = named(GROUNDS))]
    background: Option<bool>,
}

/// Names of `--background`; whether what lies beneath shows through.
const GROUNDS: &[(&str, &str, bool)] = &[("white", "White", false), ("transparent", "What lies beneath", true)];

impl FigureArgs {
    fn print(&self) -> Print {
        let usual = Print::default();
        Print {
            width: self.width,
            letters: self.font_size.map(f32::from),
            dpi: self.dpi.unwrap_or(usual.dpi),
            title: self.title.clone(),
            clear: self.background.unwrap_or(usual.clear),
            font: self.font.clone(),
            ..usual
        }
    }
}

/// What flags of figures are for.
const FIXED: &str = "pdf, and png of texts and sheets, with letters in them, and this run draws none";
const LETTERS: &str = "figures with letters (--legend, --title, texts), and this run draws none";
const FIGURES: &str = "svg, pdf, png of texts and sheets, and this run draws none";

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
            print: self.figure.print(),
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        })
    }

    /// Refuses what was asked for and would change nothing.
    ///
    /// # Errors
    /// Naming the flag and what it is for.
    pub fn refuse_idle(&self, drawn: Drawn) -> Result<()> {
        let figure = &self.figure;
        for (flag, given, used, needs) in [
            ("--width", figure.width.is_some(), drawn.figure, FIGURES),
            ("--dpi", figure.dpi.is_some(), drawn.figure && drawn.fixed, FIXED),
            ("--font-size", figure.font_size.is_some(), drawn.figure && drawn.lettered, LETTERS),
            ("--font", figure.font.is_some(), drawn.figure && drawn.fixed && drawn.lettered, FIXED),
            ("--title", figure.title.is_some(), drawn.figure, FIGURES),
            ("--background", figure.background.is_some(), drawn.figure && drawn.lettered, LETTERS),
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

    /// `--width`, if it was given.
    pub fn width(&self) -> Option<u32> {
        self.figure.width
    }

    /// `--normalize`, if it was given.
    pub fn scale(&self) -> Option<&str> {
        self.normalize.as_deref()
    }
}
