//! Multi-head attention behind its scores: probabilities, and their product with the values.

use crate::error::Result;
use crate::nn::kernels::{self, Order};
use crate::nn::relevance::quotient;
use crate::nn::rules::{Carried, MatmulRule, Rules, SoftmaxRule};
use candle_core::Tensor;

pub use kernels::{mean_heads, mean_products, merge_heads, split_heads};

/// Attention probabilities `[B,H,T,T]` from scores; `mask` is added to them (see [`crate::nn::Around`]).
/// The scores must be nobody else's: their memory may become that of the probabilities.
pub fn probabilities(scores: Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    kernels::softmax(scores, mask)
}

/// Reverse of [`probabilities`]: what reaches the scores, `[B,H,T,T]`; none where probabilities are constants.
pub fn probabilities_reverse(attention: &Tensor, arriving: &Tensor, rules: &Rules) -> Result<Option<Tensor>> {
    match rules.softmax {
        SoftmaxRule::Constant => Ok(None),
        SoftmaxRule::Gradient => Ok(Some(kernels::softmax_vjp(attention, arriving)?)),
        SoftmaxRule::Identity => Ok(Some(arriving.clone())),
    }
}

/// Attention times value: `[B,H,T,T]` x `[B,H,T,E]` -> `[B,H,T,E]`
pub fn context(attention: &Tensor, value: &Tensor) -> Result<Tensor> {
    kernels::matmul_heads(attention, value, 1.0, Order::Rows)
}

/// Reverse of [`context`] (whose result it may ask for): what reaches attention `[B,H,T,T]` and value `[B,H,T,E]`.
///
/// With a constant softmax the value gets everything, and attention the derivative it would have as a free variable.
pub fn context_reverse(
    (attention, value): (&Tensor, &Tensor),
    context: impl FnOnce() -> Result<Tensor>,
    arriving: &Tensor,
    rules: &Rules,
) -> Result<(Tensor, Tensor)> {
    let share = factor(rules);
    if rules.carried == Carried::Relevance {
        let s = quotient(arriving, &context()?)?;
        let by_attention = (attention * kernels::matmul_heads(&s, &value.t()?, share, Order::Heads)?)?;
        return Ok((by_attention, (value * kernels::matmul_heads(&attention.t()?, &s, share, Order::Rows)?)?));
    }
    let by_attention = kernels::matmul_heads(arriving, &value.t()?, share, Order::Heads)?;
    Ok((by_attention, kernels::matmul_heads(&attention.t()?, arriving, share, Order::Rows)?))
}

/// The part of a product's reverse that each factor gets.
pub(super) fn factor(rules: &Rules) -> f64 {
    match rules.matmul {
        MatmulRule::Gradient => 1.0,
        MatmulRule::Halved => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn the_products_vjp_equals_finite_differences() -> Result<()> {
        let shape = [2, 2, 4, 3];
        let (v, g) = (check::random(&shape, 3), check::random(&shape, 4));
        let a = probabilities(check::random(&[2, 2, 4, 4], 1), None)?;
        let (ga, gv) = context_reverse((&a, &v), || context(&a, &v), &g, &Rules::GRADIENT)?;
        check::finite_differences(&a, &g, |a| context(a, &v), &ga);
        check::finite_differences(&v, &g, |v| context(&a, v), &gv);
        Ok(())
    }

    #[test]
    fn halved_products_share_relevance() -> Result<()> {
        let shape = [2, 2, 4, 3];
        let v = check::random(&shape, 3);
        let a = probabilities(check::random(&[2, 2, 4, 4], 1), None)?;
        let c = context(&a, &v)?;
        let sum = |t: &Tensor| -> Result<f64> { Ok(t.sum_all()?.to_scalar::<f64>()?) };
        for (rules, as_relevance) in [(Rules::ATTN_LRP, false), (Rules::TRANSFORMER_ATTRIBUTION, true)] {
            let arriving = check::random(&shape, 4);
            let of = |x: &Tensor, r: &Tensor| if as_relevance { sum(r) } else { sum(&(x * r)?) };
            let (ra, rv) = context_reverse((&a, &v), || Ok(c.clone()), &arriving, &rules)?;
            let want = of(&c, &arriving)? / 2.0;
            assert!((of(&a, &ra)? - want).abs() < 1e-6 && (of(&v, &rv)? - want).abs() < 1e-6);
        }
        assert!(probabilities_reverse(&a, &a, &Rules::LIBRA)?.is_none());
        Ok(())
    }
}
