//! Masks of objects as people save them: which pixels are the object, which the background, and which neither.
//!
//! What a file's values mean, first rule that applies; a [`Kind`] says which one did:
//!
//! 1. transparency (an alpha that is not opaque throughout): opaque pixels are the object;
//! 2. a palette in colours (PASCAL VOC): indices, 0 background, 255 void, every other one the object. A palette of grays is
//!    read as the grays it shows;
//! 3. grays of two values, one of them 0 (0/1, 0/255, 0/15, 0/65535): the other one is the object;
//! 4. grays 0, 128 (or 127) and 255: a trimap, 128 is void;
//! 5. grays with edges that fade, and JPEG: above half of the highest value is the object;
//! 6. other grays: class ids, 0 background, 255 (of 16 bits 65535) void, every other one the object;
//! 7. colours: black is the background, VOC's colour of void is void, every other one the object.
//!
//! Where the object's value is named it alone is the object. Values without a 0 are refused: nobody but their maker knows
//! which one is the background. Void pixels are left out of every metric.

use super::samples::{Samples, Source};
use crate::error::{Error, Result};
use crate::input::image::Prepared;
use std::collections::BTreeMap;
use std::path::Path;

/// What a pixel of a mask says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not the object.
    Background,
    /// The object.
    Object,
    /// Neither: nobody says what is here (VOC's 255, borders of trimaps).
    Void,
}

/// How the values of a mask were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// 0 and one other value.
    Two(u32),
    /// 0, 128 and 255.
    Trimap,
    /// Class ids, or instances.
    Ids,
    /// Indices of a palette.
    Indices,
    /// Opaque and transparent.
    Alpha,
    /// Grays that fade.
    Levels,
    /// Colours.
    Colours,
    /// One value throughout.
    One,
    /// The value that was named.
    Named,
}

impl Kind {
    /// As it is told.
    pub fn name(self) -> String {
        match self {
            Kind::Two(value) => format!("0/{value}"),
            Kind::Trimap => "0/128/255 (128 is void)".into(),
            Kind::Ids => "class ids (all but 0 and void are the object)".into(),
            Kind::Indices => "palette indices (all but 0 and void, 255, are the object)".into(),
            Kind::Alpha => "alpha".into(),
            Kind::Levels => "gray levels (above half)".into(),
            Kind::Colours => "colours (all but black are the object)".into(),
            Kind::One => "one value".into(),
            Kind::Named => "the value named".into(),
        }
    }
}

/// A mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// How it was read.
    pub kind: Kind,
    /// `[height*width]`
    places: Vec<Place>,
}

/// What cannot be judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Useless {
    /// No pixel is the object.
    Empty,
    /// No pixel is background.
    Full,
}

/// VOC's colour of index 255.
const VOID_COLOUR: u32 = 0xe0_e0c0;
/// More colours than a mask has.
const COLOURS: usize = 256;

impl Mask {
    /// Reads a mask; `object` names the object's value, else the rules above decide.
    ///
    /// # Errors
    /// [`Error::Input`] for what is no picture, and for values that have no reading.
    pub fn read(path: &Path, object: Option<u32>) -> Result<Self> {
        let at = |e: Error| Error::Input(format!("mask {}: {e}", path.display()));
        if !std::fs::metadata(path).map_err(|e| at(Error::Input(e.to_string())))?.is_file() {
            return Err(at(Error::Input("is no regular file".into())));
        }
        let bytes = std::fs::read(path).map_err(|e| at(Error::Input(e.to_string())))?;
        Samples::decode(&bytes).and_then(|samples| Self::of(samples, object)).map_err(at)
    }

    fn of(samples: Samples, object: Option<u32>) -> Result<Self> {
        let (kind, place) = reading(&samples, object)?;
        let places = samples.values.iter().map(|v| place(*v)).collect();
        Ok(Mask { width: samples.width, height: samples.height, kind, places })
    }

    /// Why no explanation can be judged by it, if so.
    pub fn useless(&self) -> Option<Useless> {
        useless(&self.places)
    }

