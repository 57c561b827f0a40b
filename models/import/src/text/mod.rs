//! Text encoders of CLIP and SigLIP, from a checkpoint to an ONNX graph.
//!
//! A [`Checkpoint`] with the names of OpenAI, open_clip or Hugging Face transformers is read into a
//! [`TextEncoder`]. Token embeddings are looked up outside the graph ([`TextEncoder::embed`]), so
//! that the graph needs no integers and no vocabulary. [`TextEncoder::graph`] maps [`TOKENS`]
//! `[batch, length, width]` and [`POOL`] `[batch, 1, length]`, which is one at the token whose output
//! is the embedding and zero elsewhere, to [`EMBEDDING`] `[batch, dim]`, which is not normalized.

mod config;
mod error;
mod graph;
mod logit;
mod schemes;
mod tower;
mod weights;

pub use config::{TextConfig, TextConfigFiles, TextOptions};
pub use error::TextError;
pub use logit::Logit;

use crate::{
    checkpoint::Checkpoint,
    transformer::{Block, Linear, Norm},
};
use loftup_onnx::Tensor;

/// Name of the graph's first input: token embeddings with positions, `[batch, length, width]`.
pub const TOKENS: &str = "tokens";
/// Name of the graph's second input: selects the token whose output is the embedding, `[batch, 1, length]`.
pub const POOL: &str = "pool";
/// Name of the graph's output: the embeddings of the texts, `[batch, dim]`.
pub const EMBEDDING: &str = "embedding";

/// A text encoder: its configuration and its weights.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    config: TextConfig,
    weights: Weights,
}

#[derive(Debug, Clone)]
struct Weights {
    /// `[vocabulary, width]`.
    embedding: Tensor,
    /// `[context, width]`.
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    projection: Linear,
}

impl TextEncoder {
    /// Reads the text encoder in a checkpoint. Dimensions come from the weights. The activation,
    /// which is not in the weights, comes from `options`, `files`, or OpenAI's archive format, in
    /// this order.
    ///
    /// # Errors
    /// The checkpoint contains no text encoder, several, or an unsupported one; the activation is
    /// unknown; a config file contradicts the weights; or a tensor is missing, has the wrong shape,
    /// or is not finite.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        options: &TextOptions,
        files: &TextConfigFiles,
    ) -> Result<Self, TextError> {
        let tower = tower::Tower::find(checkpoint)?;
        let config = TextConfig::read(&tower, options, files)?;
        let weights = tower.weights(&config)?;
        Ok(Self { config, weights })
    }

    /// The configuration.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Appends the rows of [`TOKENS`] and [`POOL`] for one text: its token embeddings with positions,
    /// padded to `length` tokens, and the selection of the pooled token.
    ///
    /// # Errors
    /// There are no tokens or more than `length`, `length` exceeds the context, or a token is not in
    /// the vocabulary.
    pub fn embed(
        &self,
        ids: &[u32],
        length: usize,
        tokens: &mut Vec<f32>,
        pool: &mut Vec<f32>,
    ) -> Result<(), TextError> {
        let c = &self.config;
        let unsuitable = |what: String| TextError::Tokens { what };
        if ids.is_empty() || ids.len() > length || length > c.context {
            return Err(unsuitable(format!(
                "{} tokens for a length of {length}; this text encoder reads 1 to {}",
                ids.len(),
                c.context
            )));
        }
        // Without a causal mask, padding affects the result, so the tokenizer must choose it.
        if !c.causal && ids.len() != c.context {
            return Err(unsuitable(format!(
                "{} tokens; this text encoder reads exactly {}, with padding",
                ids.len(),
                c.context
            )));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= c.vocabulary) {
            return Err(unsuitable(format!(
                "token {id}, but this text encoder has {} tokens; use its own tokenizer",
                c.vocabulary
            )));
        }
        for (i, position) in self.weights.positions.data()[..length * c.width]
            .chunks_exact(c.width)
            .enumerate()
        {
            let id = ids.get(i).copied().unwrap_or(0) as usize;
            let row = &self.weights.embedding.data()[id * c.width..][..c.width];
            tokens.extend(row.iter().zip(position).map(|(x, p)| x + p));
        }
        let pooled = ids.len() - 1;
        pool.extend((0..length).map(|i| f32::from(u8::from(i == pooled))));
        Ok(())
    }

    /// The graph for `batch` texts of `length` tokens, as a serialized ONNX model with static shapes.
    pub fn graph(&self, batch: usize, length: usize) -> Vec<u8> {
        graph::build(&self.config, &self.weights, batch, length)
    }
}
