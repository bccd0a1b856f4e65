//! Naive twins: every method written again from its paper, slowly, on numbers in f64.

use crate::support::*;
use candle_core::{DType, Tensor};
use vitx::encoder::{Block, Wiring};
use vitx::explanation::Layout;
use vitx::method;
use vitx::nn::{Linear, Norm};
use vitx::run::{Batch, Run};
use vitx::target::Output;

pub(crate) type Matrix = Vec<Vec<f64>>;
pub(crate) type Head3 = Vec<Matrix>; // [H][T][T]

struct Layer {
    /// Values `[H][T][E]`, the state that enters and the one that leaves, the block itself.
    value: Head3,
    input: Matrix,
    output: Matrix,
    block: Block,
}

struct Numbers {
    layers: Vec<Layer>,
    attention: Vec<Head3>,
    gradient: Vec<Head3>,
    prefix: usize,
    text: bool,
}

fn numbers(run: &Run<'_>) -> Numbers {
    let read = |t: Tensor| t.to_dtype(DType::F64).unwrap().to_vec3::<f64>().unwrap();
    let layers = 0..run.layers();
    let flat = |t: Tensor| t.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let layer = |l: usize| Layer {
        value: read(run.value(l).unwrap()),
        input: flat(run.input(l).unwrap()),
        output: flat(run.output_state(l).unwrap()),
        block: run.block(l).clone(),
    };
    Numbers {
        layers: layers.clone().map(layer).collect(),
        attention: layers.clone().map(|l| read(run.attention(l).unwrap())).collect(),
        gradient: layers.map(|l| read(run.attention_gradient(l).unwrap())).collect(),
        prefix: if let Layout::Image(i) = run.layout() { i.prefix.len() } else { 0 },
        text: matches!(run.layout(), Layout::Text(_)),
    }
}

pub(crate) fn build(n: usize, f: impl Fn(usize, usize) -> f64) -> Matrix {
    (0..n).map(|i| (0..n).map(|j| f(i, j)).collect()).collect()
}

pub(crate) fn product(a: &Matrix, b: &Matrix) -> Matrix {
    build(a.len(), |i, j| (0..a.len()).map(|k| a[i][k] * b[k][j]).sum())
}

pub(crate) fn identity(n: usize) -> Matrix {
    build(n, |i, j| f64::from(u8::from(i == j)))
}

fn join(heads: &Head3, how: &str) -> Matrix {
    build(heads[0].len(), |i, j| {
        let values = heads.iter().map(|h| h[i][j]);
        match how {
            "mean" => values.sum::<f64>() / heads.len() as f64,
            "max" => values.fold(f64::MIN, f64::max),
            _ => values.fold(f64::MAX, f64::min),
        }
    })
}

pub(crate) fn rownorm(m: &Matrix, literal: bool) -> Matrix {
    let sum = |r: usize| m[r].iter().sum::<f64>();
    build(m.len(), |i, j| m[i][j] / sum(if literal { j } else { i }))
}

fn discard(m: &Matrix, ratio: f64, protect: bool) -> Matrix {
    let n = m.len();
    let mut all: Vec<(f64, usize, usize)> = (0..n * n).map(|k| (m[k / n][k % n], k / n, k % n)).collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let mut out = m.clone();
    for &(_, i, j) in &all[..(ratio * (n * n) as f64) as usize] {
        if !(protect && i == 0 && j == 0) {
            out[i][j] = 0.0;
        }
    }
    out
}

pub(crate) fn rollout(layers: Vec<Matrix>, residual: bool, literal: bool) -> Vec<f64> {
    let n = layers[0].len();
    let mut r = identity(n);
    for e in layers {
        let step = if residual {
            let id = identity(n);
            rownorm(&build(n, |i, j| (e[i][j] + id[i][j]) / 2.0), literal)
        } else {
            e
        };
        r = product(&step, &r);
    }
    r[0].clone()
}

fn gae(x: &Numbers, start: usize) -> Vec<f64> {
    let n = x.attention[0][0].len();
    let mut r = identity(n);
    for l in start..x.attention.len() {
        let (a, g) = (&x.attention[l], &x.gradient[l]);
        let mean =
            build(n, |i, j| (0..a.len()).map(|h| (a[h][i][j] * g[h][i][j]).max(0.0)).sum::<f64>() / a.len() as f64);
        let step = product(&mean, &r);
        r = build(n, |i, j| r[i][j] + step[i][j]);
    }
    r[0].clone()
}

fn weighted(x: &Numbers, l: usize) -> Matrix {
    let (a, g) = (&x.attention[l], &x.gradient[l]);
    build(a[0].len(), |i, j| (0..a.len()).map(|h| a[h][i][j] * g[h][i][j]).sum::<f64>() / a.len() as f64)
}

