//! Settings of a backbone that its weights do not determine.

use super::{Activation, Positions};

/// Settings given by the user. They take precedence over config files and published models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VitOptions {
    /// Attention heads.
    pub heads: Option<usize>,
    /// Activation of the MLPs.
    pub activation: Option<Activation>,
    /// How position embeddings are resampled.
    pub positions: Option<Positions>,
}
