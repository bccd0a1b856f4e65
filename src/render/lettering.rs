//! Text in pictures, from the font inside the program.

use crate::error::{Error, Result};
use ab_glyph::{point, Font, FontRef, GlyphId, PxScale, ScaleFont};
use image::{Rgb, RgbImage};

/// The bytes of the font.
pub(super) const FONT: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-subset.ttf");
const INK: [u8; 3] = [30, 30, 30];

/// The font: DejaVu Sans, Latin, Greek and Cyrillic letters.
pub fn font() -> Result<FontRef<'static>> {
    FontRef::try_from_slice(FONT).map_err(|e| Error::Input(format!("the built-in font: {e}")))
}

/// The font's picture of a character, if it has one.
pub(super) fn builtin(font: &FontRef<'_>, c: char) -> Option<GlyphId> {
    Some(font.glyph_id(c)).filter(|glyph| glyph.0 != 0)
}

/// The text, cut off with an ellipsis where it is wider than `room` pixels.
pub fn fitted(font: &FontRef<'_>, size: f32, text: &str, room: f32) -> String {
    if text_width(font, size, text) <= room {
        return text.to_string();
    }
    let mut short = text.to_string();
    while !short.is_empty() && text_width(font, size, &format!("{short}…")) > room {
        short.pop();
    }
    format!("{short}…")
}

/// The scale at which the font's letters are as large as a figure has them, whose sizes are those of CSS: an em, and not from the highest
/// to the lowest of all letters.
pub fn em(font: &FontRef<'_>, size: f32) -> f32 {
    size * font.height_unscaled() / font.units_per_em().unwrap_or(1000.0)
}

/// Width of one line in pixels, 1 at least.
pub fn text_width(font: &FontRef<'_>, size: f32, text: &str) -> f32 {
    let scaled = font.as_scaled(PxScale::from(size));
    text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c))).sum::<f32>().max(1.0)
}

/// Draws one line in dark ink with its upper left corner at the given place.
pub fn draw_text(canvas: &mut RgbImage, font: &FontRef<'_>, size: f32, place: (f32, f32), text: &str) {
    draw_ink(canvas, font, size, place, text, INK);
}

/// The same in another colour.
pub fn draw_ink(canvas: &mut RgbImage, font: &FontRef<'_>, size: f32, (x, y): (f32, f32), text: &str, ink: [u8; 3]) {
    let scaled = font.as_scaled(PxScale::from(size));
    let mut pen = x;
    for c in text.chars() {
        let id = scaled.glyph_id(c);
        let glyph = id.with_scale_and_position(size, point(pen, y + scaled.ascent()));
        pen += scaled.h_advance(id);
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let bounds = outline.px_bounds();
        outline.draw(|dx, dy, coverage| {
            let (px, py) = (bounds.min.x as i64 + i64::from(dx), bounds.min.y as i64 + i64::from(dy));
            let inside = px >= 0 && py >= 0 && px < i64::from(canvas.width()) && py < i64::from(canvas.height());
            if inside {
                let under = canvas.get_pixel(px as u32, py as u32).0;
                let mix = |c: usize| (f32::from(under[c]) * (1.0 - coverage) + f32::from(ink[c]) * coverage) as u8;
                canvas.put_pixel(px as u32, py as u32, Rgb([mix(0), mix(1), mix(2)]));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_draws_letters() {
        let mut canvas = RgbImage::from_pixel(40, 20, Rgb([255; 3]));
        draw_text(&mut canvas, &font().unwrap(), 16.0, (2.0, 1.0), "Äg");
        assert!(canvas.pixels().filter(|p| p.0[0] < 128).count() > 20);
    }

    #[test]
    fn long_text_is_cut_to_its_room() {
        let font = font().unwrap();
        let short = fitted(&font, 12.0, "a very long label indeed", 60.0);
        assert!(short.ends_with('…') && text_width(&font, 12.0, &short) <= 60.0, "{short}");
        assert_eq!(fitted(&font, 12.0, "cat", 60.0), "cat");
    }
}
