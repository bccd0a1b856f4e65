//! Relevance as colour: over the picture, or alone.

use super::blend::{self, Blend};
use super::{legend, png, Scene};
use crate::error::{Error, Result};
use crate::explanation::{Explanation, Layout};
use fast_image_resize::images::Image as ResizeImage;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};

/// How the token grid becomes pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsample {
    /// Linear between patch centres.
    Bilinear,
    /// Cubic (a = -0.5) between patch centres.
    Bicubic,
    /// One flat tile a patch.
    Nearest,
}

impl Upsample {
    /// Names on the command line, and what they mean.
    pub const NAMES: &'static [(&'static str, &'static str, Upsample)] = &[
        ("bilinear", "Linear between patch centres", Upsample::Bilinear),
        ("bicubic", "Cubic between patch centres", Upsample::Bicubic),
        ("nearest", "One flat tile a patch", Upsample::Nearest),
    ];
}

/// PNG of the heat over the picture.
pub fn overlay(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    let canvas = composed(scene, e)?;
    let canvas = if scene.style.legend { legend::below(&canvas, scene, e)? } else { canvas };
    png(DynamicImage::ImageRgb8(canvas))
}

/// The picture with the heat over it, and the bare one beside it where that is asked for.
pub(super) fn composed(scene: &Scene<'_>, e: &Explanation) -> Result<RgbImage> {
    let heated = blended(scene, e)?;
    let Some(picture) = scene.picture.filter(|_| scene.style.panel) else { return Ok(heated) };
    let (width, height) = picture.dimensions();
    let gap = (width / 40).max(2);
    let mut canvas = RgbImage::from_pixel(2 * width + gap, height, Rgb([255; 3]));
    image::imageops::replace(&mut canvas, picture, 0, 0);
    image::imageops::replace(&mut canvas, &heated, i64::from(width + gap), 0);
    Ok(canvas)
}

/// The picture with the heat over it, and an edge around the patch whose row it is.
pub(super) fn blended(scene: &Scene<'_>, e: &Explanation) -> Result<RgbImage> {
    let mut canvas = heated(scene, e)?;
    if let (Layout::Image(layout), Some(token)) = (&e.layout, scene.row) {
        if let Some(patch) = token.checked_sub(layout.prefix.len()) {
            let (row, column) = (patch / layout.grid.1.max(1), patch % layout.grid.1.max(1));
            let pixel = |at: usize, patch: usize, input: usize, from: f64, length: f64| {
                from + (at * patch) as f64 * length / input.max(1) as f64
            };
            let x = |at| pixel(at, layout.patch.1, scene.input.1, scene.view.x, scene.view.width).round() as i64;
            let y = |at| pixel(at, layout.patch.0, scene.input.0, scene.view.y, scene.view.height).round() as i64;
            blend::edged(&mut canvas, (x(column), y(row)), (x(column + 1), y(row + 1)));
        }
    }
    Ok(canvas)
}

fn heated(scene: &Scene<'_>, e: &Explanation) -> Result<RgbImage> {
    let picture = scene.picture.ok_or_else(|| Error::Usage("an overlay needs a picture".into()))?;
    let style = scene.style;
    match style.blend {
        Blend::Contour => return Ok(blend::contoured(picture, &places(scene, e)?, &style.colormap_for(e).table())),
        Blend::Mask(percent) => return Ok(blend::kept(picture, &places(scene, e)?, percent)),
        Blend::Fade | Blend::FadePlain | Blend::Veil => {}
    }
    let mut canvas = if style.blend == Blend::Fade { blend::grey(picture) } else { picture.clone() };
    // Its 256 places have an opacity each.
    let opacity: Vec<f32> = (0..256).map(|i| style.alpha() * style.blend.share(i as f32 / 255.0, e.signed)).collect();
    paint(scene, e, |x, y, colour, place| {
        let under = canvas.get_pixel(x, y).0;
        let alpha = opacity[place];
        // Rounds as `round` does, which is a call for each pixel where processors may lack the instruction.
        let blend = |c: usize| (f32::from(under[c]) * (1.0 - alpha) + f32::from(colour[c]) * alpha + 0.5) as u8;
        canvas.put_pixel(x, y, Rgb([blend(0), blend(1), blend(2)]));
    })?;
    Ok(canvas)
}

/// Of each pixel of the picture its place among the map's 256 colours; none where the map does not reach.
fn places(scene: &Scene<'_>, e: &Explanation) -> Result<blend::Places> {
    let picture = scene.picture.ok_or_else(|| Error::Usage("an overlay needs a picture".into()))?;
    let (width, height) = picture.dimensions();
    let mut all = vec![None; width as usize * height as usize];
    paint(scene, e, |x, y, _, place| all[y as usize * width as usize + x as usize] = Some(place as u8))?;
    Ok(blend::Places { width, all })
}

