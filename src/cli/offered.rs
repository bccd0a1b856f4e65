//! What shell completions offer for values that are more than a name: registries name them, nothing is checked here.

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use std::ffi::OsStr;
use vitx::render::{Blend, Evidence, RENDERERS};
use vitx::{evaluate, method};

/// Reads any text; completions offer some.
#[derive(Debug, Clone, Copy)]
pub struct Offered(fn() -> Vec<PossibleValue>);

/// Methods, as `--method` starts.
pub const METHODS: Offered = Offered(|| {
    let named = method::all().map(|e| PossibleValue::new(e.name).help(e.title));
    named.chain([PossibleValue::new("all").help("every method that the model has")]).collect()
});

/// Metrics, as `--metric` starts.
pub const METRICS: Offered = Offered(|| {
    let named = evaluate::METRICS.iter().map(|e| PossibleValue::new(e.name).help(e.title));
    named.chain([PossibleValue::new("all").help("every metric that suits the data")]).collect()
});

/// Targets that every model has.
pub const TARGETS: Offered = Offered(|| {
    let named = [
        ("predicted", "the likeliest class"),
        ("top:2", "the two likeliest"),
        ("entities", "every entity, of models that label tokens"),
        ("above:0.5", "every class of such a probability"),
        ("-predicted", "what lowers the likeliest class"),
    ];
    named.into_iter().map(|(name, about)| PossibleValue::new(name).help(about)).collect()
});

/// Formats of `--format`.
pub const FORMATS: Offered = Offered(|| RENDERERS.iter().map(|r| PossibleValue::new(r.name).help(r.about)).collect());

/// Ways of `--blend`.
pub const BLENDS: Offered = Offered(|| Blend::NAMES.iter().map(PossibleValue::new).collect());

/// Parts of `--evidence`.
pub const EVIDENCE: Offered = Offered(|| Evidence::NAMES.iter().map(PossibleValue::new).collect());

/// Scales of `--normalize`.
pub const SCALES: Offered = Offered(|| {
    let names = ["auto", "minmax", "max", "percentile:99", "none", "shared"];
    names.into_iter().map(PossibleValue::new).collect()
});

impl TypedValueParser for Offered {
    type Value = String;

    fn parse_ref(&self, cmd: &clap::Command, arg: Option<&clap::Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(cmd, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter()))
    }
}