fn gradcam(x: &Numbers, full: bool, clamp: bool) -> Vec<f64> {
    let (a, g) = (x.attention.last().unwrap(), x.gradient.last().unwrap());
    let n = a[0].len();
    let weight = |h: usize| {
        let cells: Vec<f64> =
            if full { g[h].iter().flatten().copied().collect() } else { g[h][0][x.prefix..].to_vec() };
        cells.iter().sum::<f64>() / cells.len() as f64
    };
    let map = (0..n).map(|j| (0..a.len()).map(|h| weight(h) * a[h][0][j]).sum::<f64>() / a.len() as f64);
    map.map(|m| if clamp { m.max(0.0) } else { m }).collect()
}

fn linear(l: &Linear, x: &[f64]) -> Vec<f64> {
    let weight = l.weight.to_vec2::<f64>().unwrap();
    let bias = l.bias.as_ref().map_or(vec![0.0; weight.len()], |b| b.to_vec1::<f64>().unwrap());
    weight.iter().zip(bias).map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b).collect()
}

/// A layer norm's linear part at the input `y`, applied to `v`; with the bias it is the layer norm of y.
fn ln(norm: &Norm, v: &[f64], y: &[f64], bias: bool) -> Vec<f64> {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mv, my) = (mean(v), mean(y));
    let deviation = (y.iter().map(|a| (a - my).powi(2)).sum::<f64>() / y.len() as f64 + norm.eps).sqrt();
    let (w, b) = (norm.weight.to_vec1::<f64>().unwrap(), norm.bias.as_ref().unwrap().to_vec1::<f64>().unwrap());
    v.iter().enumerate().map(|(k, a)| (a - mv) / deviation * w[k] + if bias { b[k] } else { 0.0 }).collect()
}

pub(crate) fn plus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn scaled(x: Vec<f64>, scale: &Option<Tensor>) -> Vec<f64> {
    match scale {
        Some(s) => x.iter().zip(s.to_vec1::<f64>().unwrap()).map(|(x, s)| x * s).collect(),
        None => x,
    }
}

fn feed_forward(block: &Block, x: &[f64]) -> Vec<f64> {
    let op = &block.feed_forward.op;
    let hidden = linear(&op.into, x);
    let hidden = Tensor::from_vec(hidden.clone(), hidden.len(), &candle_core::Device::Cpu).unwrap().gelu_erf().unwrap();
    scaled(linear(&op.out, &hidden.to_vec1::<f64>().unwrap()), &block.feed_forward.scale)
}

impl Layer {
    fn first_norm(&self) -> &Norm {
        self.block.attention.norm.as_ref().unwrap()
    }

    fn second_norm(&self) -> &Norm {
        self.block.feed_forward.norm.as_ref().unwrap()
    }

    fn post(&self) -> bool {
        self.block.wiring == Wiring::Post
    }

    /// What token j sends to token i through these heads' values; without the projection's bias.
    fn sent(&self, a: &Head3, i: usize, j: usize) -> Vec<f64> {
        let context: Vec<f64> =
            (0..a.len()).flat_map(|h| self.value[h][j].iter().map(move |v| a[h][i][j] * v)).collect();
        let no_bias = Linear { weight: self.block.attention.op.projection.weight.clone(), bias: None };
        scaled(linear(&no_bias, &context), &self.block.attention.scale)
    }

    /// The state of token i after attention and skip connection, token `without`'s value left out.
    fn mid(&self, a: &Head3, i: usize, without: Option<usize>) -> Vec<f64> {
        let bias = self.block.attention.op.projection.bias.as_ref().unwrap().to_vec1::<f64>().unwrap();
        let start = plus(&self.input[i], &scaled(bias, &self.block.attention.scale));
        (0..self.input.len()).filter(|j| Some(*j) != without).fold(start, |m, j| plus(&m, &self.sent(a, i, j)))
    }

    /// The state leaving the layer, from `mid`; and the one before the second norm.
    fn finish(&self, mid: &[f64]) -> (Vec<f64>, Vec<f64>) {
        if self.post() {
            let normed = ln(self.first_norm(), mid, mid, true);
            let sum = plus(&normed, &feed_forward(&self.block, &normed));
            (ln(self.second_norm(), &sum, &sum, true), sum)
        } else {
            let sum = plus(mid, &feed_forward(&self.block, &ln(self.second_norm(), mid, mid, true)));
            (sum.clone(), sum)
        }
    }
}

