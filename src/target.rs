//! Which outputs are explained: a target as users write it, resolved against the labels and an input's logits.

pub use crate::labels::{Labels, Reading};
pub use crate::output::{ranked, right, seed, Output, Said};
pub use crate::scale::Scale;

use crate::error::{Error, Result};

/// What to explain, as the user says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The likeliest class of each input.
    Predicted,
    /// One class.
    Class(u32),
    /// The k likeliest classes of each input, one explanation each.
    Top(usize),
    /// Every class whose probability is above this, one explanation each; of some inputs there may be none.
    Above {
        /// From 0 to below 1.
        probability: f64,
        /// How the model's probabilities come about.
        scale: Scale,
    },
    /// Every entity that a model finds which labels each token, one explanation each.
    Entities,
    /// What such a model says of one token: a label, or the likeliest.
    Token {
        /// Counted from 0, special tokens included.
        number: u32,
        /// The label.
        class: Option<u32>,
    },
    /// Why this class rather than that one: the difference of the two logits.
    Contrast {
        /// The class argued for.
        class: u32,
        /// The class argued against.
        against: u32,
    },
}

impl Target {
    /// Reads `predicted`, `top:K`, `above:P`, a class (see [`Labels::read`]), or `A-B`.
    ///
    /// # Errors
    /// [`Error::Usage`] naming what is unknown or ambiguous; [`Error::Refused`] for probabilities of a model that has none.
    pub fn parse(text: &str, labels: &Labels, scale: Scale) -> Result<Self> {
        if text.eq_ignore_ascii_case("predicted") {
            return Ok(Target::Predicted);
        }
        if text.eq_ignore_ascii_case("entities") && labels.lookup(text)?.is_none() {
            return Ok(Target::Entities);
        }
        if let Some(place) = text.strip_prefix("token:") {
            return token(text, place, labels);
        }
        if let Some(k) = text.strip_prefix("top:") {
            return match k.parse::<usize>() {
                Ok(k) if (1..=labels.len()).contains(&k) => Ok(Target::Top(k)),
                _ => Err(Error::Usage(format!(
                    "target `{text}`: K in top:K is a whole number from 1 to {} (the model's classes)",
                    labels.len()
                ))),
            };
        }
        if let Some(p) = text.strip_prefix("above:") {
            return above(text, p, scale);
        }
        if let Some(class) = class(text, labels)? {
            return Ok(Target::Class(class));
        }
        contrast(text, labels)?.ok_or_else(|| labels.unknown(text))
    }

    /// The outputs this target means for one input, given its logits; likeliest first.
    pub fn resolve(self, logits: &[f32]) -> Vec<Output> {
        let first = |k: usize| ranked(logits).into_iter().take(k).map(Output::of).collect();
        match self {
            Target::Predicted => first(1),
            Target::Top(k) => first(k),
            Target::Above { probability, scale } => {
                let all = scale.probabilities(logits).unwrap_or_default();
                first(all.iter().filter(|p| f64::from(**p) > probability).count())
            }
            Target::Class(class) => vec![Output::of(class)],
            // Of one token each: see `explain::tokens`.
            Target::Entities | Target::Token { .. } => Vec::new(),
            Target::Contrast { class, against } => vec![Output::contrast(class, against)],
        }
    }
}

/// The class of a label, or of `text:TEXT`, `similarity:REF`, `dot:REF`, `component:K` where classes are such.
fn class(text: &str, labels: &Labels) -> Result<Option<u32>> {
    let plain = [TEXT, "similarity:", "dot:"].iter().find_map(|kind| text.trim().strip_prefix(kind).map(String::from));
    let plain = plain.or_else(|| text.trim().strip_prefix("component:").map(|number| format!("component {number}")));
    let known = match (labels.lookup(text)?, plain) {
        (None, Some(plain)) => labels.lookup(&plain)?,
        (known, _) => known,
    };
    Ok(known.map(|(class, _)| class))
}

const TEXT: &str = "text:";

