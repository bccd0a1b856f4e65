//! Points of a layer whose tokens can be read.

/// Where in its layer a state stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Behind the norm in front of attention.
    BehindNorm,
    /// Entering the layer.
    Entering,
    /// Leaving it.
    Leaving,
}

impl Stage {
    /// By the names they have among users of class activation maps.
    pub const NAMES: &'static [(&'static str, Option<Stage>)] = &[
        ("auto", None),
        ("norm1", Some(Stage::BehindNorm)),
        ("hidden", Some(Stage::Entering)),
        ("output", Some(Stage::Leaving)),
    ];

    /// What the names mean.
    pub const ABOUT: &'static str = "auto (norm1, texts: hidden), norm1: behind the first layer norm, hidden: entering the layer, output: leaving it";

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::BehindNorm => "norm1",
            Stage::Entering => "hidden",
            Stage::Leaving => "output",
        }
    }
}
