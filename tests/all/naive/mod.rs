//! The models once more in plain loops over f64: a forward pass, and a reverse pass with one formula an operation.
//!
//! Only weights come from the library. Every pass but the plain gradient carries relevance itself, divided among the
//! inputs of each operation, where the library carries gradients: a mistake in a rule cannot hide in both.

pub mod cams;
pub mod input;
pub mod ops;
pub mod perturbed;
pub mod twin;

use self::ops::{
    act_back, activate, add_back, join, linear_back, mean, norm_back, scale_back, skip_back, Dense, Norm, Place, Rules,
};
use crate::twins::{build, plus, Head3, Matrix};
use candle_core::Tensor;
use vitx::encoder::{Block, Encoder, Gate, Pool, Step, Wiring};
use vitx::nn::{Activation, Reach, Scores};

pub type Vector = Vec<f64>;

/// A layer's weights.
pub struct Layer {
    heads: usize,
    post: bool,
    query: Dense,
    key: Dense,
    value: Dense,
    pub projection: Dense,
    first_norm: Norm,
    second_norm: Norm,
    fc1: Dense,
    activation: Activation,
    fc2: Dense,
    pub first_scale: Vector,
    second_scale: Vector,
}

/// What a layer did; the queries, keys and values of a token's heads stand side by side.
pub struct Record {
    pub input: Matrix,
    pub read: Matrix,
    query: Matrix,
    key: Matrix,
    pub value: Matrix,
    scores: Head3,
    pub attention: Head3,
    /// The attention was set from outside: nothing reaches queries and keys.
    set: bool,
    context: Matrix,
    projected: Matrix,
    mixed: Matrix,
    pub mid: Matrix,
    normed: Matrix,
    hidden: Matrix,
    active: Matrix,
    fed: Matrix,
    sum: Matrix,
    pub output: Matrix,
}

/// What the head computed on a state.
pub struct HeadRecord {
    last: Matrix,
    normed: Matrix,
    pooled: Vec<Vector>,
    hidden: Vector,
    /// What each classifier read, and its logits.
    active: Vec<Vector>,
    parts: Vec<Vector>,
    pub logits: Vector,
}

pub struct Trace {
    pub layers: Vec<Record>,
    pub head: HeadRecord,
}

/// What a reverse pass carried to a layer's input, to what its projections read, and to its attention.
pub struct Carried {
    pub input: Matrix,
    pub read: Matrix,
    /// The derivative where attention is constant or the pass carries derivatives; else relevance.
    pub attention: Head3,
}

pub struct Reversed {
    pub layers: Vec<Carried>,
    pub last: Matrix,
    /// Relevance of biases and shifts, token by token: of each layer, and last of the head.
    pub constants: Matrix,
}

/// An intervention in the forward pass.
#[derive(Default)]
pub struct Change {
    /// Tokens that nothing attends to.
    pub hidden: Vec<usize>,
    /// The last layer's attention times this, held constant.
    pub last_attention: Option<f64>,
}

pub struct Transformer {
    pub layers: Vec<Layer>,
    final_norm: Option<Norm>,
    /// The first token of the mean that stands beside the class token (DINOv2).
    patch_mean: Option<usize>,
    dense: Option<(Dense, Activation)>,
    classifiers: Vec<Dense>,
}

fn layer(block: &Block) -> Layer {
    let (attention, feed_forward) = (&block.attention, &block.feed_forward);
    assert!(matches!(attention.op.scores, Scores::Dot));
    assert_eq!((attention.op.reach, feed_forward.op.gate), (Reach::All, Gate::None));
    let dense = Dense::of;
    let scale = |s: &Option<Tensor>| s.as_ref().map_or(vec![1.0; block.width()], |s| s.to_vec1().unwrap());
    let norm = |n: &Option<vitx::nn::Norm>| Norm::of(n.as_ref().unwrap());
    Layer {
        heads: attention.op.heads,
        post: block.wiring == Wiring::Post,
        query: dense(&attention.op.query),
        key: dense(&attention.op.key),
        value: dense(&attention.op.value),
        projection: dense(&attention.op.projection),
        first_norm: norm(&attention.norm),
        second_norm: norm(&feed_forward.norm),
        fc1: dense(&feed_forward.op.into),
        activation: feed_forward.op.activation,
        fc2: dense(&feed_forward.op.out),
        first_scale: scale(&attention.scale),
        second_scale: scale(&feed_forward.scale),
    }
}

