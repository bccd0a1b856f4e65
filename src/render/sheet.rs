//! Contact sheets: maps side by side, with names, numbers and colour bars, ready for a paper.

use super::figure::{Anchor, Figure, Kind};
use super::legend::number;
use super::lettering::{em, fitted, font, text_width};
use super::scale::SharedRanges;
use super::{heat, png, Scene};
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use crate::input::image::View;
use crate::input::resize::{resize, Filter};
use ab_glyph::FontRef;
use image::{DynamicImage, RgbImage};

/// A row of maps drawn on one picture.
#[derive(Debug)]
pub struct Row {
    /// Lines of text at the left.
    pub label: Vec<String>,
    /// The maps, one a column.
    pub maps: Vec<Explanation>,
    /// Scales that maps share: they have one colour bar a colour map. By default each has its own, and a bar of its own.
    pub ranges: SharedRanges,
}

/// A table of maps.
#[derive(Debug)]
pub struct Sheet {
    /// Above everything, where the style has no title.
    pub title: String,
    /// Above each column of maps.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Show the bare picture before the first map of each row.
    pub with_picture: bool,
}

/// A picture at another width, and where the model's input then lies in it.
pub(super) fn scaled(picture: &RgbImage, v: View, width: u32) -> Result<(RgbImage, View)> {
    let height = (f64::from(width) * f64::from(picture.height()) / f64::from(picture.width())).round().max(1.0) as u32;
    let scaled = resize(picture, height as usize, width as usize, Filter::Bilinear)?;
    let (fx, fy) = (f64::from(width) / f64::from(picture.width()), f64::from(height) / f64::from(picture.height()));
    Ok((scaled, View { x: v.x * fx, y: v.y * fy, width: v.width * fx, height: v.height * fy }))
}

/// PNG of an explanation over a small copy of its picture, `width` pixels wide.
///
/// # Errors
/// [`Error::Usage`] without a picture.
pub fn thumbnail(scene: &Scene<'_>, e: &Explanation, width: u32) -> Result<Vec<u8>> {
    let picture = scene.picture.ok_or_else(|| Error::Usage("a thumbnail needs a picture".into()))?;
    let (small, view) = scaled(picture, scene.view, width)?;
    let scene = Scene { picture: Some(&small), view, ..scene.clone() };
    png(DynamicImage::ImageRgb8(heat::blended(&scene, e)?))
}

/// A line of cells: maps of a row from one column to another.
struct Line<'a> {
    row: &'a Row,
    from: usize,
    to: usize,
}

/// Sizes in pixels that everything is laid out by.
struct Measures {
    /// Width and height of a map.
    cell: (f32, f32),
    /// Height of letters.
    text: f32,
    gap: f32,
    /// Left end of the first cell.
    left: f32,
    /// From the top of a line of maps to the next.
    down: f32,
    /// Names stand above each line of maps, and not only above the first.
    named: bool,
    /// Maps have bars of their own below them.
    barred: bool,
}

impl Sheet {
    /// Draws the sheet, maps `width` pixels wide; `scene` gives picture, view and style.
    ///
    /// # Errors
    /// [`Error::Usage`] without a picture.
    pub fn render(&self, scene: &Scene<'_>, width: u32, kind: Kind) -> Result<Vec<u8>> {
        let picture =
            scene.picture.ok_or_else(|| Error::Usage("a contact sheet needs a picture; texts get a table".into()))?;
        let (print, font) = (&scene.style.print, font()?);
        let (small, view) = scaled(picture, scene.view, width)?;
        let scene = Scene { picture: Some(&small), view, ..scene.clone() };
        let maps = self.columns.len().max(1);
        let together = print.columns.unwrap_or(maps).clamp(1, maps);
        let lines: Vec<Line<'_>> = self.rows.iter().flat_map(|row| parts(row, together)).collect();
        let letters = print.letters(kind, (width as f32 / 14.0).clamp(11.0, 40.0));
        if print.letters.is_some() {
            print.readable(letters, width as f32, 6.0, "--cell")?; // of numbers at both ends of a bar
        }
        let m = self.measures(&font, letters, (small.width() as f32, small.height() as f32), together < maps);
        let title = print.title().unwrap_or(&self.title);
        let mut figure = Figure::new(title);
        let cells = together + usize::from(self.with_picture);
        let right = m.left + cells as f32 * (m.cell.0 + m.gap);
        figure.fitted((m.gap, m.gap + m.text), m.text, right - 2.0 * m.gap, title)?;
        let mut top = m.gap + 1.6 * m.text;
        let mut beyond = 0f32; // what bars at the right take
        for (number, line) in lines.iter().enumerate() {
            if m.named || number == 0 {
                top += 1.4 * m.text;
                self.names(&mut figure, &font, &m, line, top)?;
                top += 0.4 * m.text;
            }
            self.line(&mut figure, &scene, &m, line, top)?;
            beyond = beyond.max(bars(&mut figure, &font, &scene, &m, (line.row, right, top))?);
            top += m.down;
        }
        figure.written((right + beyond, top), print, kind)
    }

