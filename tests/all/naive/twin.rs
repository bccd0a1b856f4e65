//! Twins of gradient, attention and propagation methods, read out of the naive model.

use super::input::Naive;
use super::ops::{mean, Rules};
use super::{Change, Trace, Vector};
use crate::support::flat;
use crate::twins::{add, build, identity, length, plus, product, rollout, rownorm, Head3, Matrix};
use vitx::explanation::{Layout, TextLayout};
use vitx::run::Run;
use vitx::target::Output;

/// What a twin found: of tokens, and of pixels where the method has them.
pub type Answer = (Vector, Option<Vector>);

pub struct Twin<'r> {
    pub naive: Naive,
    pub run: Run<'r>,
    pub trace: Trace,
    pub output: Output,
    pub layers: usize,
}

pub fn relu(x: f64) -> f64 {
    x.max(0.0)
}

/// Sums of products, token by token.
pub fn dots(a: &Matrix, b: &Matrix) -> Vector {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect()
}

pub fn sums(a: &Matrix) -> Vector {
    a.iter().map(|a| a.iter().sum()).collect()
}

pub fn lengths(a: &Matrix) -> Vector {
    a.iter().map(|a| length(a)).collect()
}

pub fn zip(a: &Matrix, b: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()).collect()
}

pub fn scaled(a: &Matrix, factor: f64) -> Matrix {
    a.iter().map(|a| a.iter().map(|a| a * factor).collect()).collect()
}

/// `mean_h f(a_h, b_h)`.
pub fn heads(a: &Head3, b: &Head3, f: impl Fn(f64, f64) -> f64) -> Matrix {
    build(a[0].len(), |i, j| (0..a.len()).map(|h| f(a[h][i][j], b[h][i][j])).sum::<f64>() / a.len() as f64)
}

pub fn probabilities(logits: &[f64]) -> Vector {
    let total: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / total).collect()
}

/// Legendre nodes and weights on [0,1], roots by bisection between points of a fine grid.
pub fn gauss_legendre(m: usize) -> Vec<(f64, f64)> {
    let legendre = |m: usize, x: f64| {
        (1..m).fold((1.0, x), |(before, p), k| (p, ((2 * k + 1) as f64 * x * p - k as f64 * before) / (k + 1) as f64))
    };
    let p = |x: f64| legendre(m, x).1;
    let root = |(mut low, mut high): (f64, f64)| {
        for _ in 0..200 {
            let middle = (low + high) / 2.0;
            if p(low) * p(middle) <= 0.0 {
                high = middle;
            } else {
                low = middle;
            }
        }
        (low + high) / 2.0
    };
    let edge = |i: usize| i as f64 / 500.5 - 1.0;
    let brackets = (0..1001).map(|i| (edge(i), edge(i + 1))).filter(|&(a, b)| p(a) * p(b) < 0.0);
    let node = |x: f64| {
        let before = legendre(m, x).0;
        ((x + 1.0) / 2.0, (1.0 - x * x) / (m as f64 * before).powi(2))
    };
    brackets.map(root).map(node).collect()
}

