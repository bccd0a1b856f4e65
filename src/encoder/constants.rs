//! What a model adds on its own: the relevance of biases and layer-norm shifts, token by token.
//!
//! Srinivas & Fleuret, NeurIPS 2019 (FullGrad). Every linear bias and layer-norm shift b from the first layer to the head
//! contributes `sum_d b_d g_d`, g at the output of its operation. Under rules that conserve relevance, the states
//! entering any layer and the constants from there on make the logit.

use crate::encoder::{Block, Encoder, FeedForward, Head, NormPlacement, Pooling};
use crate::error::Result;
use crate::nn::{attention, Linear};
use crate::trace::{Grads, LayerGrads};
use candle_core::{Tensor, D};

impl Encoder {
    /// Relevance of the constants of each layer, and last of final norm and head: L + 1 tensors `[B,T]`. What acts on a
    /// pooled state is booked at the token it was pooled from, the class token for the classifier.
    pub fn constants(&self, grads: &Grads) -> Result<Vec<Tensor>> {
        let mut all = self
            .blocks
            .iter()
            .zip(&grads.layers)
            .map(|(block, grads)| block.constants(grads))
            .collect::<Result<Vec<_>>>()?;
        let head = self.head.constants(grads)?;
        all.push(match &self.final_norm {
            Some(norm) => (head + share(&norm.bias, &grads.head.normed)?)?,
            None => head,
        });
        Ok(all)
    }
}

/// `sum_d b_d g_d`: `[D]`, `[...,D]` -> `[...]`
fn share(constant: &Tensor, grad: &Tensor) -> Result<Tensor> {
    Ok(grad.broadcast_mul(constant)?.sum(D::Minus1)?)
}

fn bias(linear: &Linear, grad: &Tensor) -> Result<Option<Tensor>> {
    linear.bias.as_ref().map(|b| share(b, grad)).transpose()
}

impl Block {
    fn constants(&self, g: &LayerGrads) -> Result<Tensor> {
        let scaled = |grad: &Tensor, scale: &Option<Tensor>| match scale {
            Some(scale) => grad.broadcast_mul(scale),
            None => Ok(grad.clone()),
        };
        let (norm1, norm2) = match self.placement {
            NormPlacement::Pre => (&g.read, &g.normed),
            NormPlacement::Post => (&g.normed, &g.output),
        };
        let mut sum = (share(&self.norm1.bias, norm1)? + share(&self.norm2.bias, norm2)?)?; // [B,T]
        let (first, second) = match &self.feed_forward {
            FeedForward::Plain { fc1, fc2, .. } => (fc1, fc2),
            FeedForward::Gated { weights_in, weights_out } => (weights_in, weights_out),
        };
        let heads = [(&self.query, g.query.as_ref()), (&self.key, g.key.as_ref()), (&self.value, Some(&g.value))];
        let parts = [
            bias(&self.projection, &scaled(&g.mixed, &self.scale1)?)?,
            bias(first, &g.hidden)?,
            bias(second, &scaled(&g.fed, &self.scale2)?)?,
        ];
        for part in parts.into_iter().flatten() {
            sum = (sum + part)?;
        }
        for (linear, grad) in heads {
            if let Some(part) = grad.map(|g| bias(linear, &attention::merge_heads(g)?)).transpose()?.flatten() {
                sum = (sum + part)?;
            }
        }
        Ok(sum)
    }
}

impl Head {
    /// `[B,T]`
    fn constants(&self, grads: &Grads) -> Result<Tensor> {
        let seed = &grads.head.logits;
        let (b, tokens, _) = grads.head.last.dims3()?;
        let mut pooled = Vec::new(); // one [B] a classifier
        let factor = 1.0 / self.classifiers.len() as f64;
        for classifier in &self.classifiers {
            let own = bias(classifier, seed)?.map_or_else(|| Tensor::zeros(b, seed.dtype(), seed.device()), Ok)?;
            pooled.push((own * factor)?);
        }
        if let (Some((dense, _)), Some(grad)) = (&self.dense, &grads.head.dense) {
            if let Some(own) = bias(dense, grad)? {
                pooled[0] = (&pooled[0] + own)?;
            }
        }
        debug_assert_eq!(pooled.len(), if self.pooling == Pooling::FirstAndSecond { 2 } else { 1 });
        let taken = pooled.len();
        let mut columns = pooled.iter().map(|p| p.unsqueeze(1)).collect::<candle_core::Result<Vec<_>>>()?;
        columns.push(Tensor::zeros((b, tokens - taken), seed.dtype(), seed.device())?);
        Ok(Tensor::cat(&columns, 1)?)
    }
}