/// PNG of the heat alone, transparent outside of what the model saw.
pub fn heatmap(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    let picture = scene.picture.ok_or_else(|| Error::Usage("a heatmap needs a picture's size".into()))?;
    let mut canvas = RgbaImage::new(picture.width(), picture.height());
    paint(scene, e, |x, y, [r, g, b], _| canvas.put_pixel(x, y, Rgba([r, g, b, 255])))?;
    if scene.style.legend {
        let opaque: RgbImage = DynamicImage::ImageRgba8(canvas).into_rgb8();
        return png(DynamicImage::ImageRgb8(legend::below(&opaque, scene, e)?));
    }
    png(DynamicImage::ImageRgba8(canvas))
}

/// Calls `put` with the colour of every picture pixel, and its place among the map's, that lies inside the patch grid, or inside the pixel map where the
/// method gave one.
fn paint(scene: &Scene<'_>, e: &Explanation, mut put: impl FnMut(u32, u32, [u8; 3], usize)) -> Result<()> {
    let (Layout::Image(layout), Some(picture)) = (&e.layout, scene.picture) else {
        return Err(Error::Usage("heatmaps are drawn for images; use ansi, npy or json for texts".into()));
    };
    if e.matrix {
        return Err(Error::Usage("a whole matrix has no heatmap; write it with --format npy".into()));
    }
    // The grid covers whole patches only: of an input of 225 pixels with patches of 16 the first 224.
    let covered = |grid: usize, patch: usize, input: usize| (grid * patch) as f64 / input.max(1) as f64;
    let (values, grid, part) = match e.drawn_pixels() {
        Some(pixels) => (&pixels.values[..], pixels.size, (1.0, 1.0)),
        None => {
            let down = covered(layout.grid.0, layout.patch.0, scene.input.0);
            (e.content(), layout.grid, (down, covered(layout.grid.1, layout.patch.1, scene.input.1)))
        }
    };
    let (height, width) = (scene.view.height * part.0, scene.view.width * part.1);
    let (left, top) = (scene.view.x.round() as i64, scene.view.y.round() as i64);
    let (right, bottom) = ((scene.view.x + width).round() as i64, (scene.view.y + height).round() as i64);
    let (w, h) = ((right - left).max(1) as u32, (bottom - top).max(1) as u32);

    let heat = enlarged(values, grid, (h, w), scene.style.upsample)?;
    let range = scene.shared.unwrap_or_else(|| scene.style.range(e));
    let colours = scene.style.colormap_for(e).table();
    for y in top.max(0)..bottom.min(i64::from(picture.height())) {
        for x in left.max(0)..right.min(i64::from(picture.width())) {
            let value = heat[(y - top) as usize * w as usize + (x - left) as usize];
            let place = (range.place(value, e.signed) * 255.0 + 0.5) as usize;
            put(x as u32, y as u32, colours[place], place);
        }
    }
    Ok(())
}

/// The grid at another size, half-pixel centres, `[height*width]`.
fn enlarged(
    grid: &[f32],
    (rows, columns): (usize, usize),
    (height, width): (u32, u32),
    how: Upsample,
) -> Result<Vec<f32>> {
    let failed =
        |e: &dyn std::fmt::Display| Error::Input(format!("the map cannot be enlarged to {height}x{width}: {e}"));
    let bytes = grid.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let source =
        ResizeImage::from_vec_u8(columns as u32, rows as u32, bytes, PixelType::F32).map_err(|e| failed(&e))?;
    let mut target = ResizeImage::new(width, height, PixelType::F32);
    let algorithm = match how {
        Upsample::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Upsample::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Upsample::Nearest => ResizeAlg::Nearest,
    };
    let options = ResizeOptions::new().resize_alg(algorithm);
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(&e))?;
    Ok(target.buffer().chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlarging_keeps_patches_where_they_are() {
        let grid = [0.0, 1.0, 2.0, 3.0];
        let near = enlarged(&grid, (2, 2), (4, 4), Upsample::Nearest).unwrap();
        assert_eq!(&near[..4], [0.0, 0.0, 1.0, 1.0]);
        let linear = enlarged(&grid, (2, 2), (4, 4), Upsample::Bilinear).unwrap();
        // align_corners=False: 0, 0.25, 0.75, 1 along a row
        for (got, want) in linear[..4].iter().zip([0.0, 0.25, 0.75, 1.0]) {
            assert!((got - want).abs() < 1e-6, "{linear:?}");
        }
    }
}
