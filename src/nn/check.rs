//! Oracles for the operations' tests, in f64: central finite differences and candle's autograd.

use crate::error::Result;
use candle_core::{DType, Device, Tensor, Var};
use rand::{rngs::StdRng, Rng, SeedableRng};

/// Uniform numbers in (-1, 1), f64.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = StdRng::seed_from_u64(seed);
    let n: usize = shape.iter().product();
    let data: Vec<f64> = (0..n).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Panics where the two differ by more than `tolerance` (absolute).
pub fn close(got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), want.dims());
    for (i, (g, w)) in flat(got).iter().zip(flat(want)).enumerate() {
        assert!((g - w).abs() <= tolerance, "entry {i}: {g} instead of {w}");
    }
}

/// `vjp` against central differences of `sum(grad * f(x))`.
pub fn finite_differences(x: &Tensor, grad: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>, vjp: &Tensor) {
    let h = 1e-5;
    let (values, grad) = (flat(x), flat(grad));
    let objective = |values: Vec<f64>| -> f64 {
        let x = Tensor::from_vec(values, x.dims(), x.device()).unwrap();
        flat(&f(&x).unwrap()).iter().zip(&grad).map(|(y, g)| y * g).sum()
    };
    let want: Vec<f64> = (0..values.len())
        .map(|i| {
            let at = |step: f64| {
                let mut v = values.clone();
                v[i] += step;
                objective(v)
            };
            (at(h) - at(-h)) / (2.0 * h)
        })
        .collect();
    close(vjp, &Tensor::from_vec(want, x.dims(), x.device()).unwrap(), 1e-7);
}

/// `vjp` against candle's autograd of `sum(grad * f(x))`, whose GELU has constants of seven digits.
pub fn autograd(x: &Tensor, grad: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>, vjp: &Tensor) {
    let x = Var::from_tensor(x).unwrap();
    let objective = (f(x.as_tensor()).unwrap() * grad).unwrap().sum_all().unwrap();
    let grads = objective.backward().unwrap();
    close(vjp, grads.get(x.as_tensor()).expect("autograd reaches the input"), 1e-6);
}
