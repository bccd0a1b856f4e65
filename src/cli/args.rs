//! Arguments that several subcommands share.

use candle_core::DType;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::Args;
use std::path::PathBuf;
use vitx::input::image::{Fit, Window};
use vitx::input::{prepare, Shape};
use vitx::model::{Classes, Outputs};
use vitx::run::Memory;
use vitx::target::Scale;

/// Which model, and where it runs.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A built-in (demo-vit, demo-bert), a directory in HuggingFace layout, or a hub id
    /// (google/vit-base-patch16-224). Default: demo-vit for images, demo-bert for text
    #[arg(short, long, env = "VITX_MODEL", value_name = "MODEL")]
    pub model: Option<String>,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "REV")]
    pub revision: Option<String>,
    /// Use the local hub cache only
    #[arg(long)]
    pub offline: bool,
    /// Where to compute: auto, cpu, cuda[:N] or metal
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Precision of weights and activations
    #[arg(long, default_value = "f32", value_parser = named(DTYPES))]
    pub dtype: DType,
    /// Compute threads on the CPU (default: all cores)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Memory the passes may take, such as 2G or 500M (default: an eighth of what is free, more where that is too little).
    /// Layers for which it is too little are computed again instead of kept
    #[arg(long, value_name = "BYTES", value_parser = Memory::parse)]
    pub memory: Option<Memory>,
    /// What the outputs are, for checkpoints that do not say: classes that share one probability, labels with one each, or
    /// values in their own unit
    #[arg(long, value_name = "HEAD", value_parser = heads())]
    pub head: Option<Scale>,
    #[command(flatten)]
    pub classes: ClassArgs,
}

/// Classes that are texts.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Model")]
pub struct ClassArgs {
    /// Classes for a model that compares pictures with texts (CLIP), separated by commas
    #[arg(long, value_name = "TEXT,TEXT", value_delimiter = ',')]
    classes: Vec<String>,
    /// The same, a line each: names may hold commas
    #[arg(long, value_name = "FILE", conflicts_with = "classes")]
    classes_file: Option<PathBuf>,
    /// The text of a class, with {} for its name, such as "a photo of a {}" (default: the name)
    #[arg(long, value_name = "TEMPLATE")]
    prompt: Option<String>,
    /// Texts that targets name
    #[arg(skip)]
    pub targets: Vec<String>,
}

impl ModelArgs {
    /// What is said of the outputs.
    ///
    /// # Errors
    /// As [`Classes::named`].
    pub fn outputs(&self) -> vitx::Result<Outputs> {
        let ClassArgs { classes, classes_file, prompt, targets } = &self.classes;
        let classes = Classes::named((classes, classes_file.as_deref()), targets, prompt.as_deref())?;
        Ok(Outputs { head: self.head, classes })
    }

    /// What the passes may take.
    pub fn memory(&self) -> Option<Memory> {
        self.memory.or_else(|| vitx::device::free_memory().map(Memory::share))
    }
}

/// `--dtype`
const DTYPES: &[(&str, &str, DType)] = &[
    ("f32", "32-bit floats", DType::F32),
    ("f16", "16-bit floats", DType::F16),
    ("bf16", "Brain floats", DType::BF16),
];

/// What is read.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Input")]
pub struct InputArgs {
    /// Images, folders (recursive), .npy arrays of pixel values, .txt files; `-` reads paths from stdin
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// A text to explain (repeatable)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub text: Vec<String>,
    /// A pair of texts, such as premise and hypothesis (repeatable)
    #[arg(long, num_args = 2, value_names = ["A", "B"], allow_hyphen_values = true)]
    pub text_pair: Vec<String>,
    /// A file with one text a line; `-` is stdin (repeatable)
    #[arg(long, value_name = "FILE")]
    pub text_file: Vec<PathBuf>,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Read texts that are too long in overlapping windows, of which neighbours share N tokens, and average (default: cut them off)
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
    /// Inputs that go through the model together
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: u16,
    /// Take the I-th of N parts of the inputs only (I from 1 to N), by their names within their folders: to split a run over machines
    #[arg(long, value_name = "I/N", value_parser = prepare::shard)]
    pub shard: Option<(usize, usize)>,
    /// Stop at the first input that fails
    #[arg(long)]
    pub fail_fast: bool,
}

