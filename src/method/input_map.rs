//! From values at the input to relevance: pixels pooled to patches, word vectors to tokens.

use crate::error::{Error, Result};
use crate::explanation::{ImageLayout, Layout, PixelMap};
use crate::method::contract::Relevance;
use crate::nn::numbers;
use crate::run::masking::{enlarged, Corners};
use crate::run::modes::led_by;
use crate::run::{Params, Run};
use candle_core::{Device, Tensor, D};

/// How the pixels of a patch become its relevance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// For maps that are no shares of a total.
    Mean,
    /// For attributions, so that totals are kept.
    Sum,
}

/// Where values and what a reverse pass carries to them are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Pixels, or rows of the word table.
    Input,
    /// The state entering the first layer.
    Embedding,
}

impl Place {
    /// By name.
    pub const NAMES: &'static [(&'static str, Self)] = &[("input", Place::Input), ("embedding", Place::Embedding)];
}

/// The parameters `resolution` and `suppress_grid` of methods that attribute to pixels.
#[derive(Debug, Clone, Copy)]
pub struct PixelOptions {
    /// Draw the map at pixel resolution, not on the patch grid. Both are computed.
    pub drawn: bool,
    /// Take the patch-frequency checkerboard out of the pixel map.
    pub suppress_grid: bool,
}

impl PixelOptions {
    /// Reads the two parameters; `drawn` is the method's own choice of resolution.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params, drawn: bool) -> Result<Self> {
        let resolutions = led_by(&[("patch", false), ("pixel", true)], drawn);
        let about = "images: what pictures show, the patches or single pixels (npy holds both)";
        let drawn = params.one_of("resolution", &resolutions, about)?;
        let about = "images: take what repeats from patch to patch (the grid) out of the pixel map";
        Ok(PixelOptions { drawn, suppress_grid: params.flag("suppress_grid", false, about)? })
    }
}

fn image<'a>(run: &'a Run<'_>) -> Result<&'a ImageLayout> {
    match run.layout() {
        Layout::Image(image) => Ok(image),
        Layout::Text(_) => Err(Error::Refused("a text has no pixels".into())),
    }
}

/// Relevance of an image from a map `[H,W]`; prefix tokens, which have no pixels, get 0.
pub fn of_pixels(run: &Run<'_>, map: &Tensor, pool: Pool, options: PixelOptions) -> Result<Relevance> {
    let layout = image(run)?;
    let size = map.dims2()?;
    let mut values = numbers(map)?;
    let patches = pooled(&values, size, layout, pool);
    let tokens = [vec![0.0; layout.prefix.len()], patches].concat();
    if options.suppress_grid {
        suppress_grid(&mut values, size, layout);
    }
    let values = values.into_iter().map(|v| v as f32).collect();
    let tokens: Vec<f32> = tokens.into_iter().map(|v| v as f32).collect();
    Ok(Relevance { pixels: Some(PixelMap { values, size, drawn: options.drawn }), ..tokens.into() })
}

/// Relevance from values of a layer's tokens `[T]`, prefix included. Where they are finer than the last layer's, what a token of that has
/// of them, and beside it their map at the size of the input, which pictures show.
///
/// # Errors
/// Whatever the passes report.
pub fn of_layer(run: &Run<'_>, values: Vec<f64>, layer: usize, pool: Pool) -> Result<Relevance> {
    let own = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let (Layout::Image(layout), Some((rows, columns))) = (run.layout(), run.grid(layer)?) else {
        return Ok(own(values).into());
    };
    if (rows, columns) == layout.grid {
        return Ok(own(values).into());
    }
    let finer = (rows / layout.grid.0, columns / layout.grid.1);
    let cells = ImageLayout { prefix: Vec::new(), grid: layout.grid, patch: finer };
    let tokens = own(pooled(&values, (rows, columns), &cells, pool));
    let whole = (layout.grid.0 * layout.patch.0, layout.grid.1 * layout.patch.1);
    let map = Tensor::from_vec(values, (1, rows, columns), &Device::Cpu)?;
    let map = match pool {
        Pool::Mean => enlarged(&map, whole, Corners::Free)?,
        Pool::Sum => {
            // A token's share is its pixels' together.
            let (ph, pw) = (whole.0 / rows, whole.1 / columns);
            let map = (map * (1.0 / (ph * pw) as f64))?.reshape((rows, 1, columns, 1))?;
            map.broadcast_as((rows, ph, columns, pw))?.contiguous()?.reshape((1, whole.0, whole.1))?
        }
    };
    let (_, _, height, width) = run.subject()?.values()?.unsqueeze(0)?.dims4()?;
    let map = map.pad_with_zeros(1, 0, height - whole.0)?.pad_with_zeros(2, 0, width - whole.1)?;
    let pixels = Some(PixelMap { values: own(numbers(&map)?), size: (height, width), drawn: true });
    Ok(Relevance { pixels, ..tokens.into() })
}

