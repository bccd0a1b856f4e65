//! Gradients by attention maps at scaled inputs: what Beyond Intuition and IIA integrate.

use super::view::Run;
use crate::encoder::Keep;
use crate::error::{Error, Result};
use crate::nn::rules::SoftmaxRule;
use crate::nn::{widened, Rules};
use candle_core::{Device, Tensor};

impl Run<'_> {
    /// The mean of `dy/dA^{L-1}` over the input times `k/(steps-1)`, k < steps, `[H,T,T]`. Images are scaled as normalised
    /// pixels, texts behind the embedding's layer norm.
    pub fn integrated_feedback(&self, steps: usize) -> Result<Tensor> {
        let (encoder, subject) = (self.encoder(), self.subject()?);
        let x = if self.is_text() { self.input(0)? } else { subject.values()? };
        let (size, around) = (subject.chunk(Keep::Last), subject.around()?);
        let mut sum: Option<Tensor> = None;
        for from in (0..steps).step_by(size) {
            let range = from..(from + size).min(steps);
            let factors: Vec<f64> = range.clone().map(|k| k as f64 / (steps - 1) as f64).collect();
            let shape = [&[factors.len()][..], &vec![1; x.rank()]].concat();
            let factors = Tensor::from_vec(factors, shape, &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
            let scaled = x.unsqueeze(0)?.broadcast_mul(&factors)?;
            let trace = if self.is_text() {
                encoder.forward_states(&scaled.to_dtype(encoder.dtype())?, &around, Keep::Last)?
            } else {
                encoder.forward(&subject.with(&scaled)?, Keep::Last)?
            };
            let gradient = encoder.last_attention(&trace, &self.seeds(range.len())?)?; // [N,H,T,T]
            let part = widened(&gradient)?.sum(0)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
            self.progress(range.end, steps)?;
        }
        let sum = sum.ok_or_else(|| Error::Usage("steps must be at least 2".into()))?;
        Ok((sum * (1.0 / steps as f64))?)
    }

    /// `mean_h mean_{k,m} (A_h * dy/dA_h)^+` of each layer, `[T,T]`: the image times k/n, the last layer's attention times
    /// m/n and constant, k and m from 0 to n.
    pub fn iterated(&self, n: usize) -> Result<Vec<Tensor>> {
        let (encoder, subject) = (self.encoder(), self.subject()?);
        let (x, seed) = (subject.values()?.unsqueeze(0)?, self.seeds(1)?);
        let (last, block) = match encoder.blocks.split_last() {
            Some((block, below)) => (below.len(), block),
            None => return Err(Error::Model("the model has no layers".into())),
        };
        let constant = Rules { name: "constant last attention", softmax: SoftmaxRule::Constant, ..Rules::GRADIENT };
        let mut sums: Vec<Option<Tensor>> = vec![None; last + 1];
        for k in 0..=n {
            let scaled = subject.with(&(&x * (k as f64 / n as f64))?)?;
            let mut trace = encoder.forward(&scaled, Keep::Layers)?;
            let state = trace.layers[last].input.clone();
            for m in 0..=n {
                trace.layers[last] = block.forward_scaled(&state, &trace.around, m as f64 / n as f64)?;
                let head = encoder.read_out(&trace.layers[last].output, &trace.around)?;
                let arriving = encoder.head_backward(&head, &seed, &Rules::GRADIENT)?.last;
                let top = encoder.layer_backward(last, &trace.layers[last], &arriving, &constant)?;
                let mut add = |layer: usize, attention: &Tensor, gradient: &Tensor| -> Result<()> {
                    let product = (self.only(attention)? * self.only(gradient)?)?.relu()?; // [H,T,T]
                    sums[layer] = Some(match sums[layer].take() {
                        Some(sum) => (sum + product)?,
                        None => product,
                    });
                    Ok(())
                };
                let (below, start) = (&trace.layers[..last], seed.sum(1)?);
                add(last, &trace.layers[last].attention, &top.attention)?;
                encoder.walk(below, &top.input, &Rules::GRADIENT, &start, &mut |layer, own| {
                    add(layer, &below[layer].attention, &own.attention)
                })?;
                self.progress(k * (n + 1) + m + 1, (n + 1) * (n + 1))?;
            }
        }
        let count = ((n + 1) * (n + 1)) as f64;
        sums.into_iter().flatten().map(|sum| Ok((sum.mean(0)? * (1.0 / count))?)).collect()
    }

    /// Derivative of this run's output at the head on the state leaving `layer`, by that layer's attention, `[B,H,T,T]`.
    pub fn local_attention(&self, layer: usize, mean_pool: bool) -> Result<Tensor> {
        let (encoder, record) = (self.encoder(), self.record(layer)?);
        let seed = self.batch_seeds()?;
        let arriving = if mean_pool {
            encoder.mean_head_backward(&record.output, &seed)?
        } else {
            encoder.head_backward(&encoder.read_out(&record.output, &record.around)?, &seed, &Rules::GRADIENT)?.last
        };
        encoder.local_attention(layer, record, &arriving)
    }

    /// The only example of a tensor `[1,...]`, f32 at least.
    fn only(&self, tensor: &Tensor) -> Result<Tensor> {
        widened(&tensor.get(0)?)
    }
}