/// The texts that targets name: `text:TEXT`, `-text:TEXT`, `text:A-text:B`.
pub fn texts(targets: &[impl AsRef<str>]) -> Vec<String> {
    let named = |target: &str| -> Vec<String> {
        let target = target.trim().strip_prefix('-').unwrap_or(target.trim());
        let Some(first) = target.strip_prefix(TEXT) else { return Vec::new() };
        first.split(&format!("-{TEXT}")).map(|text| text.trim().to_string()).collect()
    };
    targets.iter().flat_map(|target| named(target.as_ref())).collect()
}

/// `5/B-PER`, or `5`.
fn token(text: &str, place: &str, labels: &Labels) -> Result<Target> {
    let (number, label) = place.split_once('/').map_or((place, None), |(number, label)| (number, Some(label)));
    let Ok(number) = number.trim().parse() else {
        return Err(Error::Usage(format!(
            "target `{text}`: expected token:I or token:I/LABEL, I a token's number, special tokens included"
        )));
    };
    Ok(Target::Token { number, class: label.map(|label| labels.find(label)).transpose()? })
}

fn above(text: &str, p: &str, scale: Scale) -> Result<Target> {
    if scale == Scale::Value {
        return Err(Error::Refused(format!(
            "target `{text}`: a probability is asked of a model that gives a value; name outputs, or top:K"
        )));
    }
    match p.parse::<f64>() {
        Ok(probability) if (0.0..1.0).contains(&probability) => Ok(Target::Above { probability, scale }),
        _ => {
            Err(Error::Usage(format!("target `{text}`: P in above:P is a probability from 0 to below 1, such as 0.5")))
        }
    }
}

/// `A-B`. A label may itself hold a hyphen, so every split is tried.
fn contrast(text: &str, labels: &Labels) -> Result<Option<Target>> {
    let mut unclear = None;
    for (at, _) in text.match_indices('-') {
        let (a, b) = (class(&text[..at], labels), class(&text[at + 1..], labels));
        match (a, b) {
            (Ok(Some(class)), Ok(Some(against))) if class == against => {
                return Err(Error::Usage(format!("target `{text}` contrasts a class with itself")));
            }
            (Ok(Some(class)), Ok(Some(against))) => return Ok(Some(Target::Contrast { class, against })),
            (Err(e), Ok(Some(_)) | Err(_)) | (Ok(Some(_)), Err(e)) => unclear = unclear.or(Some(e)),
            (Ok(None), _) | (_, Ok(None)) => {}
        }
    }
    unclear.map_or(Ok(None), Err)
}

/// Entities of a text, as far as is known before it is read.
const MOST_ENTITIES: usize = 2;

/// A target as the user wrote it, and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// As written.
    pub text: String,
    /// As understood.
    pub target: Target,
    /// What lowers it is asked, not what raises it (`-LABEL`).
    pub lowers: bool,
}

