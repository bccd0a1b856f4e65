//! Reading `preprocessor_config.json` as transformers reads it, key by key.

use super::classes::{Class, Recipe, CLASSES, HARMLESS};
use super::image::{ImageProcessor, Resize};
use super::resize::Filter;
use crate::error::{nearest, Error, Result};
use serde_json::{Map, Value};

/// The longest side a processor may ask for, in pixels.
const MAX_SIDE: usize = 8192;

/// Where a processor's keys stand, and for which model.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The file, for messages.
    pub file: &'a str,
    /// `model_type`, which decides the class where the file names none.
    pub family: &'a str,
    /// `num_channels`
    pub channels: usize,
}

impl ImageProcessor {
    /// Reads a processor's JSON, with what is to be said of it. A key that is absent has its class's default; a flag that is
    /// null is off, as in transformers.
    ///
    /// # Errors
    /// [`Error::Model`] naming a class that is not known, or a key with a value that cannot be honoured.
    pub fn from_json(json: &Value, origin: Origin<'_>) -> Result<(Self, Vec<String>)> {
        let keys = json.as_object().ok_or_else(|| Error::Model(format!("{}: expected a JSON object", origin.file)))?;
        let class = class_of(keys, origin)?;
        let read = Reader { keys, class, origin };
        let mut notes = read.unread();
        let geometry = read.geometry()?;
        let values = read.values(&mut notes)?;
        Ok((ImageProcessor { channels: origin.channels, ..geometry.joined(values) }, notes))
    }
}

/// Sizes and filter.
struct Geometry {
    cut: Option<(f64, f64)>,
    resize: Option<Resize>,
    crops: Vec<(usize, usize)>,
    pad: Option<(usize, usize)>,
    filter: Filter,
    floats: bool,
}

/// What becomes of the levels.
struct Values {
    rescale: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
    reversed: bool,
}

impl Geometry {
    fn joined(self, values: Values) -> ImageProcessor {
        let Geometry { cut, resize, crops, pad, filter, floats } = self;
        let Values { rescale, mean, std, reversed } = values;
        let pad = pad.map(|size| super::image::Pad { size, centred: false });
        ImageProcessor {
            cut,
            resize,
            crops,
            even: false,
            pad,
            filter,
            floats,
            rescale,
            mean,
            std,
            reversed,
            channels: 3,
        }
    }
}

fn class_of(keys: &Map<String, Value>, origin: Origin<'_>) -> Result<&'static Class> {
    let named = ["image_processor_type", "feature_extractor_type"];
    let Some((key, value)) = named.iter().find_map(|k| Some((*k, keys.get(*k).filter(|v| !v.is_null())?))) else {
        return Class::of_family(origin.family).ok_or_else(|| {
            Error::Model(format!(
                "{}: `image_processor_type` is missing, and {} models have no class of their own",
                origin.file, origin.family
            ))
        });
    };
    let name = value.as_str().unwrap_or_default();
    Class::named(name).ok_or_else(|| {
        let known: Vec<String> = CLASSES.iter().map(|c| format!("{}ImageProcessor", c.name)).collect();
        let near = nearest(name, known.iter().map(String::as_str)).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
        Error::Model(format!(
            "{}: `{key}` is {value}, whose pictures vitx cannot make{near}; it knows {}. If its pictures are only resized, cropped and normalised, name ViTImageProcessor there",
            origin.file,
            known.join(", ")
        ))
    })
}

/// What to resize to, and the square that ConvNext cuts out of that.
type Steps = (Option<Resize>, Option<(usize, usize)>);

struct Reader<'a> {
    keys: &'a Map<String, Value>,
    class: &'static Class,
    origin: Origin<'a>,
}