    /// The mask as the model's input sees it, `[H*W]`: its value at the place of each input pixel; outside of the picture
    /// there is no object. The mask may have another size than the picture.
    pub fn at_input(&self, picture: (u32, u32), prepared: &Prepared) -> Vec<Place> {
        let (h, w) = prepared.size;
        let view = prepared.view;
        let at = |i: usize| {
            let x = view.x + ((i % w) as f64 + 0.5) / w as f64 * view.width;
            let y = view.y + ((i / w) as f64 + 0.5) / h as f64 * view.height;
            let at = |place: f64, side: u32, own: u32| place / f64::from(side) * f64::from(own);
            let (mx, my) = (at(x, picture.0, self.width), at(y, picture.1, self.height));
            let inside = mx >= 0.0 && my >= 0.0 && mx < f64::from(self.width) && my < f64::from(self.height);
            if inside {
                self.places[my as usize * self.width as usize + mx as usize]
            } else {
                Place::Background
            }
        };
        (0..h * w).map(at).collect()
    }

    /// How its shape differs from that of a picture of this width and height, if it does by more than rounding; `turned`
    /// says that the picture's file stores it lying on its side.
    pub fn stretched(&self, picture: (u32, u32), turned: bool) -> Option<String> {
        let scaled = |side: u32, from: u32, to: u32| f64::from(side) / f64::from(from) * f64::from(to);
        let same = |(width, height): (u32, u32)| {
            (scaled(height, width, self.width) - f64::from(self.height)).abs() <= 1.0
                || (scaled(width, height, self.height) - f64::from(self.width)).abs() <= 1.0
        };
        if same(picture) {
            return None;
        }
        let (own, why) = (
            format!("{}x{}", self.width, self.height),
            match (turned, same((picture.1, picture.0))) {
                (true, true) => " (it belongs to the picture before EXIF rotation)",
                (false, true) => " (is it lying on its side?)",
                (_, false) => "",
            },
        );
        Some(format!("the picture is {}x{} upright, the mask {own}: it is stretched{why}", picture.0, picture.1))
    }
}

/// Why nothing can be judged by these places, if so.
pub fn useless(places: &[Place]) -> Option<Useless> {
    match (places.contains(&Place::Object), places.contains(&Place::Background)) {
        (false, _) => Some(Useless::Empty),
        (true, false) => Some(Useless::Full),
        (true, true) => None,
    }
}

/// What a value says.
type Reading = Box<dyn Fn(u32) -> Place>;

