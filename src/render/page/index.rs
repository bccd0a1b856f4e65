//! The index of a folder of pages: a card an input, which may be sorted and filtered. Thumbnails are files beside the pages.

use super::{filled, jpeg, shrunk, written, STYLE};
use crate::error::Result;
use crate::explanation::Explanation;
use crate::render::{heat, Scene};
use minijinja::context;
use serde::{Deserialize, Serialize};

const TEMPLATE: &str = include_str!("index.html");
const SCRIPT: &str = include_str!("index.js");

/// What a thumbnail's file ends in.
pub const THUMBNAIL: &str = "thumb.jpg";
/// Pixels along its longer side.
const SIDE: u32 = 240;

#[derive(Serialize)]
struct Data<'a> {
    entries: &'a [Entry],
}

/// An input of the index.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The address of its page, seen from the index.
    pub page: String,
    /// Its thumbnail likewise; none of texts.
    pub thumbnail: Option<String>,
    /// What the model says first.
    pub label: Option<String>,
    /// How sure it is of that: a probability, or a value.
    pub figure: Option<f32>,
}

/// The picture under its first map, small, as JPEG.
///
/// # Errors
/// When it cannot be drawn or encoded.
pub fn thumbnail(scene: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    jpeg(&shrunk(&heat::blended(scene, e)?, SIDE))
}

/// The page of all inputs.
///
/// # Errors
/// [`crate::Error::Fault`] where vitx itself fails.
pub fn index(title: &str, about: &str, entries: &[Entry]) -> Result<Vec<u8>> {
    let (version, data) = (env!("CARGO_PKG_VERSION"), written(&Data { entries })?);
    filled(TEMPLATE, context! { title, about, version, data, style => STYLE, script => SCRIPT })
}
