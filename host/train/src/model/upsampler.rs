//! The upsampler to train, of either kind.

use std::collections::BTreeMap;

use loftup_onnx::Tensor as HostTensor;

use super::{BatchStats, Guidance, LoftUp, Mode, Naf, Output, Params, Tokens};

/// An upsampler.
#[derive(Debug, Clone)]
pub enum Upsampler {
    /// LoftUp, for one backbone.
    LoftUp(LoftUp),
    /// NAF, for any backbone.
    Naf(Naf),
}

impl Upsampler {
    /// Trained weights.
    pub fn weights(&self) -> &Params {
        match self {
            Self::LoftUp(loftup) => &loftup.weights,
            Self::Naf(naf) => &naf.weights,
        }
    }

    /// Replaces the weights.
    pub fn set_weights(&mut self, weights: Params) {
        match self {
            Self::LoftUp(loftup) => loftup.weights = weights,
            Self::Naf(naf) => naf.weights = weights,
        }
    }

    /// The LoftUp, if it is one.
    pub fn loftup(&self) -> Option<&LoftUp> {
        match self {
            Self::LoftUp(loftup) => Some(loftup),
            Self::Naf(_) => None,
        }
    }

    /// The LoftUp, if it is one.
    pub fn loftup_mut(&mut self) -> Option<&mut LoftUp> {
        match self {
            Self::LoftUp(loftup) => Some(loftup),
            Self::Naf(_) => None,
        }
    }

    /// Computes features for an output of `size` (rows, columns), which for LoftUp is the guidance's size.
    ///
    /// # Panics
    /// If tokens, guidance and size do not match the upsampler.
    pub fn forward(
        &self,
        lr: &Tokens,
        guidance: &Guidance,
        size: (usize, usize),
        mode: Mode,
    ) -> Output {
        match self {
            Self::LoftUp(loftup) => loftup.forward(lr, guidance, mode),
            Self::Naf(naf) => {
                let colors = guidance.colors(&lr.values.device());
                Output {
                    features: naf.forward(lr, colors, guidance.grid(), size),
                    batch_stats: BatchStats::new(),
                }
            }
        }
    }

    /// The tensors of its checkpoint.
    pub fn tensors(&self) -> BTreeMap<String, HostTensor> {
        match self {
            Self::LoftUp(loftup) => {
                let mut tensors = loftup.weights.to_host();
                tensors.extend(loftup.statistics.to_host());
                tensors
            }
            Self::Naf(naf) => naf.tensors(),
        }
    }
}