/// The rule for these samples.
fn reading(samples: &Samples, object: Option<u32>) -> Result<(Kind, Reading)> {
    if let Some(object) = object {
        return named(samples, object);
    }
    let void = samples.source.void();
    let ids = move |v: u32| match v {
        0 => Place::Background,
        v if Some(v) == void => Place::Void,
        _ => Place::Object,
    };
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    samples.values.iter().for_each(|v| *counts.entry(*v).or_default() += 1);
    let distinct: Vec<u32> = counts.into_keys().collect();
    let highest = distinct.last().copied().unwrap_or(0);
    let above_half =
        move |v: u32| if 2 * u64::from(v) > u64::from(highest) { Place::Object } else { Place::Background };
    let refused = |why: String| {
        Err(Error::Input(format!(
            "{why}; write the background as 0, or name the object's value in the column mask_value"
        )))
    };
    let bright = |v: u32| if v > 0 { Place::Object } else { Place::Background };
    match (samples.source, &distinct[..]) {
        (Source::Alpha { opaque }, _) => {
            Ok((Kind::Alpha, Box::new(move |v| if 2 * v > opaque { Place::Object } else { Place::Background })))
        }
        (Source::Indices, _) => Ok((Kind::Indices, Box::new(ids))),
        (Source::Colours { .. }, many) if many.len() > COLOURS => {
            Err(Error::Input(format!("holds {} colours: it is a picture, not a mask", many.len())))
        }
        (Source::Colours { lossy: true }, _) => {
            Err(Error::Input("colours in a JPEG are not exact; save the mask as PNG".into()))
        }
        (Source::Colours { lossy: false }, [0, ..]) => Ok((
            Kind::Colours,
            Box::new(|v| match v {
                0 => Place::Background,
                VOID_COLOUR => Place::Void,
                _ => Place::Object,
            }),
        )),
        (Source::Colours { lossy: false }, _) => refused("no pixel of it is black".into()),
        (Source::Gray { .. }, [] | [_]) => Ok((Kind::One, Box::new(bright))),
        (Source::Gray { .. }, [0, value]) => Ok((Kind::Two(*value), Box::new(bright))),
        (Source::Gray { .. }, [0, 127 | 128, 255]) => Ok((
            Kind::Trimap,
            Box::new(|v| match v {
                0 => Place::Background,
                255 => Place::Object,
                _ => Place::Void,
            }),
        )),
        (Source::Gray { lossy: true, .. }, _) => Ok((Kind::Levels, Box::new(above_half))),
        (Source::Gray { .. }, many) if samples.fades(many.len(), highest) => Ok((Kind::Levels, Box::new(above_half))),
        (Source::Gray { .. }, [0, ..]) => Ok((Kind::Ids, Box::new(ids))),
        (Source::Gray { .. }, many) => {
            let some: Vec<String> = many.iter().take(6).map(u32::to_string).collect();
            refused(format!("its values are {}{} and no 0", some.join(", "), if many.len() > 6 { ", ..." } else { "" }))
        }
    }
}

