//! What a model says of an input: its outputs' names, what their numbers are, and where the classifier comes from.

use super::given::Given;
use super::hypotheses::Hypotheses;
use super::spec::{Family, Spec, Task};
use super::towers::{Outputs, ZeroShot};
use super::{classes, family, Config, SPANS};
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::scale::Scale;

/// The outputs of a checkpoint.
pub(super) struct Said {
    /// Their names.
    pub labels: Labels,
    /// What their numbers are.
    pub scale: Scale,
    /// Where the classifier comes from, if not from the checkpoint.
    pub given: Option<Given>,
    /// What is odd about the names.
    pub odd: Option<String>,
}

/// The outputs that files and user say; `zero_shot`: texts that are classes.
///
/// # Errors
/// [`Error::Usage`] for a softmax over one output, a `--head` of a model without one, and as [`Hypotheses::new`].
pub(super) fn said(
    (config, family): (&Config, &Family),
    spec: &Spec,
    outputs: &Outputs,
    zero_shot: Option<ZeroShot>,
) -> Result<Said> {
    if let (Some(_), true) = (outputs.head, spec.headless) {
        return Err(Error::Usage("--head: the model is a backbone, which has none".into()));
    }
    if let (Some(own), Some(beside)) = (zero_shot, &spec.beside) {
        let labels = own.labels.clone();
        let scale = outputs.head.unwrap_or(alone(beside.logits, &labels));
        return Ok(Said { labels, scale, given: Some(Given::Texts(Box::new(own))), odd: None });
    }
    let none = |labels: Labels, scale| Said { labels, scale: outputs.head.unwrap_or(scale), given: None, odd: None };
    let stored = match spec.task {
        _ if spec.headless => {
            none(Labels::new((0..spec.last_width()).map(|n| format!("feature {n}")).collect()), Scale::Value)
        }
        Task::Spans => none(Labels::new(SPANS.map(String::from).to_vec()), Scale::Value),
        Task::Whole | Task::Tokens => {
            let (labels, odd) = classes::labels(&family::timm::labelled(config))?;
            let scale = outputs.head.map_or_else(|| classes::scale(config, labels.len()), Ok)?;
            Said { odd, ..none(labels, scale) }
        }
    };
    if (stored.scale, stored.labels.len()) == (Scale::Softmax, 1) {
        return Err(Error::Usage(
            "a softmax over one output is 1 whatever the input; it is a value, or a sigmoid's".into(),
        ));
    }
    let Some(classes) = &outputs.classes else { return Ok(stored) };
    let given = Some(Given::Hypotheses(Hypotheses::new(classes, &stored.labels, family.title)?));
    let labels = Labels::new(classes.names.clone());
    Ok(Said { scale: alone(stored.scale, &labels), labels, given, odd: stored.odd })
}

/// One class that shares its probability with no other has none.
fn alone(scale: Scale, labels: &Labels) -> Scale {
    match (scale, labels.len()) {
        (Scale::Softmax, 1) => Scale::Value,
        (scale, _) => scale,
    }
}
