//! How a map lies over its picture.

use super::scale::percent;
use crate::error::{Error, Result};
use image::{Rgb, RgbImage};

/// How heat lies over the picture.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Blend {
    /// The more opaque the more relevant, over the picture in grey: no colour but that of the map.
    #[default]
    Fade,
    /// The same over the picture as it is.
    FadePlain,
    /// Of one opacity everywhere.
    Veil,
    /// Lines of equal relevance over the picture as it is.
    Contour,
    /// The picture where it is most relevant, so many percent of its area, and dim elsewhere.
    Mask(f32),
}

/// Iso-lines between the least and the greatest relevance.
const LINES: u32 = 6;
/// What is left of the picture's light outside of what is kept.
const DIM: f32 = 0.25;

impl Blend {
    /// Names on the command line; those that take a percentage end in a colon.
    pub const NAMES: &'static [&'static str] = &["fade", "fade-plain", "veil", "contour", "mask:"];

    /// Reads `fade`, `fade-plain`, `veil`, `contour` or `mask:P`.
    ///
    /// # Errors
    /// [`Error::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match (text, text.strip_prefix("mask:").and_then(percent)) {
            ("fade", _) => Blend::Fade,
            ("fade-plain", _) => Blend::FadePlain,
            ("veil", _) => Blend::Veil,
            ("contour", _) => Blend::Contour,
            (_, Some(percent)) => Blend::Mask(percent),
            _ => {
                return Err(Error::Usage(format!(
                    "--blend {text}: expected fade, fade-plain, veil, contour, or mask:P with P percent of the picture"
                )))
            }
        })
    }

    /// The opacity where nothing is more relevant, if none was asked for.
    pub fn usual_alpha(self) -> f32 {
        match self {
            Blend::Veil => 0.55,
            Blend::Fade | Blend::FadePlain | Blend::Contour | Blend::Mask(_) => 0.85,
        }
    }

    /// The share of that opacity at a place of the scale; of signed relevance the middle says nothing.
    pub(super) fn share(self, place: f32, signed: bool) -> f32 {
        match self {
            Blend::Fade | Blend::FadePlain if signed => (2.0 * place - 1.0).abs().sqrt(),
            Blend::Fade | Blend::FadePlain => place.sqrt(),
            Blend::Veil | Blend::Contour | Blend::Mask(_) => 1.0,
        }
    }
}

impl std::fmt::Display for Blend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Blend::Fade => f.write_str("fade"),
            Blend::FadePlain => f.write_str("fade-plain"),
            Blend::Veil => f.write_str("veil"),
            Blend::Contour => f.write_str("contour"),
            Blend::Mask(percent) => write!(f, "mask:{percent}"),
        }
    }
}

/// Of each pixel of a picture its place among a map's 256 colours, row by row; none where the map does not reach.
pub(super) struct Places {
    pub width: u32,
    pub all: Vec<Option<u8>>,
}

impl Places {
    fn at(&self, x: u32, y: u32) -> Option<u8> {
        if x >= self.width {
            return None;
        }
        self.all.get(y as usize * self.width as usize + x as usize).copied().flatten()
    }
}

/// The picture by its brightness alone (Rec. 601).
pub(super) fn grey(picture: &RgbImage) -> RgbImage {
    let mut canvas = picture.clone();
    for Rgb([r, g, b]) in canvas.pixels_mut() {
        let luma = (299 * u32::from(*r) + 587 * u32::from(*g) + 114 * u32::from(*b) + 500) / 1000;
        (*r, *g, *b) = (luma as u8, luma as u8, luma as u8);
    }
    canvas
}

/// The picture with lines of equal relevance in their colours, each on a dark edge that shows it on any ground.
pub(super) fn contoured(picture: &RgbImage, places: &Places, colours: &[[u8; 3]; 256]) -> RgbImage {
    let band = |place: u8| u32::from(place) * (LINES + 1) / 256;
    let thick = (picture.width() / 320).max(1);
    let mut canvas = picture.clone();
    for edge in [true, false] {
        let reach = if edge { thick + 1 } else { thick };
        for (x, y, pixel) in canvas.enumerate_pixels_mut() {
            let Some(own) = places.at(x, y) else { continue };
            // A line runs where a pixel within reach belongs to another band.
            let differs = |dx: u32, dy: u32| places.at(x + dx, y + dy).is_some_and(|other| band(other) != band(own));
            if (1..=reach).any(|d| differs(d, 0) || differs(0, d)) {
                let greatest =
                    (1..=reach).flat_map(|d| [places.at(x + d, y), places.at(x, y + d)]).flatten().fold(own, u8::max);
                let line = (band(greatest) * 256 / (LINES + 1)).min(255) as usize;
                *pixel = if edge { Rgb([0; 3]) } else { Rgb(colours[line]) };
            }
        }
    }
    canvas
}

/// The picture where its relevance is greatest, so many percent of what the map covers, and dim elsewhere.
pub(super) fn kept(picture: &RgbImage, places: &Places, percent: f32) -> RgbImage {
    let mut sorted: Vec<u8> = places.all.iter().copied().flatten().collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let wanted = ((sorted.len() as f32 * percent / 100.0).round() as usize).max(1);
    let least = sorted.get(wanted - 1).copied().unwrap_or(u8::MAX);
    // What is no more relevant than anything else is not kept, though less than was asked for is.
    let least = if sorted.last() == Some(&least) { least.saturating_add(1) } else { least };
    let mut canvas = picture.clone();
    for (x, y, pixel) in canvas.enumerate_pixels_mut() {
        if places.at(x, y).is_none_or(|place| place < least) {
            *pixel = Rgb(pixel.0.map(|c| (f32::from(c) * DIM) as u8));
        }
    }
    canvas
}

/// Draws the edge of a rectangle, white within black, so that it is seen on any ground.
pub(super) fn edged(canvas: &mut RgbImage, (left, top): (i64, i64), (right, bottom): (i64, i64)) {
    let (width, height) = (i64::from(canvas.width()), i64::from(canvas.height()));
    let thick = (width / 320).max(1);
    for y in (top - thick).max(0)..(bottom + thick).min(height) {
        for x in (left - thick).max(0)..(right + thick).min(width) {
            // How far inside of the rectangle: below 0 is outside of it.
            let inside = (x - left).min(y - top).min(right - 1 - x).min(bottom - 1 - y);
            if inside < thick {
                canvas.put_pixel(x as u32, y as u32, if inside < 0 { Rgb([0; 3]) } else { Rgb([255; 3]) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["fade", "fade-plain", "veil", "contour", "mask:20"] {
            assert_eq!(Blend::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Blend::parse("mask:20%").unwrap(), Blend::Mask(20.0));
        assert!(["mask", "mask:0", "mask:100", "lines"].iter().all(|text| Blend::parse(text).is_err()));
    }

    #[test]
    fn a_mask_keeps_its_share_and_lines_lie_between_bands() {
        let picture = RgbImage::from_pixel(10, 10, Rgb([200, 100, 50]));
        let all = (0..100u8).map(|i| Some(if i % 10 < 5 { 0 } else { 255 })).collect();
        let places = Places { width: 10, all };
        let kept = kept(&picture, &places, 50.0);
        assert_eq!(kept.pixels().filter(|p| p.0 == [200, 100, 50]).count(), 50);
        let lines = contoured(&picture, &places, &[[9, 8, 7]; 256]);
        assert_eq!(lines.pixels().filter(|p| p.0 == [9, 8, 7]).count(), 10, "one line from top to bottom");
        assert_eq!(grey(&picture).get_pixel(0, 0).0, [124; 3]);
    }
}
