//! Which output is explained: a target, resolved against the labels, becomes the seed of the reverse pass.

use crate::error::{nearest, Error, Result};
use candle_core::{DType, Device, Tensor};

/// The class names of a classifier, in class order (`id2label`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Vec<String>);

impl Labels {
    /// Labels in class order.
    pub fn new(names: Vec<String>) -> Self {
        Labels(names)
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for a model without classes (which no checkpoint loader returns).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The label of a class; `class N` beyond the end.
    pub fn name(&self, class: u32) -> String {
        self.0.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// The class with this label (or comma-separated synonym, in any case) or this number.
    ///
    /// # Errors
    /// [`Error::Usage`] for a number beyond the classes and for an unknown label, naming the nearest one.
    pub fn find(&self, text: &str) -> Result<u32> {
        self.lookup(text).ok_or_else(|| self.unknown(text))
    }

    fn lookup(&self, text: &str) -> Option<u32> {
        let text = text.trim();
        let is =
            |label: &str| label.trim().eq_ignore_ascii_case(text) || label.trim().to_lowercase() == text.to_lowercase();
        if let Ok(class) = text.parse::<u32>() {
            return ((class as usize) < self.len()).then_some(class);
        }
        let whole = self.0.iter().position(|l| is(l));
        whole.or_else(|| self.0.iter().position(|l| l.split(',').any(is))).map(|i| i as u32)
    }

    fn unknown(&self, text: &str) -> Error {
        if text.trim().parse::<u64>().is_ok() {
            return Error::Usage(format!(
                "class {text} does not exist; this model has classes 0 to {}",
                self.len() - 1
            ));
        }
        let synonyms = self.0.iter().flat_map(|l| l.split(',')).map(str::trim);
        let hint = match nearest(text, synonyms) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let some: Vec<_> = self.0.iter().take(8).map(String::as_str).collect();
                format!("its labels are {}{}", some.join(", "), if self.len() > 8 { ", ..." } else { "" })
            }
        };
        Error::Usage(format!("this model has no label `{text}`; {hint} (all of them: `vitx inspect MODEL --labels`)"))
    }
}

/// What to explain, as the user says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The likeliest class of each input.
    Predicted,
    /// One class.
    Class(u32),
    /// The k likeliest classes of each input, one explanation each.
    Top(usize),
    /// Why this class rather than that one: the difference of the two logits.
    Contrast {
        /// The class argued for.
        class: u32,
        /// The class argued against.
        against: u32,
    },
}

impl Target {
    /// Reads `predicted`, `top:K`, a class number, a label, or `A-B`.
    ///
    /// # Errors
    /// [`Error::Usage`] naming what is unknown.
    pub fn parse(text: &str, labels: &Labels) -> Result<Self> {
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
        if let Some(class) = labels.lookup(text) {
            return Ok(Target::Class(class));
        }
        // A label may itself hold a hyphen, so every split is tried.
        for (at, _) in text.match_indices('-') {
            let (a, b) = (&text[..at], &text[at + 1..]);
            if let (Some(class), Some(against)) = (labels.lookup(a), labels.lookup(b)) {
                if class == against {
                    return Err(Error::Usage(format!("target `{text}` contrasts a class with itself")));
                }
                return Ok(Target::Contrast { class, against });
            }
        }
        Err(labels.unknown(text))
    }

    /// The outputs this target means for one input, given its logits; likeliest first.
    pub fn resolve(self, logits: &[f32]) -> Vec<Output> {
        let plain = |class| Output { class, against: None };
        match self {
            Target::Predicted => ranked(logits).into_iter().take(1).map(plain).collect(),
            Target::Top(k) => ranked(logits).into_iter().take(k).map(plain).collect(),
            Target::Class(class) => vec![plain(class)],
            Target::Contrast { class, against } => vec![Output { class, against: Some(against) }],
        }
    }
}

/// One explained output: a class logit, or the difference of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Output {
    /// The class argued for.
    pub class: u32,
    /// The class argued against, if any.
    pub against: Option<u32>,
}

impl Output {
    /// The explained value in logits.
    pub fn logit(&self, logits: &[f32]) -> f32 {
        let at = |c: u32| logits.get(c as usize).copied().unwrap_or(f32::NAN);
        at(self.class) - self.against.map_or(0.0, at)
    }

    /// The explained value of a row of logits or probabilities: the class's, less the other's in a contrast.
    pub fn value(&self, row: &[f64]) -> f64 {
        let at = |c: u32| row.get(c as usize).copied().unwrap_or(f64::NAN);
        at(self.class) - self.against.map_or(0.0, at)
    }

    /// `label`, or `label-label`.
    pub fn label(&self, labels: &Labels) -> String {
        match self.against {
            None => labels.name(self.class),
            Some(b) => format!("{}-{}", labels.name(self.class), labels.name(b)),
        }
    }
}

/// The seed of the reverse pass, `[B,C]`: the derivative of each row's explained value by its logits.
pub fn seed(outputs: &[Output], classes: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let mut seed = vec![0f32; outputs.len() * classes];
    for (row, output) in outputs.iter().enumerate() {
        for (class, sign) in [(Some(output.class), 1.0), (output.against, -1.0)] {
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

/// Probabilities of classes: a softmax, or a sigmoid each for multi-label models. In f64, so that the printed numbers do
/// not depend on the summation order.
pub fn probabilities(logits: &[f32], multi_label: bool) -> Vec<f32> {
    if multi_label {
        return logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect();
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = logits.iter().map(|&l| f64::from(l - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| (e / sum) as f32).collect()
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
        ] {
            assert_eq!(Target::parse(text, &l).unwrap(), want, "{text}");
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
        ] {
            let error = Target::parse(text, &l).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn targets_resolve_against_logits() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(ranked(&logits), [1, 3, 0, 2]);
        assert_eq!(Target::Top(2).resolve(&logits).iter().map(|o| o.class).collect::<Vec<_>>(), [1, 3]);
        let contrast = Target::Contrast { class: 0, against: 2 }.resolve(&logits)[0];
        assert_eq!(contrast.logit(&logits), 1.5);
        assert!((probabilities(&logits, false).iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
