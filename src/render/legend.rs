//! A strip below the picture: caption, colour bar, and the relevance its ends stand for.

use super::Scene;
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use ab_glyph::{point, Font, FontRef, PxScale, ScaleFont};
use image::{imageops, Rgb, RgbImage};

const FONT: &[u8] = include_bytes!("../../assets/fonts/DejaVuSans-subset.ttf");
const INK: [u8; 3] = [30, 30, 30];

/// The canvas with a legend below it.
pub fn below(canvas: &RgbImage, scene: &Scene<'_>, e: &Explanation) -> Result<RgbImage> {
    let font = FontRef::try_from_slice(FONT).map_err(|e| Error::Input(format!("legend font: {e}")))?;
    let width = canvas.width();
    let mut size = (width as f32 / 26.0).clamp(9.0, 48.0);
    let room = width as f32 - size;
    // A long caption shrinks to fit rather than being cut off.
    size *= (room / text_width(&font, size, &scene.caption)).clamp(0.35, 1.0);
    let line = (size * 1.45).ceil() as u32;
    let mut out = RgbImage::from_pixel(width, canvas.height() + 3 * line + line / 2, Rgb([255; 3]));
    imageops::replace(&mut out, canvas, 0, 0);

    let margin = size / 2.0;
    let top = canvas.height() + line / 4;
    draw_text(&mut out, &font, size, (margin, top as f32), &scene.caption);
    let range = scene.shared.unwrap_or_else(|| scene.style.scale.range(e));
    let colours = scene.style.colormap_for(e).table();
    let (left, right) = (margin as u32, width.saturating_sub(margin as u32).max(margin as u32 + 1));
    for y in top + line..top + line + line * 3 / 4 {
        for x in left..right {
            let place = (x - left) as f32 / (right - left) as f32;
            out.put_pixel(x, y, Rgb(colours[(place * 255.0) as usize]));
        }
    }
    let under = (top + line * 7 / 4) as f32 + size * 0.1;
    let high = number(range.high);
    draw_text(&mut out, &font, size, (margin, under), &number(range.low));
    draw_text(&mut out, &font, size, (right as f32 - text_width(&font, size, &high), under), &high);
    Ok(out)
}

/// Three significant digits.
fn number(value: f32) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 8) as usize;
    if value.abs() < 1e-3 {
        format!("{value:.2e}")
    } else {
        format!("{value:.digits$}")
    }
}

fn text_width(font: &FontRef<'_>, size: f32, text: &str) -> f32 {
    let scaled = font.as_scaled(PxScale::from(size));
    text.chars().map(|c| scaled.h_advance(scaled.glyph_id(c))).sum::<f32>().max(1.0)
}

/// Draws one line with its upper left corner at the given place.
fn draw_text(canvas: &mut RgbImage, font: &FontRef<'_>, size: f32, (x, y): (f32, f32), text: &str) {
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
                let mix = |c: usize| (f32::from(under[c]) * (1.0 - coverage) + f32::from(INK[c]) * coverage) as u8;
                canvas.put_pixel(px as u32, py as u32, Rgb([mix(0), mix(1), mix(2)]));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, want) in [(0.0, "0"), (0.01234, "0.0123"), (123.4, "123"), (-1.5, "-1.50"), (2e-4, "2.00e-4")] {
            assert_eq!(number(value), want);
        }
    }

    #[test]
    fn the_font_draws_letters() {
        let font = FontRef::try_from_slice(FONT).unwrap();
        let mut canvas = RgbImage::from_pixel(40, 20, Rgb([255; 3]));
        draw_text(&mut canvas, &font, 16.0, (2.0, 1.0), "Äg");
        assert!(canvas.pixels().filter(|p| p.0[0] < 128).count() > 20);
    }
}
