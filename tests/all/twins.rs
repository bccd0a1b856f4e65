//! Naive twins: every method written again from its paper, slowly, on numbers in f64.

use crate::support::*;
use candle_core::{DType, Tensor};
use vitx::explanation::Layout;
use vitx::method::{self, Batch, Run};
use vitx::target::Output;

type Matrix = Vec<Vec<f64>>;
type Head3 = Vec<Matrix>; // [H][T][T]

struct Numbers {
    attention: Vec<Head3>,
    gradient: Vec<Head3>,
    prefix: usize,
    text: bool,
}

fn numbers(run: &Run<'_>) -> Numbers {
    let read = |t: Tensor| t.to_dtype(DType::F64).unwrap().to_vec3::<f64>().unwrap();
    let layers = 0..run.layers();
    Numbers {
        attention: layers.clone().map(|l| read(run.attention(l).unwrap())).collect(),
        gradient: layers.map(|l| read(run.attention_gradient(l).unwrap())).collect(),
        prefix: if let Layout::Image(i) = run.layout() { i.prefix.len() } else { 0 },
        text: matches!(run.layout(), Layout::Text(_)),
    }
}

fn build(n: usize, f: impl Fn(usize, usize) -> f64) -> Matrix {
    (0..n).map(|i| (0..n).map(|j| f(i, j)).collect()).collect()
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    build(a.len(), |i, j| (0..a.len()).map(|k| a[i][k] * b[k][j]).sum())
}

fn identity(n: usize) -> Matrix {
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

fn rownorm(m: &Matrix, literal: bool) -> Matrix {
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

fn rollout(layers: Vec<Matrix>, residual: bool, literal: bool) -> Vec<f64> {
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
        _ => return None,
    })
}

const SPECS: &[&str] = &[
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
];

#[test]
fn methods_equal_their_naive_twins() {
    for name in ["vit-rect", "deit-distilled", "dinov2-registers", "bert", "distilbert"] {
        let case = Case::open(name);
        let model = case.model(DType::F64);
        let (inputs, layouts) = case.batch(&model);
        let batch = Batch::new(&model.encoder, inputs, layouts).unwrap();
        let pass = batch.pass(vec![Output { class: 2, against: Some(1) }; 2]).unwrap();
        for row in 0..2 {
            let x = numbers(&pass.run(row));
            for spec in SPECS {
                let want = twin(&x, spec).unwrap();
                let got = method::parse(spec).unwrap().explain(&pass.run(row)).unwrap().relevance;
                let got: Vec<f64> = got.iter().map(|&v| f64::from(v)).collect();
                assert_close(&format!("{name} {spec} row {row}"), &got, &want, 1e-9, 1e-6);
            }
        }
    }
}

#[test]
fn every_method_has_a_twin() {
    for entry in method::METHODS {
        assert!(SPECS.contains(&entry.name), "{} has no naive twin", entry.name);
    }
}
