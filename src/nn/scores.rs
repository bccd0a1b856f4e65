//! Attention scores: how much each token's query asks for each token's key.

mod cosine;
mod disentangled;
mod relative;
mod rotary;

pub use cosine::Cosine;
pub use disentangled::Disentangled;
pub use relative::{Offsets, Relative};
pub use rotary::{Pairs, Rotary, Steps};

use crate::error::Result;
use crate::nn::around::Around;
use crate::nn::attention::factor;
use crate::nn::kernels::{self, Order};
use crate::nn::relevance::quotient;
use crate::nn::rules::{Rules, SoftmaxRule};
use candle_core::{Tensor, D};

/// How scores are made of queries and keys.
#[derive(Debug, Clone)]
pub enum Scores {
    /// `q k / sqrt(E)`
    Dot,
    /// The same of queries and keys that are rotated by their token's place.
    Rotary(Rotary),
    /// `q k / sqrt(E)` and a learned number for where the key is, seen from the query.
    Table(Relative),
    /// Products of queries and keys, of queries and places, and of places and keys (DeBERTa).
    Disentangled(Disentangled),
    /// Cosines of queries and keys, and a learned number for where the key is (Swin v2).
    Cosine(Cosine),
}

impl Scores {
    /// Scores `[B,H,T,T]` of queries and keys `[B,H,T,E]`.
    pub fn forward(&self, query: &Tensor, key: &Tensor, around: &Around) -> Result<Tensor> {
        let scale = self.scale(query)?;
        let (query, key) = self.placed(query, key, around)?;
        let scores = kernels::matmul_heads(&query, &key.t()?, scale, Order::Heads)?;
        match self.beside(&query, &key, around)? {
            Some(more) => Ok(scores.broadcast_add(&more)?),
            None => Ok(scores),
        }
    }

    /// What products are multiplied by.
    fn scale(&self, query: &Tensor) -> Result<f64> {
        let terms = match self {
            Scores::Cosine(_) => return Ok(1.0),
            Scores::Disentangled(own) => 1 + usize::from(own.keys.is_some()) + usize::from(own.queries.is_some()),
            Scores::Dot | Scores::Rotary(_) | Scores::Table(_) => 1,
        };
        Ok(1.0 / ((terms * query.dim(D::Minus1)?) as f64).sqrt())
    }

    /// What is added to the scaled products, `[1 or B,H,T,T]`.
    fn beside(&self, query: &Tensor, key: &Tensor, around: &Around) -> Result<Option<Tensor>> {
        match self {
            Scores::Table(relative) | Scores::Cosine(Cosine { table: relative, .. }) => {
                relative.numbers(query.dim(2)?, around.places).map(Some)
            }
            Scores::Disentangled(own) => own.terms(query, key, self.scale(query)?),
            Scores::Dot | Scores::Rotary(_) => Ok(None),
        }
    }

