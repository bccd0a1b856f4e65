//! Rules of the reverse pass, as data: which function each kind of operation applies on the way back.
//!
//! [`Rules::GRADIENT`] makes the walk in `encoder/backward.rs` the plain derivative. Relevance methods differ from it
//! only here: a new preset is a `const`, a new rule is a variant, and the compiler names every place to extend.
//!
//! Most presets carry a *gradient* g whose product with a value is that value's relevance, `R = x g`; nothing is ever
//! divided by an activation. Under g the epsilon rule of LRP (epsilon -> 0, biases keeping their share) is the plain
//! derivative, and the softmax's Taylor rule `R_s = s (R_p - p sum R_p)` is the plain derivative too, so neither has a
//! variant of its own. Transformer Attribution (Chefer et al., CVPR 2021) divides and rescales relevance itself and
//! does not fit that form; its presets carry *relevance*.
//!
//! # To add a rule
//!
//! 1. A set of existing rules under a new name is a `const` below; a method of `src/method/propagation/` names it. Its table
//!    in `vitx methods NAME` follows.
//! 2. A new rule of an operation is a variant of that operation's enum here, its sentence in [`Rules::table`], and one more arm
//!    of `reverse` in the operation's file in `src/nn/` (linear, norm, attention, scores, activation, residual). The walk
//!    over the layers does not change, and no method does.
//! 3. Say what it carries. Rules that carry a gradient give what is multiplied by the value afterwards; rules that carry
//!    relevance divide by [`quotient`](crate::nn::relevance::quotient), and join several uses of a tensor by
//!    [`join`](crate::nn::relevance::join).
//! 4. Tests at the foot of the operation's file: the rule term by term in plain loops, and what it conserves. A set that
//!    conserves everything says so in [`Rules::conserves`] and is listed in `tests/all/conservation.rs`.
//! 5. Its second implementation in `tests/all/naive/ops.rs`, where every pass carries relevance: a mistake cannot hide in
//!    both. Golden arrays as for a method.

use serde::Serialize;

/// The rule of each kind of operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Name of the preset, as tables and errors show it.
    pub name: &'static str,
    /// What travels backwards.
    pub carried: Carried,
    /// Query, key, value and output projections.
    pub projection: LinearRule,
    /// Both linear maps of the feed-forward.
    pub feed_forward: LinearRule,
    /// Classifiers, and the dense layer before them.
    pub classifier: LinearRule,
    /// The patch convolution.
    pub patches: LinearRule,
    /// Layer norms.
    pub norm: NormRule,
    /// The attention softmax.
    pub softmax: SoftmaxRule,
    /// Products of two activations: query x key, attention x value.
    pub matmul: MatmulRule,
    /// Pointwise nonlinearities, and the product of a gated feed-forward's two branches.
    pub activation: ActivationRule,
    /// The two additions of each layer's skip connections.
    pub residual: ResidualRule,
}

/// What a reverse pass carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// A gradient, modified or true: relevance is value times gradient.
    Gradient,
    /// Relevance itself, divided among inputs at every operation.
    Relevance,
}

/// How a linear map `y = W x + b` is reversed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LinearRule {
    /// The derivative; on relevance the epsilon rule, epsilon -> 0.
    Gradient,
    /// Generalised gamma rule (Achtibat et al. 2024): contributions of the output's own sign count 1 + gamma.
    Gamma(f64),
    /// z+ (alpha 1, beta 0): only positive products take part, the bias does not. Carries relevance.
    ZPlus,
    /// z+ with the parts of positive and of negative inputs divided separately. Carries relevance.
    ZPlusSplit,
}

/// How a layer norm is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormRule {
    /// The derivative.
    Gradient,
    /// The deviation is a constant; the mean is not.
    Constant,
    /// Relevance passes unchanged.
    Identity,
}

/// How the attention softmax is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftmaxRule {
    /// The derivative; on relevance the Taylor rule.
    Gradient,
    /// The probabilities are constants: nothing reaches query and key.
    Constant,
    /// Relevance of the probabilities becomes that of the scores.
    Identity,
}

