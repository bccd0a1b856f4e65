//! What stands below a figure: what it shows, its colours with the numbers at their ends, and what is not in it.

use super::super::json::Record;
use super::super::legend::number;
use super::super::Scene;
use super::{Anchor, Figure};
use crate::error::Result;
use crate::explanation::{Explanation, Layout};

impl Figure {
    /// Writes it at a place, so many pixels wide, in letters of a height; answers where it ends.
    ///
    /// # Errors
    /// When the font cannot be read.
    pub fn legend(
        &mut self,
        scene: &Scene<'_>,
        e: &Explanation,
        (left, top): (f32, f32),
        (width, size): (f32, f32),
    ) -> Result<f32> {
        let range = scene.shared.unwrap_or_else(|| scene.style.range(e));
        self.fitted((left, top + size), size, width, &scene.caption)?;
        let (bar, height) = (top + 1.45 * size, 0.75 * size);
        self.bar((left, bar, width, height), scene.style.colormap_for(e));
        let mut under = bar + height + 1.15 * size;
        self.text((left, under), size, Anchor::Start, &number(range.low))?;
        self.text((left + width, under), size, Anchor::End, &number(range.high))?;
        for note in notes(scene, e) {
            under += 1.3 * size;
            self.fitted((left, under), size * 0.85, width, &note)?;
        }
        Ok(under + 0.5 * size)
    }
}

/// What of a text is not in its figure.
fn notes(scene: &Scene<'_>, e: &Explanation) -> Vec<String> {
    let share = match scene.record {
        Some(Record::Ok(done)) => done.relevance.special, // of all that was found, whatever part of it is drawn
        _ => e.special_share(),
    };
    let share = share.filter(|_| !scene.style.units.special);
    let hidden = share.map(|share| format!("Special tokens, not shown, hold {:.0} % of the relevance.", 100.0 * share));
    let cut = match &e.layout {
        Layout::Text(text) => text.truncation().or(text.windowed()).map(|cut| format!("Of the text, {cut}.")),
        Layout::Image(_) => None,
    };
    hidden.into_iter().chain(cut).collect()
}