/// One value is the object.
fn named(samples: &Samples, object: u32) -> Result<(Kind, Reading)> {
    if matches!(samples.source, Source::Colours { .. }) {
        return Err(Error::Input(format!("has colours, no numbers: mask_value {object} says nothing about it")));
    }
    let void = samples.source.void();
    Ok((
        Kind::Named,
        Box::new(move |v| match v {
            v if v == object => Place::Object,
            v if Some(v) == void => Place::Void,
            _ => Place::Background,
        }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::image::View;
    use Place::{Background as B, Object as O, Void as V};

    /// Two rows of four, each pixel twice as wide and high, so that areas have an inside.
    fn gray(bits: u8, values: [u32; 8]) -> Samples {
        let wide = |row: &[u32]| row.iter().flat_map(|v| [*v; 4]).collect::<Vec<_>>();
        let values = values.chunks(4).flat_map(|row| std::iter::repeat_n(wide(row), 4).flatten()).collect();
        Samples { width: 16, height: 8, values, source: Source::Gray { bits, lossy: false } }
    }

    fn read(samples: Samples) -> (Kind, Vec<Place>) {
        let mask = Mask::of(samples, None).unwrap();
        let corners = (0..2).flat_map(|y| (0..4).map(move |x| y * 64 + x * 4));
        (mask.kind, corners.map(|i| mask.places[i]).collect())
    }

    #[test]
    fn grays_are_read_by_the_first_rule_that_applies() {
        for (bits, values, kind, places) in [
            (8, [0, 1, 1, 0, 0, 0, 0, 0], Kind::Two(1), [B, O, O, B, B, B, B, B]),
            (8, [0, 255, 255, 0, 0, 0, 0, 0], Kind::Two(255), [B, O, O, B, B, B, B, B]),
            (16, [0, 65535, 0, 0, 0, 0, 0, 0], Kind::Two(65535), [B, O, B, B, B, B, B, B]),
            (8, [0, 3, 17, 0, 0, 255, 255, 0], Kind::Ids, [B, O, O, B, B, V, V, B]),
            (16, [0, 255, 300, 0, 0, 65535, 0, 0], Kind::Ids, [B, O, O, B, B, V, B, B]),
            (4, [0, 1, 2, 15, 0, 0, 0, 0], Kind::Ids, [B, O, O, O, B, B, B, B]),
            (8, [0, 128, 255, 0, 0, 128, 128, 0], Kind::Trimap, [B, V, O, B, B, V, V, B]),
            (8, [0; 8], Kind::One, [B; 8]),
            (8, [7; 8], Kind::One, [O; 8]),
        ] {
            assert_eq!(read(gray(bits, values)), (kind, places.to_vec()), "{values:?}");
        }
    }

    #[test]
    fn fading_edges_are_cut_at_half() {
        let row = [0u32, 0, 0, 40, 130, 200, 255, 255];
        let values = row.repeat(8);
        let samples = Samples { width: 8, height: 8, values, source: Source::Gray { bits: 8, lossy: false } };
        let mask = Mask::of(samples, None).unwrap();
        assert_eq!((mask.kind, &mask.places[..8]), (Kind::Levels, &[B, B, B, B, O, O, O, O][..]));
    }

    #[test]
    fn palettes_colours_and_transparency() {
        let of = |source, values: &[u32]| {
            Mask::of(Samples { width: values.len() as u32, height: 1, values: values.to_vec(), source }, None)
        };
        let indices = of(Source::Indices, &[0, 15, 255]).unwrap();
        assert_eq!((indices.kind, &indices.places[..]), (Kind::Indices, &[B, O, V][..]));
        let void = of(Source::Indices, &[0, 255, 255]).unwrap();
        assert_eq!(void.useless(), Some(Useless::Empty), "void is no object");
        let colours = of(Source::Colours { lossy: false }, &[0, 0x80_0000, VOID_COLOUR]).unwrap();
        assert_eq!(colours.places, [B, O, V]);
        assert_eq!(of(Source::Alpha { opaque: 255 }, &[0, 255, 120]).unwrap().places, [B, O, B]);
        let many: Vec<u32> = (0..300).collect();
        for (source, values, part) in [
            (Source::Colours { lossy: false }, &many[..], "300 colours"),
            (Source::Colours { lossy: false }, &[0xff_ffff, 0xff_0000], "no pixel of it is black"),
            (Source::Colours { lossy: true }, &[0, 0xff_0000], "JPEG"),
            (Source::Gray { bits: 8, lossy: false }, &[1, 1, 1, 2, 2, 2, 3, 3, 3], "1, 2, 3 and no 0"),
        ] {
            let error = of(source, values).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_named_value_is_the_object_alone() {
        let samples = gray(8, [1, 2, 3, 0, 0, 255, 0, 0]);
        let mask = Mask::of(samples.clone(), Some(2)).unwrap();
        let count = |p: Place| mask.places.iter().filter(|own| **own == p).count();
        assert_eq!((mask.kind, count(O), count(V)), (Kind::Named, 16, 16));
        assert_eq!(Mask::of(samples, Some(9)).unwrap().useless(), Some(Useless::Empty));
    }

    #[test]
    fn masks_follow_the_crop_and_other_shapes_are_told() {
        let places = (0..16).map(|i| if i % 4 >= 2 { O } else { B }).collect();
        let mask = Mask { width: 4, height: 4, kind: Kind::Two(1), places };
        let view = View { x: 2.0, y: 0.0, width: 4.0, height: 8.0 }; // of a picture of 8 x 8: columns 2 to 5
        let prepared = Prepared { pixels: vec![], size: (1, 4), view };
        assert_eq!(mask.at_input((8, 8), &prepared), [B, B, O, O]);
        assert_eq!(mask.useless(), None);
        let sized = |width, height| Mask { width, height, ..mask.clone() };
        assert_eq!(sized(64, 48).stretched((640, 480), false), None);
        assert_eq!(sized(100, 67).stretched((640, 427), false), None, "rounding");
        let told = |m: Mask, turned| m.stretched((48, 64), turned).unwrap();
        assert!(told(sized(64, 48), true).contains("48x64 upright, the mask 64x48: it is stretched (it belongs"));
        assert!(told(sized(64, 48), false).contains("on its side?"));
        assert!(told(sized(224, 224), false).ends_with("it is stretched"));
    }
}
