//! Multi-head scaled dot-product attention, without its projections.

use crate::error::Result;
use crate::nn::relevance::quotient;
use crate::nn::rules::{Carried, MatmulRule, Rules, SoftmaxRule};
use candle_core::{DType, Tensor, D};

/// `[B,T,D]` -> `[B,H,T,E]`
pub fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, t, d) = x.dims3()?;
    Ok(x.reshape((b, t, heads, d / heads))?.transpose(1, 2)?.contiguous()?)
}

/// `[B,H,T,E]` -> `[B,T,D]`
pub fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (b, h, t, e) = x.dims4()?;
    Ok(x.transpose(1, 2)?.contiguous()?.reshape((b, t, h * e))?)
}

/// Attention probabilities `[B,H,T,T]` from queries and keys `[B,H,T,E]`.
///
/// `mask` is added to the scores, `[B,1,1,T]`: 0 for real keys, the dtype's lowest number for padded ones, whose
/// probability then is exactly 0.
pub fn probabilities(query: &Tensor, key: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let scale = 1.0 / (query.dim(D::Minus1)? as f64).sqrt();
    let scores = ((query * scale)?).matmul(&key.t()?)?; // [B,H,T,T]
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    Ok(candle_nn::ops::softmax_last_dim(&scores)?)
}

/// Attention times value: `[B,H,T,T]` x `[B,H,T,E]` -> `[B,H,T,E]`
pub fn context(attention: &Tensor, value: &Tensor) -> Result<Tensor> {
    Ok(attention.matmul(value)?)
}

/// Reverse of [`context`] (whose result it may need): what reaches attention `[B,H,T,T]` and value `[B,H,T,E]`.
///
/// With a constant softmax the value gets everything, and attention the derivative it would have as a free variable.
pub fn context_reverse(
    (attention, value, context): (&Tensor, &Tensor, &Tensor),
    arriving: &Tensor,
    rules: &Rules,
) -> Result<(Tensor, Tensor)> {
    let arriving = arriving.contiguous()?;
    let share = factor(rules);
    if rules.carried == Carried::Relevance {
        let s = quotient(&arriving, context)?;
        let by_attention = ((attention * s.matmul(&value.t()?)?)? * share)?;
        return Ok((by_attention, ((value * attention.t()?.matmul(&s)?)? * share)?));
    }
    let (by_attention, by_value) = (arriving.matmul(&value.t()?)?, attention.t()?.matmul(&arriving)?);
    Ok(if share == 1.0 { (by_attention, by_value) } else { ((by_attention * share)?, (by_value * share)?) })
}

/// The part of a product's reverse that each factor gets.
fn factor(rules: &Rules) -> f64 {
    match rules.matmul {
        MatmulRule::Gradient => 1.0,
        MatmulRule::Halved => 0.5,
    }
}

/// Reverse of [`probabilities`]: what reaches query and key, `[B,H,T,E]` each; none where probabilities are constants.
pub fn probabilities_reverse(
    (query, key, attention): (&Tensor, &Tensor, &Tensor),
    arriving: &Tensor,
    rules: &Rules,
) -> Result<Option<(Tensor, Tensor)>> {
    let share = factor(rules);
    match rules.softmax {
        SoftmaxRule::Constant => Ok(None),
        SoftmaxRule::Gradient => {
            let scale = share / (query.dim(D::Minus1)? as f64).sqrt();
            let scores = (softmax_vjp(attention, arriving)? * scale)?; // [B,H,T,T]
            Ok(Some((scores.matmul(key)?, scores.t()?.matmul(query)?)))
        }
        SoftmaxRule::Identity => {
            let s = quotient(arriving, &query.matmul(&key.t()?)?)?; // scores before their scaling
            let (by_query, by_key) = (s.matmul(key)?, s.t()?.matmul(query)?);
            Ok(Some((((query * by_query)? * share)?, ((key * by_key)? * share)?)))
        }
    }
}

/// Reverse of a softmax with the probabilities `p`: `p (g - sum(p g))`.
fn softmax_vjp(p: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let weighted = (p * grad)?;
    Ok((&weighted - p.broadcast_mul(&weighted.sum_keepdim(D::Minus1)?)?)?)
}

