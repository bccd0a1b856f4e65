//! The naive model's lower end: from pixels `[3][H*W]` or word vectors `[T][D]` to the first layer, and back.

use super::ops::{add_back, box_back, linear_back, norm_back, Dense, Norm, Place, Rules};
use super::{Change, Reversed, Trace, Transformer, Vector};
use crate::twins::{plus, Matrix};
use candle_core::{DType, Tensor};
use vitx::encoder::{Embedding, Inputs};
use vitx::explanation::Layout;
use vitx::run::Run;

enum Start {
    Image {
        projection: Dense,
        patch: (usize, usize),
        grid: (usize, usize),
        width: usize,
        prefix: usize,
        /// Class and distillation token, their positions not added.
        positioned: Matrix,
        /// The first layer's input less what pixels make of it: positions of patches, whole prefix tokens.
        fixed: Matrix,
    },
    Text {
        words: Matrix,
        /// From the first position that is used.
        positions: Matrix,
        types: Matrix,
        norm: Norm,
    },
}

/// A model, and one input of it.
pub struct Naive {
    pub model: Transformer,
    start: Start,
    /// Pixels `[3][H*W]` or word vectors `[T][D]`.
    pub x: Matrix,
    types: Vec<usize>,
}

fn matrix(t: &Tensor) -> Matrix {
    t.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

fn whole(t: &Tensor, row: usize, n: usize) -> Vec<usize> {
    t.get(row).unwrap().to_vec1::<u32>().unwrap()[..n].iter().map(|&v| v as usize).collect()
}

impl Naive {
    /// `inputs` are the batch the run belongs to.
    pub fn of(run: &Run<'_>, inputs: &Inputs) -> Naive {
        let (encoder, row, n) = (run.encoder(), run.number(), run.tokens());
        let model = Transformer::of(encoder);
        let embedded = matrix(&run.input(0).unwrap());
        match (inputs, &encoder.embedding, run.layout()) {
            (Inputs::Pixels(pixels), Embedding::Patches(e), Layout::Image(layout)) => {
                let width = pixels.dims()[3];
                let projection = Dense::of(&e.projection);
                let x = matrix(&pixels.get(row).unwrap().flatten_from(1).unwrap());
                let prefix = layout.prefix.len();
                let made = unfold(&x, width, layout.patch, layout.grid);
                let bare = |t: usize| projection.run(&made[t]).iter().map(|v| -v).collect::<Vector>();
                let rest = (prefix..n).map(|t| plus(&embedded[t], &bare(t - prefix)));
                let fixed = embedded[..prefix].iter().cloned().chain(rest).collect();
                let positioned = e.positioned.iter().map(|(_, t)| t.to_vec1().unwrap()).collect();
                let (patch, grid) = (layout.patch, layout.grid);
                let start = Start::Image { projection, patch, grid, width, prefix, positioned, fixed };
                Naive { model, start, x, types: Vec::new() }
            }
            (Inputs::Tokens { ids, types, .. }, Embedding::Words(e), _) => {
                let words = matrix(&e.words);
                let first = e.padding_id.map_or(0, |id| id as usize + 1);
                let positions = matrix(e.positions.as_ref().unwrap())[first..].to_vec();
                let (ids, types_of) = (whole(ids, row, n), whole(types, row, n));
                let nothing = vec![vec![0.0; words[0].len()]; 2];
                let types = e.types.as_ref().map_or(nothing, matrix);
                let x = ids.iter().map(|&id| words[id].clone()).collect();
                let start = Start::Text { words, positions, types, norm: Norm::of(e.norm.as_ref().unwrap()) };
                Naive { model, start, x, types: types_of }
            }
            _ => panic!("inputs of another kind"),
        }
    }

    pub fn word(&self, id: usize) -> Vector {
        let Start::Text { words, .. } = &self.start else { panic!("no text") };
        words[id].clone()
    }

    /// The state entering the first layer; of a text `kept` names the tokens whose vectors `x` has.
    fn embed(&self, x: &Matrix, kept: &[usize]) -> Matrix {
        match &self.start {
            Start::Image { projection, patch, grid, width, prefix, fixed, .. } => {
                let patches = unfold(x, *width, *patch, *grid);
                let own = |t: usize| plus(&fixed[t], &projection.run(&patches[t - prefix]));
                let tokens = 0..fixed.len();
                tokens.map(|t| if t < *prefix { fixed[t].clone() } else { own(t) }).collect()
            }
            Start::Text { norm, .. } => self.word_sums(x, kept).iter().map(|s| norm.run(s)).collect(),
        }
    }

    fn word_sums(&self, x: &Matrix, kept: &[usize]) -> Matrix {
        let Start::Text { positions, types, .. } = &self.start else { panic!("no text") };
        let sum = |(t, &k): (usize, &usize)| plus(&plus(&x[t], &positions[t]), &types[self.types[k]]);
        kept.iter().enumerate().map(sum).collect()
    }

    pub fn embedded(&self, x: &Matrix) -> Matrix {
        self.embed(x, &self.all())
    }

    /// Every token of a text.
    fn all(&self) -> Vec<usize> {
        (0..self.types.len()).collect()
    }

    pub fn forward(&self, x: &Matrix) -> Trace {
        self.forward_changed(x, &Change::default())
    }

    pub fn forward_changed(&self, x: &Matrix, change: &Change) -> Trace {
        self.model.forward(&self.embedded(x), change)
    }

    /// A text cut down to these tokens.
    pub fn forward_cut(&self, kept: &[usize]) -> Trace {
        let x = kept.iter().map(|&t| self.x[t].clone()).collect();
        self.model.forward(&self.embed(&x, kept), &Change::default())
    }

    /// What a reverse pass carries to pixels or word vectors.
    pub fn input_back(&self, x: &Matrix, reversed: &Reversed, r: Rules) -> Matrix {
        let arriving = &reversed.layers[0].input;
        match &self.start {
            Start::Image { projection, patch, grid, width, .. } => {
                let patches = unfold(x, *width, *patch, *grid);
                let own = self.content_back(&patches, arriving, r);
                let (low, high) = x.iter().flatten().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
                let back = |(p, c): (&Vector, &Vector)| match r.chefer() {
                    true => box_back(projection, p, c, (low, high)),
                    false => linear_back(projection, p, &projection.run(p), c, r, Place::Patches).0,
                };
                let back: Matrix = patches.iter().zip(&own).map(back).collect();
                fold(&back, x[0].len(), *width, *patch, *grid)
            }
            Start::Text { norm, .. } => {
                let sums = self.word_sums(x, &self.all());
                let back = |t: usize| norm_back(norm, &sums[t], &norm.run(&sums[t]), &arriving[t], r).0;
                let by_sum: Matrix = (0..x.len()).map(back).collect();
                let rest = |t: usize| sums[t].iter().zip(&x[t]).map(|(s, x)| s - x).collect();
                add_back(x, &(0..x.len()).map(rest).collect(), &by_sum, r).0
            }
        }
    }

    /// What reaches patches before their positions were added.
    fn content_back(&self, patches: &Matrix, arriving: &Matrix, r: Rules) -> Matrix {
        let Start::Image { projection, prefix, positioned, fixed, .. } = &self.start else { panic!("no image") };
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vector>();
        let rows: Vec<usize> = (0..positioned.len()).chain(*prefix..fixed.len()).collect();
        let content = positioned.iter().cloned().chain(patches.iter().map(|p| projection.run(p))).collect();
        let position = |&t: &usize| match t < *prefix {
            true => minus(&fixed[t], &positioned[t]),
            false => fixed[t].clone(),
        };
        let arriving = rows.iter().map(|&t| arriving[t].clone()).collect();
        add_back(&content, &rows.iter().map(position).collect(), &arriving, r).0[positioned.len()..].to_vec()
    }
}

/// Pixels of each patch, `[N][3*P*P]`.
fn unfold(x: &Matrix, width: usize, (ph, pw): (usize, usize), (rows, columns): (usize, usize)) -> Matrix {
    let patch = |t: usize| {
        let (top, left) = (t / columns * ph, t % columns * pw);
        let line = |channel: &Vector, y: usize| channel[(top + y) * width + left..][..pw].to_vec();
        x.iter().flat_map(|channel| (0..ph).flat_map(move |y| line(channel, y))).collect()
    };
    (0..rows * columns).map(patch).collect()
}

/// The reverse of [`unfold`]; 0 outside of patches.
fn fold(
    patches: &Matrix,
    pixels: usize,
    width: usize,
    (ph, pw): (usize, usize),
    (_, columns): (usize, usize),
) -> Matrix {
    let mut x = vec![vec![0.0; pixels]; 3];
    for (t, patch) in patches.iter().enumerate() {
        for (i, value) in patch.iter().enumerate() {
            let (channel, y, column) = (i / (ph * pw), i / pw % ph, i % pw);
            x[channel][(t / columns * ph + y) * width + t % columns * pw + column] = *value;
        }
    }
    x
}
