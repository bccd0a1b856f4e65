//! Localisation as pointing: is the highest point on the object, and how much relevance lies inside it?
//!
//! `pointing-game` (Zhang et al., IJCV 2018): 1 if the first maximum in row-major order of the map at the input's resolution
//! lies in the mask, or within `tolerance` pixels of it (default 0; the original 15 at full resolution); an empty mask is a
//! miss. `mass-inside` (Wang et al. 2020): share of positive relevance that lies inside the mask. Void pixels of the mask are
//! left out: they cannot be the highest point, and their relevance counts on neither side.

use crate::error::Result;
use crate::evaluate::contract::{mean, Case, Direction, Entry, Metric, Needs, Score};
use crate::evaluate::curves::pixels;
use crate::evaluate::mask::Place;
use crate::run::Logits;

pub(in crate::evaluate) const POINTING_GAME: Entry = Entry {
    name: "pointing-game",
    title: "does the highest point lie on the object?",
    paper: "Zhang et al., IJCV 2018",
    direction: Direction::Higher,
    images: true,
    texts: false,
    needs: Needs::Mask,
    default: true,
    build: |params| {
        let about = "distance from the object in pixels that still counts";
        Ok(Box::new(Pointing { tolerance: params.number("tolerance", 0.0, about, 0.0..=1e4)? }))
    },
    pool: mean,
};

pub(in crate::evaluate) const MASS_INSIDE: Entry = Entry {
    name: "mass-inside",
    title: "how much of the positive relevance lies on the object?",
    paper: "Wang et al., CVPR Workshops 2020",
    build: |_| Ok(Box::new(Mass)),
    ..POINTING_GAME
};

struct Pointing {
    tolerance: f64,
}

impl Metric for Pointing {
    fn score(&self, case: &Case<'_, '_>, _: &[Logits]) -> Result<Option<Score>> {
        let Some(mask) = &case.truth.mask else { return Ok(None) };
        let size = case.run.subject()?.size()?;
        let map = pixels(case.explanation, size)?;
        let known = (0..map.len()).filter(|&i| mask[i] != Place::Void);
        let highest = known.max_by(|&a, &b| map[a].total_cmp(&map[b]).then(b.cmp(&a))).unwrap_or(0);
        let place = |i: usize| ((i / size.1) as f64, (i % size.1) as f64);
        let (y, x) = place(highest);
        let near = |i: usize| {
            let (my, mx) = place(i);
            (my - y).hypot(mx - x) <= self.tolerance
        };
        let hit = (0..mask.len()).any(|i| mask[i] == Place::Object && near(i));
        Ok(Some(f64::from(u8::from(hit)).into()))
    }

    fn convention(&self) -> String {
        match self.tolerance {
            0.0 => "share of inputs whose highest point lies in the mask".into(),
            t => format!("share of inputs whose highest point lies within {t} pixels of the mask"),
        }
    }
}

struct Mass;

impl Metric for Mass {
    fn score(&self, case: &Case<'_, '_>, _: &[Logits]) -> Result<Option<Score>> {
        let Some(mask) = &case.truth.mask else { return Ok(None) };
        let map = pixels(case.explanation, case.run.subject()?.size()?)?;
        let sum = |wanted: fn(Place) -> bool| -> f64 {
            map.iter().zip(mask).filter(|(_, m)| wanted(**m)).map(|(v, _)| v.max(0.0)).sum()
        };
        let (all, inside) = (sum(|m| m != Place::Void), sum(|m| m == Place::Object));
        Ok(Some(if all > 0.0 { inside / all } else { 0.0 }.into()))
    }

    fn convention(&self) -> String {
        "share of positive relevance inside the mask, mean over inputs; a map without any counts 0".into()
    }
}
