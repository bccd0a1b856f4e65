//! The mean of maps, patch by patch, and of the pictures that the model saw.

use super::tally::One;
use crate::explanation::Layout;
use image::{Rgb, RgbImage};

/// Sums over maps of one grid.
#[derive(Debug, Clone, Default)]
pub struct MeanMap {
    /// Rows and columns.
    grid: (usize, usize),
    /// A patch in pixels.
    patch: (usize, usize),
    /// `[gridH*gridW]`
    sums: Vec<f64>,
    /// Maps in them.
    maps: usize,
    /// Maps of another grid, which are not.
    others: usize,
    /// Sums of the levels of small pictures, with their width and height and how many there are.
    picture: Option<Levels>,
}

#[derive(Debug, Clone)]
struct Levels {
    size: (u32, u32),
    sums: Vec<u64>,
    pictures: u64,
}

impl MeanMap {
    /// Adds the map of an image, unless it is of another grid.
    pub(super) fn add(&mut self, one: &One<'_>, fits: bool) {
        let Layout::Image(layout) = &one.explanation.layout else { return };
        let values = one.explanation.content();
        if self.maps == 0 && fits {
            (self.grid, self.patch, self.sums) = (layout.grid, layout.patch, vec![0.0; values.len()]);
        }
        if !fits || values.len() != self.sums.len() {
            self.others += 1;
            return;
        }
        self.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
        self.maps += 1;
        if let Some(small) = one.picture {
            let size = small.dimensions();
            let new = || Levels { size, sums: vec![0; small.as_raw().len()], pictures: 0 };
            let levels = self.picture.get_or_insert_with(new);
            if levels.size == size {
                levels.sums.iter_mut().zip(small.as_raw()).for_each(|(sum, level)| *sum += u64::from(*level));
                levels.pictures += 1;
            }
        }
    }

    /// Rows and columns, and a patch in pixels.
    pub fn layout(&self) -> ((usize, usize), (usize, usize)) {
        (self.grid, self.patch)
    }

    /// Maps that are in it.
    pub fn maps(&self) -> usize {
        self.maps
    }

    /// Maps of another grid, which are not in it.
    pub fn others(&self) -> usize {
        self.others
    }

    /// `[gridH*gridW]` row by row; none without a map.
    pub fn mean(&self) -> Option<Vec<f64>> {
        (self.maps > 0).then(|| self.sums.iter().map(|sum| sum / self.maps as f64).collect())
    }

    /// Row and column of the greatest value, counted from 1; none without a map, and where all values are one.
    pub fn peak(&self) -> Option<(usize, usize)> {
        let mean = self.mean()?;
        let at = (0..mean.len()).max_by(|a, b| mean[*a].total_cmp(&mean[*b]).then(b.cmp(a)))?;
        let columns = self.grid.1.max(1);
        mean.iter().any(|v| *v != mean[at]).then_some((at / columns + 1, at % columns + 1))
    }

    /// The mean of the pictures, small; none where they were not asked for.
    pub fn picture(&self) -> Option<RgbImage> {
        let Levels { size: (width, height), sums, pictures } = self.picture.as_ref()?;
        let level = |sum: u64| ((sum + pictures / 2) / pictures.max(&1)) as u8;
        let at = |x: u32, y: u32, c: usize| sums.get((y * width + x) as usize * 3 + c).copied().unwrap_or(0);
        Some(RgbImage::from_fn(*width, *height, |x, y| Rgb(std::array::from_fn(|c| level(at(x, y, c))))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::image;
    use super::*;

    #[test]
    fn means_are_exact_and_pictures_are_rounded() {
        let mut map = MeanMap::default();
        assert_eq!((map.mean(), map.peak(), map.maps()), (None, None, 0));
        let pictures = [[0, 10, 255], [1, 20, 255]].map(|level| RgbImage::from_pixel(2, 1, Rgb(level)));
        // Sums in f32 would lose the second value.
        for (values, picture) in [[16_777_216.0, 0.0], [1.0, 2.0]].iter().zip(&pictures) {
            let explanation = &image(0, 3.0, values);
            map.add(&One { explanation, said: 0.5, right: None, picture: Some(picture) }, true);
        }
        assert_eq!(map.mean(), Some(vec![8_388_608.5, 1.0]));
        assert_eq!((map.peak(), map.layout()), (Some((1, 1)), ((1, 2), (2, 2))));
        assert_eq!(map.picture().unwrap().get_pixel(1, 0), &Rgb([1, 15, 255]));
        let mut flat = MeanMap::default();
        flat.add(&One { explanation: &image(0, 0.0, &[2.0, 2.0]), said: 0.5, right: None, picture: None }, true);
        assert_eq!((flat.peak(), flat.picture().is_none()), (None, true));
    }
}