/// The additive mask of [`probabilities`] from a `[B,T]` mask of ones (real) and zeros (padding).
pub fn additive_mask(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    let lowest = match dtype {
        DType::F16 => -65504.0,
        DType::BF16 => f64::from(half_lowest()),
        DType::F64 => f64::MIN,
        _ => f64::from(f32::MIN),
    };
    let (b, t) = mask.dims2()?;
    let padded = mask.to_dtype(DType::F32)?.affine(-1.0, 1.0)?.reshape((b, 1, 1, t))?; // 1 where padded
    Ok((padded.to_dtype(dtype)? * lowest)?)
}

/// The lowest finite bf16.
fn half_lowest() -> f32 {
    f32::from_bits(0xff7f_0000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;
    use candle_core::Device;

    #[test]
    fn vjps_equal_finite_differences() -> Result<()> {
        let shape = [2, 2, 4, 3];
        let (q, k, v) = (check::random(&shape, 1), check::random(&shape, 2), check::random(&shape, 3));
        let g = check::random(&shape, 4);
        let a = probabilities(&q, &k, None)?;
        let (ga, gv) = context_reverse((&a, &v, &context(&a, &v)?), &g, &Rules::GRADIENT)?;
        let queries = probabilities_reverse((&q, &k, &a), &ga, &Rules::GRADIENT)?;
        let (gq, gk) = queries.expect("the gradient reaches queries and keys");
        check::finite_differences(&a, &g, |a| context(a, &v), &ga);
        check::finite_differences(&v, &g, |v| context(&a, v), &gv);
        check::finite_differences(&q, &g, |q| context(&probabilities(q, &k, None)?, &v), &gq);
        check::finite_differences(&k, &g, |k| context(&probabilities(&q, k, None)?, &v), &gk);
        // The fused softmax cuts autograd's graph, so this oracle gets a composed one.
        let composed = |q: &Tensor, k: &Tensor| -> Result<Tensor> {
            let scores = ((q * (1.0 / 3f64.sqrt()))?).matmul(&k.t()?)?;
            context(&candle_nn::ops::softmax(&scores, D::Minus1)?, &v)
        };
        check::autograd(&q, &g, |q| composed(q, &k), &gq);
        check::autograd(&k, &g, |k| composed(&q, k), &gk);
        Ok(())
    }

    #[test]
    fn halved_products_share_relevance() -> Result<()> {
        let shape = [2, 2, 4, 3];
        let (q, k, v) = (check::random(&shape, 1), check::random(&shape, 2), check::random(&shape, 3));
        let a = probabilities(&q, &k, None)?;
        let c = context(&a, &v)?;
        let sum = |t: &Tensor| -> Result<f64> { Ok(t.sum_all()?.to_scalar::<f64>()?) };
        for (rules, as_relevance) in [(Rules::ATTN_LRP, false), (Rules::TRANSFORMER_ATTRIBUTION, true)] {
            let arriving = check::random(&shape, 4);
            let of = |x: &Tensor, r: &Tensor| if as_relevance { sum(r) } else { sum(&(x * r)?) };
            let (ra, rv) = context_reverse((&a, &v, &c), &arriving, &rules)?;
            let want = of(&c, &arriving)? / 2.0;
            assert!((of(&a, &ra)? - want).abs() < 1e-6 && (of(&v, &rv)? - want).abs() < 1e-6);
        }
        assert!(probabilities_reverse((&q, &k, &a), &a, &Rules::LIBRA)?.is_none());
        Ok(())
    }

    #[test]
    fn padded_keys_get_exactly_zero() -> Result<()> {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let mask = Tensor::new(&[[1u8, 1, 1, 0], [1, 1, 1, 1]], &Device::Cpu)?;
            let q = check::random(&[2, 2, 4, 3], 1).to_dtype(dtype)?;
            let a = probabilities(&q, &q, Some(&additive_mask(&mask, dtype)?))?.to_dtype(DType::F64)?;
            assert_eq!(a.get(0)?.narrow(2, 3, 1)?.sum_all()?.to_scalar::<f64>()?, 0.0, "{dtype:?}");
            assert!(a.get(1)?.narrow(2, 3, 1)?.sum_all()?.to_scalar::<f64>()? > 0.0, "{dtype:?}");
        }
        Ok(())
    }

    #[test]
    fn heads_split_and_merge_back() -> Result<()> {
        let x = check::random(&[2, 5, 6], 9);
        check::close(&merge_heads(&split_heads(&x, 3)?)?, &x, 0.0);
        Ok(())
    }
}
