//! Which output is explained: a target, resolved against the labels, becomes the seed of the reverse pass.

pub use crate::labels::{Labels, Reading};
pub use crate::scale::Scale;

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};

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
        if let Some((class, _)) = labels.lookup(text)? {
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
            Target::Contrast { class, against } => vec![Output::contrast(class, against)],
        }
    }
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
        let (a, b) = (labels.lookup(&text[..at]), labels.lookup(&text[at + 1..]));
        match (a, b) {
            (Ok(Some((class, _))), Ok(Some((against, _)))) if class == against => {
                return Err(Error::Usage(format!("target `{text}` contrasts a class with itself")));
            }
            (Ok(Some((class, _))), Ok(Some((against, _)))) => return Ok(Some(Target::Contrast { class, against })),
            (Err(e), Ok(Some(_)) | Err(_)) | (Ok(Some(_)), Err(e)) => unclear = unclear.or(Some(e)),
            (Ok(None), _) | (_, Ok(None)) => {}
        }
    }
    unclear.map_or(Ok(None), Err)
}

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

/// One explained output: a class logit or the difference of two, or what lowers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Output {
    /// The class argued for.
    pub class: u32,
    /// The class argued against, if any.
    pub against: Option<u32>,
    /// The explained value is the negative: relevance is positive where the input lowers the class.
    pub lowers: bool,
}

/// What a model says of an output, in the unit it has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Said {
    /// The class's probability.
    Probability(f32),
    /// The class's value, or the difference of two, in its own unit.
    Value(f32),
    /// The class's logit less the other's.
    Difference(f32),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Said::Probability(p) => write!(f, "{p:.3}"),
            Said::Value(v) => write!(f, "{v:.3}"),
            Said::Difference(d) => write!(f, "{d:+.3} logits"),
        }
    }
}

impl Output {
    /// A class by itself.
    pub fn of(class: u32) -> Self {
        Output { class, against: None, lowers: false }
    }

    /// A class rather than another.
    pub fn contrast(class: u32, against: u32) -> Self {
        Output { class, against: Some(against), lowers: false }
    }

    /// The class's logit, or the difference of the two; the sign of the question is not in it.
    pub fn logit(&self, logits: &[f32]) -> f32 {
        let at = |c: u32| logits.get(c as usize).copied().unwrap_or(f32::NAN);
        at(self.class) - self.against.map_or(0.0, at)
    }

    /// The explained value of a row of logits or probabilities: the class's, less the other's in a contrast; the negative
    /// where it is asked what lowers it.
    pub fn value(&self, row: &[f64]) -> f64 {
        let at = |c: u32| row.get(c as usize).copied().unwrap_or(f64::NAN);
        self.sign() * (at(self.class) - self.against.map_or(0.0, at))
    }

    /// -1 where it is asked what lowers the class, else 1.
    pub fn sign(&self) -> f64 {
        if self.lowers {
            -1.0
        } else {
            1.0
        }
    }

    /// What the model says of it, given its logits.
    pub fn said(&self, logits: &[f32], scale: Scale) -> Said {
        match (self.against, scale.probabilities(logits)) {
            (_, None) => Said::Value(self.logit(logits)),
            (Some(_), Some(_)) => Said::Difference(self.logit(logits)),
            (None, Some(p)) => Said::Probability(p.get(self.class as usize).copied().unwrap_or(f32::NAN)),
        }
    }

    /// Its class numbers, and what is asked of them.
    pub fn which(&self) -> String {
        let lowers = if self.lowers { "what lowers " } else { "" };
        match self.against {
            None => format!("{lowers}class {}", self.class),
            Some(against) => format!("{lowers}class {} less class {against}", self.class),
        }
    }

    /// `label`, `label-label`, or `-label` where it is asked what lowers it.
    pub fn label(&self, labels: &Labels) -> String {
        let minus = if self.lowers { "-" } else { "" };
        match self.against {
            None => format!("{minus}{}", labels.name(self.class)),
            Some(b) => format!("{minus}{}-{}", labels.name(self.class), labels.name(b)),
        }
    }
}

/// The seed of the reverse pass, `[B,C]`: the derivative of each row's explained value by its logits.
pub fn seed(outputs: &[Output], classes: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let mut seed = vec![0f32; outputs.len() * classes];
    for (row, output) in outputs.iter().enumerate() {
        let sign = output.sign() as f32;
        for (class, sign) in [(Some(output.class), sign), (output.against, -sign)] {
            let Some(class) = class else { continue };
            if class as usize >= classes {
                return Err(Error::Usage(format!("class {class} does not exist; this model has {classes} classes")));
            }
            seed[row * classes + class as usize] = sign;
        }
    }
    Ok(Tensor::from_vec(seed, (outputs.len(), classes), device)?.to_dtype(dtype)?)
}

/// Class numbers, likeliest first; ties go to the lower number.
pub fn ranked(logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    order
}

/// Whether a class is what the model says: the likeliest, or among labels of their own one of probability above 0.5. Values
/// are never right.
pub fn right(class: u32, logits: &[f64], scale: Scale) -> bool {
    match scale {
        Scale::Softmax => {
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
            best == Some(class as usize)
        }
        Scale::Sigmoid => logits.get(class as usize).is_some_and(|l| *l > 0.0),
        Scale::Value => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn targets_resolve_against_logits() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(ranked(&logits), [1, 3, 0, 2]);
        assert_eq!(Target::Top(2).resolve(&logits).iter().map(|o| o.class).collect::<Vec<_>>(), [1, 3]);
        let contrast = Target::Contrast { class: 0, against: 2 }.resolve(&logits)[0];
        assert_eq!(contrast.logit(&logits), 1.5);
        let above = |probability, scale| Target::Above { probability, scale }.resolve(&logits);
        assert_eq!(above(0.5, Scale::Sigmoid), [1, 3, 0].map(Output::of));
        assert_eq!(above(0.5, Scale::Softmax), []);
        let lowers = Request::parse("-2", &labels(), Scale::Softmax).unwrap().resolve(&logits)[0];
        assert_eq!((lowers.value(&[0.5, 2.0, -1.0]), lowers.label(&labels())), (1.0, "-t-shirt".into()));
        let seed = seed(&[lowers, contrast], 4, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(seed.to_vec2::<f32>().unwrap(), [[0.0, 0.0, -1.0, 0.0], [1.0, 0.0, -1.0, 0.0]]);
    }

    #[test]
    fn what_is_said_has_a_unit() {
        let logits = [0.5, 2.0, -1.0];
        let said = |output: Output, scale| output.said(&logits, scale).to_string();
        assert_eq!(said(Output::of(2), Scale::Value), "-1.000");
        assert_eq!(said(Output::of(1), Scale::Sigmoid), "0.881");
        assert_eq!(said(Output::of(1), Scale::Softmax), "0.786");
        assert_eq!(said(Output::contrast(1, 0), Scale::Softmax), "+1.500 logits");
        assert_eq!(said(Output::contrast(1, 0), Scale::Value), "1.500");
        assert_eq!(Output::contrast(1, 0).which(), "class 1 less class 0");
    }
}
