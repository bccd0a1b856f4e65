//! Texts that are longer than the model: windows that overlap are read one by one, and what is found of a token in each that holds it is
//! averaged.

use super::{reads, Answers, Asked, Nothing, Steps};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, TextLayout};
use crate::input::text::Tokenised;
use crate::input::Ready;
use crate::model::Task;
use crate::run::{Batch, Noise};
use crate::target::Output;

impl Asked<'_> {
    /// Explains a text of which there are windows. The model's logits are the mean over windows.
    pub(super) fn explain_windows(
        &self,
        text: &Tokenised,
        watch: &Steps<'_>,
        wanted: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Answers> {
        self.refuse()?;
        let memory = self.memory.map(|memory| memory.shared_by(text.windows.len()));
        let mut batches = Vec::new();
        for window in &text.windows {
            let (inputs, layouts) = self.model.inputs(&[Ready::Text(window.clone())])?;
            let batch = Batch::new(&self.model.encoder, inputs, layouts)?.watched(Box::new(watch)).within(memory);
            batches.push(batch.with_noise(Noise::seeded(self.seed)).reading(reads(self.methods)));
        }
        let logits = mean(&batches.iter().map(logits).collect::<Result<Vec<_>>>()?);
        let mut answers = Answers::default();
        for (number, request) in self.requests.iter().enumerate() {
            let methods: Vec<usize> = (0..self.methods.len()).filter(|m| wanted(number, *m)).collect();
            let outputs = request.resolve(&logits);
            if outputs.is_empty() && !methods.is_empty() {
                answers.nothing.push(Nothing { place: 0, request: number, note: self.why(request, &logits) });
            }
            for output in outputs {
                for &method in &methods {
                    let explained = || self.over(&batches, text, method, output);
                    self.answer(&mut answers, (0, number, method), output, (&logits, 0.0), explained)?;
                }
            }
        }
        Ok(answers)
    }

    /// What a method finds in each window, put together.
    fn over(&self, batches: &[Batch<'_>], text: &Tokenised, method: usize, output: Output) -> Result<Explanation> {
        let of = |batch: &Batch<'_>| self.methods[method].explain(&batch.pass(vec![output])?.run(0));
        let parts = batches.iter().map(of).collect::<Result<Vec<_>>>()?;
        merged(parts, &text.layout)
    }

    /// What needs the whole text in one pass.
    fn refuse(&self) -> Result<()> {
        let why =
            |what: &str| Err(Error::Input(format!("it is too long for one pass, and --stride is not for {what}")));
        match self.methods.iter().find(|m| m.matrix()) {
            Some(m) => why(&format!("the whole matrix of `{}`", m.spec)),
            None if self.row.is_some() => why("--row"),
            None if self.model.hypotheses().is_some() => why("classes that are hypotheses"),
            None if self.model.checkpoint.spec.task != Task::Whole => why("models that say something of each token"),
            None => Ok(()),
        }
    }
}

fn logits(batch: &Batch<'_>) -> Result<Vec<f32>> {
    Ok(batch.logits()?.first().cloned().unwrap_or_default())
}

/// The windows of an input, none where it fits into one pass.
pub(super) fn parts(one: &Ready) -> &[Tokenised] {
    match one {
        Ready::Text(text) => &text.windows,
        Ready::Picture(_) => &[],
    }
}

/// An input for what needs all of it in one pass.
///
/// # Errors
/// [`Error::Input`] for one in windows.
pub(super) fn whole<'a>(one: &'a Ready, what: &str) -> Result<&'a Ready> {
    if parts(one).is_empty() {
        return Ok(one);
    }
    Err(Error::Input(format!("it is too long for one pass, and --stride is not for {what}")))
}

/// Logits over windows.
pub(super) fn mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let classes = rows.first().map_or(0, Vec::len);
    let of = |class: usize| rows.iter().filter_map(|row| row.get(class)).map(|l| f64::from(*l)).sum::<f64>();
    (0..classes).map(|class| (of(class) / rows.len() as f64) as f32).collect()
}

/// The relevance of the whole text: of each token the mean over the windows that hold it; special tokens are in all of them.
fn merged(parts: Vec<Explanation>, whole: &TextLayout) -> Result<Explanation> {
    let fault = || Error::Fault("a window that is no part of its text".into());
    let (mut sums, mut counts) = (vec![0f64; whole.tokens.len()], vec![0u32; whole.tokens.len()]);
    for part in &parts {
        let Layout::Text(own) = &part.layout else { return Err(fault()) };
        let mut at = 0;
        for (token, relevance) in own.tokens.iter().zip(&part.relevance) {
            // Tokens keep their order; windows leave out some between the special ones.
            let place = whole.tokens[at..].iter().position(|t| t == token).map(|skipped| at + skipped);
            let place = place.ok_or_else(fault)?;
            (sums[place], counts[place], at) = (sums[place] + f64::from(*relevance), counts[place] + 1, place + 1);
        }
    }
    if counts.contains(&0) {
        return Err(fault());
    }
    let relevance = sums.iter().zip(&counts).map(|(sum, n)| (sum / f64::from(*n)) as f32).collect();
    let first = parts.into_iter().next().ok_or_else(fault)?;
    // What a method says of its own quality, it says of one window.
    Ok(Explanation { relevance, checks: Default::default(), layout: Layout::Text(whole.clone()), ..first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;

    #[test]
    fn tokens_of_several_windows_have_the_mean_of_what_is_found() {
        let token = |piece: &str, start: usize, special: bool| TextToken {
            piece: piece.into(),
            start,
            end: start + usize::from(!special),
            text: 0,
            word: (!special).then_some(start),
            special,
        };
        let all = [
            token("[CLS]", 0, true),
            token("a", 0, false),
            token("b", 1, false),
            token("a", 2, false),
            token("[SEP]", 0, true),
        ];
        let layout = |places: &[usize]| TextLayout {
            tokens: places.iter().map(|p| all[*p].clone()).collect(),
            texts: vec!["aba".into()],
            ..Default::default()
        };
        let part = |places: &[usize], relevance: &[f32]| Explanation {
            method: "test",
            params: Default::default(),
            output: Output::of(0),
            relevance: relevance.to_vec(),
            pixels: None,
            checks: Default::default(),
            layout: Layout::Text(layout(places)),
            matrix: false,
            signed: true,
        };
        let parts = vec![part(&[0, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0]), part(&[0, 2, 3, 4], &[3.0, 5.0, 7.0, 0.0])];
        let got = merged(parts, &layout(&[0, 1, 2, 3, 4])).unwrap();
        assert_eq!(got.relevance, [2.0, 2.0, 4.0, 7.0, 2.0]);
        assert_eq!(mean(&[vec![1.0, 3.0], vec![3.0, -1.0]]), [2.0, 1.0]);
        assert!(merged(vec![part(&[0, 1, 4], &[1.0; 3])], &layout(&[0, 1, 2, 4])).is_err());
    }
}