/// How large the model sees it.
#[derive(Args, Debug, Clone, Copy, Default)]
#[command(next_help_heading = "Input")]
pub struct ShapeArgs {
    /// Input resolution other than the checkpoint's, in pixels: HxW or N
    #[arg(long, value_name = "HxW", value_parser = prepare::size)]
    pub size: Option<(usize, usize)>,
    /// How pictures of another shape meet the input size (default: as the checkpoint's preprocessor does)
    #[arg(long, value_name = "FIT", value_parser = named(Fit::NAMES))]
    pub fit: Option<Fit>,
    /// Values of a picture, in its own units, that become black and white: of 12-bit data 0,4095, of floats often 0,1
    #[arg(long, value_name = "LO,HI", value_parser = prepare::window, allow_hyphen_values = true)]
    pub window: Option<Window>,
    /// Refuse pictures of more pixels, before they are read [default: 100M]
    #[arg(long, value_name = "N", value_parser = prepare::number)]
    pub max_pixels: Option<u64>,
}

/// What is read by a command that takes one input.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Input")]
pub struct OneInputArgs {
    /// An image, a folder with one image, a .npy array of pixel values, or a .txt file
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,
    /// Only read to say that one is enough
    #[arg(value_name = "INPUT", hide = true)]
    more: Vec<PathBuf>,
    /// A text to explain
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// A pair of texts, such as premise and hypothesis
    #[arg(long, num_args = 2, value_names = ["A", "B"], allow_hyphen_values = true)]
    text_pair: Vec<String>,
    #[command(flatten)]
    pub shape: ShapeArgs,
}

impl InputArgs {
    /// As the library has it.
    pub fn shape(&self) -> Shape {
        Shape { stride: self.stride, ..self.shape.shape() }
    }
}

impl OneInputArgs {
    /// The same for code that reads many.
    pub fn list(&self) -> InputArgs {
        InputArgs {
            inputs: self.input.iter().chain(&self.more).cloned().collect(),
            text: self.text.iter().cloned().collect(),
            text_pair: self.text_pair.clone(),
            text_file: Vec::new(),
            shape: self.shape,
            stride: None,
            batch_size: 1,
            shard: None,
            fail_fast: false,
        }
    }
}

impl ShapeArgs {
    /// As the library has it.
    pub fn shape(&self) -> Shape {
        let ShapeArgs { size, fit, window, max_pixels } = *self;
        Shape { size, fit, window, max_pixels, stride: None }
    }
}

/// How results are told.
#[derive(Args, Debug, Clone, Copy)]
#[command(next_help_heading = "Reporting")]
pub struct ReportArgs {
    /// One JSON object a line on stdout
    #[arg(long)]
    pub json: bool,
    /// Only errors on stderr
    #[arg(short, long)]
    pub quiet: bool,
    /// Say more on stderr
    #[arg(short, long)]
    pub verbose: bool,
}

/// How a registry is listed.
#[derive(Args, Debug, Clone, Copy)]
pub struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// The table of the README
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

/// `--head`
pub fn heads() -> impl TypedValueParser<Value = Scale> {
    PossibleValuesParser::new(Scale::NAMES).try_map(|name| Scale::named(&name).ok_or("there is no such head"))
}

/// One of a table of names, with what they mean and stand for.
pub fn named<T: Copy + Send + Sync + 'static>(
    names: &'static [(&'static str, &'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let listed = names.iter().map(|(name, about, _)| PossibleValue::new(*name).help(*about));
    PossibleValuesParser::new(listed).try_map(|name| {
        let found = names.iter().find(|(n, ..)| *n == name);
        found.map(|(.., value)| *value).ok_or("there is no such value")
    })
}

/// Where results go, and in which formats.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// A directory, the file of the one output, or `-` for stdout
    /// (default: here; `vitx-out` when a folder is explained)
    #[arg(short, long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// overlay, heatmap, npy (and npy-pixels), svg, pdf, html (a page an input), json; ansi, png, fragment for texts; repeatable (default:
    /// overlay for images, ansi for texts)
    #[arg(short, long, value_delimiter = ',', value_name = "FORMAT", value_parser = crate::cli::offered::FORMATS, hide_possible_values = true)]
    pub format: Vec<String>,
    /// Draw a caption and a colour bar below the picture
    #[arg(long)]
    pub legend: bool,
    /// Put the bare picture beside the overlay
    #[arg(long)]
    pub panel: bool,
    /// A table of the run, one row an input, method and target, written as it goes: a .csv or .jsonl file, or .parquet or .npz, which are
    /// made of the rows when it ends
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// The maps of all pictures in one .npy file, f32 [N,gridH,gridW]; the table's column `array` says which is where
    #[arg(long, value_name = "FILE")]
    pub arrays: Option<PathBuf>,
    /// Seed of methods that draw random numbers
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Skip what an earlier run has finished from the same contents of model and input with the same settings, and make
    /// the rest anew
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Make every output anew (default: what is up to date is kept, anything else that exists is an error)
    #[arg(long)]
    pub overwrite: bool,
}
