//! Runs of the model that are put off: first noted, then answered, so that those of many inputs go through it together.

use crate::encoder::Inputs;
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// Logits of variants, `[C]` each.
pub type Logits = Vec<Vec<f64>>;

/// What happens when somebody asks for the logits of variants of an input.
#[derive(Debug, Default)]
pub enum Tape {
    /// The model runs at once.
    #[default]
    Off,
    /// The variants are noted; the answer is zeros.
    Record(Vec<Inputs>),
    /// The answers noted before are given, in the same order.
    Replay(VecDeque<Logits>),
}

impl Tape {
    /// The answer for `count` variants of `classes` classes; none when the model is to run at once.
    pub(super) fn answer(
        &mut self,
        count: usize,
        classes: usize,
        make: impl FnOnce() -> Result<Inputs>,
    ) -> Result<Option<Logits>> {
        match self {
            Tape::Off => Ok(None),
            Tape::Record(noted) => {
                noted.push(make()?);
                Ok(Some(vec![vec![0.0; classes]; count]))
            }
            Tape::Replay(answers) => match answers.pop_front() {
                Some(answer) if answer.len() == count => Ok(Some(answer)),
                _ => Err(Error::Usage("a metric asked for other variants than it noted".into())),
            },
        }
    }
}
