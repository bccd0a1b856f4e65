//! Variants of many inputs that go through the model together, under a memory budget: what has one shape waits until there
//! is enough of it for a pass.

use super::ask::Logits;
use crate::encoder::{Encoder, Inputs};
use crate::error::Result;
use crate::nn::numbers;
use candle_core::Tensor;

/// Values of variants that wait at once.
const HELD: usize = 64 << 20;
/// Variants that go through the model together.
const TOGETHER: usize = 64;

/// Parts that wait, each with what tells whose it is.
pub struct Together<'e, K> {
    encoder: &'e Encoder,
    /// The one that was added to last stands last.
    open: Vec<Pool<K>>,
}

/// Parts of one shape.
struct Pool<K> {
    parts: Vec<(K, Inputs)>,
    count: usize,
    values: usize,
}

impl<'e, K> Together<'e, K> {
    /// Nothing waits.
    pub fn new(encoder: &'e Encoder) -> Self {
        Together { encoder, open: Vec::new() }
    }

    /// How many variants to make next, where `most` may go through the model together: as many as fill the pass that was
    /// added to last.
    pub fn room(&self, most: usize) -> usize {
        let most = most.clamp(1, TOGETHER);
        match self.open.last() {
            Some(pool) if pool.count < most => most - pool.count,
            _ => most,
        }
    }

    /// Lets a part wait, no more than `most` variants of its shape together. Answers whatever had to run to make room for it.
    ///
    /// # Errors
    /// Whatever the pass reports.
    pub fn add(&mut self, whose: K, inputs: Inputs, most: usize) -> Result<Vec<(K, Logits)>> {
        let most = most.clamp(1, TOGETHER);
        let (count, values) = (inputs.batch()?, size(&inputs));
        let same = |pool: &Pool<K>| pool.parts.first().is_some_and(|(_, first)| alike(first, &inputs));
        let mut answers = Vec::new();
        let known = self.open.iter().position(same).map(|at| self.open.remove(at));
        let mut pool = match known {
            Some(pool) if pool.count + count > most => {
                answers = self.run(pool)?;
                Pool::default()
            }
            Some(pool) => pool,
            None => Pool::default(),
        };
        pool.parts.push((whose, inputs));
        (pool.count, pool.values) = (pool.count + count, pool.values + values);
        if pool.count >= most {
            answers.extend(self.run(pool)?);
        } else {
            self.open.push(pool);
        }
        while self.open.iter().map(|p| p.values).sum::<usize>() > HELD {
            let Some((largest, _)) = self.open.iter().enumerate().max_by_key(|(_, p)| p.values) else { break };
            let pool = self.open.remove(largest);
            answers.extend(self.run(pool)?);
        }
        Ok(answers)
    }

    /// Answers some of what still waits; none when nothing does.
    ///
    /// # Errors
    /// Whatever the pass reports.
    pub fn answered(&mut self) -> Result<Option<Vec<(K, Logits)>>> {
        match self.open.is_empty() {
            true => Ok(None),
            false => {
                let pool = self.open.remove(0);
                self.run(pool).map(Some)
            }
        }
    }

    fn run(&self, pool: Pool<K>) -> Result<Vec<(K, Logits)>> {
        let (owners, parts): (Vec<K>, Vec<Inputs>) = pool.parts.into_iter().unzip();
        let counts = parts.iter().map(Inputs::batch).collect::<Result<Vec<_>>>()?;
        let joined = joined(parts)?;
        let logits = self.encoder.logits(&joined)?;
        let classes = logits.dim(1)?;
        let flat = numbers(&logits)?;
        let mut rows = flat.chunks(classes.max(1)).map(<[f64]>::to_vec);
        Ok(owners.into_iter().zip(counts).map(|(whose, n)| (whose, rows.by_ref().take(n).collect())).collect())
    }
}

impl<K> Default for Pool<K> {
    fn default() -> Self {
        Pool { parts: Vec::new(), count: 0, values: 0 }
    }
}

/// Values in a batch of variants.
fn size(inputs: &Inputs) -> usize {
    match inputs {
        Inputs::Pixels(values) | Inputs::Words { rows: values, .. } => values.elem_count(),
        Inputs::Tokens { ids, .. } => ids.elem_count(),
    }
}

/// Whether two batches can be one.
fn alike(a: &Inputs, b: &Inputs) -> bool {
    match (a, b) {
        (Inputs::Pixels(a), Inputs::Pixels(b))
        | (Inputs::Words { rows: a, .. }, Inputs::Words { rows: b, .. })
        | (Inputs::Tokens { ids: a, .. }, Inputs::Tokens { ids: b, .. }) => a.dims().get(1..) == b.dims().get(1..),
        (Inputs::Pixels(_) | Inputs::Words { .. } | Inputs::Tokens { .. }, _) => false,
    }
}

/// Batches of one shape as one.
fn joined(parts: Vec<Inputs>) -> Result<Inputs> {
    let mut fields: [Vec<Tensor>; 4] = Default::default(); // of each part: its tensors, in their order
    let mut kind = None;
    for part in parts {
        kind.get_or_insert_with(|| part.clone());
        let [a, b, c, d] = &mut fields;
        match part {
            Inputs::Pixels(pixels) => a.push(pixels),
            Inputs::Tokens { ids, types, mask } => {
                a.push(ids);
                b.push(types);
                c.push(mask);
            }
            Inputs::Words { rows, positions, types, mask } => {
                a.push(rows);
                b.push(positions);
                c.push(types);
                d.push(mask);
            }
        }
    }
    let all = |tensors: &[Tensor]| Tensor::cat(tensors, 0);
    let [a, b, c, d] = &fields;
    Ok(match kind {
        Some(Inputs::Words { .. }) => {
            Inputs::Words { rows: all(a)?, positions: all(b)?, types: all(c)?, mask: all(d)? }
        }
        Some(Inputs::Tokens { .. }) => Inputs::Tokens { ids: all(a)?, types: all(b)?, mask: all(c)? },
        Some(Inputs::Pixels(_)) | None => Inputs::Pixels(all(a)?),
    })
}