/// How a product of two activations is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatmulRule {
    /// The derivative with respect to both factors.
    Gradient,
    /// Half of it to each factor, so that relevance is shared and not doubled.
    Halved,
}

/// How a nonlinearity is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationRule {
    /// The derivative.
    Gradient,
    /// `f(x) = x [f(x)/x]` with the gate in brackets a constant; each branch of a gated product gets half.
    Gate,
    /// Relevance passes unchanged.
    Identity,
}

/// How the addition `y = a + b` of a skip connection is reversed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ResidualRule {
    /// The derivative: the same to both; on relevance, shares a/y and b/y.
    Plain,
    /// ResLRP (Berend et al. 2026): a summand of the sum's sign counts 1 + gamma.
    SignAligned(f64),
    /// Shares a/y and b/y, each branch then rescaled to its part of the total (Chefer et al. 2021). Carries relevance.
    Proportional,
}

impl Rules {
    /// The plain derivative of the seeded logits.
    pub const GRADIENT: Rules = Rules {
        name: "gradient",
        carried: Carried::Gradient,
        projection: LinearRule::Gradient,
        feed_forward: LinearRule::Gradient,
        classifier: LinearRule::Gradient,
        patches: LinearRule::Gradient,
        norm: NormRule::Gradient,
        softmax: SoftmaxRule::Gradient,
        matmul: MatmulRule::Gradient,
        activation: ActivationRule::Gradient,
        residual: ResidualRule::Plain,
    };

    /// CP-LRP (Ali et al., ICML 2022): attention probabilities and layer norm deviations are constants.
    pub const CP_LRP: Rules =
        Rules { name: "cp-lrp", norm: NormRule::Constant, softmax: SoftmaxRule::Constant, ..Rules::GRADIENT };

    /// LibraGrad (Mehri et al., CVPR 2025): CP-LRP with activation gates constant. Complete: states and constants of
    /// any layer together make the logit.
    pub const LIBRA: Rules = Rules { name: "libra", activation: ActivationRule::Gate, ..Rules::CP_LRP };

    /// AttnLRP (Achtibat et al., ICML 2024): relevance through the softmax, both attention products halved.
    pub const ATTN_LRP: Rules =
        Rules { name: "attn-lrp", softmax: SoftmaxRule::Gradient, matmul: MatmulRule::Halved, ..Rules::LIBRA };

    /// ResLRP (Berend et al. 2026) on top of AttnLRP.
    pub const fn reslrp(gamma: f64) -> Rules {
        Rules { name: "reslrp", residual: ResidualRule::SignAligned(gamma), ..Rules::ATTN_LRP }
    }

    /// ResLRP with attention probabilities constant: conservative.
    pub const fn reslrp_cp(gamma: f64) -> Rules {
        Rules { name: "reslrp-cp", residual: ResidualRule::SignAligned(gamma), ..Rules::LIBRA }
    }

    /// AttnLRP's recipe for vision: constant attention, gamma in feed-forward, classifier and patch convolution.
    pub const fn attn_lrp_gamma(linear: f64, patches: f64) -> Rules {
        let (linear, patches) = (LinearRule::Gamma(linear), LinearRule::Gamma(patches));
        Rules { name: "attn-lrp-gamma", feed_forward: linear, classifier: linear, patches, ..Rules::LIBRA }
    }

    /// Transformer Attribution (Chefer, Gur & Wolf, CVPR 2021).
    pub const TRANSFORMER_ATTRIBUTION: Rules = Rules {
        name: "transformer-attribution",
        carried: Carried::Relevance,
        projection: LinearRule::ZPlus,
        feed_forward: LinearRule::ZPlus,
        classifier: LinearRule::ZPlus,
        patches: LinearRule::ZPlus,
        norm: NormRule::Identity,
        softmax: SoftmaxRule::Identity,
        matmul: MatmulRule::Halved,
        activation: ActivationRule::Identity,
        residual: ResidualRule::Proportional,
    };

