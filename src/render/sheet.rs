//! Contact sheets: maps side by side, with names, numbers and a colour bar, ready for a paper.

use super::legend::number;
use super::lettering::{draw_text, fitted, font, text_width};
use super::scale::SharedRanges;
use super::{heat, png, Scene};
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use crate::input::image::View;
use crate::input::resize::{resize, Filter};
use ab_glyph::FontRef;
use image::{imageops, DynamicImage, Rgb, RgbImage};

/// A row of maps drawn on one picture, with one colour bar a colour map.
#[derive(Debug)]
pub struct Row {
    /// Lines of text at the left.
    pub label: Vec<String>,
    /// The maps, one a column.
    pub maps: Vec<Explanation>,
    /// Scales that maps share; by default each has its own.
    pub ranges: SharedRanges,
}

/// A table of maps.
#[derive(Debug)]
pub struct Sheet {
    /// Above everything.
    pub title: String,
    /// Above each column of maps.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Show the bare picture before the first map of each row.
    pub with_picture: bool,
}

/// A picture at another width and height, and where the model's input then lies in it.
fn shrunk(picture: &RgbImage, v: View, (width, height): (u32, u32)) -> Result<(RgbImage, View)> {
    let small = resize(picture, height as usize, width as usize, Filter::Bilinear)?;
    let (fx, fy) = (f64::from(width) / f64::from(picture.width()), f64::from(height) / f64::from(picture.height()));
    Ok((small, View { x: v.x * fx, y: v.y * fy, width: v.width * fx, height: v.height * fy }))
}

/// PNG of an explanation over a small copy of its picture, `width` pixels wide.
///
/// # Errors
/// [`Error::Usage`] without a picture.
pub fn thumbnail(scene: &Scene<'_>, e: &Explanation, width: u32) -> Result<Vec<u8>> {
    let picture = scene.picture.ok_or_else(|| Error::Usage("a thumbnail needs a picture".into()))?;
    let height = (f64::from(width) * f64::from(picture.height()) / f64::from(picture.width())).round().max(1.0);
    let (small, view) = shrunk(picture, scene.view, (width, height as u32))?;
    let scene = Scene { picture: Some(&small), view, ..scene.clone() };
    png(DynamicImage::ImageRgb8(heat::blended(&scene, e)?))
}

/// Sizes in pixels that everything is laid out by.
struct Measures {
    cell: (u32, u32),
    text: f32,
    line: u32,
    gap: u32,
    label: u32,
    bars: u32,
}

impl Sheet {
    /// Draws the sheet as PNG, maps `width` pixels wide; `scene` gives picture, view and style.
    ///
    /// # Errors
    /// [`Error::Usage`] without a picture or a map.
    pub fn render(&self, scene: &Scene<'_>, width: u32) -> Result<Vec<u8>> {
        let picture =
            scene.picture.ok_or_else(|| Error::Usage("a contact sheet needs a picture; texts get a table".into()))?;
        let font = font()?;
        let m = self.measures(picture, width, &font);
        let (small, view) = shrunk(picture, scene.view, m.cell)?;

        let pictures = u32::from(self.with_picture);
        let columns = self.columns.len() as u32 + pictures;
        let left = m.gap + m.label;
        let top = m.gap + 3 * m.line + m.line / 2;
        let total = (left + columns * (m.cell.0 + m.gap) + m.bars, top + self.rows.len() as u32 * (m.cell.1 + m.gap));
        let mut canvas = RgbImage::from_pixel(total.0, total.1, Rgb([255; 3]));
        let room = (total.0 - 2 * m.gap) as f32;
        draw_text(&mut canvas, &font, m.text, (m.gap as f32, m.gap as f32), &fitted(&font, m.text, &self.title, room));

        let x = |column: u32| left + column * (m.cell.0 + m.gap);
        let heads = std::iter::repeat_n("picture", pictures as usize).chain(self.columns.iter().map(String::as_str));
        for (column, head) in heads.enumerate() {
            let place = (x(column as u32) as f32, (top - m.line - m.line / 4) as f32);
            draw_text(&mut canvas, &font, m.text, place, &fitted(&font, m.text, head, (m.cell.0 + m.gap / 2) as f32));
        }
        for (r, row) in self.rows.iter().enumerate() {
            let y = top + r as u32 * (m.cell.1 + m.gap);
            for (i, line) in row.label.iter().enumerate() {
                let place = (m.gap as f32, (y + i as u32 * m.line) as f32);
                draw_text(&mut canvas, &font, m.text, place, line);
            }
            if self.with_picture {
                imageops::replace(&mut canvas, &small, i64::from(x(0)), i64::from(y));
            }
            for (c, map) in row.maps.iter().enumerate() {
                let shared = row.ranges.of(map);
                let cell = Scene { picture: Some(&small), view, shared, ..scene.clone() };
                let place = (i64::from(x(c as u32 + pictures)), i64::from(y));
                imageops::replace(&mut canvas, &heat::blended(&cell, map)?, place.0, place.1);
            }
            self.bars(&mut canvas, &font, &m, (x(columns), y), row, scene);
        }
        png(DynamicImage::ImageRgb8(canvas))
    }

    fn measures(&self, picture: &RgbImage, width: u32, font: &FontRef<'_>) -> Measures {
        let text = (width as f32 / 14.0).clamp(11.0, 40.0);
        let height =
            (f64::from(width) * f64::from(picture.height()) / f64::from(picture.width())).round().max(1.0) as u32;
        let lines = self.rows.iter().flat_map(|r| &r.label);
        let label = lines.map(|l| text_width(font, text, l)).fold(0.0, f32::max).ceil() as u32;
        Measures {
            cell: (width, height),
            text,
            line: (text * 1.3).ceil() as u32,
            gap: (width / 16).max(6),
            label: label + (width / 16).max(6),
            bars: (text * 9.0) as u32,
        }
    }

    /// The colour bars of a row: one for unsigned maps, one for signed ones, with the values their ends stand for.
    fn bars(
        &self,
        canvas: &mut RgbImage,
        font: &FontRef<'_>,
        m: &Measures,
        (x, y): (u32, u32),
        row: &Row,
        scene: &Scene<'_>,
    ) {
        let kinds: Vec<&Explanation> =
            [false, true].iter().filter_map(|s| row.maps.iter().find(|e| e.signed == *s)).collect();
        let height = m.cell.1 / kinds.len().max(1) as u32;
        for (i, map) in kinds.iter().enumerate() {
            let colours = scene.style.colormap_for(map).table();
            let (top, bottom) = (y + i as u32 * height, y + (i as u32 + 1) * height - m.gap / 3);
            let width = (m.text * 0.8) as u32;
            for py in top..bottom {
                let place = 1.0 - (py - top) as f32 / (bottom - top).max(1) as f32;
                for px in x..x + width {
                    canvas.put_pixel(px, py, Rgb(colours[(place * 255.0) as usize]));
                }
            }
            let (low, high) = match row.ranges.of(map) {
                Some(range) => (number(range.low), number(range.high)),
                None if map.signed => ("against".into(), "for".into()),
                None => ("least".to_string(), "most".to_string()),
            };
            let at = (x + width) as f32 + m.text * 0.4;
            draw_text(canvas, font, m.text * 0.9, (at, top as f32), &high);
            draw_text(canvas, font, m.text * 0.9, (at, bottom as f32 - m.text), &low);
        }
    }
}