fn times(x: &Matrix, scale: &[f64]) -> Matrix {
    x.iter().map(|x| x.iter().zip(scale).map(|(x, s)| x * s).collect()).collect()
}

fn sum(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().zip(b).map(|(a, b)| plus(a, b)).collect()
}

fn softmax(scores: &[f64]) -> Vector {
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let powers: Vector = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|p| p / total).collect()
}

/// The same for every token, the constants' shares booked to it.
fn tokens(constants: &mut Vector, back: impl Fn(usize) -> (Vector, f64)) -> Matrix {
    let mut token = |(i, booked): (usize, &mut f64)| {
        let (carried, share) = back(i);
        *booked += share;
        carried
    };
    constants.iter_mut().enumerate().map(&mut token).collect()
}

impl Layer {
    fn forward(&self, input: &Matrix, hidden: &[usize], factor: Option<f64>) -> Record {
        let n = input.len();
        let all = |d: &Dense, x: &Matrix| -> Matrix { x.iter().map(|x| d.run(x)).collect() };
        let normed = |m: &Norm, x: &Matrix| -> Matrix { x.iter().map(|x| m.run(x)).collect() };
        let read = if self.post { input.clone() } else { normed(&self.first_norm, input) };
        let (query, key, value) = (all(&self.query, &read), all(&self.key, &read), all(&self.value, &read));
        let e = query[0].len() / self.heads;
        let score = |h: usize, i: usize, j: usize| {
            let dot: f64 = (h * e..(h + 1) * e).map(|k| query[i][k] * key[j][k]).sum();
            if hidden.contains(&j) {
                f64::NEG_INFINITY
            } else {
                dot / (e as f64).sqrt()
            }
        };
        let scores: Head3 = (0..self.heads).map(|h| build(n, |i, j| score(h, i, j))).collect();
        let attention: Head3 = scores
            .iter()
            .map(|s| s.iter().map(|row| softmax(row).iter().map(|p| p * factor.unwrap_or(1.0)).collect()).collect())
            .collect();
        let mixture = |i: usize, k: usize| (0..n).map(|j| attention[k / e][i][j] * value[j][k]).sum::<f64>();
        let context: Matrix = (0..n).map(|i| (0..query[0].len()).map(|k| mixture(i, k)).collect()).collect();
        let projected = all(&self.projection, &context);
        let mixed = times(&projected, &self.first_scale);
        let mid = sum(input, &mixed);
        let second = normed(if self.post { &self.first_norm } else { &self.second_norm }, &mid);
        let hidden = all(&self.fc1, &second);
        let active: Matrix =
            hidden.iter().map(|x| x.iter().map(|x| activate(self.activation, *x).0).collect()).collect();
        let fed = all(&self.fc2, &active);
        let total = sum(if self.post { &second } else { &mid }, &times(&fed, &self.second_scale));
        let output = if self.post { normed(&self.second_norm, &total) } else { total.clone() };
        let (input, set) = (input.clone(), factor.is_some());
        Record {
            input,
            read,
            query,
            key,
            value,
            scores,
            attention,
            set,
            context,
            projected,
            mixed,
            mid,
            normed: second,
            hidden,
            active,
            fed,
            sum: total,
            output,
        }
    }