    /// Reverse of [`Scores::forward`]: what reaches query and key, `[B,H,T,E]` each, of what arrives at the scores. Of numbers of a
    /// table a gradient is not asked, and relevance is none of theirs; a product of a query or key with a place is linear in that
    /// one alone, and all of its part goes there.
    pub fn reverse(
        &self,
        (query, key): (&Tensor, &Tensor),
        arriving: &Tensor,
        around: &Around,
        rules: &Rules,
    ) -> Result<(Tensor, Tensor)> {
        let (share, scale) = (factor(rules), self.scale(query)?);
        let (q, k) = self.placed(query, key, around)?;
        let (by_query, by_key) = match rules.softmax {
            SoftmaxRule::Gradient | SoftmaxRule::Constant => {
                let by_query = kernels::matmul_heads(arriving, &k, share * scale, Order::Rows)?;
                let by_key = kernels::matmul_heads(&arriving.t()?, &q, share * scale, Order::Rows)?;
                match self.by_places(&q, arriving)? {
                    Some((more, other)) => ((by_query + (more * scale)?)?, (by_key + (other * scale)?)?),
                    None => (by_query, by_key),
                }
            }
            SoftmaxRule::Identity => {
                let product = kernels::matmul_heads(&q, &k.t()?, 1.0, Order::Heads)?; // scores before their scaling
                let whole = match (self, self.beside(&q, &k, around)?) {
                    (Scores::Disentangled(_), Some(more)) => (product + (more * (1.0 / scale))?)?,
                    _ => product, // numbers of a table are constants, which take no part, like biases
                };
                let s = quotient(arriving, &whole)?;
                let by_query = kernels::matmul_heads(&s, &k, share, Order::Rows)?;
                let by_key = kernels::matmul_heads(&s.t()?, &q, share, Order::Rows)?;
                match self.by_places(&q, &s)? {
                    Some((more, other)) => ((&q * (by_query + more)?)?, (&k * (by_key + other)?)?),
                    None => ((&q * by_query)?, (&k * by_key)?),
                }
            }
        };
        let rotary = match self {
            Scores::Rotary(rotary) => rotary,
            Scores::Cosine(own) => return own.reverse((query, key), (&by_query, &by_key), rules),
            Scores::Dot | Scores::Table(_) | Scores::Disentangled(_) => return Ok((by_query, by_key)),
        };
        let back = |x: &Tensor, placed: &Tensor, arriving: &Tensor| -> Result<Tensor> {
            match rules.softmax {
                // Relevance is divided as by any linear map without bias: `R_x = x (Rot^T q(R_y, y))`.
                SoftmaxRule::Identity => Ok((x * rotary.turned(&quotient(arriving, placed)?, around, -1.0)?)?),
                SoftmaxRule::Gradient | SoftmaxRule::Constant => rotary.turned(arriving, around, -1.0),
            }
        };
        Ok((back(query, &q, &by_query)?, back(key, &k, &by_key)?))
    }

    /// What reaches queries and keys through products with places, before any scaling.
    fn by_places(&self, query: &Tensor, arriving: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        match self {
            Scores::Disentangled(own) => own.reverse(query, arriving).map(Some),
            Scores::Dot | Scores::Rotary(_) | Scores::Table(_) | Scores::Cosine(_) => Ok(None),
        }
    }

