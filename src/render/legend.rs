//! A strip below the picture: caption, colour bar, and the relevance its ends stand for.

use super::lettering::{draw_text, font, text_width};
use super::Scene;
use crate::error::Result;
use crate::explanation::Explanation;
use image::{imageops, Rgb, RgbImage};

/// The canvas with a legend below it.
pub fn below(canvas: &RgbImage, scene: &Scene<'_>, e: &Explanation) -> Result<RgbImage> {
    let font = font()?;
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
    let range = scene.shared.unwrap_or_else(|| scene.style.range(e));
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
pub fn number(value: f32) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, want) in [(0.0, "0"), (0.01234, "0.0123"), (123.4, "123"), (-1.5, "-1.50"), (2e-4, "2.00e-4")] {
            assert_eq!(number(value), want);
        }
    }
}
