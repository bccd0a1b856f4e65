//! What the classes that a config names (`architectures`) are for, where it is not to classify.

use super::config::Config;
use super::spec::{Family, Modality, Pooling, Spec, Task};
use crate::error::{Error, Result};

/// Ends of class names of transformers, and what such a model does.
const TASKS: &[(&str, &str)] = &[
    ("ForNextSentencePrediction", "says whether one sentence follows another"),
    ("ForMultipleChoice", "chooses between several endings of a text"),
    ("ForMaskedLM", "fills in masked words"),
    ("ForPreTraining", "fills in masked words or patches (pretraining)"),
    ("LMHeadModel", "writes text"),
    ("ForCausalLM", "writes text"),
    ("ForMaskedImageModeling", "fills in masked patches"),
    ("ForSemanticSegmentation", "labels each pixel"),
    ("ForObjectDetection", "finds objects and their boxes"),
    ("ForDepthEstimation", "estimates depths"),
    ("Backbone", "is a backbone for other models"),
];

/// What the class that the config names says something of, for models of texts.
pub fn of(config: &Config, family: &Family) -> Task {
    let ends = |end: &str| config.architectures().iter().any(|class| class.ends_with(end));
    match family.modality {
        Modality::Text if ends("ForTokenClassification") => Task::Tokens,
        Modality::Text if ends("ForQuestionAnswering") => Task::Spans,
        Modality::Text | Modality::Image => Task::Whole,
    }
}

/// The same spec with a head of such a task: one map on each token, and (but for ModernBERT, whose head stays) nothing before it.
pub fn headed(mut spec: Spec, task: Task, family: &Family) -> Spec {
    if task != Task::Whole {
        spec.task = task;
        if family.name != "modernbert" {
            spec.steps.clear();
        }
        spec.pooling = Pooling::First;
        for spelling in &mut spec.spellings {
            spelling.names.classifiers = if task == Task::Spans { &["qa_outputs"] } else { &["classifier"] };
            spelling.names.other_heads = &[];
        }
    }
    spec
}

/// Checks the classes that the config names, as far as they can tell. A class of somebody's own is judged by its tensors,
/// with a note; so is a bare backbone, because scripts put heads on it without a new name.
///
/// # Errors
/// [`Error::Model`] saying what such a model is for.
pub fn check(config: &Config, family: &Family) -> Result<Option<String>> {
    let classes = config.architectures();
    if classes.is_empty()
        || of(config, family) != Task::Whole
        || classes.iter().any(|c| family.architectures.contains(c))
    {
        return Ok(None);
    }
    let named = classes.join(", ");
    let use_other = format!(
        "vitx explains classifiers ({}); use a fine-tuned checkpoint of the same family, such as {}",
        family.architectures.join(" or "),
        family.example
    );
    for class in &classes {
        if let Some((_, what)) = TASKS.iter().find(|(end, _)| class.ends_with(end)) {
            return Err(Error::Model(format!("its architecture is {named}, which {what}; {use_other}")));
        }
    }
    let read_as = family.architectures.first().unwrap_or(&family.name);
    Ok((!backbone(config)).then(|| format!("config.json names the class {named}, which is read as {read_as}")))
}

/// Whether the classes that the config names are bare models, without a head.
pub fn backbone(config: &Config) -> bool {
    config.architectures().iter().any(|c| (c.ends_with("Model") || c.ends_with("WithProjection")) && !c.contains("For"))
}

/// Heads by their tensors: the beginning of a name, and what such a head does.
const HEADS: &[(&str, &str)] = &[
    ("qa_outputs", "marks where in a text the answer to a question begins and ends"),
    ("cls.seq_relationship", "says whether one sentence follows another"),
    ("cls.predictions", "fills in masked words"),
    ("lm_head", "fills in masked words"),
    ("vocab_", "fills in masked words"),
    ("decoder", "fills in masked patches"),
    ("decode_head", "labels each pixel"),
];

/// What the first known head among these tensors (stems outside of the backbone) does.
pub fn of_tensors(outside: &[String]) -> Option<&'static str> {
    outside.iter().find_map(|name| HEADS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, what)| *what))
}
