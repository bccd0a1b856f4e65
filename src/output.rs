//! What of a model is explained: one logit, the difference of two, or what lowers it. It becomes the seed of the reverse pass.

use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::scale::Scale;
use candle_core::{DType, Device, Tensor};

/// One explained output: a class logit or the difference of two, or what lowers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Output {
    /// The class argued for.
    pub class: u32,
    /// The class argued against, if any.
    pub against: Option<u32>,
    /// The explained value is the negative: relevance is positive where the input lowers the class.
    pub lowers: bool,
    /// The token that it is said of, by a model that says something of each.
    pub token: Option<u32>,
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
        Output { class, against: None, lowers: false, token: None }
    }

    /// A class rather than another.
    pub fn contrast(class: u32, against: u32) -> Self {
        Output { class, against: Some(against), lowers: false, token: None }
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
        if let Some(token) = self.token {
            return format!("{lowers}class {} of token {token}", self.class);
        }
        match self.against {
            None => format!("{lowers}class {}", self.class),
            Some(against) => format!("{lowers}class {} less class {against}", self.class),
        }
    }

    /// `label`, `label-label`, `token/label`, or `-label` where it is asked what lowers it.
    pub fn label(&self, labels: &Labels) -> String {
        let minus = if self.lowers { "-" } else { "" };
        if let Some(token) = self.token {
            return format!("{minus}{token}/{}", labels.name(self.class));
        }
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

    #[test]
    fn the_model_is_right_as_its_scale_has_it() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        let all = |scale| (0..4).map(|class| right(class, &logits, scale)).collect::<Vec<_>>();
        assert_eq!(all(Scale::Softmax), [false, true, false, false]);
        assert_eq!(all(Scale::Sigmoid), [true, true, false, true]);
        assert_eq!(all(Scale::Value), [false; 4]);
    }
}
