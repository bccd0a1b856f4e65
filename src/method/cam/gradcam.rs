//! Class activation maps on a layer's tokens: channels weighted by gradients there.
//!
//! With A `[N,D]` the tokens at one point of the network without prefix tokens, G the gradient there, `S_d = sum_j A_jd`:
//!
//! | method | relevance of token j |
//! | --- | --- |
//! | `gradcam` (Selvaraju et al., ICCV 2017) | `sum_d w_d A_jd`, `w_d = mean_j G_jd` |
//! | `gradcam-plusplus` (Chattopadhay et al., WACV 2018) | the same, `w_d = sum_j alpha_jd max(G_jd, 0)`, `alpha = G^2/(2 G^2 + S_d G^3 + 1e-6)`, 0 where G = 0 |
//! | `hirescam` (Draelos & Carin 2020) | `sum_d G_jd A_jd` |
//! | `xgradcam` (Fu et al., BMVC 2020) | the same as `gradcam`, `w_d = sum_j G_jd A_jd / (S_d + 1e-7)` |
//! | `layercam` (Jiang et al., TIP 2021) | `sum_d max(G_jd, 0) A_jd` |
//! | `eigencam` (Muhammad & Yeasin, IJCNN 2020) | projection of A, columns centred, on its first right singular vector |
//!
//! and `max(., 0)` at the end (`clamp=false` keeps the sign). Prefix tokens get 0; of texts all tokens take part. The
//! point: `layer` (default last; `stageN`: the last of a stage of Swin, whose finer tokens a token of the last stage has the mean of) and
//! `where`: behind the first layer norm (default, models with the norm
//! in front), `hidden`, the state entering the layer (default for texts and other models), `output`, the state leaving it. The last
//! output is refused, since its patch gradients are 0 in a model that reads the class token only.
//!
//! Grad-CAM++ uses the closed form of the reference package; its denominator may be negative. X-Grad-CAM divides by sums
//! that pass through 0 behind a layer norm; both are ill-conditioned. Eigen-CAM's sign is fixed by making the entry of
//! largest magnitude positive; it is not class-specific. `hirescam` is refused where its products are measured to cancel:
//! what only a layer norm reads (`where=hidden` of the last layer, norm in front) has no share, since a norm does not
//! change when its input grows. `hirescam:libra=true` reads the state entering the last layer under LibraGrad's reverse
//! pass and keeps the sign (Mehri et al., CVPR 2025).

use crate::encoder::{Facts, Stage};
use crate::error::{Error, Result};
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_layer, Pool};
use crate::nn::{numbers, principal, Rules};
use crate::run::point::Point;
use crate::run::{Params, Reads, Run};
use candle_core::{DType, Device, Tensor, D};

macro_rules! entry {
    ($name:literal, $kind:expr, $title:literal, $paper:literal, $class:literal) => {
        Entry {
            name: $name,
            aliases: &[],
            title: $title,
            paper: $paper,
            class_specific: $class,
            build: |params| build($kind, params),
        }
    };
}

pub(super) const GRADCAM: Entry =
    entry!("gradcam", Kind::GradCam, "channels weighted by their mean gradient", "Selvaraju et al., ICCV 2017", true);
pub(super) const GRADCAM_PLUSPLUS: Entry = entry!(
    "gradcam-plusplus",
    Kind::PlusPlus,
    "channels weighted by their positive gradients of higher order",
    "Chattopadhay et al., WACV 2018",
    true
);
pub(super) const HIRESCAM: Entry =
    entry!("hirescam", Kind::HiRes, "gradient times activation, token by token", "Draelos & Carin 2020", true);
pub(super) const XGRADCAM: Entry = entry!(
    "xgradcam",
    Kind::XGrad,
    "channels weighted by gradient shares of their activation",
    "Fu et al., BMVC 2020",
    true
);
pub(super) const LAYERCAM: Entry = entry!(
    "layercam",
    Kind::Layer,
    "positive gradient times activation, token by token",
    "Jiang et al., TIP 2021",
    true
);
pub(super) const EIGENCAM: Entry = entry!(
    "eigencam",
    Kind::Eigen,
    "first principal component of a layer's tokens",
    "Muhammad & Yeasin, IJCNN 2020",
    false
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    GradCam,
    PlusPlus,
    HiRes,
    XGrad,
    Layer,
    Eigen,
}

struct Cam {
    kind: Kind,
    point: Point,
    clamp: bool,
    rules: Rules,
}

fn build(kind: Kind, params: &mut Params) -> Result<Box<dyn Method>> {
    let rules = if kind == Kind::HiRes { params.libra()? } else { Rules::GRADIENT };
    let libra = rules == Rules::LIBRA;
    let mut point = Point::read(params)?;
    if libra {
        point = point.or_entering();
    }
    let about = "cut negative values off (auto: yes, with libra no)";
    let clamp = params.flag_or_auto("clamp", about)?.unwrap_or(!libra);
    Ok(Box::new(Cam { kind, point, clamp, rules }))
}

