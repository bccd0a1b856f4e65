//! What the numbers that leave a head are: shares of one probability, probabilities of their own, or values.

/// How a row of logits is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// The classes share one probability.
    #[default]
    Softmax,
    /// Each class has a probability of its own (several labels at once; a cross-encoder's score).
    Sigmoid,
    /// The numbers are the answer, in their own unit (one output; regression).
    Value,
}

impl Scale {
    /// On the command line, in this order.
    pub const NAMES: [&'static str; 3] = ["softmax", "sigmoid", "value"];

    /// The scale of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Scale::Softmax, Scale::Sigmoid, Scale::Value].into_iter().find(|s| s.name() == name)
    }

    /// One of [`Scale::NAMES`].
    pub fn name(self) -> &'static str {
        match self {
            Scale::Softmax => "softmax",
            Scale::Sigmoid => "sigmoid",
            Scale::Value => "value",
        }
    }

    /// Probabilities of a row of logits; none where there are none. In f64 under a softmax, so that the printed numbers do
    /// not depend on the summation order.
    pub fn probabilities(self, logits: &[f32]) -> Option<Vec<f32>> {
        match self {
            Scale::Value => None,
            Scale::Sigmoid => Some(logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect()),
            Scale::Softmax => {
                let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let below = logits.iter().map(|&l| f64::from(l - max)); // the difference is rounded to f32
                Some(shares(below).map(|share| share as f32).collect())
            }
        }
    }

    /// What methods and metrics measure where they ask for probabilities: those, or else the values themselves.
    pub fn measured(self, logits: &[f64]) -> Vec<f64> {
        match self {
            Scale::Softmax => softmax(logits),
            Scale::Sigmoid => logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
            Scale::Value => logits.to_vec(),
        }
    }
}

/// A softmax in f64.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    shares(logits.iter().map(|l| l - max)).collect()
}

/// Shares of one probability, of logits less the largest of them.
fn shares(below: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    let exp: Vec<f64> = below.map(f64::exp).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(move |e| e / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_read_logits() {
        let logits = [0.5f32, -1.0];
        let shared = Scale::Softmax.probabilities(&logits).unwrap();
        assert!((shared.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        let own = Scale::Sigmoid.probabilities(&logits).unwrap();
        assert!((own[0] - 0.62246).abs() < 1e-5 && (own[1] - 0.26894).abs() < 1e-5);
        assert_eq!(Scale::Value.probabilities(&logits), None);
        assert_eq!(Scale::Value.measured(&[-1.719]), [-1.719]);
        assert_eq!(Scale::NAMES.map(Scale::named), [Scale::Softmax, Scale::Sigmoid, Scale::Value].map(Some));
        assert_eq!(Scale::named("tanh"), None);
    }
}
