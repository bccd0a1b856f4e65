//! Lines of maps of one input, side by side: a sheet of a picture, a table of a text.

use super::scale::{SharedRanges, Span};
use super::sheet::{Row, Sheet};
use super::table::{self, Group};
use super::{Scene, Style};
use crate::error::Result;
use crate::explanation::Explanation;

/// A line of maps.
pub struct Line {
    /// At its left, line by line.
    pub label: Vec<String>,
    /// One a column.
    pub maps: Vec<Explanation>,
}

/// Lines of maps, a column a method or head.
pub struct Lines {
    /// Above everything.
    pub title: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// From top to bottom.
    pub lines: Vec<Line>,
    /// Each line has one scale of its own; else each map has, and with [`Span::Shared`] all have one.
    pub by_line: bool,
}

impl Lines {
    /// A PNG of the maps over the scene's picture, each `width` pixels wide, or as wide as suits their number.
    ///
    /// # Errors
    /// As [`Sheet::render`].
    pub fn picture(self, scene: &Scene<'_>, width: Option<u32>) -> Result<Vec<u8>> {
        let width = width.unwrap_or(if self.lines.len() > 4 { 128 } else { 224 });
        let with_picture = !self.by_line || self.lines.len() == 1;
        let ranges = self.ranges(scene.style);
        let row = |(l, ranges): (Line, SharedRanges)| Row { ranges, label: l.label, maps: l.maps };
        let rows = self.lines.into_iter().zip(ranges).map(row).collect();
        Sheet { title: self.title, columns: self.columns, rows, with_picture }.render(scene, width)
    }

    /// Tokens in colour, as the ending of a file says: a page for `html`, with escape sequences for `ansi`, plain for others;
    /// without one as the style has it.
    ///
    /// # Errors
    /// For explanations that are not of texts.
    pub fn table(self, ending: Option<&str>, style: &Style) -> Result<String> {
        let ranges = self.ranges(style);
        let group = |(l, ranges): (Line, SharedRanges)| Group {
            heading: l.label.join(" "),
            ranges,
            lines: self.columns.iter().cloned().zip(l.maps).collect(),
        };
        let groups: Vec<Group> = self.lines.into_iter().zip(ranges).map(group).collect();
        match ending {
            Some("html") => table::html(&self.title, &groups, style),
            Some(ending) => table::ansi(&groups, &Style { colour: ending == "ansi", ..style.clone() }),
            None => table::ansi(&groups, style),
        }
    }

    /// The scale of each line.
    fn ranges(&self, style: &Style) -> Vec<SharedRanges> {
        let all = SharedRanges::over(self.lines.iter().flat_map(|l| &l.maps), style.units);
        let of = |line: &Line| match (style.scale, self.by_line) {
            (Span::Shared, _) => all,
            (_, true) => SharedRanges::over(&line.maps, style.units),
            (_, false) => SharedRanges::default(),
        };
        self.lines.iter().map(of).collect()
    }
}