impl Request {
    /// Reads a target, or `-` and a target: what lowers it.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn parse(text: &str, labels: &Labels, scale: Scale) -> Result<Self> {
        let text = text.trim();
        let made = |target, lowers| Request { text: text.to_string(), target, lowers };
        match (Target::parse(text, labels, scale), text.strip_prefix('-')) {
            (Ok(target), _) => Ok(made(target, false)),
            (Err(e), None) => Err(e),
            (Err(_), Some(rest)) => Ok(match Target::parse(rest, labels, scale)? {
                // What lowers A - B raises B - A.
                Target::Contrast { class, against } => made(Target::Contrast { class: against, against: class }, false),
                target => made(target, true),
            }),
        }
    }

    /// Reads the values of `--target`: a target each, or several separated by commas. A label that holds a comma is one
    /// target.
    ///
    /// # Errors
    /// As [`Request::parse`]; [`Error::Usage`] for a target that is asked for twice.
    pub fn parse_list(texts: &[impl AsRef<str>], labels: &Labels, scale: Scale) -> Result<Vec<Self>> {
        let mut list: Vec<Request> = Vec::new();
        for text in texts {
            for request in split(text.as_ref(), labels, scale)? {
                if let Some(other) = list.iter().find(|r| (r.target, r.lowers) == (request.target, request.lowers)) {
                    let what = match request.target {
                        Target::Class(class) => format!("class {class}"),
                        _ => format!("target `{}`", request.text),
                    };
                    return Err(Error::Usage(format!(
                        "{what} is asked for twice: `{}` and `{}`",
                        other.text, request.text
                    )));
                }
                list.push(request);
            }
        }
        Ok(list)
    }

    /// At most so many outputs an input, of a model with so many classes.
    pub fn most(&self, classes: usize) -> usize {
        match self.target {
            Target::Predicted | Target::Class(_) | Target::Contrast { .. } | Target::Token { .. } => 1,
            Target::Entities => MOST_ENTITIES,
            Target::Top(k) => k,
            // Of classes that share one probability fewer than 1/P are above P.
            Target::Above { probability, scale: Scale::Softmax } if probability > 0.0 => {
                classes.min(((1.0 / probability).ceil() as usize).saturating_sub(1).max(1))
            }
            Target::Above { .. } => classes,
        }
    }

    /// What to say of an input for which it means no output.
    pub fn nothing(&self, logits: &[f32], labels: &Labels, scale: Scale) -> String {
        let above = self.text.rsplit("above:").next().unwrap_or_default();
        match ranked(logits).first().map(|class| Output::of(*class)) {
            Some(best) => {
                format!(
                    "nothing is above {above}; the likeliest is {} {}",
                    best.label(labels),
                    best.said(logits, scale)
                )
            }
            None => format!("nothing is above {above}"),
        }
    }

    /// The outputs it means for one input, given its logits; likeliest first. None for `above:P` where nothing is above.
    pub fn resolve(&self, logits: &[f32]) -> Vec<Output> {
        let outputs = self.target.resolve(logits).into_iter();
        outputs.map(|o| Output { lowers: self.lowers, ..o }).collect()
    }
}

