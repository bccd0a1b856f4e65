//! Rules of the reverse pass, as data: which function each kind of operation applies on the way back.
//!
//! [`Rules::GRADIENT`] makes the walk in `encoder/backward.rs` the plain derivative. Relevance methods differ from it
//! only here: a new preset is a `const`, a new rule is a variant, and the compiler names every place to extend.

/// The rule of each kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Layer norms.
    pub norm: NormRule,
    /// The attention softmax.
    pub softmax: SoftmaxRule,
    /// Products of two activations: query x key, attention x value.
    pub matmul: MatmulRule,
    /// Pointwise nonlinearities and gates.
    pub activation: ActivationRule,
}

/// How a layer norm is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormRule {
    /// The derivative.
    Gradient,
}

/// How the attention softmax is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftmaxRule {
    /// The derivative.
    Gradient,
}

/// How a product of two activations is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatmulRule {
    /// The derivative with respect to both factors.
    Gradient,
}

/// How a nonlinearity is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationRule {
    /// The derivative.
    Gradient,
}

impl Rules {
    /// The plain derivative of the seeded logits.
    pub const GRADIENT: Rules = Rules {
        norm: NormRule::Gradient,
        softmax: SoftmaxRule::Gradient,
        matmul: MatmulRule::Gradient,
        activation: ActivationRule::Gradient,
    };
}