    fn measures(&self, font: &FontRef<'_>, text: f32, cell: (f32, f32), named: bool) -> Measures {
        let gap = (cell.0 / 16.0).max(6.0);
        let lines = self.rows.iter().flat_map(|r| &r.label).filter(|line| !line.is_empty());
        let label = lines.map(|l| text_width(font, em(font, text), l) + gap).fold(0.0, f32::max).ceil();
        let barred = self.rows.iter().flat_map(|r| r.maps.iter().map(|map| r.ranges.of(map))).any(|r| r.is_none());
        let high = self.rows.iter().map(|row| row.label.len()).max().unwrap_or(0) as f32 * 1.3 * text;
        let down = gap + high.max(cell.1 + if barred { 1.7 * text } else { 0.0 });
        Measures { cell, text, gap, left: gap + label, down, named, barred }
    }

    /// The names of a line's cells, on a base line.
    fn names(&self, figure: &mut Figure, font: &FontRef<'_>, m: &Measures, line: &Line<'_>, base: f32) -> Result<()> {
        let own = self.columns.get(line.from..line.to).unwrap_or_default().iter().map(String::as_str);
        let names = self.with_picture.then_some("picture").into_iter().chain(own);
        for (place, name) in names.enumerate() {
            let name = fitted(font, em(font, m.text), name, m.cell.0 + m.gap / 2.0);
            figure.text((m.x(place), base), m.text, Anchor::Start, &name)?;
        }
        Ok(())
    }

    fn line(
        &self,
        figure: &mut Figure,
        scene: &Scene<'_>,
        m: &Measures,
        Line { row, from, to }: &Line<'_>,
        top: f32,
    ) -> Result<()> {
        if *from == 0 {
            for (number, text) in row.label.iter().enumerate() {
                figure.text((m.gap, top + m.text * (1.0 + 1.3 * number as f32)), m.text, Anchor::Start, text)?;
            }
        }
        if let Some(picture) = scene.picture.filter(|_| self.with_picture) {
            figure.picture((m.x(0), top), m.cell, picture.clone())?;
        }
        for (place, map) in row.maps.get(*from..*to).unwrap_or_default().iter().enumerate() {
            let x = m.x(place + usize::from(self.with_picture));
            let shared = row.ranges.of(map);
            let cell = Scene { shared, ..scene.clone() };
            figure.picture((x, top), m.cell, heat::blended(&cell, map)?)?;
            if shared.is_none() && m.barred {
                let range = scene.style.range(map);
                let size = 0.8 * m.text;
                let under = top + m.cell.1 + 0.2 * m.text;
                figure.bar((x, under, m.cell.0, 0.4 * m.text), scene.style.colormap_for(map));
                figure.text((x, under + 0.5 * m.text + size), size, Anchor::Start, &number(range.low))?;
                figure.text((x + m.cell.0, under + 0.5 * m.text + size), size, Anchor::End, &number(range.high))?;
            }
        }
        Ok(())
    }
}

impl Measures {
    /// Left end of a cell.
    fn x(&self, place: usize) -> f32 {
        self.left + place as f32 * (self.cell.0 + self.gap)
    }
}

/// The lines of a row, so many maps together.
fn parts(row: &Row, together: usize) -> impl Iterator<Item = Line<'_>> {
    let maps = row.maps.len();
    (0..maps.max(1)).step_by(together).map(move |from| Line { row, from, to: (from + together).min(maps) })
}

/// The colour bars of maps that share a scale, one for the unsigned and one for the signed, with the numbers at their ends; how wide they
/// are.
fn bars(
    figure: &mut Figure,
    font: &FontRef<'_>,
    scene: &Scene<'_>,
    m: &Measures,
    (row, x, y): (&Row, f32, f32),
) -> Result<f32> {
    let kinds = [false, true].iter().filter_map(|signed| {
        let map = row.maps.iter().find(|e| e.signed == *signed)?;
        Some((map, row.ranges.of(map)?))
    });
    let kinds: Vec<_> = kinds.collect();
    let each = m.cell.1 / kinds.len().max(1) as f32;
    let (width, size) = (m.text * 0.8, m.text * 0.9);
    let mut wide = 0f32;
    for (place, (map, range)) in kinds.into_iter().enumerate() {
        let (top, height) = (y + place as f32 * each, each - m.gap / 3.0);
        figure.bar((x, top, width, height), scene.style.colormap_for(map));
        let beside = x + width + m.text * 0.4;
        for (value, base) in [(range.high, top + size), (range.low, top + height)] {
            let value = number(value);
            figure.text((beside, base), size, Anchor::Start, &value)?;
            wide = wide.max(width + m.text * 0.4 + text_width(font, em(font, size), &value) + m.gap);
        }
    }
    Ok(wide)
}
