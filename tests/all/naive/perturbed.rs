//! Twins of perturbation methods: forward passes of the naive model on changed inputs.

use super::twin::{probabilities, relu, Answer, Twin};
use super::{Trace, Vector};
use crate::support::flat;
use crate::twins::{length, plus, Matrix};

/// Bilinear resizing, pixel by pixel.
pub fn enlarged(map: &Matrix, (height, width): (usize, usize), corners: bool) -> Matrix {
    let place = |i: usize, from: usize, to: usize| match corners {
        true => i as f64 * (from - 1) as f64 / (to - 1) as f64,
        false => ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64),
    };
    let (rows, columns) = (map.len(), map[0].len());
    let at = |y: usize, x: usize| {
        let (y, x) = (place(y, rows, height), place(x, columns, width));
        let (top, left) = (y as usize, x as usize);
        let (down, right) = (y - top as f64, x - left as f64);
        let (bottom, end) = ((top + 1).min(rows - 1), (left + 1).min(columns - 1));
        let line = |r: usize| map[r][left] * (1.0 - right) + map[r][end] * right;
        line(top) * (1.0 - down) + line(bottom) * down
    };
    (0..height).map(|y| (0..width).map(|x| at(y, x)).collect()).collect()
}

/// Between its least and greatest value; a constant map is 0.
pub fn unit_range(map: &[f64], epsilon: f64) -> Vector {
    let (low, high) = map.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    map.iter().map(|v| if high == low { 0.0 } else { (v - low) / (high - low + epsilon) }).collect()
}

/// Groups of masks, the two nearest joined while nearer than `delta` (complete linkage, cosine distance).
pub fn clusters(masks: &[Vector], delta: f64) -> Vec<Vec<usize>> {
    let dot = |a: &Vector, b: &Vector| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let distance = |&a: &usize, &b: &usize| {
        let lengths = length(&masks[a]) * length(&masks[b]);
        1.0 - if lengths == 0.0 { 0.0 } else { dot(&masks[a], &masks[b]) / lengths }
    };
    let mut groups: Vec<Vec<usize>> = (0..masks.len()).map(|d| vec![d]).collect();
    loop {
        let mut nearest = (delta, 0, 0);
        for (i, j) in (0..groups.len()).flat_map(|j| (0..j).map(move |i| (i, j))) {
            let pairs = groups[i].iter().flat_map(|a| groups[j].iter().map(move |b| distance(a, b)));
            let apart = pairs.fold(f64::MIN, f64::max);
            if apart < nearest.0 {
                nearest = (apart, i, j);
            }
        }
        if nearest.0 >= delta {
            groups.sort();
            return groups;
        }
        let joined = groups.remove(nearest.2);
        groups[nearest.1].extend(joined);
        groups[nearest.1].sort();
    }
}

