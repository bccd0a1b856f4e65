//! What is compared: methods, and the controls that stand in every table.

use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout};
use crate::identity::of_bytes;
use crate::method::{parse, Configured};
use crate::nn::numbers;
use crate::run::{Reads, Run};

/// A way to explain, or to seem to.
pub enum Candidate {
    /// A method.
    Method(Configured),
    /// Uniform random relevance, other numbers for every input and class: what any faithful method must beat.
    Random,
    /// A Gaussian around the middle of the picture or text, deviation a quarter of its sides: what pictures' composition
    /// alone is worth.
    Gaussian,
}

impl Candidate {
    /// In tables.
    pub fn name(&self) -> &str {
        match self {
            Candidate::Method(method) => &method.spec,
            Candidate::Random => "(random)",
            Candidate::Gaussian => "(centre gaussian)",
        }
    }

    /// Whether it is a control.
    pub fn is_control(&self) -> bool {
        !matches!(self, Candidate::Method(_))
    }

    /// The number of the random control among others; 0 where there is none.
    pub fn random(all: &[Candidate]) -> usize {
        all.iter().position(|c| matches!(c, Candidate::Random)).unwrap_or(0)
    }

    /// What a table compares: these methods, raw attention beside them where the model has it, and the controls.
    ///
    /// # Errors
    /// [`Error::Usage`] for a method that gives a whole matrix.
    pub fn judged(mut methods: Vec<Configured>, model: &Facts) -> Result<Vec<Candidate>> {
        if !methods.iter().any(|m| m.spec == "attention") {
            methods.extend(Some(parse("attention")?).filter(|raw| raw.check(model).is_ok()));
        }
        if let Some(m) = methods.iter().find(|m| m.matrix()) {
            return Err(Error::Usage(format!("method `{}`: a whole matrix cannot be judged", m.spec)));
        }
        Ok(methods.into_iter().map(Candidate::Method).chain([Candidate::Gaussian, Candidate::Random]).collect())
    }

    /// Whether its map changes with the class.
    pub fn class_specific(&self) -> bool {
        matches!(self, Candidate::Method(m) if m.entry.class_specific)
    }

    /// Whether both are one method with the same parameters in force, however they were written.
    pub fn same_method(&self, other: &Candidate) -> bool {
        match (self, other) {
            (Candidate::Method(a), Candidate::Method(b)) => a.entry.name == b.entry.name && a.params == b.params,
            _ => false,
        }
    }

    /// What it reads of the passes.
    pub fn reads(&self) -> Reads {
        match self {
            Candidate::Method(method) => method.method.reads(),
            Candidate::Random | Candidate::Gaussian => Reads::Logits,
        }
    }

    /// Explains one input.
    ///
    /// # Errors
    /// The method's own.
    pub fn explain(&self, run: &Run<'_>) -> Result<Explanation> {
        match self {
            Candidate::Method(method) => method.explain(run),
            Candidate::Random => {
                let stream = format!("control-{}-{}", contents(run)?, run.output().class);
                let relevance = numbers(&run.noise().uniform(&stream, &[run.tokens()])?)?;
                control("random", relevance, run)
            }
            Candidate::Gaussian => control("centre-gaussian", gaussian(run.layout()), run),
        }
    }
}

/// Tells an input's stream of random numbers from another's: what the model reads of it, so that the control is the same on
/// every processor (a logit's last bits are not).
fn contents(run: &Run<'_>) -> Result<String> {
    let subject = run.subject()?;
    let bytes: Vec<u8> = match subject.ids() {
        Ok(ids) => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        Err(_) => numbers(&subject.values()?)?.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
    };
    Ok(of_bytes(&bytes))
}

fn control(method: &'static str, relevance: Vec<f64>, run: &Run<'_>) -> Result<Explanation> {
    let explanation = Explanation {
        method,
        params: Default::default(),
        output: run.output(),
        relevance: relevance.into_iter().map(|r| r as f32).collect(),
        pixels: None,
        checks: Default::default(),
        layout: run.layout().clone(),
        matrix: false,
        signed: false,
    };
    explanation.checked()
}

/// Relevance by distance from the middle, `[T]`; prefix tokens 0.
fn gaussian(layout: &Layout) -> Vec<f64> {
    let fall = |i: usize, n: usize| {
        let away = ((i as f64 + 0.5) / n as f64 - 0.5) / 0.25;
        (-0.5 * away * away).exp()
    };
    match layout {
        Layout::Text(text) => (0..text.tokens.len()).map(|t| fall(t, text.tokens.len())).collect(),
        Layout::Image(image) => {
            let (rows, columns) = image.grid;
            let patches = (0..rows * columns).map(|p| fall(p / columns, rows) * fall(p % columns, columns));
            std::iter::repeat_n(0.0, image.prefix.len()).chain(patches).collect()
        }
    }
}