    /// What reaches everything inside from what arrives at the output, and the layer's constants.
    pub fn backward(&self, t: &Record, output: &Matrix, r: Rules) -> (Carried, Vector) {
        let mut constants = vec![0.0; output.len()];
        let k = &mut constants;
        let sum = match self.post {
            true => tokens(k, |i| norm_back(&self.second_norm, &t.sum[i], &t.output[i], &output[i], r)),
            false => output.clone(),
        };
        let skipped = if self.post { &t.normed } else { &t.mid };
        let (by_skip, fed) = skip_back(skipped, &times(&t.fed, &self.second_scale), &sum, r);
        let fed = scale_back(&fed, &self.second_scale, r);
        let active = tokens(k, |i| linear_back(&self.fc2, &t.active[i], &t.fed[i], &fed[i], r, Place::Mixing));
        let hidden: Matrix =
            (0..active.len()).map(|i| act_back(self.activation, &t.hidden[i], &active[i], r)).collect();
        let second = tokens(k, |i| linear_back(&self.fc1, &t.normed[i], &t.hidden[i], &hidden[i], r, Place::Mixing));
        let mid = if self.post {
            let normed = join(&t.normed, &[&by_skip, &second], r);
            tokens(k, |i| norm_back(&self.first_norm, &t.mid[i], &t.normed[i], &normed[i], r))
        } else {
            let through = tokens(k, |i| norm_back(&self.second_norm, &t.mid[i], &t.normed[i], &second[i], r));
            join(&t.mid, &[&by_skip, &through], r)
        };

        let (by_input, mixed) = skip_back(&t.input, &t.mixed, &mid, r);
        let mixed = scale_back(&mixed, &self.first_scale, r);
        let context =
            tokens(k, |i| linear_back(&self.projection, &t.context[i], &t.projected[i], &mixed[i], r, Place::Heads));
        let (attention, [query, key, value]) = t.attention_back(&context, r);
        let mut unproject = |d: &Dense, made: &Matrix, c: &Matrix| {
            tokens(k, |i| linear_back(d, &t.read[i], &made[i], &c[i], r, Place::Heads))
        };
        let query = unproject(&self.query, &t.query, &query);
        let key = unproject(&self.key, &t.key, &key);
        let value = unproject(&self.value, &t.value, &value);
        let read = match self.post {
            true => join(&t.read, &[&query, &key, &value], r),
            false => sum_of(&[&query, &key, &value]),
        };
        let through = match self.post {
            true => read.clone(),
            false => tokens(k, |i| norm_back(&self.first_norm, &t.input[i], &t.read[i], &read[i], r)),
        };
        let input = join(&t.input, &[&by_input, &through], r);
        (Carried { input, read, attention }, constants)
    }
}

fn sum_of(parts: &[&Matrix]) -> Matrix {
    parts[1..].iter().fold(parts[0].clone(), |all, part| sum(&all, part))
}

impl Record {
    /// From the context to attention, and to queries, keys and values.
    fn attention_back(&self, context: &Matrix, r: Rules) -> (Head3, [Matrix; 3]) {
        let (n, d, heads) = (context.len(), context[0].len(), self.attention.len());
        let e = d / heads;
        let half = if r.shares_products() { 0.5 } else { 1.0 };
        let zero = || vec![vec![0.0; d]; n];
        let (mut query, mut key, mut value) = (zero(), zero(), zero());
        let mut all = Vec::new();
        for (h, a) in self.attention.iter().enumerate() {
            let own = h * e..(h + 1) * e;
            let unit = |i: usize, k: usize| r.per_unit(context[i][k], self.context[i][k]);
            let by_attention = build(n, |i, j| {
                let slope: f64 = own.clone().map(|k| unit(i, k) * self.value[j][k]).sum();
                half * slope * if r.attention_constant() { 1.0 } else { r.own(a[i][j]) }
            });
            for (j, k) in (0..n).flat_map(|j| own.clone().map(move |k| (j, k))) {
                value[j][k] = half * r.own(self.value[j][k]) * (0..n).map(|i| a[i][j] * unit(i, k)).sum::<f64>();
            }
            if !self.set && !r.attention_constant() {
                let scores = self.softmax_back(h, &by_attention, r);
                // Chefer's rule sees the product before it is scaled: its epsilon is measured against that.
                let scale = if r.chefer() { 1.0 } else { 1.0 / (e as f64).sqrt() };
                let product = |i: usize, j: usize| self.scores[h][i][j] * (e as f64).sqrt() * scale;
                let unit = build(n, |i, j| half * scale * r.per_unit(scores[i][j], product(i, j)));
                for (i, k) in (0..n).flat_map(|i| own.clone().map(move |k| (i, k))) {
                    query[i][k] = r.own(self.query[i][k]) * (0..n).map(|j| unit[i][j] * self.key[j][k]).sum::<f64>();
                    key[i][k] = r.own(self.key[i][k]) * (0..n).map(|j| unit[j][i] * self.query[j][k]).sum::<f64>();
                }
            }
            all.push(by_attention);
        }
        (all, [query, key, value])
    }