pub(crate) fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn norms(x: &Numbers, l: usize, kind: &str) -> Matrix {
    let (layer, a) = (&x.layers[l], &x.attention[l]);
    build(layer.input.len(), |i, j| {
        let u = layer.sent(a, i, j);
        let v = if i == j { plus(&u, &layer.input[i]) } else { u.clone() };
        let mid = layer.mid(a, i, None);
        let first = if layer.post() { layer.first_norm() } else { layer.second_norm() };
        match kind {
            "norm" => length(&u),
            "norm-res" => length(&v),
            "norm-resln" => length(&ln(first, &v, &mid, false)),
            _ => length(&ln(layer.second_norm(), &ln(first, &v, &mid, false), &layer.finish(&mid).1, false)),
        }
    })
}

fn alti(x: &Numbers, l: usize) -> Matrix {
    let (layer, a) = (&x.layers[l], &x.attention[l]);
    let manhattan = |v: &[f64]| v.iter().map(|x| x.abs()).sum::<f64>();
    let raw = build(layer.input.len(), |i, j| {
        let u = layer.sent(a, i, j);
        let v = if i == j { plus(&u, &layer.input[i]) } else { u };
        let mid = layer.mid(a, i, None);
        let norm = layer.first_norm();
        let (t, y) = if layer.post() { (ln(norm, &v, &mid, false), ln(norm, &mid, &mid, true)) } else { (v, mid) };
        let away: Vec<f64> = y.iter().zip(&t).map(|(y, t)| y - t).collect();
        (manhattan(&y) - manhattan(&away)).max(0.0)
    });
    rownorm(&raw, false)
}

fn value_zeroing(x: &Numbers, l: usize) -> Matrix {
    let (layer, a) = (&x.layers[l], &x.attention[l]);
    build(layer.input.len(), |i, j| {
        let (without, _) = layer.finish(&layer.mid(a, i, Some(j)));
        let whole = &layer.output[i];
        let dot: f64 = without.iter().zip(whole).map(|(a, b)| a * b).sum();
        1.0 - dot / length(&without) / length(whole)
    })
}

/// Edmonds-Karp on an adjacency matrix.
fn max_flow(mut capacity: Matrix, source: usize, sink: usize) -> f64 {
    let n = capacity.len();
    let mut total = 0.0;
    loop {
        let mut from = vec![usize::MAX; n];
        from[source] = source;
        let mut queue = std::collections::VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            for to in 0..n {
                if from[to] == usize::MAX && capacity[node][to] > 1e-13 {
                    from[to] = node;
                    queue.push_back(to);
                }
            }
        }
        if from[sink] == usize::MAX {
            return total;
        }
        let path: Vec<(usize, usize)> = std::iter::successors(Some(sink), |&n| Some(from[n]))
            .take_while(|&n| n != source)
            .map(|n| (from[n], n))
            .collect();
        let narrowest = path.iter().map(|&(a, b)| capacity[a][b]).fold(f64::MAX, f64::min);
        for (a, b) in path {
            capacity[a][b] -= narrowest;
            capacity[b][a] += narrowest;
        }
        total += narrowest;
    }
}

fn flow(x: &Numbers) -> Vec<f64> {
    let (n, layers) = (x.attention[0][0].len(), x.attention.len());
    let pipes: Vec<Matrix> = x.attention.iter().map(|a| rownorm(&add(&join(a, "mean"), &identity(n)), false)).collect();
    let capacity = build((layers + 1) * n, |from, to| {
        let below = from / n == to / n + 1;
        if below {
            pipes[to / n][from % n][to % n]
        } else {
            0.0
        }
    });
    (0..n).map(|sink| max_flow(capacity.clone(), layers * n, sink)).collect()
}

pub(crate) fn add(a: &Matrix, b: &Matrix) -> Matrix {
    build(a.len(), |i, j| a[i][j] + b[i][j])
}

