//! Raw relevance as a NumPy array.

use super::Scene;
use crate::error::{Error, Result};
use crate::explanation::Explanation;
use npyz::WriterBuilder;

/// f32 `[gridH,gridW]` for images (prefix tokens dropped), `[T]` for texts (special tokens kept), `[T,T]` for a matrix (all tokens).
pub fn render(_: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    let shape: Vec<u64> = e.shape().into_iter().map(|side| side as u64).collect();
    array(e.content(), &shape)
}

/// f32 `[H,W]` at the model's input resolution, for methods that attribute to pixels.
pub fn pixels(_: &Scene<'_>, e: &Explanation) -> Result<Vec<u8>> {
    let map = e.pixels.as_ref();
    let map = map.ok_or_else(|| Error::Usage(format!("method `{}` has no map at pixel resolution", e.method)))?;
    array(&map.values, &[map.size.0 as u64, map.size.1 as u64])
}

fn array(values: &[f32], shape: &[u64]) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::Input(format!("npy: {e}"));
    let mut bytes = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes);
    let mut writer = options.begin_nd().map_err(failed)?;
    writer.extend(values.iter().copied()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}