    /// The simpler layers the same authors use for their LRP baselines. Not conservative.
    pub const LRP_BASELINE: Rules = Rules {
        name: "lrp-baseline",
        projection: LinearRule::ZPlusSplit,
        feed_forward: LinearRule::ZPlusSplit,
        classifier: LinearRule::ZPlusSplit,
        residual: ResidualRule::Plain,
        ..Rules::TRANSFORMER_ATTRIBUTION
    };

    /// Whether relevances of a state and of all constants behind it sum to the explained logit.
    pub fn conserves(&self) -> bool {
        let plain = [self.projection, self.feed_forward, self.classifier].iter().all(|l| *l == LinearRule::Gradient);
        plain
            && self.norm == NormRule::Constant
            && self.softmax == SoftmaxRule::Constant
            && self.activation == ActivationRule::Gate
    }

    /// Whether relevance far above what it started from is a failure. The baseline's split z+ rule doubles relevance by
    /// design wherever positive and negative inputs meet.
    pub fn bounds_relevance(&self) -> bool {
        self.projection != LinearRule::ZPlusSplit
    }

    /// The table of `vitx methods NAME`: an operation and its rule, a row each.
    pub fn table(&self) -> Vec<Row> {
        let relevance = self.carried == Carried::Relevance;
        let linear = |rule| match rule {
            LinearRule::Gradient => "derivative (epsilon rule, epsilon -> 0)".to_string(),
            LinearRule::Gamma(gamma) => format!("generalised gamma rule, gamma {gamma}"),
            LinearRule::ZPlus => "z+ rule, bias ignored".into(),
            LinearRule::ZPlusSplit => "z+ rule, positive and negative inputs divided separately".into(),
        };
        let patches = if relevance { "z^B rule between the image's extremes".into() } else { linear(self.patches) };
        let residual = match self.residual {
            ResidualRule::Plain if relevance => "shares a/(a+b), b/(a+b)".into(),
            ResidualRule::Plain => "derivative".to_string(),
            ResidualRule::SignAligned(gamma) => format!("sign-aligned shares, gamma {gamma}"),
            ResidualRule::Proportional => "shares rescaled to the branches' totals".into(),
        };
        let rows = [
            ("carries", if relevance { "relevance" } else { "gradient; relevance is value x gradient" }.to_string()),
            ("query, key, value, output", linear(self.projection)),
            ("feed-forward", linear(self.feed_forward)),
            ("classifier", linear(self.classifier)),
            ("patch convolution", patches),
            (
                "layer norm",
                match self.norm {
                    NormRule::Gradient => "derivative",
                    NormRule::Constant => "deviation constant",
                    NormRule::Identity => "unchanged",
                }
                .into(),
            ),
            (
                "softmax",
                match self.softmax {
                    SoftmaxRule::Gradient => "derivative (Taylor rule)",
                    SoftmaxRule::Constant => "probabilities constant",
                    SoftmaxRule::Identity => "unchanged",
                }
                .into(),
            ),
            (
                "attention x value, query x key",
                match (self.matmul, self.softmax) {
                    (_, SoftmaxRule::Constant) => "value only",
                    (MatmulRule::Gradient, _) => "derivative",
                    (MatmulRule::Halved, _) => "half to each factor",
                }
                .into(),
            ),
            (
                "activation",
                match self.activation {
                    ActivationRule::Gradient => "derivative",
                    ActivationRule::Gate => "gate f(x)/x constant; gated product: half to each branch",
                    ActivationRule::Identity => "unchanged",
                }
                .into(),
            ),
            ("skip connection", residual),
        ];
        rows.map(|(operation, rule)| Row { operation, rule }).to_vec()
    }
}

/// A row of [`Rules::table`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Kind of operation.
    pub operation: &'static str,
    /// What its reverse does.
    pub rule: String,
}
