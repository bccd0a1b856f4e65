//! Texts that are longer than the model: windows that overlap are read one by one, and what is found of a token in each that holds it is
//! averaged.

use super::{reads, Answers, Asked, Nothing, Steps};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout, TextLayout};
use crate::input::text::{Tokenised, Window};
use crate::input::Ready;
use crate::model::Task;
use crate::run::{Batch, Noise};

impl Asked<'_> {
    /// Explains a text of which there are windows. The model's logits are the mean over windows.
    pub(super) fn explain_windows(
        &self,
        text: &Tokenised,
        watch: &Steps<'_>,
        wanted: &dyn Fn(usize, usize) -> bool,
    ) -> Result<Answers> {
        self.refuse()?;
        let rows = text.windows.iter().map(|window| self.over(window, watch)?.logits());
        let rows = rows.map(|rows| Ok(rows?.first().cloned().unwrap_or_default())).collect::<Result<Vec<_>>>()?;
        let logits = mean(&rows);
        let mut asked = Vec::new(); // request, method, output
        let mut answers = Answers::default();
        for (number, request) in self.requests.iter().enumerate() {
            let methods: Vec<usize> = (0..self.methods.len()).filter(|m| wanted(number, *m)).collect();
            let outputs = request.resolve(&logits);
            if outputs.is_empty() && !methods.is_empty() {
                answers.nothing.push(Nothing { place: 0, request: number, note: self.why(request, &logits) });
            }
            asked.extend(
                outputs.into_iter().flat_map(|output| methods.iter().map(move |method| (number, *method, output))),
            );
        }
        // One window after another, so that a long text takes no more memory than a short one.
        let mut found: Vec<Merging> = asked.iter().map(|_| Merging::of(text.layout.tokens.len())).collect();
        for window in &text.windows {
            let batch = self.over(window, watch)?;
            for ((_, method, output), merging) in asked.iter().zip(&mut found) {
                merging.add(self.methods[*method].explain(&batch.pass(vec![*output])?.run(0))?, &window.places)?;
            }
        }
        for ((number, method, output), merging) in asked.into_iter().zip(found) {
            let explained = || merging.whole(&text.layout);
            self.answer(&mut answers, (0, number, method), output, (&logits, 0.0), explained)?;
        }
        Ok(answers)
    }

    fn over<'b>(&'b self, window: &Window, watch: &'b Steps<'_>) -> Result<Batch<'b>> {
        let (inputs, layouts) = self.model.inputs(&[Ready::Text(window.part.clone())])?;
        let batch = Batch::new(&self.model.encoder, inputs, layouts)?.watched(Box::new(watch)).within(self.memory);
        Ok(batch.with_noise(Noise::seeded(self.seed)).reading(reads(self.methods)))
    }

    /// What needs the whole text in one pass.
    fn refuse(&self) -> Result<()> {
        let why = |what: &str| Err(too_long(what));
        match self.methods.iter().find(|m| m.matrix()) {
            Some(m) => why(&format!("the whole matrix of `{}`", m.spec)),
            None if self.row.is_some() => why("--row"),
            None if self.model.hypotheses().is_some() => why("classes that are hypotheses"),
            None if self.model.checkpoint.spec.task != Task::Whole => why("models that say something of each token"),
            None => Ok(()),
        }
    }
}

/// The windows of an input, none where it fits into one pass.
pub(super) fn parts(one: &Ready) -> &[Window] {
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
    Err(too_long(what))
}

fn too_long(what: &str) -> Error {
    Error::Input(format!("it is too long for one pass, and --stride is not for {what}"))
}

/// Logits over windows.
pub(super) fn mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let classes = rows.first().map_or(0, Vec::len);
    let of = |class: usize| rows.iter().filter_map(|row| row.get(class)).map(|l| f64::from(*l)).sum::<f64>();
    (0..classes).map(|class| (of(class) / rows.len() as f64) as f32).collect()
}

/// The relevance of a whole text: of each token the mean over the windows that hold it; special tokens are in all of them.
struct Merging {
    sums: Vec<f64>,
    counts: Vec<u32>,
    first: Option<Explanation>,
}

impl Merging {
    fn of(tokens: usize) -> Self {
        Merging { sums: vec![0.0; tokens], counts: vec![0; tokens], first: None }
    }

    /// Adds what is found in a window whose tokens have these places.
    fn add(&mut self, part: Explanation, places: &[usize]) -> Result<()> {
        for (&place, relevance) in places.iter().zip(&part.relevance) {
            let (Some(sum), Some(count)) = (self.sums.get_mut(place), self.counts.get_mut(place)) else {
                return Err(Error::Fault("a window that is no part of its text".into()));
            };
            *sum += f64::from(*relevance);
            *count += 1;
        }
        self.first.get_or_insert(part);
        Ok(())
    }

    fn whole(self, layout: &TextLayout) -> Result<Explanation> {
        let Some(first) = self.first.filter(|_| !self.counts.contains(&0)) else {
            return Err(Error::Fault("windows that leave out a part of their text".into()));
        };
        let relevance = self.sums.iter().zip(&self.counts).map(|(sum, n)| (sum / f64::from(*n)) as f32).collect();
        // What a method says of its own quality, it says of one window.
        Ok(Explanation { relevance, checks: Default::default(), layout: Layout::Text(layout.clone()), ..first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;
    use crate::target::Output;

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
        let merged = |parts: &[(&[usize], &[f32])]| {
            let mut merging = Merging::of(5);
            parts.iter().try_for_each(|(places, relevance)| merging.add(part(places, relevance), places))?;
            merging.whole(&layout(&[0, 1, 2, 3, 4]))
        };
        let got = merged(&[(&[0, 1, 2, 4], &[1.0, 2.0, 3.0, 4.0]), (&[0, 2, 3, 4], &[3.0, 5.0, 7.0, 0.0])]).unwrap();
        assert_eq!(got.relevance, [2.0, 2.0, 4.0, 7.0, 2.0]);
        assert!(merged(&[(&[0, 1, 4], &[1.0; 3])]).is_err());
        assert_eq!(mean(&[vec![1.0, 3.0], vec![3.0, -1.0]]), [2.0, 1.0]);
    }
}
