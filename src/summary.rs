//! What a model looks at over a whole data set: the mean map of each class, the words that speak most for and against it, how much of
//! the relevance lies on tokens that are no part of the input, and which inputs to look at again.
//!
//! One pass over the inputs, and of each only sums are kept: a data set may be as large as it likes. [`Gathering::run`] makes a
//! [`Summary`], which tells itself as text, as records and as a page.

mod gather;
mod map;
mod page;
mod shares;
mod tally;
mod tell;
mod words;

pub use gather::{one_method, Came, Gathering};
pub use map::MeanMap;
pub use shares::Shares;
pub use tally::{Class, One, Tally};
pub use words::{Count, Words};

use crate::evaluate::questions::Explained;
use crate::explanation::{Explanation, Layout};
use crate::input::Shape;
use crate::run::Memory;
use crate::target::{ranked, Labels, Scale};
use std::collections::BTreeMap;

/// How a summary is made.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Which class of each input is explained.
    pub explained: Explained,
    /// How large the model sees pictures.
    pub shape: Shape,
    /// Of methods that draw random numbers.
    pub seed: u64,
    /// Inputs that go through the model together.
    pub together: usize,
    /// What the passes may take; none: whatever they need.
    pub memory: Option<Memory>,
    /// Inputs whose likeliest class is less probable are listed.
    pub confidence: f32,
    /// Words that are told, for a class and against it each.
    pub top: usize,
    /// Words that occur less often are not told.
    pub min_count: usize,
    /// Mean pictures are made too, for the page.
    pub pictures: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            explained: Explained::Predicted,
            shape: Shape::default(),
            seed: 0,
            together: 4,
            memory: None,
            confidence: 0.5,
            top: 20,
            min_count: 2,
            pictures: false,
        }
    }
}

/// What a summary is of.
#[derive(Debug, Clone)]
pub struct About {
    /// The model: its id and family.
    pub model: (String, String),
    /// The method as it was asked for.
    pub method: String,
    /// The data set, for titles.
    pub data: String,
    /// Names of the classes.
    pub labels: Labels,
    /// How outputs are read.
    pub scale: Scale,
    /// Whether the data have labels.
    pub labelled: bool,
    /// How it was made.
    pub settings: Settings,
}

/// Why an input is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The likeliest class has a small probability.
    LowConfidence,
    /// The map has one value everywhere, and says nothing.
    Constant,
    /// There is no map that may be shown.
    NotFinite,
}

/// An input to look at again.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Why.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The likeliest class, or the one whose map is constant; none where there is no map.
    pub class: Option<u32>,
    /// The probability of the class, or the value of the map.
    pub figure: Option<f32>,
    /// What is wrong with it, in a sentence.
    pub why: Option<String>,
}

/// What was gathered.
#[derive(Debug)]
pub struct Summary {
    /// Of what.
    pub about: About,
    /// Inputs that were explained.
    pub inputs: usize,
    /// By class.
    pub classes: BTreeMap<u32, Class>,
    /// All classes together.
    pub whole: Tally,
    /// Inputs to look at again, in their order.
    pub listed: Vec<Listed>,
    /// Inputs that could not be explained, with the reason.
    pub failures: Vec<(String, String)>,
    /// Whether values below zero carry meaning.
    pub signed: bool,
    /// Rows and columns of the first map, and a patch in pixels: mean maps are of maps like it.
    like: Option<((usize, usize), (usize, usize))>,
}

impl Summary {
    /// Of nothing yet.
    pub fn new(about: About) -> Self {
        let (classes, whole) = (BTreeMap::new(), Tally::default());
        let (listed, failures) = (Vec::new(), Vec::new());
        Summary { about, inputs: 0, classes, whole, listed, failures, signed: false, like: None }
    }

    /// Adds an input that was explained: lists it where the model is not sure.
    pub fn input(&mut self, name: &str, logits: &[f32]) {
        self.inputs += 1;
        let class = ranked(logits).first().copied();
        let probability = self.about.scale.probabilities(logits);
        let figure = class.zip(probability).and_then(|(class, all)| all.get(class as usize).copied());
        // A probability that is none is not sure of anything.
        if figure.is_some_and(|p| p.is_nan() || p < self.about.settings.confidence) {
            let (kind, name) = (Kind::LowConfidence, name.to_string());
            self.listed.push(Listed { kind, name, class, figure, why: None });
        }
    }

    /// Adds one explanation of an input.
    pub fn explanation(&mut self, name: &str, one: &One<'_>) {
        let e = one.explanation;
        self.signed |= e.signed;
        if let Some(value) = constant(e) {
            let (kind, name, class) = (Kind::Constant, name.to_string(), Some(e.output.class));
            self.listed.push(Listed { kind, name, class, figure: Some(value), why: None });
        }
        let fits = match &e.layout {
            Layout::Image(i) => *self.like.get_or_insert((i.grid, i.patch)) == (i.grid, i.patch),
            Layout::Text(_) => true,
        };
        let class = self.classes.entry(e.output.class).or_default();
        class.tally.add(one, fits);
        class.words.add(e);
        self.whole.add(one, fits);
    }

    /// Adds an input that could not be explained; a map that must not be shown is listed too.
    pub fn failure(&mut self, name: &str, why: String, numeric: bool) {
        if numeric {
            let (kind, name, why) = (Kind::NotFinite, name.to_string(), Some(why.clone()));
            self.listed.push(Listed { kind, name, class: None, figure: None, why });
        }
        self.failures.push((name.to_string(), why));
    }

