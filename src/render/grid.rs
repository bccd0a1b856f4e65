//! A table of numbers as a coloured grid: how settings compare.

use super::colormap::Colormap;
use super::lettering::{draw_ink, draw_text, font, text_width};
use super::png;
use super::tokens::is_light;
use crate::error::Result;
use image::{DynamicImage, Rgb, RgbImage};

/// A grid of numbers with names.
#[derive(Debug)]
pub struct Grid {
    /// Above everything.
    pub title: String,
    /// Above each column.
    pub columns: Vec<String>,
    /// Name and numbers of each row; a missing number is left white.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

const TEXT: f32 = 14.0;
const LINE: u32 = 24;
const GAP: u32 = 10;

impl Grid {
    /// Draws it as PNG, least number darkest.
    ///
    /// # Errors
    /// When the font or the encoder fails.
    pub fn render(&self) -> Result<Vec<u8>> {
        let font = font()?;
        let widest = |names: &mut dyn Iterator<Item = &String>| {
            names.map(|n| text_width(&font, TEXT, n)).fold(0.0, f32::max).ceil() as u32
        };
        let left = 2 * GAP + widest(&mut self.rows.iter().map(|(n, _)| n));
        let cell = (widest(&mut self.columns.iter()) + GAP).max(64);
        let top = GAP + 2 * LINE;
        let title = text_width(&font, TEXT, &self.title).ceil() as u32 + 2 * GAP;
        let width = (left + cell * self.columns.len() as u32 + GAP).max(title);
        let mut canvas = RgbImage::from_pixel(width, top + LINE * self.rows.len() as u32 + GAP, Rgb([255; 3]));
        draw_text(&mut canvas, &font, TEXT, (GAP as f32, GAP as f32), &self.title);
        for (c, name) in self.columns.iter().enumerate() {
            let at = ((left + cell * c as u32 + GAP / 2) as f32, (top - LINE) as f32);
            draw_text(&mut canvas, &font, TEXT, at, name);
        }
        let numbers = || self.rows.iter().flat_map(|(_, r)| r.iter().flatten().copied()).filter(|v| v.is_finite());
        let (low, high) = (numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max));
        let colours = Colormap::Viridis.table();
        for (r, (name, values)) in self.rows.iter().enumerate() {
            let y = top + LINE * r as u32;
            draw_text(&mut canvas, &font, TEXT, (GAP as f32, (y + 3) as f32), name);
            for (c, value) in values.iter().enumerate() {
                let Some(value) = value.filter(|v| v.is_finite()) else { continue };
                let place = if high > low { (value - low) / (high - low) } else { 1.0 };
                let colour = colours[(place * 255.0).round() as usize];
                let x = left + cell * c as u32;
                for py in y..y + LINE - 1 {
                    for px in x..x + cell - 1 {
                        canvas.put_pixel(px, py, Rgb(colour));
                    }
                }
                let ink = if is_light(colour) { [0u8; 3] } else { [255; 3] };
                let text = format!("{value:.3}");
                draw_ink(&mut canvas, &font, TEXT, ((x + GAP / 2) as f32, (y + 3) as f32), &text, ink);
            }
        }
        png(DynamicImage::ImageRgb8(canvas))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_drawn_with_its_best_cell_brightest() {
        let grid = Grid {
            title: "metric".into(),
            columns: vec!["0".into(), "1".into()],
            rows: vec![("a".into(), vec![Some(0.1), Some(0.9)]), ("b".into(), vec![None, Some(f64::NAN)])],
        };
        let image = image::load_from_memory(&grid.render().unwrap()).unwrap().into_rgb8();
        let (right, y) = (image.width() - GAP - 4, GAP + 2 * LINE + 1);
        let luma = |x: u32, y: u32| image.get_pixel(x, y).0.iter().map(|v| u32::from(*v)).sum::<u32>();
        assert!(luma(right, y) > luma(right - 70, y));
        assert_eq!(luma(right, y + LINE), 3 * 255, "what is missing stays white");
    }
}