/// The longest parts between commas that are targets, from left to right.
fn split(text: &str, labels: &Labels, scale: Scale) -> Result<Vec<Request>> {
    let parts: Vec<&str> = text.split(',').collect();
    let (mut requests, mut at) = (Vec::new(), 0);
    while at < parts.len() {
        let mut read = Request::parse(&parts[at..].join(","), labels, scale);
        let mut end = parts.len();
        while read.is_err() && end > at + 1 {
            end -= 1;
            read = Request::parse(&parts[at..end].join(","), labels, scale);
        }
        requests.push(read?); // the error is that of the shortest part
        at = end;
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn labels() -> Labels {
        Labels::new(["tabby, tabby cat", "Egyptian cat", "t-shirt", "dog"].map(String::from).to_vec())
    }

    #[test]
    fn targets_are_read_by_number_label_and_synonym() {
        let l = labels();
        for (text, want) in [
            ("predicted", Target::Predicted),
            ("2", Target::Class(2)),
            ("TABBY CAT", Target::Class(0)),
            ("egyptian cat", Target::Class(1)),
            ("t-shirt", Target::Class(2)),
            ("top:2", Target::Top(2)),
            ("dog-tabby", Target::Contrast { class: 3, against: 0 }),
            ("t-shirt-dog", Target::Contrast { class: 2, against: 3 }),
            ("3-0", Target::Contrast { class: 3, against: 0 }),
            ("id:3-id:0", Target::Contrast { class: 3, against: 0 }),
            ("text:dog", Target::Class(3)),
            ("text:dog-text:t-shirt", Target::Contrast { class: 3, against: 2 }),
            ("token:5/dog", Target::Token { number: 5, class: Some(3) }),
            ("token:0", Target::Token { number: 0, class: None }),
            ("entities", Target::Entities),
            ("above:0.5", Target::Above { probability: 0.5, scale: Scale::Sigmoid }),
        ] {
            assert_eq!(Target::parse(text, &l, Scale::Sigmoid).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn bad_targets_say_what_to_do() {
        let l = labels();
        for (text, part) in [
            ("tabbi", "did you mean `tabby`"),
            ("9", "classes 0 to 3"),
            ("top:0", "from 1 to 4"),
            ("top:9", "from 1 to 4"),
            ("dog-dog", "itself"),
            ("above:1", "below 1"),
            ("above:x", "below 1"),
            ("-tabbi", "did you mean `tabby`"),
            ("dog,tabbi", "did you mean `tabby`"),
            ("dog,", "empty"),
            ("3,dog", "class 3 is asked for twice: `3` and `dog`"),
            ("-dog,-id:3", "class 3 is asked for twice"),
            ("predicted,predicted", "`predicted` is asked for twice"),
        ] {
            let error = Request::parse_list(&[text], &l, Scale::Softmax).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let refused = Target::parse("above:0.5", &l, Scale::Value).unwrap_err().to_string();
        assert!(refused.contains("a model that gives a value"), "{refused}");
        let cranes = Labels::new(["crane", "crane", "dog"].map(String::from).to_vec());
        for text in ["crane", "dog,crane", "-crane", "dog-crane"] {
            let error = Request::parse_list(&[text], &cranes, Scale::Softmax).unwrap_err().to_string();
            assert!(error.contains("classes 0 and 1"), "{text}: {error}");
        }
    }

    #[test]
    fn lists_are_cut_at_commas_that_no_label_holds() {
        let l = labels();
        let read = |texts: &[&str]| {
            let all = Request::parse_list(texts, &l, Scale::Softmax).unwrap();
            all.into_iter().map(|r| (r.text, r.target, r.lowers)).collect::<Vec<_>>()
        };
        let class = |text: &str, class, lowers| (text.to_string(), Target::Class(class), lowers);
        assert_eq!(read(&["tabby, tabby cat"]), [class("tabby, tabby cat", 0, false)]);
        let three = [class("dog", 3, false), class("tabby, tabby cat", 0, false), class("-2", 2, true)];
        assert_eq!(read(&["dog, tabby, tabby cat,-2"]), three);
        assert_eq!(read(&["dog,-dog"]), [class("dog", 3, false), class("-dog", 3, true)]);
        let swapped = Target::Contrast { class: 0, against: 3 };
        assert_eq!(read(&["-dog-tabby"]), [("-dog-tabby".to_string(), swapped, false)]);
        assert_eq!(read(&["-predicted", "predicted"])[0], ("-predicted".to_string(), Target::Predicted, true));
    }

    #[test]
    fn texts_of_targets_are_classes_to_be() {
        let targets = ["predicted", "text:a cat, asleep", "-text:a dog", "text:a-b-text:c", "dog"];
        assert_eq!(texts(&targets), ["a cat, asleep", "a dog", "a-b", "c"]);
    }

    #[test]
    fn targets_resolve_against_logits() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(ranked(&logits), [1, 3, 0, 2]);
        assert_eq!(Target::Top(2).resolve(&logits).iter().map(|o| o.class).collect::<Vec<_>>(), [1, 3]);
        let contrast = Target::Contrast { class: 0, against: 2 }.resolve(&logits)[0];
        assert_eq!(contrast.logit(&logits), 1.5);
        let above = |probability, scale| Target::Above { probability, scale }.resolve(&logits);
        assert_eq!(above(0.5, Scale::Sigmoid), [1, 3, 0].map(Output::of));
        assert_eq!(above(0.5, Scale::Softmax), []);
        let unlikely = Request::parse("above:0.5", &labels(), Scale::Softmax).unwrap();
        let said = unlikely.nothing(&logits, &labels(), Scale::Softmax);
        assert_eq!(said, "nothing is above 0.5; the likeliest is Egyptian cat 0.440");
        for (text, most) in [("above:0.5", 1), ("above:0.4", 2), ("above:0", 4), ("top:3", 3), ("-dog", 1)] {
            assert_eq!(Request::parse(text, &labels(), Scale::Softmax).unwrap().most(4), most, "{text}");
        }
        let lowers = Request::parse("-2", &labels(), Scale::Softmax).unwrap().resolve(&logits)[0];
        assert_eq!((lowers.value(&[0.5, 2.0, -1.0]), lowers.label(&labels())), (1.0, "-t-shirt".into()));
        let seed = seed(&[lowers, contrast], 4, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(seed.to_vec2::<f32>().unwrap(), [[0.0, 0.0, -1.0, 0.0], [1.0, 0.0, -1.0, 0.0]]);
    }
}
