//! Lines of maps of one input, side by side: a sheet of a picture, a table of a text.

use super::figure::Kind;
use super::scale::{SharedRanges, Span};
use super::sheet::{Row, Sheet};
use super::table::{self, Group};
use super::{svg, Scene, Style};
use crate::error::Result;
use crate::explanation::Explanation;

/// Pixels an inch that a map's usual width is meant for: in a PDF it is an inch and a half.
const PAPER: f32 = 150.0;

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
    /// As the ending of a file says, which of pictures is PNG where there is none: see below.
    ///
    /// # Errors
    /// Those of what is made.
    pub fn made(self, scene: &Scene<'_>, ending: Option<&str>, cell: Option<u32>) -> Result<Vec<u8>> {
        match (scene.picture, ending.and_then(Kind::of)) {
            (Some(_), kind) => self.picture(scene, cell, kind.unwrap_or(Kind::Png)),
            (None, Some(kind)) => self.written(scene, kind),
            (None, None) => Ok(self.table(ending, scene.style)?.into_bytes()),
        }
    }

    /// The maps over the scene's picture, each `width` pixels wide, or as wide as suits their number.
    ///
    /// # Errors
    /// As [`Sheet::render`].
    fn picture(self, scene: &Scene<'_>, width: Option<u32>, kind: Kind) -> Result<Vec<u8>> {
        let usual = if self.lines.len() > 4 { 128.0 } else { 224.0 };
        let paper = if kind == Kind::Pdf { scene.style.print.density(kind) / PAPER } else { 1.0 };
        let width = width.unwrap_or((usual * paper) as u32);
        let with_picture = !self.by_line || self.lines.len() == 1;
        let ranges = self.ranges(scene.style);
        let row = |(l, ranges): (Line, SharedRanges)| Row { ranges, label: l.label, maps: l.maps };
        let rows = self.lines.into_iter().zip(ranges).map(row).collect();
        Sheet { title: self.title, columns: self.columns, rows, with_picture }.render(scene, width, kind)
    }

    /// Texts as a figure: each line's label, and below it the words on their colours, column by column.
    ///
    /// # Errors
    /// As [`svg::written`].
    fn written(self, scene: &Scene<'_>, kind: Kind) -> Result<Vec<u8>> {
        let ranges = self.ranges(scene.style);
        let lines = self.lines.iter().zip(ranges).map(|(line, ranges)| {
            let maps = self.columns.iter().map(String::as_str).zip(&line.maps);
            (line.label.join(" "), ranges, maps.collect())
        });
        svg::texts(scene, &self.title, lines.collect(), kind)
    }

    /// Tokens in colour, as the ending of a file says: a page for `html`, with escape sequences for `ansi`, plain for others;
    /// without one as the style has it.
    ///
    /// # Errors
    /// For explanations that are not of texts.
    fn table(self, ending: Option<&str>, style: &Style) -> Result<String> {
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