impl<'a> Reader<'a> {
    /// The value of a key that the class reads.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|_| self.class.reads(key))
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let value = self.keys.get(key).cloned().unwrap_or_default();
        Error::Model(format!("{}: `{key}` is {value}, expected {expected}", self.origin.file))
    }

    /// Keys with a value that the class does not read.
    fn unread(&self) -> Vec<String> {
        let idle = |v: &Value| v.is_null() || v == &Value::Bool(false);
        let unread = |k: &str| !self.class.reads(k) && !HARMLESS.contains(&k);
        let list: Vec<_> =
            self.keys.iter().filter(|(k, v)| unread(k) && !idle(v)).map(|(k, _)| format!("`{k}`")).collect();
        let mut notes = Vec::new();
        if !list.is_empty() {
            let (file, class) = (self.origin.file, self.class.name);
            notes.push(format!(
                "{file}: {} changes nothing, as {class}ImageProcessor does not read it in transformers either",
                list.join(", ")
            ));
        }
        if self.keys.get("auto_map").is_some_and(|m| m.get("AutoImageProcessor").is_some()) {
            let (file, class) = (self.origin.file, self.class.name);
            notes.push(format!("{file}: `auto_map` names code of the checkpoint's own, which is not run; read as {class}ImageProcessor"));
        }
        notes
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        let read = |v: &Value| v.as_f64().filter(|n| n.is_finite() && (key != "crop_pct" || *n > 0.0));
        self.get(key).map_or(Ok(default), |v| read(v).ok_or_else(|| self.wrong(key, "a number")))
    }

    fn filter(&self) -> Result<Filter> {
        let Some(value) = self.get("resample") else { return Ok(self.class.filter) };
        let filter = value.as_u64().and_then(Filter::from_pillow);
        filter.ok_or_else(|| self.wrong("resample", "a Pillow filter: a number from 0 to 5"))
    }

    fn geometry(&self) -> Result<Geometry> {
        let crops = self.flag("do_center_crop", self.class.crops)?;
        let crop_size = if crops { Some(self.crop_size()?) } else { None };
        let resizes = self.flag("do_resize", true)?;
        let (resize, square) = if resizes { self.resize(self.size()?)? } else { (None, None) };
        let perceiver = self.class.recipe == Recipe::Perceiver;
        let cut = match crop_size.filter(|_| perceiver) {
            Some((ch, cw)) => match self.size()? {
                Resize::Exact(h, w) => Some((h as f64 / ch as f64, w as f64 / cw as f64)),
                _ => return Err(self.wrong("size", "{height, width}")),
            },
            None => None,
        };
        let pad = if self.flag("do_pad", false)? { self.pad_size()? } else { None };
        Ok(Geometry {
            cut,
            resize,
            crops: square.into_iter().chain(crop_size.filter(|_| !perceiver)).collect(),
            pad,
            filter: if resizes { self.filter()? } else { self.class.filter },
            floats: self.class.recipe == Recipe::Floats && self.flag("do_rescale", true)?,
        })
    }

    /// What to resize to, and the square that ConvNext cuts out of that.
    fn resize(&self, size: Resize) -> Result<Steps> {
        let poolformer = self.class.recipe == Recipe::PoolFormer;
        if poolformer && self.get("crop_pct").is_some_and(Value::is_null) {
            return Ok((Some(size), None));
        }
        let grown = |n: usize| self.within("size", (n as f64 / self.number("crop_pct", self.class.share)?) as u64);
        let edge = match size {
            Resize::ShortestEdge(n) | Resize::Between(n, _) => Some(n),
            _ => None,
        };
        let only = |what: &str| self.wrong("size", what);
        Ok(match (self.class.recipe, size) {
            (Recipe::Plain | Recipe::Perceiver | Recipe::Floats, _) => (Some(size), None),
            (Recipe::ConvNext, _) => match edge.ok_or_else(|| only("{shortest_edge}"))? {
                n if n < 384 => (Some(Resize::ShortestEdge(grown(n)?)), Some((n, n))),
                n => (Some(Resize::Exact(n, n)), None),
            },
            (Recipe::PoolFormer, Resize::Exact(h, w)) if h != w => (Some(Resize::Exact(grown(h)?, grown(w)?)), None),
            (Recipe::PoolFormer, Resize::Exact(h, _)) => (Some(Resize::ShortestEdge(grown(h)?)), None),
            (Recipe::Levit, Resize::Exact(..)) => (Some(size), None),
            (Recipe::PoolFormer, _) => {
                let n = edge.ok_or_else(|| only("{shortest_edge} or {height, width}"))?;
                (Some(Resize::ShortestEdge(grown(n)?)), None)
            }
            (Recipe::Levit, _) => {
                let n = edge.ok_or_else(|| only("{shortest_edge} or {height, width}"))?;
                (Some(Resize::ShortestEdge(self.within("size", (256.0 / 224.0 * n as f64) as u64)?)), None)
            }
        })
    }

    fn within(&self, key: &str, pixels: u64) -> Result<usize> {
        let side = usize::try_from(pixels).ok().filter(|n| (1..=MAX_SIDE).contains(n));
        side.ok_or_else(|| self.wrong(key, &format!("from 1 to {MAX_SIDE} pixels a side")))
    }

    /// A side in pixels.
    fn side(&self, key: &str, value: &Value) -> Result<usize> {
        self.within(key, value.as_u64().unwrap_or(0))
    }

    /// `224`, `[224, 224]`, or a dict of one of the sets of keys that transformers knows.
    fn size(&self) -> Result<Resize> {
        let key = "size";
        let square = self.flag("default_to_square", self.class.square)?;
        if self.flag("use_square_size", false)? {
            return Ok(Resize::Exact(224, 224)); // whatever `size` says
        }
        let Some(value) = self.get(key) else { return Ok(self.class.size) };
        let expected = "a number, [height, width], {height, width}, {shortest_edge}, {shortest_edge, longest_edge} or {max_height, max_width}";
        match value {
            Value::Object(sides) => {
                let at = |name: &str| sides.get(name).filter(|v| !v.is_null());
                let two = |a: &Value, b: &Value| Ok::<_, Error>((self.side(key, a)?, self.side(key, b)?));
                match (
                    at("height"),
                    at("width"),
                    at("shortest_edge"),
                    at("longest_edge"),
                    at("max_height"),
                    at("max_width"),
                ) {
                    (Some(h), Some(w), None, None, None, None) => two(h, w).map(|(h, w)| Resize::Exact(h, w)),
                    (None, None, Some(s), None, None, None) => Ok(Resize::ShortestEdge(self.side(key, s)?)),
                    (None, None, Some(s), Some(l), None, None) => two(s, l).map(|(s, l)| Resize::Between(s, l)),
                    (None, None, None, None, Some(h), Some(w)) => two(h, w).map(|(h, w)| Resize::Within(h, w)),
                    _ => Err(self.wrong(key, expected)),
                }
            }
            Value::Array(sides) if sides.len() == 2 => {
                Ok(Resize::Exact(self.side(key, &sides[0])?, self.side(key, &sides[1])?))
            }
            Value::Number(_) if square => self.side(key, value).map(|n| Resize::Exact(n, n)),
            Value::Number(_) => self.side(key, value).map(Resize::ShortestEdge),
            _ => Err(self.wrong(key, expected)),
        }
    }

    /// A height and a width; a number is a square.
    fn rectangle(&self, key: &str, value: &Value) -> Result<(usize, usize)> {
        match value {
            Value::Object(sides) => match (sides.get("height"), sides.get("width"), sides.len()) {
                (Some(h), Some(w), 2) => Ok((self.side(key, h)?, self.side(key, w)?)),
                _ => Err(self.wrong(key, "a height and a width")),
            },
            Value::Array(sides) if sides.len() == 2 => Ok((self.side(key, &sides[0])?, self.side(key, &sides[1])?)),
            Value::Number(_) => self.side(key, value).map(|n| (n, n)),
            _ => Err(self.wrong(key, "a height and a width")),
        }
    }

    fn crop_size(&self) -> Result<(usize, usize)> {
        match self.get("crop_size") {
            Some(value) => self.rectangle("crop_size", value),
            None => self
                .class
                .crop_size
                .ok_or_else(|| self.wrong("crop_size", "a height and a width, as `do_center_crop` is true")),
        }
    }

    /// Without a size, pictures of a batch are padded to the largest: nothing to do for one alone.
    fn pad_size(&self) -> Result<Option<(usize, usize)>> {
        self.get("pad_size").filter(|v| !v.is_null()).map(|value| self.rectangle("pad_size", value)).transpose()
    }

    fn values(&self, notes: &mut Vec<String>) -> Result<Values> {
        let channels = self.origin.channels;
        let (mut mean, mut std) = (vec![0.0; channels], vec![1.0; channels]);
        let top = self.class.reads("include_top") && self.flag("include_top", true)?;
        if self.class.reads("do_normalize") && (self.flag("do_normalize", true)? || top) {
            let divisor = self.colour("image_std", self.class.std, notes)?;
            if divisor.contains(&0.0) {
                return Err(self.wrong("image_std", "numbers other than 0"));
            }
            if self.flag("do_normalize", true)? {
                mean = self.colour("image_mean", self.class.mean, notes)?;
                std.clone_from(&divisor);
            }
            if top {
                std.iter_mut().zip(&divisor).for_each(|(s, d)| *s *= d); // normalised a second time, around 0
            }
        }
        let rescales = self.flag("do_rescale", true)?;
        if rescales && self.flag("rescale_offset", false)? {
            mean.iter_mut().for_each(|m| *m += 1.0);
        }
        Ok(Values {
            rescale: if rescales { self.number("rescale_factor", 1.0 / 255.0)? as f32 } else { 1.0 },
            mean,
            std,
            reversed: self.class.reads("do_flip_channel_order") && self.flag("do_flip_channel_order", true)?,
        })
    }

    /// A number a channel; one number stands for all.
    fn colour(&self, key: &str, default: [f32; 3], notes: &mut Vec<String>) -> Result<Vec<f32>> {
        let channels = self.origin.channels;
        let expected =
            if channels == 3 { "three numbers".to_string() } else { format!("{channels} numbers (num_channels)") };
        let wrong = || self.wrong(key, &expected);
        let finite = |v: &Value| v.as_f64().map(|f| f as f32).filter(|f| f.is_finite());
        let list = match self.get(key) {
            None => default.to_vec(),
            Some(Value::Array(list)) => list.iter().map(finite).collect::<Option<Vec<_>>>().ok_or_else(wrong)?,
            Some(value) => return Ok(vec![finite(value).ok_or_else(wrong)?; channels]),
        };
        match list.first() {
            _ if list.len() == channels => Ok(list),
            Some(first) if list.len() == 3 && list.iter().all(|v| v == first) => {
                if self.get(key).is_some() {
                    notes.push(format!(
                        "{}: `{key}` has 3 equal values for num_channels {channels}; each channel takes that value",
                        self.origin.file
                    ));
                }
                Ok(vec![*first; channels])
            }
            _ => Err(wrong()),
        }
    }
}