/// Patches `[rows*columns]` of a map `[H*W]`; pixels behind the last whole patch are not read.
pub fn pooled(map: &[f64], (_, width): (usize, usize), layout: &ImageLayout, pool: Pool) -> Vec<f64> {
    let (rows, columns) = layout.grid;
    let (ph, pw) = layout.patch;
    let factor = match pool {
        Pool::Mean => 1.0 / (ph * pw) as f64,
        Pool::Sum => 1.0,
    };
    let patch = |r: usize, c: usize| -> f64 {
        (r * ph..(r + 1) * ph).map(|y| map[y * width + c * pw..][..pw].iter().sum::<f64>()).sum()
    };
    (0..rows * columns).map(|i| patch(i / columns, i % columns) * factor).collect()
}

/// Subtracts from every pixel what the pixels of its place within a patch have in common over all patches, less the
/// map's mean.
///
/// In the map's spectrum that is a comb of notches at the multiples of the patch frequency, where the patch embedding's
/// filters print a checkerboard on gradients (Wrobel et al. 2026, DAVE, on the artefact; Muzellec et al., ICML 2024,
/// FORGrad, on filtering gradients in the frequency domain, there with a low pass).
fn suppress_grid(map: &mut [f64], (_, width): (usize, usize), layout: &ImageLayout) {
    let (ph, pw) = layout.patch;
    let (height, covered) = (layout.grid.0 * ph, layout.grid.1 * pw);
    let place = |y: usize, x: usize| (y % ph) * pw + x % pw;
    let mut common = vec![0.0; ph * pw];
    for y in 0..height {
        for x in 0..covered {
            common[place(y, x)] += map[y * width + x];
        }
    }
    let patches = (layout.grid.0 * layout.grid.1) as f64;
    common.iter_mut().for_each(|c| *c /= patches);
    let mean = common.iter().sum::<f64>() / common.len() as f64;
    for y in 0..height {
        for x in 0..covered {
            map[y * width + x] -= common[place(y, x)] - mean;
        }
    }
}

/// How a token's vector becomes its relevance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    /// The sum of its entries.
    Sum,
    /// Its Euclidean length.
    L2,
    /// The sum of its entries' sizes.
    L1,
}

impl Reduce {
    /// The parameter `reduce`: the sum, or the length.
    ///
    /// # Errors
    /// For values that do not fit.
    pub fn read(params: &mut Params) -> Result<Self> {
        let modes = [("sum", Reduce::Sum), ("l2", Reduce::L2)];
        params.one_of("reduce", &modes, "texts: sum or length over a word's vector")
    }

    /// `[T,D]` -> `[T]`
    pub fn apply(self, vectors: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Reduce::Sum => vectors.sum(D::Minus1)?,
            Reduce::L2 => vectors.sqr()?.sum(D::Minus1)?.sqrt()?,
            Reduce::L1 => vectors.abs()?.sum(D::Minus1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkerboard_is_taken_out_and_the_mean_stays() {
        let layout = ImageLayout { prefix: vec![], grid: (2, 3), patch: (2, 2) };
        let board = [0.3, -0.1, 0.2, 0.0];
        let smooth = |y: usize, x: usize| (y / 2) as f64 + (x / 2) as f64 * 0.5;
        let build = |with: f64| -> Vec<f64> {
            (0..28).map(|i| smooth(i / 7, i % 7) + with * board[(i / 7 % 2) * 2 + i % 7 % 2]).collect()
        };
        let (mut map, want) = (build(1.0), build(0.0));
        suppress_grid(&mut map, (4, 7), &layout);
        for y in 0..4 {
            for x in 0..6 {
                assert!((map[y * 7 + x] - want[y * 7 + x] - 0.1).abs() < 1e-12);
                // the board's mean stays
            }
        }
        let sums = pooled(&want, (4, 7), &layout, Pool::Sum);
        assert_eq!(sums, [0.0, 2.0, 4.0, 4.0, 6.0, 8.0]);
    }
}
