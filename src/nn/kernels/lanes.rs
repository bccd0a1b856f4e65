//! What the row loops share: sums, greatest numbers and exponentials over 16 lanes, so that the order of summing is the same
//! whatever instructions run them. All of it is inlined into the loop that [`super::wide::dispatch`] runs.

/// Numbers side by side in one AVX-512 register; other processors take several.
pub(super) const LANES: usize = 16;

/// The sum of `term` over the numbers of a row, given with their places.
#[inline(always)]
pub(super) fn sum(row: &[f32], term: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = row.len() / LANES * LANES;
    for (number, chunk) in row.chunks_exact(LANES).enumerate() {
        for l in 0..LANES {
            lanes[l] += term(number * LANES + l, chunk[l]);
        }
    }
    for (l, x) in row[whole..].iter().enumerate() {
        lanes[l] += term(whole + l, *x);
    }
    joined(lanes, |a, b| a + b)
}

/// The greatest number of a row; NaN is passed over.
#[inline(always)]
pub(super) fn greatest(row: &[f32]) -> f32 {
    let more = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for l in 0..LANES {
            lanes[l] = more(lanes[l], chunk[l]);
        }
    }
    for (l, x) in rest.iter().enumerate() {
        lanes[l] = more(lanes[l], *x);
    }
    joined(lanes, more)
}

#[inline(always)]
fn joined(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = join(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `e^x` for x up to 88, within a unit in the last place or two; 0 below -87, where the result would lose digits.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves a whole number in the low bits
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4); // in two parts, the first exact in few bits
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(-LN_2.1, whole.mul_add(-LN_2.0, x)); // within ln(2)/2 of 0
    let mut series = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = rest.mul_add(series, c);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    if x < -87.0 {
        0.0
    } else {
        series * power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_sums_and_greatest_numbers_are_right() {
        for i in -870..=870 {
            let x = i as f32 / 10.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 2e-7, "e^{x}: {got} instead of {want}");
        }
        assert_eq!((exp(-88.0), exp(f32::MIN), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan());
        for n in [1, 5, 16, 37] {
            let row: Vec<f32> = (0..n).map(|i| ((i * 7) % n) as f32).collect();
            assert_eq!(sum(&row, |_, x| x), (n * (n - 1) / 2) as f32, "{n}");
            assert_eq!(sum(&row, |i, _| i as f32), (n * (n - 1) / 2) as f32, "{n}");
            assert_eq!(greatest(&row), (n - 1) as f32, "{n}");
        }
    }
}
