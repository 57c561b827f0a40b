//! What a user can say about a backbone that its weights do not.

use super::{Activation, Positions};

/// What the user says about a backbone. It takes precedence over config files and known models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VitOptions {
    /// Attention heads.
    pub heads: Option<usize>,
    /// Nonlinearity of the MLPs.
    pub activation: Option<Activation>,
    /// How position embeddings are resampled.
    pub positions: Option<Positions>,
}