    /// Classes, those of most inputs first.
    pub fn ranked(&self) -> Vec<(u32, &Class)> {
        let mut all: Vec<_> = self.classes.iter().map(|(number, class)| (*number, class)).collect();
        all.sort_by_key(|(number, class)| (std::cmp::Reverse(class.tally.explained), *number));
        all
    }

    /// Whether there are maps, and not words.
    pub fn of_pictures(&self) -> bool {
        self.like.is_some()
    }
}

/// The value of a map that has no other; none where there is but one token.
fn constant(e: &Explanation) -> Option<f32> {
    let mut values = e.of_content();
    let first = values.next()?;
    let second = values.next()?;
    (first == second && values.all(|v| v == first)).then_some(first)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::explanation::{ImageLayout, Prefix, TextLayout, TextToken};
    use crate::target::Output;

    pub(crate) fn about(labels: &[&str]) -> About {
        About {
            model: ("tiny".into(), "vit".into()),
            method: "gae".into(),
            data: "data".into(),
            labels: Labels::new(labels.iter().map(|l| l.to_string()).collect()),
            scale: Scale::Softmax,
            labelled: true,
            settings: Settings { min_count: 1, ..Settings::default() },
        }
    }

    /// A map of one row, behind a class token.
    pub(crate) fn image(class: u32, token: f32, patches: &[f32]) -> Explanation {
        let layout = ImageLayout { prefix: vec![Prefix::Class], grid: (1, patches.len()), patch: (2, 2) };
        let relevance = [&[token], patches].concat();
        made(class, relevance, Layout::Image(layout), false)
    }

    /// A text of one token a word, between two special ones.
    pub(crate) fn text(class: u32, words: &[(&str, f32)], special: [f32; 2]) -> Explanation {
        let (mut whole, mut tokens, mut relevance) = (String::new(), Vec::new(), Vec::new());
        let own = |piece: &str, start, end, word: Option<usize>| TextToken {
            piece: piece.into(),
            start,
            end,
            text: 0,
            word,
            special: word.is_none(),
        };
        tokens.push(own("[CLS]", 0, 0, None));
        relevance.push(special[0]);
        for (number, (word, value)) in words.iter().enumerate() {
            let start = whole.chars().count();
            whole.push_str(word);
            tokens.push(own(word, start, whole.chars().count(), Some(number)));
            relevance.push(*value);
            whole.push(' ');
        }
        tokens.push(own("[SEP]", 0, 0, None));
        relevance.push(special[1]);
        made(class, relevance, Layout::Text(TextLayout { tokens, texts: vec![whole], ..Default::default() }), true)
    }

    fn made(class: u32, relevance: Vec<f32>, layout: Layout, signed: bool) -> Explanation {
        let (params, checks, output) = (Default::default(), Default::default(), Output::of(class));
        Explanation { method: "test", params, output, relevance, pixels: None, checks, layout, matrix: false, signed }
    }

    pub(crate) fn one(explanation: &Explanation, right: Option<bool>) -> One<'_> {
        One { explanation, said: 0.5, right, picture: None }
    }

    #[test]
    fn inputs_are_listed_for_what_they_are() {
        let mut summary = Summary::new(about(&["a", "b"]));
        summary.input("sure", &[9.0, 0.0]);
        summary.input("unsure", &[0.0, 0.0]);
        summary.about.settings.confidence = 0.6;
        summary.input("half", &[0.0, 0.1]);
        summary.explanation("flat", &one(&image(1, 7.0, &[0.5, 0.5]), None));
        summary.explanation("one patch", &one(&image(1, 7.0, &[0.5]), None));
        summary.failure("broken", "no picture".into(), false);
        summary.failure("nan", "token 2 is NaN".into(), true);
        let told: Vec<_> = summary.listed.iter().map(|l| (l.kind, l.name.as_str(), l.class)).collect();
        let want =
            [(Kind::LowConfidence, "half", Some(1)), (Kind::Constant, "flat", Some(1)), (Kind::NotFinite, "nan", None)];
        assert_eq!(told, want);
        assert_eq!(summary.listed[1].figure, Some(0.5));
        assert_eq!((summary.inputs, summary.failures.len()), (3, 2));
        // Values have no confidence.
        summary.about.scale = Scale::Value;
        summary.input("value", &[0.1, 0.0]);
        assert_eq!(summary.listed.len(), 3);
    }

    #[test]
    fn maps_of_another_grid_are_counted_and_left_out_whatever_their_class() {
        let mut summary = Summary::new(about(&["a", "b"]));
        summary.explanation("1", &one(&image(0, 0.0, &[1.0, 2.0]), Some(true)));
        summary.explanation("2", &one(&image(0, 0.0, &[2.0, 4.0]), Some(false)));
        summary.explanation("3", &one(&image(1, 0.0, &[1.0, 2.0, 9.0]), None));
        summary.explanation("4", &one(&image(1, 0.0, &[5.0, 0.0]), None));
        let of = |class: u32| &summary.classes[&class].tally;
        assert_eq!((of(0).map.mean(), of(0).map.others()), (Some(vec![1.5, 3.0]), 0));
        assert_eq!((of(1).map.mean(), of(1).map.others()), (Some(vec![5.0, 0.0]), 1));
        assert_eq!((of(0).right, of(0).labelled, of(1).labelled), (1, 2, 0));
        assert_eq!(summary.whole.map.mean(), Some(vec![8.0 / 3.0, 2.0]));
        assert_eq!(summary.ranked().iter().map(|(class, _)| *class).collect::<Vec<_>>(), [0, 1]);
    }
}
