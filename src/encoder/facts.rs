//! What is known of a model before its weights are read.

use crate::error::{Error, Result};
use crate::scale::Scale;

/// What a method may need to know of a model before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// It reads texts, not images.
    pub text: bool,
    /// Its feed-forward is gated (SwiGLU).
    pub gated: bool,
    /// Its classifier reads the mean of the patches beside the class token.
    pub patch_mean: bool,
    /// Its tokenizer has a mask token.
    pub mask_token: bool,
    /// L
    pub layers: usize,
    /// H
    pub heads: usize,
    /// The classifier reads a class token.
    pub class_token: bool,
    /// The classifier reads the mean of all tokens, or the last, in place of a class token.
    pub mean: bool,
    /// There is a distillation token.
    pub distillation_token: bool,
    /// A second classifier reads that token.
    pub reads_distillation: bool,
    /// The layer norms stand behind the sub-layers or their sums (Swin v2, BERT), not before them (ViT).
    pub post_norm: bool,
    /// Between stages four tokens become one, so that layers do not hold the same tokens; 1: all hold the same.
    pub stages: usize,
    /// The first layer of the last stage.
    pub last_stage: usize,
    /// A norm stands between its values and what attention adds to a state.
    pub inner_norm: bool,
    /// What its logits are.
    pub scale: Scale,
    /// It has no classifier.
    pub headless: bool,
}

impl Facts {
    /// Whether layers do not hold the same tokens.
    pub fn staged(&self) -> bool {
        self.stages > 1
    }

    /// Refuses a norm over their sum between the tokens' values and what they add to a state.
    pub fn values_add_up(&self) -> Result<()> {
        if self.inner_norm {
            return Err(Error::Refused(
                "it adds up what each token's values add to a state, and in this model a norm over their sum stands between; use gae, rollout or attn-lrp".into(),
            ));
        }
        Ok(())
    }

    /// Refuses texts.
    pub fn images_only(&self, why: &str) -> Result<()> {
        if self.text {
            return Err(Error::Refused(format!("it is defined for images only: {why}")));
        }
        Ok(())
    }
}