    /// Queries and keys as they enter the product.
    fn placed(&self, query: &Tensor, key: &Tensor, around: &Around) -> Result<(Tensor, Tensor)> {
        match self {
            Scores::Rotary(rotary) => Ok((rotary.turned(query, around, 1.0)?, rotary.turned(key, around, 1.0)?)),
            Scores::Cosine(own) => own.placed(query, key),
            Scores::Dot | Scores::Table(_) | Scores::Disentangled(_) => Ok((query.clone(), key.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::around::{Places, Reach};
    use crate::nn::attention::{context, probabilities, probabilities_reverse};
    use crate::nn::check;
    use crate::nn::Linear;
    use candle_core::{DType, Device};

    fn kinds() -> [Scores; 6] {
        let linear =
            |seed| Some(Linear { weight: check::random(&[8, 8], seed), bias: Some(check::random(&[8], seed + 1)) });
        let disentangled = Disentangled {
            places: check::random(&[6, 8], 10),
            keys: linear(11),
            queries: linear(13),
            buckets: Some((3, 5)),
        };
        let relative = Relative { table: check::random(&[8, 2], 9), offsets: Offsets::Buckets { count: 8, most: 4 } };
        let cosine = Cosine { scale: check::random(&[2], 15), table: relative.clone() };
        [
            Scores::Cosine(cosine),
            Scores::Dot,
            Scores::Rotary(Rotary::line(100.0)),
            Scores::Rotary(Rotary { theta: 100.0, pairs: Pairs::Neighbours, steps: Steps::Cells { of: 3 } }),
            Scores::Table(relative),
            Scores::Disentangled(disentangled),
        ]
    }

    fn around(places: Places, mask: Option<&Tensor>, reach: Reach, dtype: DType) -> Around {
        Around::new(places, mask, (5, dtype, &Device::Cpu), [reach]).unwrap()
    }

    #[test]
    fn vjps_equal_finite_differences_and_autograd() -> Result<()> {
        let shape = [2, 2, 5, 4];
        let (q, k, v) = (check::random(&shape, 1), check::random(&shape, 2), check::random(&shape, 3));
        let g = check::random(&shape, 4);
        let places = [Places::Line, Places::Grid { prefix: 1, rows: 2, columns: 2 }];
        for (scores, places) in kinds().iter().flat_map(|s| places.map(|p| (s, p))) {
            for reach in [Reach::All, Reach::Within(1), Reach::Causal] {
                let around = around(places, None, reach, DType::F64);
                let run = |q: &Tensor, k: &Tensor| -> Result<Tensor> {
                    context(&probabilities(scores.forward(q, k, &around)?, around.mask(reach))?, &v)
                };
                let a = probabilities(scores.forward(&q, &k, &around)?, around.mask(reach))?;
                let ga = g.matmul(&v.t()?)?;
                let by_scores = probabilities_reverse(&a, &ga, &Rules::GRADIENT)?.expect("a gradient");
                let (gq, gk) = scores.reverse((&q, &k), &by_scores, &around, &Rules::GRADIENT)?;
                check::finite_differences(&q, &g, |q| run(q, &k), &gq);
                check::finite_differences(&k, &g, |k| run(&q, k), &gk);
                check::autograd(&q, &ga, |q| scores.forward(q, &k, &around), &{
                    scores.reverse((&q, &k), &ga, &around, &Rules::GRADIENT)?.0
                });
            }
        }
        Ok(())
    }

    #[test]
    fn every_kind_conserves_relevance() -> Result<()> {
        let shape = [2, 2, 5, 4];
        let (q, k) = (check::random(&shape, 1), check::random(&shape, 2));
        let arriving = check::random(&[2, 2, 5, 5], 3);
        let around = around(Places::Line, None, Reach::All, DType::F64);
        let sum = |t: &Tensor| -> Result<f64> { Ok(t.sum_all()?.to_scalar::<f64>()?) };
        for scores in kinds() {
            let (whole, none) = (scores.forward(&q, &k, &around)?, q.zeros_like()?);
            let constant = scores.forward(&none, &none, &around)?; // what neither query nor key takes part in
            let (gq, gk) = scores.reverse((&q, &k), &arriving, &around, &Rules::ATTN_LRP)?;
            let (rq, rk, kept) = (sum(&(&q * gq)?)?, sum(&(&k * gk)?)?, sum(&(&constant * &arriving)?)?);
            let all = sum(&(&whole * &arriving)?)?;
            assert!((rq + rk + kept - all).abs() < 1e-9, "{scores:?}");
            let (rq, rk) = scores.reverse((&q, &k), &arriving, &around, &Rules::TRANSFORMER_ATTRIBUTION)?;
            let (rq, rk, all) = (sum(&rq)?, sum(&rk)?, sum(&arriving)?);
            assert!((rq + rk - all).abs() < 1e-5, "{scores:?}: {rq} {rk} of {all}");
            if !matches!(scores, Scores::Disentangled(_)) {
                assert!((rq - rk).abs() < 1e-5, "{scores:?}: each has half");
            }
        }
        Ok(())
    }

    #[test]
    fn keys_that_are_not_seen_get_exactly_zero() -> Result<()> {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let mask = Tensor::new(&[[1u8, 1, 1, 1, 0], [1, 1, 1, 1, 1]], &Device::Cpu)?;
            let q = check::random(&[2, 2, 5, 4], 1).to_dtype(dtype)?;
            for reach in [Reach::All, Reach::Within(2)] {
                let around = around(Places::Line, Some(&mask), reach, dtype);
                let a = probabilities(Scores::Dot.forward(&q, &q, &around)?, around.mask(reach))?;
                let a = a.to_dtype(DType::F64)?;
                let total = |row: usize, from: usize, to: usize| -> Result<f64> {
                    Ok(a.get(row)?.narrow(1, from, 1)?.narrow(2, to, 1)?.sum_all()?.to_scalar::<f64>()?)
                };
                assert_eq!(total(0, 3, 4)?, 0.0, "{dtype:?}");
                assert!(total(1, 3, 4)? > 0.0, "{dtype:?}");
                assert_eq!(total(1, 0, 3)? == 0.0, reach != Reach::All, "{dtype:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn nothing_is_added_where_nothing_is_hidden() -> Result<()> {
        let mask = Tensor::ones((2, 5), DType::U8, &Device::Cpu)?;
        let around = around(Places::Line, Some(&mask), Reach::All, DType::F32);
        assert!(around.mask(Reach::All).is_none() && around.real.is_none());
        Ok(())
    }
}
