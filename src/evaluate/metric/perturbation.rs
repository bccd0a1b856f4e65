//! Positive and negative perturbation: does the prediction survive when the most (least) relevant tenths are hidden?
//!
//! Chefer, Gur & Wolf, CVPR 2021. The first `floor(N i / 10)` of the N pixels, i = 1..9, in descending (`positive`) or
//! ascending (`negative`) order of relevance become black; of texts the ordinary tokens become the mask token (the padding
//! token where there is none). `value=hit` (default): 1 while the prediction is the explained class, as the authors' script
//! (of several labels at once: while the class's own probability is above 0.5; refused for models that give values);
//! `probability` and `logit` of the class otherwise. The figure is the area under the curve from 0 % to 90 %
//! (`auc=with-zero`, the authors' table); `nine`: from 10 %; `mean`: the plain mean of the nine points.
//!
//! `level=pixel` (default) ranks pixels of the enlarged map, as the authors; `patch` ranks patches. Positive: lower is
//! better; negative: higher is better.

use crate::error::Result;
use crate::evaluate::contract::{mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::{image_layout, patches, pixels, pixels_of, ranked, ranked_tokens, switched, trapezoid};
use crate::run::baseline::ImageBaseline;
use crate::run::{Measured, Params, Score as Value};
use crate::target::right;

pub(in crate::evaluate) const POSITIVE: Entry = Entry {
    name: "positive",
    title: "does the prediction fall when the most relevant tenths are hidden?",
    paper: "Chefer, Gur & Wolf, CVPR 2021",
    direction: Direction::Lower,
    images: true,
    texts: true,
    needs: Needs::Nothing,
    default: true,
    build: |params| build(params, true),
    pool: mean,
};

pub(in crate::evaluate) const NEGATIVE: Entry = Entry {
    name: "negative",
    title: "does the prediction stay when the least relevant tenths are hidden?",
    direction: Direction::Higher,
    build: |params| build(params, false),
    ..POSITIVE
};

struct Perturbation {
    descending: bool,
    pixels: bool,
    value: &'static str,
    auc: &'static str,
}

fn build(params: &mut Params, descending: bool) -> Result<Box<dyn Metric>> {
    let about = "hit: 1 while the prediction is the explained class; or the class's probability, or its logit";
    let value = params.choice("value", &["hit", "probability", "logit"], about)?;
    if value == "probability" {
        params.measured = Some(Measured { score: Value::Probability, asked: true });
    }
    let about = "with-zero: the area from 0 % to 90 %, nine: from 10 %, mean: the mean of the nine points";
    let auc = params.choice("auc", &["with-zero", "nine", "mean"], about)?;
    let level = params.choice("level", &["pixel", "patch"], "images: what is ranked and hidden")?;
    Ok(Box::new(Perturbation { descending, pixels: level == "pixel", value, auc }))
}

impl Perturbation {
    /// Logits at 10 % to 90 %.
    fn logits(&self, case: &Case<'_, '_>) -> Result<Vec<Vec<f64>>> {
        let subject = case.run.subject()?;
        let tenths = |n: usize, k: usize| n * (k + 1) / 10;
        if case.run.is_text() {
            let order = ranked_tokens(case, self.descending);
            let neutral = &case.run.encoder().neutral;
            let filler = neutral.mask_id.unwrap_or(neutral.pad_id);
            let variant = |k: usize| {
                let mut ids = subject.ids()?.to_vec();
                order[..tenths(order.len(), k)].iter().for_each(|&t| ids[t] = filler);
                Ok(ids)
            };
            return subject.logits(9, |range| subject.with_ids(&range.map(variant).collect::<Result<Vec<_>>>()?));
        }
        let image = subject.values()?;
        let black = ImageBaseline::Black.of(&image, case.run.encoder())?;
        let (size, layout) = (subject.size()?, image_layout(case.explanation)?);
        if self.pixels {
            let order = ranked(&pixels(case.explanation, size)?, self.descending);
            return switched(&subject, (&image, &black), 9, |k| order[..tenths(order.len(), k)].to_vec());
        }
        let order = ranked(&patches(case.explanation), self.descending);
        switched(&subject, (&image, &black), 9, |k| {
            order[..tenths(order.len(), k)].iter().flat_map(|&p| pixels_of(layout, size.1, p)).collect()
        })
    }

    fn value(&self, case: &Case<'_, '_>, logits: &[f64]) -> Result<f64> {
        let subject = case.run.subject()?;
        Ok(match self.value {
            "logit" => subject.score(Value::Logit, logits),
            "probability" => subject.score(Value::Probability, logits),
            _ => f64::from(u8::from(right(case.run.output().class, logits, case.run.encoder().head.scale))),
        })
    }
}

/// Shares that are hidden, a tenth apart.
fn tenths(first: usize) -> impl Iterator<Item = f64> {
    (first..10).map(|i| i as f64 / 10.0)
}

impl Metric for Perturbation {
    fn score(&self, case: &Case<'_, '_>) -> Result<Option<Score>> {
        let logits = self.logits(case)?;
        let mut curve = logits.iter().map(|row| self.value(case, row)).collect::<Result<Vec<_>>>()?;
        if self.auc == "mean" {
            let value = curve.iter().sum::<f64>() / curve.len() as f64;
            return Ok(Some(Score::of_curve(value, tenths(1).zip(curve))));
        }
        if self.auc == "with-zero" {
            let own = case.run.trace()?.logits.get(case.run.number())?;
            curve.insert(0, self.value(case, &crate::nn::numbers(&own)?)?);
        }
        let first = if self.auc == "with-zero" { 0 } else { 1 };
        Ok(Some(Score::of_curve(trapezoid(&curve), tenths(first).zip(curve))))
    }

    fn counts_hits(&self) -> bool {
        self.value == "hit"
    }

    fn convention(&self) -> String {
        let order = if self.descending { "most" } else { "least" };
        let what = if self.pixels { "pixels" } else { "patches" };
        let value = match self.value {
            "hit" => "accuracy",
            other => other,
        };
        let area = match self.auc {
            "with-zero" => "area from 0 % to 90 %",
            "nine" => "area from 10 % to 90 %",
            _ => "mean at 10 % to 90 %",
        };
        format!("{area} of the {value}, {order} relevant {what} black first (texts: tokens masked)")
    }

    fn axes(&self) -> Option<Axes> {
        let order = if self.descending { "most" } else { "least" };
        let what = if self.pixels { "pixels" } else { "patches" };
        let value = match self.value {
            "hit" => "accuracy",
            other => other,
        };
        Some(Axes::new(format!("share of {what} (texts: tokens) hidden, {order} relevant first"), value))
    }
}