impl Twin<'_> {
    pub fn seen_through(&self, mask: &[f64]) -> Matrix {
        self.naive.x.iter().map(|c| c.iter().zip(mask).map(|(x, m)| x * m).collect()).collect()
    }

    pub fn scorecam(&self, clamp: bool) -> Vector {
        let (prefix, (_, columns), _) = self.image();
        let maps: Vec<Matrix> = (0..self.width()).map(|d| self.channel_map(d)).collect();
        let mask = |m: &Matrix| unit_range(&enlarged(m, self.size(), true).concat(), 1e-8);
        let scores: Vector = maps.iter().map(|m| self.score_of(&self.seen_through(&mask(m)), false)).collect();
        let weights = probabilities(&scores);
        let patch = |t: usize| maps.iter().zip(&weights).map(|(m, w)| w * m[t / columns][t % columns]).sum::<f64>();
        let patches = (0..self.run.tokens() - prefix).map(|t| if clamp { relu(patch(t)) } else { patch(t) });
        std::iter::repeat_n(0.0, prefix).chain(patches).collect()
    }

    pub fn vit_cx(&self, delta: f64) -> Answer {
        let d = self.width();
        let size = self.size();
        let features: Vec<Vector> =
            (0..d).map(|d| unit_range(&enlarged(&self.channel_map(d), size, false).concat(), 0.0)).collect();
        let groups = clusters(&features, delta);
        let merged = |g: &Vec<usize>| g.iter().map(|&d| features[d].clone()).reduce(|a, b| plus(&a, &b)).unwrap();
        let masks: Vec<Vector> = groups.iter().map(|g| unit_range(&merged(g), 0.0)).collect();
        let noise = flat(&self.run.noise().normal("vit-cx", &[2, 3, size.0, size.1]).unwrap());
        let pixels = size.0 * size.1;
        let own = self.score(&self.trace, true);
        let cause = |(i, mask): (usize, &Vector)| {
            let variant = |shown: &dyn Fn(usize) -> f64| -> Matrix {
                let behind = |c: usize, p: usize| 0.1 * noise[(i % 2 * 3 + c) * pixels + p] * (1.0 - mask[p]);
                let at = |c: usize, p: usize| self.naive.x[c][p] * shown(p) + behind(c, p);
                (0..3).map(|c| (0..pixels).map(|p| at(c, p)).collect()).collect()
            };
            self.score_of(&variant(&|p| mask[p]), true) - self.score_of(&variant(&|_| 1.0), true) + own
        };
        let scores: Vector = masks.iter().enumerate().map(cause).collect();
        let pixel = |p: usize| {
            let cover: f64 = masks.iter().map(|m| m[p]).sum();
            let caused: f64 = masks.iter().zip(&scores).map(|(m, s)| m[p] * s).sum();
            if cover == 0.0 {
                0.0
            } else {
                caused / cover / masks.len() as f64
            }
        };
        self.pixels((0..pixels).map(pixel).collect(), true)
    }

    pub fn occlusion(&self, window: usize, zero: bool, probability: bool) -> Vector {
        let (prefix, (rows, columns), (ph, pw)) = self.image();
        let width = self.size().1;
        let colour = |c: &Vector| if zero { 0.0 } else { c.iter().sum::<f64>() / c.len() as f64 };
        let whole = self.score(&self.trace, probability);
        let mut drops: Vec<Vector> = vec![Vec::new(); rows * columns];
        for (r, c) in (0..=rows - window).flat_map(|r| (0..=columns - window).map(move |c| (r, c))) {
            let inside = |y: usize, x: usize| (r..r + window).contains(&y) && (c..c + window).contains(&x);
            let hidden = |p: usize| inside(p / width / ph, p % width / pw);
            let cover = |own: &Vector| {
                let colour = colour(own);
                own.iter().enumerate().map(|(p, x)| if hidden(p) { colour } else { *x }).collect()
            };
            let drop = whole - self.score_of(&self.naive.x.iter().map(cover).collect(), probability);
            (0..drops.len()).filter(|t| inside(t / columns, t % columns)).for_each(|t| drops[t].push(drop));
        }
        let patches = drops.iter().map(|d| d.iter().sum::<f64>() / d.len() as f64);
        std::iter::repeat_n(0.0, prefix).chain(patches).collect()
    }

    pub fn rise(&self, n: usize, cells: usize, keep: f64, probability: bool) -> Answer {
        let (height, width) = self.size();
        let cell = (height.div_ceil(cells), width.div_ceil(cells));
        let grids = flat(&self.run.noise().bernoulli("rise-grid", keep, &[n, cells, cells]).unwrap());
        let shifts = flat(&self.run.noise().offsets("rise-shift", n, cell).unwrap());
        let mut map = vec![0.0; height * width];
        for s in 0..n {
            let grid: Matrix = grids[s * cells * cells..][..cells * cells].chunks(cells).map(<[f64]>::to_vec).collect();
            let large = enlarged(&grid, ((cells + 1) * cell.0, (cells + 1) * cell.1), false);
            let (top, left) = (shifts[2 * s] as usize, shifts[2 * s + 1] as usize);
            let mask: Vector = large[top..top + height].iter().flat_map(|r| r[left..left + width].to_vec()).collect();
            let score = self.score_of(&self.seen_through(&mask), probability);
            map = map.iter().zip(&mask).map(|(m, k)| m + score * k / (n as f64 * keep)).collect();
        }
        self.pixels(map, true)
    }

    /// `without` runs the text without some tokens; special tokens are not tried where it cannot do without them.
    pub fn leave_one_out(
        &self,
        words: bool,
        keep: bool,
        probability: bool,
        without: impl Fn(&[usize]) -> Trace,
    ) -> Vector {
        let tokens = &self.text().unwrap().tokens;
        let whole = self.score(&self.trace, probability);
        let drop = |t: usize| {
            let same = |u: &usize| u == &t || words && tokens[t].word.is_some() && tokens[*u].word == tokens[t].word;
            let unit: Vec<usize> = (0..tokens.len()).filter(same).collect();
            (whole - self.score(&without(&unit), probability)) / unit.len() as f64
        };
        (0..tokens.len()).map(|t| if keep && tokens[t].special { 0.0 } else { drop(t) }).collect()
    }

    pub fn replaced(&self, unit: &[usize], id: Option<u32>) -> Trace {
        let mut x = self.naive.x.clone();
        unit.iter().for_each(|&t| x[t] = self.naive.word(id.unwrap() as usize));
        self.naive.forward(&x)
    }

    pub fn cut(&self, unit: &[usize]) -> Trace {
        let kept: Vec<usize> = (0..self.run.tokens()).filter(|t| !unit.contains(t)).collect();
        self.naive.forward_cut(&kept)
    }
}