impl Twin<'_> {
    pub fn text(&self) -> Option<&TextLayout> {
        match self.run.layout() {
            Layout::Text(text) => Some(text),
            Layout::Image(_) => None,
        }
    }

    /// Prefix tokens, patch grid and patch size.
    pub fn image(&self) -> (usize, (usize, usize), (usize, usize)) {
        let Layout::Image(image) = self.run.layout() else { panic!("no image") };
        (image.prefix.len(), image.grid, image.patch)
    }

    /// Height and width in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.run.subject().unwrap().size().unwrap()
    }

    /// The explained one of a row of logits or probabilities.
    pub fn value(&self, values: &[f64]) -> f64 {
        let other = self.output.against.map_or(0.0, |c| values[c as usize]);
        values[self.output.class as usize] - other
    }

    pub fn score(&self, trace: &Trace, probability: bool) -> f64 {
        let logits = &trace.head.logits;
        self.value(&if probability { probabilities(logits) } else { logits.clone() })
    }

    pub fn score_of(&self, x: &Matrix, probability: bool) -> f64 {
        self.score(&self.naive.forward(x), probability)
    }

    pub fn seed(&self) -> Vector {
        let mut seed = vec![0.0; self.trace.head.logits.len()];
        seed[self.output.class as usize] = 1.0;
        if let Some(against) = self.output.against {
            seed[against as usize] = -1.0;
        }
        seed
    }

    /// The derivative of the explained probability by the logits.
    pub fn probability_seed(&self) -> Vector {
        let p = probabilities(&self.trace.head.logits);
        let one = |c: u32, k: usize| p[c as usize] * (f64::from(u8::from(c as usize == k)) - p[k]);
        let other = |k: usize| self.output.against.map_or(0.0, |c| one(c, k));
        (0..p.len()).map(|k| one(self.output.class, k) - other(k)).collect()
    }

    /// The gradient at pixels or word vectors of a variant.
    pub fn gradient(&self, x: &Matrix) -> Matrix {
        let trace = self.naive.forward(x);
        let reversed = self.naive.model.backward(&trace, &self.seed(), Rules::Gradient);
        self.naive.input_back(x, &reversed, Rules::Gradient)
    }

    /// The state entering layer l (l = L: leaving the last), its gradient, and their product token by token.
    pub fn state(&self, l: usize, seed: &[f64], r: Rules) -> (Matrix, Matrix) {
        let reversed = self.naive.model.backward(&self.trace, seed, r);
        let carried = reversed.layers.get(l).map_or(&reversed.last, |c| &c.input);
        let state = if l == self.layers { &self.trace.layers[l - 1].output } else { &self.trace.layers[l].input };
        (state.clone(), zip(carried, state, |c, x| r.per_unit(c, x)))
    }

    pub fn share(&self, l: usize, seed: &[f64], r: Rules) -> Vector {
        let (x, g) = self.state(l, seed, r);
        dots(&x, &g)
    }

    pub fn attention(&self, r: Rules) -> Vec<Head3> {
        let reversed = self.naive.model.backward(&self.trace, &self.seed(), r);
        reversed.layers.into_iter().map(|c| c.attention).collect()
    }

    /// A map over pixels with its patches, sums or means.
    pub fn pixels(&self, map: Vector, average: bool) -> Answer {
        let (prefix, (rows, columns), (ph, pw)) = self.image();
        let width = self.size().1;
        let patch = |t: usize| {
            let (top, left) = (t / columns * ph, t % columns * pw);
            let inside = (0..ph * pw).map(|i| map[(top + i / pw) * width + left + i % pw]);
            inside.sum::<f64>() / if average { (ph * pw) as f64 } else { 1.0 }
        };
        let tokens = std::iter::repeat_n(0.0, prefix).chain((0..rows * columns).map(patch)).collect();
        (tokens, Some(map))
    }

    pub fn largest(&self, gradient: &Matrix) -> Answer {
        match self.text() {
            Some(_) => (lengths(gradient), None),
            None => {
                let largest = |i: usize| gradient.iter().map(|c| c[i].abs()).fold(0.0, f64::max);
                self.pixels((0..gradient[0].len()).map(largest).collect(), true)
            }
        }
    }

    pub fn summed(&self, relevance: &Matrix) -> Answer {
        match self.text() {
            Some(_) => (sums(relevance), None),
            None => self.pixels((0..relevance[0].len()).map(|i| relevance.iter().map(|c| c[i]).sum()).collect(), false),
        }
    }

    /// Relevance of the input under a rule set.
    pub fn propagated(&self, r: Rules) -> Answer {
        let reversed = self.naive.model.backward(&self.trace, &self.seed(), r);
        let carried = self.naive.input_back(&self.naive.x, &reversed, r);
        self.summed(&if r == Rules::Gradient { zip(&carried, &self.naive.x, |g, x| g * x) } else { carried })
    }

    pub fn smoothgrad(&self, n: usize, spread: f64, join: impl Fn(&[f64]) -> f64) -> Answer {
        let x = &self.naive.x;
        let values = x.iter().flatten();
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let shape = self.run.subject().unwrap().values().unwrap().dims().to_vec();
        let noise = flat(&self.run.noise().normal_samples("smoothgrad", 0..n, &shape).unwrap());
        let (rows, columns) = (x.len(), x[0].len());
        let noisy = |s: usize| -> Matrix {
            let at = |i: usize, k: usize| x[i][k] + spread * (high - low) * noise[(s * rows + i) * columns + k];
            (0..rows).map(|i| (0..columns).map(|k| at(i, k)).collect()).collect()
        };
        let all: Vec<Matrix> = (0..n).map(|s| self.gradient(&noisy(s))).collect();
        let joined = |i: usize, k: usize| join(&all.iter().map(|g| g[i][k]).collect::<Vector>());
        self.largest(&(0..rows).map(|i| (0..columns).map(|k| joined(i, k)).collect()).collect())
    }

    pub fn integrated(&self, start: &Matrix, nodes: &[(f64, f64)]) -> Matrix {
        let way = zip(&self.naive.x, start, |x, s| x - s);
        let mut total = scaled(&way, 0.0);
        for (a, w) in nodes {
            let gradient = self.gradient(&zip(start, &way, |s, d| s + a * d));
            total = zip(&total, &gradient, |t, g| t + w * g);
        }
        zip(&total, &way, |t, d| t * d)
    }

    /// Black pixels, or this token's vector in place of ordinary tokens.
    pub fn absence(&self, filler: u32) -> Matrix {
        let words = |text: &TextLayout| {
            let word = |t: usize| match text.tokens[t].special {
                true => self.naive.x[t].clone(),
                false => self.naive.word(filler as usize),
            };
            (0..text.tokens.len()).map(word).collect()
        };
        let black =
            || self.run.encoder().neutral.black.iter().map(|&b| vec![f64::from(b); self.naive.x[0].len()]).collect();
        self.text().map_or_else(black, words)
    }

    pub fn fullgrad(&self, states: usize, seed: &[f64], r: Rules) -> Vector {
        let constants = self.naive.model.backward(&self.trace, seed, r).constants;
        let constants = constants.into_iter();
        (0..states).map(|l| self.share(l, seed, r)).chain(constants).reduce(|a, b| plus(&a, &b)).unwrap()
    }

    pub fn attcat(&self, offset: usize, layers: usize, r: Rules) -> Vector {
        let n = self.run.tokens();
        let received = |l: usize, j: usize| {
            let a = &self.trace.layers[l].attention;
            a.iter().map(|a| (0..n).map(|i| a[i][j]).sum::<f64>()).sum::<f64>() / (n * a.len()) as f64
        };
        let shares: Vec<Vector> = (0..layers).map(|l| self.share(l + offset, &self.seed(), r)).collect();
        (0..n).map(|j| (0..layers).map(|l| shares[l][j] * received(l, j)).sum()).collect()
    }

    /// `(I + mean_h (A * G)^+)` of each layer multiplied, highest first.
    pub fn multiplied(&self, maps: Vec<Matrix>, normalised: bool) -> Vector {
        let n = self.run.tokens();
        let step = |m: &Matrix| add(m, &identity(n));
        let all = maps.iter().map(|m| if normalised { rownorm(&step(m), false) } else { step(m) });
        rollout(all.collect(), false, false)
    }

    pub fn lrp(&self, start: usize, normalised: bool) -> Vector {
        let (gradient, relevance) = (self.attention(Rules::Gradient), self.attention(Rules::Attribution));
        let layer = |l: usize| heads(&gradient[l], &relevance[l], |g, r| relu(g * r));
        self.multiplied((start..self.layers).map(layer).collect(), normalised)
    }

    pub fn partial_lrp(&self, r: Rules) -> Vector {
        let last = self.attention(r).pop().unwrap();
        heads(&last, &last, |r, _| relu(r))[0].clone()
    }

    pub fn legrad(&self, first: usize, mean_pool: bool) -> Vector {
        let (model, n) = (&self.naive.model, self.run.tokens());
        let layer = |l: usize| {
            let record = &self.trace.layers[l];
            let arriving = match mean_pool {
                true => model.mean_pool_back(&record.output, &self.seed()),
                false => model.head_back(&model.head(&record.output), &self.seed(), Rules::Gradient).0,
            };
            let gradient = model.layers[l].backward(record, &arriving, Rules::Gradient).0.attention;
            let clamped = heads(&gradient, &gradient, |g, _| relu(g));
            (0..n).map(|j| (0..n).map(|i| clamped[i][j]).sum::<f64>() / n as f64).collect()
        };
        mean(&(first..self.layers).map(layer).collect::<Vec<Vector>>())
    }

    pub fn tokentm(&self, r: Rules) -> Vector {
        let n = self.run.tokens();
        let change = |u: &Matrix, v: &Matrix| -> Vector {
            let cosine: Vector =
                dots(u, v).iter().enumerate().map(|(i, d)| d / length(&u[i]) / length(&v[i])).collect();
            let share = probabilities(&cosine);
            (0..n).map(|i| length(&v[i]) / (length(&u[i]) + 1e-8) * share[i]).collect()
        };
        let start = lengths(&self.trace.layers[0].input);
        let mut c = build(n, |i, j| if i == j { start[i] } else { 0.0 });
        for (record, gradient) in self.trace.layers.iter().zip(self.attention(r)) {
            let (a, g) = (heads(&record.attention, &gradient, |a, _| a), heads(&gradient, &gradient, |g, _| relu(g)));
            let (mixing, feeding) = (change(&record.input, &record.mid), change(&record.mid, &record.output));
            c = product(&add(&identity(n), &build(n, |i, j| a[i][j] * mixing[j] * g[i][j])), &c);
            c = build(n, |i, j| (1.0 + feeding[i]) * c[i][j]);
        }
        c[0].clone()
    }

    /// The mean of the last layer's attention gradient at the scaled input, clamped, over heads.
    pub fn feedback(&self, steps: usize) -> Matrix {
        let model = &self.naive.model;
        let at = |k: usize| {
            let factor = k as f64 / (steps - 1) as f64;
            let embedding = match self.text() {
                Some(_) => scaled(&self.trace.layers[0].input, factor),
                None => self.naive.embedded(&scaled(&self.naive.x, factor)),
            };
            let trace = model.forward(&embedding, &Change::default());
            model.backward(&trace, &self.seed(), Rules::Gradient).layers.pop().unwrap().attention
        };
        let all: Vec<Head3> = (0..steps).map(at).collect();
        let h = all[0].len();
        let head = |h: usize, i: usize, j: usize| relu(all.iter().map(|g| g[h][i][j]).sum::<f64>() / steps as f64);
        build(self.run.tokens(), |i, j| (0..h).map(|h| head(h, i, j)).sum::<f64>() / h as f64)
    }

    pub fn perception_by_heads(&self, l: usize) -> Matrix {
        let (a, g) = (&self.trace.layers[l].attention, &self.attention(Rules::Gradient)[l]);
        let n = a[0].len();
        let importance: Vector = (0..a.len())
            .map(|h| {
                let entry = |i: usize, j: usize| (0..n).map(|k| a[h][k][i] * g[h][k][j]).sum::<f64>().abs();
                build(n, entry).iter().flatten().sum::<f64>()
            })
            .collect();
        let total: f64 = importance.iter().sum();
        build(n, |i, j| (0..a.len()).map(|h| importance[h] / total * a[h][i][j]).sum())
    }

    pub fn perception_by_tokens(&self, l: usize) -> Matrix {
        let (record, layer) = (&self.trace.layers[l], &self.naive.model.layers[l]);
        let ratio = |j: usize| {
            let sent = layer.projection.w.iter().zip(&layer.first_scale);
            let sent = sent.map(|(w, s)| s * w.iter().zip(&record.value[j]).map(|(w, v)| w * v).sum::<f64>());
            length(&sent.collect::<Vector>()) / length(&record.input[j])
        };
        let a = heads(&record.attention, &record.attention, |a, _| a);
        build(a.len(), |i, j| a[i][j] * ratio(j))
    }

    pub fn beyond_intuition(&self, steps: usize, start: usize, perception: impl Fn(usize) -> Matrix) -> Matrix {
        let mut r = identity(self.run.tokens());
        for l in start..self.layers {
            r = add(&r, &product(&perception(l), &r));
        }
        zip(&self.feedback(steps), &r, |w, r| w * r.abs())
    }

    pub fn iia2(&self, steps: usize) -> Vector {
        let (model, n) = (&self.naive.model, self.run.tokens());
        let mut maps = vec![build(n, |_, _| 0.0); self.layers];
        for (k, m) in (0..=steps).flat_map(|k| (0..=steps).map(move |m| (k, m))) {
            let part = |k: usize| k as f64 / steps as f64;
            let change = Change { last_attention: Some(part(m)), ..Change::default() };
            let trace = self.naive.forward_changed(&scaled(&self.naive.x, part(k)), &change);
            let reversed = model.backward(&trace, &self.seed(), Rules::Gradient);
            for (l, map) in maps.iter_mut().enumerate() {
                let product = heads(&trace.layers[l].attention, &reversed.layers[l].attention, |a, g| relu(a * g));
                *map = zip(map, &product, |m, p| m + p / ((steps + 1) * (steps + 1)) as f64);
            }
        }
        self.multiplied(maps, true)
    }
}
