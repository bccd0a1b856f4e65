//! Explanations as a service: requests come in as JSON, answers go out as JSON, and the model stays loaded.
//!
//! A request names one input and may name methods, targets and formats; see [`request::Order`]. Its answer is the record of
//! `vitx explain --json` with the request's `id` and what was found, a line for each method and output; see [`answer`]. Whatever is wrong
//! with a request is its own answer: nothing that comes in ends the process, and nothing that comes in stays without an answer.
//!
//! - [`room`]: how much is in the house, and the queue.
//! - [`intake`]: where requests come in.
//! - [`engine`]: takes requests together, explains them, answers.
//! - [`lines`]: a line in, a line out.
//! - `http`: the same for those who ask over a socket (feature `serve`).

pub mod answer;
pub mod engine;
#[cfg(feature = "serve")]
pub mod http;
pub mod intake;
pub mod lines;
pub mod metrics;
pub mod request;
pub mod room;
pub mod root;

pub use engine::{Engine, Settings};
pub use request::Limits;
pub use root::Root;

use crate::error::Error;

/// Whose fault it is that a request has no explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong: no JSON, unknown keys, methods or targets.
    Request,
    /// Its input cannot be used.
    Input,
    /// It took too long.
    Time,
    /// The worker was stopped before.
    Stopped,
    /// A fault of vitx.
    Fault,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Kind; 5] = [Kind::Request, Kind::Input, Kind::Time, Kind::Stopped, Kind::Fault];

    /// In answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Request => "request",
            Kind::Input => "input",
            Kind::Time => "time",
            Kind::Stopped => "stopped",
            Kind::Fault => "fault",
        }
    }
}

/// Why a request has no explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault it is.
    pub kind: Kind,
    /// In a sentence.
    pub said: String,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let kind = match &e {
            Error::Usage(_) | Error::Refused(_) => Kind::Request,
            Error::Input(_) | Error::Io { .. } | Error::Numeric(_) | Error::Model(_) => Kind::Input,
            Error::Interrupted => Kind::Stopped,
            Error::Fault(_) | Error::Tensor(_) => Kind::Fault,
        };
        Failure { kind, said: e.to_string() }
    }
}
