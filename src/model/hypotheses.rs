//! Classes as hypotheses: a model that says whether a text entails another one says how well each class fits a text
//! (Yin, Hay & Roth, EMNLP 2019).

use super::towers::Classes;
use super::{Checkpoint, Given, Model, Processor, Task};
use crate::error::{Error, Result};
use crate::input::prepare::Ready;
use crate::input::text::Text;
use crate::labels::Labels;

/// The text of a class where the user gives no template, as in transformers' pipeline.
const TEMPLATE: &str = "This example is {}.";

/// Classes whose texts are second texts of pairs.
pub struct Hypotheses {
    /// The second text of each class.
    texts: Vec<String>,
    /// Outputs of the model itself.
    pub outputs: usize,
    /// The one that says that the first text entails the second.
    pub entailment: u32,
}

impl Hypotheses {
    /// For a model whose own outputs are called so.
    ///
    /// # Errors
    /// As [`Classes::texts`]; [`Error::Usage`] for a model without an entailment.
    pub fn new(classes: &Classes, own: &Labels, title: &str) -> Result<Self> {
        // As in transformers' pipeline: the first whose name begins so, in any case.
        let entails = |class: &u32| own.name(*class).to_lowercase().starts_with("entail");
        let Some(entailment) = (0..own.len() as u32).find(entails) else {
            return Err(Error::Usage(format!(
                "--classes names classes for models that compare pictures with texts, such as CLIP, and for those with a class `entailment`; this one ({title}) has its own classes"
            )));
        };
        let template = classes.template.clone().or(Some(TEMPLATE.into()));
        let texts = Classes { names: classes.names.clone(), template }.texts()?;
        Ok(Hypotheses { texts, outputs: own.len(), entailment })
    }

    /// What tells it from others.
    pub fn identity(&self) -> String {
        serde_json::Value::from(self.texts.clone()).to_string()
    }
}

impl Checkpoint {
    /// Refuses classes that are hypotheses, for what reads an input once.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn reads_once(&self) -> Result<()> {
        match &self.given {
            _ if self.spec.task != Task::Whole => Err(Error::Refused(
                "the model says something of each token, and this command asks for one answer an input; `vitx predict`, `explain` and `compare` work".into(),
            )),
            Some(Given::Hypotheses(_)) => Err(Error::Refused(
                "each of these classes is read beside the text by itself, and this command reads an input once; `vitx predict`, `explain` and `compare` do that".into(),
            )),
            _ => Ok(()),
        }
    }
}

impl Model {
    /// Where classes are hypotheses.
    pub fn hypotheses(&self) -> Option<&Hypotheses> {
        match &self.checkpoint.given {
            Some(Given::Hypotheses(own)) => Some(own),
            _ => None,
        }
    }

    /// A text beside the hypothesis of each class.
    ///
    /// # Errors
    /// [`Error::Input`] for what is a pair already, and as [`crate::input::text::TextProcessor::apply`].
    pub fn pairs(&self, own: &Hypotheses, ready: &Ready) -> Result<Vec<Ready>> {
        let (Processor::Text(processor), Ready::Text(text)) = (&self.checkpoint.processor, ready) else {
            return Err(Error::Usage("hypotheses are for texts".into()));
        };
        let [first] = &text.layout.texts[..] else {
            return Err(Error::Input("is a pair already, and --classes stand beside a single text".into()));
        };
        let pair = |second: &String| {
            Ok(Ready::Text(processor.apply(&Text { first: first.clone(), second: Some(second.clone()) })?))
        };
        own.texts.iter().map(pair).collect()
    }
}