/// The twin's answer for a `--method` string; none for a method without one.
fn twin(x: &Numbers, spec: &str) -> Option<Vec<f64>> {
    let layers = x.attention.len();
    let relu = |m: Matrix| build(m.len(), |i, j| m[i][j].max(0.0));
    let joined = |how: &str, start: usize| (start..layers).map(|l| join(&x.attention[l], how)).collect::<Vec<_>>();
    Some(match spec {
        "attention" => join(&x.attention[layers - 1], "mean")[0].clone(),
        "attention:heads=max,layer=0" => join(&x.attention[0], "max")[0].clone(),
        "attention:heads=1,row=2" => x.attention[layers - 1][1][2].clone(),
        "rollout" => rollout(joined("mean", 0), true, false),
        "rollout:heads=min,start_layer=1" => rollout(joined("min", 1), true, false),
        "rollout:residual=false" => rollout(joined("mean", 0), false, false),
        "rollout:discard_ratio=0.7,heads=max,normalisation=literal" => {
            rollout(joined("max", 0).iter().map(|m| discard(m, 0.7, true)).collect(), true, true)
        }
        "gae" => gae(x, 0),
        "gae:start_layer=last" => gae(x, layers - 1),
        "grad-rollout" => rollout((0..layers).map(|l| relu(weighted(x, l))).collect(), true, false),
        "grad-rollout:discard_ratio=0.3,normalisation=literal" => {
            rollout((0..layers).map(|l| discard(&relu(weighted(x, l)), 0.3, false)).collect(), true, true)
        }
        "attention-gradcam" => gradcam(x, x.text, true),
        "attention-gradcam:weights=full,clamp=false" => gradcam(x, true, false),
        "grad-attention" => weighted(x, layers - 1)[0].clone(),
        "grad-attention:layer=0" => weighted(x, 0)[0].clone(),
        "flow" => flow(x),
        "aggregate" => rollout((0..layers).map(|l| clamped(x, l)).collect(), true, false),
        "aggregate:heads=grad,layers=gae,start=1" => gae(x, 1),
        "aggregate:heads=max,layers=mean" => {
            let sum = joined("max", 0).iter().skip(1).fold(join(&x.attention[0], "max"), |s, m| add(&s, m));
            sum[0].iter().map(|v| v / layers as f64).collect()
        }
        "aggregate:heads=grad-post,layers=last" => relu(weighted(x, layers - 1))[0].clone(),
        "norm" | "norm-res" | "norm-resln" => norms(x, layers - 1, spec)[0].clone(),
        "norm:rollout=true,residual=true" => {
            let halved = |l| rownorm(&norms(x, l, "norm"), false);
            rollout((0..layers).map(halved).collect(), true, false)
        }
        "globenc" => rollout((0..layers).map(|l| norms(x, l, spec)).collect(), false, false),
        "alti" => rollout((0..layers).map(|l| alti(x, l)).collect(), false, false),
        "value-zeroing" => rownorm(&value_zeroing(x, layers - 1), false)[0].clone(),
        "value-zeroing:normalise=false,layer=0,row=2" => value_zeroing(x, 0)[2].clone(),
        "value-zeroing:rollout=true" => {
            rollout((0..layers).map(|l| rownorm(&value_zeroing(x, l), false)).collect(), false, false)
        }
        _ => return None,
    })
}

/// `mean_h((A * G)^+)` of a layer.
fn clamped(x: &Numbers, l: usize) -> Matrix {
    let (a, g) = (&x.attention[l], &x.gradient[l]);
    build(a[0].len(), |i, j| (0..a.len()).map(|h| (a[h][i][j] * g[h][i][j]).max(0.0)).sum::<f64>() / a.len() as f64)
}

pub(crate) const SPECS: &[&str] = &[
    "attention",
    "attention:heads=max,layer=0",
    "attention:heads=1,row=2",
    "rollout",
    "rollout:heads=min,start_layer=1",
    "rollout:residual=false",
    "rollout:discard_ratio=0.7,heads=max,normalisation=literal",
    "gae",
    "gae:start_layer=last",
    "grad-rollout",
    "grad-rollout:discard_ratio=0.3,normalisation=literal",
    "attention-gradcam",
    "attention-gradcam:weights=full,clamp=false",
    "grad-attention",
    "grad-attention:layer=0",
    "flow",
    "aggregate",
    "aggregate:heads=grad,layers=gae,start=1",
    "aggregate:heads=max,layers=mean",
    "aggregate:heads=grad-post,layers=last",
    "norm",
    "norm-res",
    "norm-resln",
    "norm:rollout=true,residual=true",
    "globenc",
    "alti",
    "value-zeroing",
    "value-zeroing:normalise=false,layer=0,row=2",
    "value-zeroing:rollout=true",
];

#[test]
fn methods_equal_their_naive_twins() {
    for name in ["vit-rect", "deit-distilled", "dinov2-registers", "bert", "distilbert"] {
        let case = Case::open(name);
        let model = case.model(DType::F64);
        let (inputs, layouts) = case.batch(&model);
        let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
        let pass = batch.pass(vec![Output::contrast(2, 1); 2]).unwrap();
        for row in 0..2 {
            let x = numbers(&pass.run(row));
            for spec in SPECS.iter().filter(|s| **s != "globenc" || case.is_text()) {
                let want = twin(&x, spec).unwrap();
                let got = method::parse(spec).unwrap().explain(&pass.run(row)).unwrap().relevance;
                let got: Vec<f64> = got.iter().map(|&v| f64::from(v)).collect();
                assert_close(&format!("{name} {spec} row {row}"), &got, &want, 1e-9, 1e-6);
            }
        }
    }
}