impl Cam {
    /// Relevance `[N]` before the clamp, from tokens and gradients `[N,D]`.
    fn relevance(&self, a: &Tensor, g: &Tensor) -> Result<Tensor> {
        let dtype = a.dtype();
        let weighted = |w: Tensor| -> Result<Tensor> { Ok(a.broadcast_mul(&w)?.sum(D::Minus1)?) }; // w [1,D]
        match self.kind {
            Kind::GradCam => weighted(g.mean_keepdim(0)?),
            Kind::HiRes => Ok((g * a)?.sum(D::Minus1)?),
            Kind::Layer => Ok((g.relu()? * a)?.sum(D::Minus1)?),
            Kind::XGrad => weighted((g * a)?.sum_keepdim(0)?.div(&(a.sum_keepdim(0)? + 1e-7)?)?),
            Kind::PlusPlus => {
                let square = g.sqr()?;
                let cube = (&square * g)?.broadcast_mul(&a.sum_keepdim(0)?)?;
                let alpha = (&square / (((&square * 2.0)? + cube)? + 1e-6)?)?;
                let alpha = (alpha * g.ne(0.0)?.to_dtype(dtype)?)?;
                weighted((alpha * g.relu()?)?.sum_keepdim(0)?)
            }
            Kind::Eigen => first_component(a),
        }
    }
}

/// Whether `sum_d G_jd A_jd` cancels at every token, tokens and gradients `[N,D]`.
///
/// Where tokens are read that only a layer norm reads, the sum is 0 but for rounding (1e-7 of its terms in f32) and for
/// the norm's epsilon (1e-5 or less); elsewhere it is a good part of them. Halves round more coarsely.
fn cancels(a: &Tensor, g: &Tensor) -> Result<bool> {
    let bound = match a.dtype() {
        DType::BF16 => 0.1,
        DType::F16 => 0.02,
        _ => 1e-4,
    };
    let products = (g * a)?;
    let largest = |t: Tensor| -> Result<f64> { Ok(numbers(&t)?.into_iter().map(f64::abs).fold(0.0, f64::max)) };
    Ok(largest(products.sum(D::Minus1)?)? <= bound * largest(products.abs()?.sum(D::Minus1)?)?)
}

/// Tokens `[N,D]`, columns centred, projected on their first right singular vector, `[N]`: the first eigenvector u of `K = X X^T`,
/// times its singular value.
fn first_component(a: &Tensor) -> Result<Tensor> {
    let x = a.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let x = x.broadcast_sub(&x.mean_keepdim(0)?)?;
    match principal(&x.matmul(&x.t()?.contiguous()?)?)? {
        Some((u, value)) => Ok((u * value.max(0.0).sqrt())?.to_dtype(a.dtype())?.to_device(a.device())?),
        None => Ok(a.zeros_like()?.sum(D::Minus1)?), // all tokens are equal
    }
}

impl Method for Cam {
    fn check(&self, model: &Facts) -> Result<()> {
        self.point.check(model)
    }

    fn reads(&self) -> Reads {
        self.point.reads()
    }

    fn top_down(&self) -> bool {
        true
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let (a, g) = match self.kind {
            Kind::Eigen => (self.point.activation(run)?, None),
            _ => {
                let (a, g) = self.point.tokens(run, &self.rules)?;
                (a, Some(g))
            }
        };
        // Under libra every token has its share, prefix tokens too.
        let skip = if self.rules == Rules::LIBRA { 0 } else { run.layout().prefix() };
        let own = |t: &Tensor| t.narrow(0, skip, t.dim(0)? - skip);
        let a = own(&a)?;
        let g = g.map_or_else(|| Ok(a.clone()), |g| own(&g))?;
        if self.kind == Kind::HiRes && self.rules == Rules::GRADIENT && cancels(&a, &g)? {
            return Err(Error::Refused(format!(
                "gradient times activation cancels here: what is read enters a layer norm alone, and a norm does not change when its input grows; use where={}, an earlier layer, or libra=true",
                Stage::BehindNorm.name()
            )));
        }
        let relevance = numbers(&self.relevance(&a, &g)?)?;
        let shown = relevance.into_iter().map(|r| if self.clamp { r.max(0.0) } else { r });
        let all: Vec<f64> = std::iter::repeat_n(0.0, skip).chain(shown).collect();
        of_layer(run, all, self.point.layer(run)?, Pool::Mean)
    }

    fn pixels(&self, model: &Facts) -> bool {
        model.staged() && !self.point.of_last_stage(model)
    }

    fn signed(&self) -> bool {
        !self.clamp
    }

    fn rules(&self) -> Vec<Rules> {
        if self.kind == Kind::Eigen {
            Vec::new()
        } else {
            vec![self.rules]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check;

    #[test]
    fn the_first_component_explains_most_variance() -> Result<()> {
        let a = check::random(&[7, 4], 3);
        let u = first_component(&a)?;
        let x = a.broadcast_sub(&a.mean_keepdim(0)?)?;
        // X X^T u = s^2 u with s = |u|, and no random direction has a longer image.
        let gram = x.matmul(&x.t()?.contiguous()?)?;
        let length = u.sqr()?.sum_all()?.to_scalar::<f64>()?;
        check::close(&gram.matmul(&u.unsqueeze(1)?)?.squeeze(1)?, &(&u * length)?, 1e-9);
        for seed in 0..20 {
            let v = check::random(&[7, 1], 100 + seed);
            let v = (&v / v.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())?;
            assert!(v.t()?.matmul(&gram.matmul(&v)?)?.sum_all()?.to_scalar::<f64>()? <= length + 1e-12);
        }
        let largest = u.to_vec1::<f64>()?.into_iter().max_by(|a, b| a.abs().total_cmp(&b.abs()));
        assert!(largest.is_some_and(|l| l > 0.0));
        Ok(())
    }
}
