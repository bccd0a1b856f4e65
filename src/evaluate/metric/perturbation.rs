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
use crate::evaluate::contract::{answered, mean, Axes, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::{image_layout, patches, pixels, ranked, ranked_tokens, trapezoid};
use crate::run::baseline::ImageBaseline;
use crate::run::modes::name_of;
use crate::run::removal::{pixels_of, replaced, switched};
use crate::run::{Ask, Logits, Measured, Params, Score as Value};
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

/// What is measured while more and more is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Hit,
    Of(Value),
}

impl Kept {
    const NAMES: &'static [(&'static str, Self)] =
        &[("hit", Kept::Hit), ("probability", Kept::Of(Value::Probability)), ("logit", Kept::Of(Value::Logit))];

    /// On axes.
    fn said(self) -> &'static str {
        match self {
            Kept::Hit => "accuracy",
            Kept::Of(value) => name_of(Value::NAMES, value),
        }
    }
}

/// Which points of the curve make the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    WithZero,
    Nine,
    Mean,
}

impl Area {
    const NAMES: &'static [(&'static str, Self)] =
        &[("with-zero", Area::WithZero), ("nine", Area::Nine), ("mean", Area::Mean)];
}

/// What of an image is ranked and hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Pixel,
    Patch,
}

impl Level {
    const NAMES: &'static [(&'static str, Self)] = &[("pixel", Level::Pixel), ("patch", Level::Patch)];

    fn plural(self) -> &'static str {
        match self {
            Level::Pixel => "pixels",
            Level::Patch => "patches",
        }
    }
}

struct Perturbation {
    descending: bool,
    level: Level,
    value: Kept,
    area: Area,
}

fn build(params: &mut Params, descending: bool) -> Result<Box<dyn Metric>> {
    let about = "hit: 1 while the prediction is the explained class; or the class's probability, or its logit";
    let value = params.one_of("value", Kept::NAMES, about)?;
    if value == Kept::Of(Value::Probability) {
        params.measured = Some(Measured { score: Value::Probability, asked: true });
    }
    let about = "with-zero: the area from 0 % to 90 %, nine: from 10 %, mean: the mean of the nine points";
    let area = params.one_of("auc", Area::NAMES, about)?;
    let level = params.one_of("level", Level::NAMES, "images: what is ranked and hidden")?;
    Ok(Box::new(Perturbation { descending, level, value, area }))
}

/// How many of `n` are hidden at point k of nine.
fn hidden(n: usize, k: usize) -> usize {
    n * (k + 1) / 10
}

/// Shares that are hidden, a tenth apart.
fn tenths(first: usize) -> impl Iterator<Item = f64> {
    (first..10).map(|i| i as f64 / 10.0)
}

impl Perturbation {
    /// A text with 10 % to 90 % of its tokens masked.
    fn texts<'a>(&self, case: &'a Case<'_, '_>) -> Result<Ask<'a>> {
        let (subject, order) = (case.run.subject()?, ranked_tokens(case, self.descending));
        let neutral = &case.run.encoder().neutral;
        let filler = neutral.mask_id.unwrap_or(neutral.pad_id);
        let sets = (0..9).map(|k| order[..hidden(order.len(), k)].to_vec()).collect();
        Ok(replaced(&subject, filler, sets))
    }

    /// An image with 10 % to 90 % of it black.
    fn images<'a>(&self, case: &'a Case<'_, '_>) -> Result<Ask<'a>> {
        let (subject, layout) = (case.run.subject()?, image_layout(case.explanation)?);
        let (image, size) = (subject.values()?, subject.size()?);
        let black = ImageBaseline::Black.of(&image, case.run.encoder())?;
        let ends = (&image, &black);
        match self.level {
            Level::Pixel => {
                let order = ranked(&pixels(case.explanation, size)?, self.descending);
                switched(subject, ends, 9, move |k| order[..hidden(order.len(), k)].to_vec())
            }
            Level::Patch => {
                let order = ranked(&patches(case.explanation), self.descending);
                switched(subject, ends, 9, move |k| {
                    order[..hidden(order.len(), k)].iter().flat_map(|&p| pixels_of(layout, size.1, p)).collect()
                })
            }
        }
    }

    fn value(&self, case: &Case<'_, '_>, logits: &[f64]) -> f64 {
        match self.value {
            Kept::Hit => f64::from(u8::from(right(case.run.output().class, logits, case.run.encoder().head.scale))),
            Kept::Of(value) => case.run.score(value, logits),
        }
    }

    fn order(&self) -> &'static str {
        if self.descending {
            "most"
        } else {
            "least"
        }
    }
}

impl Metric for Perturbation {
    fn asks<'a>(&'a self, case: &'a Case<'_, '_>) -> Result<Vec<Ask<'a>>> {
        Ok(vec![if case.run.is_text() { self.texts(case)? } else { self.images(case)? }])
    }

    fn score(&self, case: &Case<'_, '_>, answers: &[Logits]) -> Result<Option<Score>> {
        let [answer] = answered(answers)?;
        let mut curve: Vec<f64> = answer.iter().map(|row| self.value(case, row)).collect();
        let (value, first) = match self.area {
            Area::Mean => (curve.iter().sum::<f64>() / curve.len() as f64, 1),
            Area::Nine => (trapezoid(&curve), 1),
            Area::WithZero => {
                curve.insert(0, self.value(case, &case.run.own_logits()?));
                (trapezoid(&curve), 0)
            }
        };
        Ok(Some(Score::of_curve(value, tenths(first).zip(curve))))
    }

    fn counts_hits(&self) -> bool {
        self.value == Kept::Hit
    }

    fn convention(&self) -> String {
        let (order, what, value) = (self.order(), self.level.plural(), self.value.said());
        let area = match self.area {
            Area::WithZero => "area from 0 % to 90 %",
            Area::Nine => "area from 10 % to 90 %",
            Area::Mean => "mean at 10 % to 90 %",
        };
        format!("{area} of the {value}, {order} relevant {what} black first (texts: tokens masked)")
    }

    fn axes(&self) -> Option<Axes> {
        let (order, what) = (self.order(), self.level.plural());
        let x = format!("share of {what} (texts: tokens) hidden, {order} relevant first");
        Some(Axes::new(x, self.value.said()))
    }
}
