//! What a backbone made from a checkpoint is.

use serde::{Deserialize, Serialize};

use crate::vit::{Activation, Family, Origin, Positions, Setting, VitConfig};

/// What a backbone made from a checkpoint is, and where that is known from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// The kind of transformer.
    pub family: Family,
    /// Channels of the transformer.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Register tokens.
    pub registers: usize,
    /// Side of the square grid of patches that the position embeddings were trained on.
    pub position_grid: usize,
    /// Attention heads.
    pub heads: Setting<usize>,
    /// Nonlinearity of the MLPs.
    pub activation: Setting<Activation>,
    /// Library whose resampling of position embeddings is reproduced.
    pub positions: Setting<Positions>,
    /// Where mean and standard deviation come from.
    pub normalisation: Origin,
}

impl Architecture {
    /// The architecture of a vision transformer.
    pub fn of(config: &VitConfig) -> Self {
        Self {
            family: config.family(),
            width: config.width,
            depth: config.depth,
            registers: config.registers,
            position_grid: config.grid,
            heads: config.heads,
            activation: config.activation,
            positions: config.positions,
            normalisation: config.normalisation,
        }
    }
}