    fn softmax_back(&self, h: usize, c: &Matrix, r: Rules) -> Matrix {
        let p = &self.attention[h];
        build(c.len(), |i, j| match r {
            Rules::Gradient => p[i][j] * (c[i][j] - p[i].iter().zip(&c[i]).map(|(p, c)| p * c).sum::<f64>()),
            _ if r.chefer() => c[i][j],
            _ => self.scores[h][i][j] * (c[i][j] - p[i][j] * c[i].iter().sum::<f64>()),
        })
    }
}

impl Transformer {
    pub fn of(encoder: &Encoder) -> Self {
        let readings = &encoder.head.readings;
        let patch_mean = match &readings[0].pool {
            Pool::Beside(parts) => {
                parts.iter().find_map(|p| if let Pool::Mean { from } = p { Some(*from) } else { None })
            }
            _ => None,
        };
        let dense = match &readings[0].steps[..] {
            [] => None,
            [Step::Linear(dense), Step::Activation(activation)] => Some((Dense::of(dense), *activation)),
            other => panic!("{other:?}"),
        };
        Transformer {
            layers: encoder.blocks.iter().map(layer).collect(),
            final_norm: encoder.final_norm.as_ref().map(Norm::of),
            patch_mean,
            dense,
            classifiers: readings.iter().map(|r| Dense::of(&r.classifier)).collect(),
        }
    }

    pub fn forward(&self, embedding: &Matrix, change: &Change) -> Trace {
        let mut layers: Vec<Record> = Vec::new();
        for (l, layer) in self.layers.iter().enumerate() {
            let input = layers.last().map_or(embedding, |r| &r.output);
            let factor = change.last_attention.filter(|_| l + 1 == self.layers.len());
            layers.push(layer.forward(input, &change.hidden, factor));
        }
        let head = self.head(&layers[layers.len() - 1].output);
        Trace { layers, head }
    }

    /// The head on any state.
    pub fn head(&self, last: &Matrix) -> HeadRecord {
        let normed: Matrix = last.iter().map(|x| self.final_norm.as_ref().map_or(x.clone(), |n| n.run(x))).collect();
        let pooled = match self.patch_mean {
            Some(from) => vec![[normed[0].clone(), mean(&normed[from..])].concat()],
            None => normed[..self.classifiers.len()].to_vec(),
        };
        let hidden = self.dense.as_ref().map_or(Vec::new(), |(dense, _)| dense.run(&pooled[0]));
        let active = match &self.dense {
            Some((_, activation)) => vec![hidden.iter().map(|x| activate(*activation, *x).0).collect()],
            None => pooled.clone(),
        };
        let parts: Vec<Vector> = self.classifiers.iter().zip(&active).map(|(c, x)| c.run(x)).collect();
        let logits = mean(&parts);
        HeadRecord { last: last.clone(), normed, pooled, hidden, active, parts, logits }
    }

