//! The pictures of timm's models, as `pretrained_cfg` describes them and `transforms_imagenet_eval` makes them.

use super::geometry::Resize;
use super::image::ImageProcessor;
use super::resize::Filter;
use crate::error::{Error, Result};
use serde_json::Value;

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// The share of the resized picture that the crop takes, where nothing says so.
const SHARE: f64 = 0.875;

impl ImageProcessor {
    /// Reads timm's `pretrained_cfg`.
    ///
    /// # Errors
    /// [`Error::Model`] naming a key with a value that cannot be honoured.
    pub fn from_timm(config: &Value, channels: usize) -> Result<Self> {
        let get = |key: &str| config.get(key).filter(|v| !v.is_null());
        let wrong = |key: &str, expected: &str| {
            let value = config.get(key).cloned().unwrap_or_default();
            Error::Model(format!("config.json: pretrained_cfg: `{key}` is {value}, expected {expected}"))
        };
        let size = match get("input_size") {
            None => Some((224, 224)),
            Some(size) => {
                let side = |at: usize| size.get(at)?.as_u64().filter(|n| (1..=8192).contains(n)).map(|n| n as usize);
                side(1).zip(side(2))
            }
        };
        let (height, width) = size.ok_or_else(|| wrong("input_size", "[channels, height, width]"))?;
        let share = get("crop_pct").map_or(Some(SHARE), |v| v.as_f64().filter(|n| *n > 0.01 && *n <= 1.0));
        let share = share.ok_or_else(|| wrong("crop_pct", "a share above 0 and up to 1"))?;
        let grown = |n: usize| (n as f64 / share).floor() as usize;
        let resize = match get("crop_mode").map_or(Some("center"), Value::as_str) {
            Some("center") if height == width => Resize::ShortestEdge(grown(height)),
            Some("squash") => Resize::Exact(grown(height), grown(width)),
            _ => return Err(wrong("crop_mode", "`center` (of squares) or `squash`")),
        };
        let filter = match get("interpolation").map_or(Some("bicubic"), Value::as_str) {
            Some("bicubic") => Filter::Bicubic,
            Some("bilinear") => Filter::Bilinear,
            Some("lanczos") => Filter::Lanczos,
            Some("nearest") => Filter::Nearest,
            _ => return Err(wrong("interpolation", "bicubic, bilinear, lanczos or nearest")),
        };
        let colour = |key: &str, usual: [f32; 3]| -> Result<Vec<f32>> {
            let list = match get(key) {
                None => return Ok(usual.iter().copied().cycle().take(channels).collect()),
                Some(list) => list.as_array(),
            };
            let number = |v: &Value| v.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
            let list: Option<Vec<f32>> = list.and_then(|list| list.iter().map(number).collect());
            list.filter(|list| list.len() == channels).ok_or_else(|| wrong(key, "a number for each channel"))
        };
        let std = colour("std", STD)?;
        if std.contains(&0.0) {
            return Err(wrong("std", "numbers other than 0"));
        }
        Ok(ImageProcessor {
            resize: Some(resize),
            filter,
            crops: vec![(height, width)],
            even: true,
            mean: colour("mean", MEAN)?,
            std,
            ..ImageProcessor::plain((height, width), channels)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_honoured_or_refused() {
        let read = |json: Value| ImageProcessor::from_timm(&json, 3);
        let usual = read(json!({})).unwrap();
        assert_eq!((usual.resize, &usual.crops[..]), (Some(Resize::ShortestEdge(256)), &[(224, 224)][..]));
        let own = json!({"input_size": [3, 384, 384], "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]});
        let own = read(own).unwrap();
        assert_eq!((own.resize, own.filter, own.mean[1]), (Some(Resize::Exact(384, 384)), Filter::Bilinear, 0.5));
        for (key, value) in [
            ("crop_mode", json!("border")),
            ("crop_pct", json!(-1)),
            ("interpolation", json!("random")),
            ("mean", json!([0.5])),
            ("std", json!([0, 1, 1])),
            ("input_size", json!([3])),
        ] {
            let said = read(json!({ key: value })).unwrap_err().to_string();
            assert!(said.contains(&format!("`{key}` is")), "{said}");
        }
    }
}