    /// From the derivative `seed` by the logits to what reaches the state the head read, and the head's constants.
    pub fn head_back(&self, t: &HeadRecord, seed: &[f64], r: Rules) -> (Matrix, Vector) {
        let mut constants = vec![0.0; t.last.len()];
        let start: Vector = seed.iter().zip(&t.logits).map(|(s, y)| if r.relative() { s * y } else { *s }).collect();
        let arriving = match &t.parts[..] {
            [a, b] if r != Rules::Gradient => {
                let halves = |v: &Vector| vec![v.iter().map(|l| l / 2.0).collect()];
                let (a, b) = add_back(&halves(a), &halves(b), &vec![start], r);
                [a, b].concat()
            }
            parts => vec![start.iter().map(|s| s / parts.len() as f64).collect(); parts.len()],
        };
        let mut pooled = tokens_of(&mut constants, self.classifiers.len(), |i| {
            linear_back(&self.classifiers[i], &t.active[i], &t.parts[i], &arriving[i], r, Place::Mixing)
        });
        if let Some((dense, activation)) = &self.dense {
            let hidden = act_back(*activation, &t.hidden, &pooled[0], r);
            pooled = tokens_of(&mut constants, 1, |_| {
                linear_back(dense, &t.pooled[0], &t.hidden, &hidden, r, Place::Mixing)
            });
        }
        let normed = self.pool_back(t, &pooled, r);
        let last = match &self.final_norm {
            Some(norm) => tokens(&mut constants, |i| norm_back(norm, &t.last[i], &t.normed[i], &normed[i], r)),
            None => normed,
        };
        (last, constants)
    }

    /// The derivative of the seeded logits by a state whose tokens' mean is normed and classified.
    pub fn mean_pool_back(&self, state: &Matrix, seed: &[f64]) -> Matrix {
        let (middle, norm, n) = (mean(state), self.final_norm.as_ref().unwrap(), state.len() as f64);
        let (read, r) = (norm.run(&middle), Rules::Gradient);
        let (by_read, _) = linear_back(&self.classifiers[0], &read, seed, seed, r, Place::Mixing);
        let (by_mean, _) = norm_back(norm, &middle, &read, &by_read, r);
        vec![by_mean.iter().map(|g| g / n).collect(); state.len()]
    }

    fn pool_back(&self, t: &HeadRecord, pooled: &[Vector], r: Rules) -> Matrix {
        let (n, d) = (t.normed.len(), t.normed[0].len());
        let mut normed = vec![vec![0.0; d]; n];
        let picked = |i: usize, k: usize| r.own(t.normed[i][k]) * r.per_unit(pooled[i][k], t.pooled[i][k]);
        for (i, token) in normed.iter_mut().enumerate().take(pooled.len()) {
            token.iter_mut().enumerate().for_each(|(k, x)| *x = picked(i, k));
        }
        if let Some(from) = self.patch_mean {
            let patches = (n - from) as f64;
            for (i, k) in (from..n).flat_map(|i| (0..d).map(move |k| (i, k))) {
                let unit = r.per_unit(pooled[0][d + k], t.pooled[0][d + k]);
                normed[i][k] = r.own(t.normed[i][k]) * unit / patches;
            }
        }
        normed
    }

    pub fn backward(&self, t: &Trace, seed: &[f64], r: Rules) -> Reversed {
        let (last, head) = self.head_back(&t.head, seed, r);
        let (mut layers, mut constants) = (Vec::new(), vec![head]);
        let mut arriving = last.clone();
        for (layer, record) in self.layers.iter().zip(&t.layers).rev() {
            let (carried, own) = layer.backward(record, &arriving, r);
            arriving = carried.input.clone();
            layers.insert(0, carried);
            constants.insert(0, own);
        }
        Reversed { layers, last, constants }
    }
}

/// What acts on pooled states: constants are booked to the tokens they were pooled from.
fn tokens_of(constants: &mut [f64], count: usize, back: impl Fn(usize) -> (Vector, f64)) -> Matrix {
    let mut booked = constants[..count].to_vec();
    let carried = tokens(&mut booked, back);
    constants[..count].copy_from_slice(&booked);
    carried
}
