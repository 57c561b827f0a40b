//! Settings of a backbone that its weights do not determine.

use super::{Activation, Positions};

/// Settings given by the user. They take precedence over config files and published models.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VitOptions {
    /// Attention heads.
    pub heads: Option<usize>,
    /// Activation of the MLPs.
    pub activation: Option<Activation>,
    /// How learned position embeddings are resampled.
    pub positions: Option<Positions>,
    /// Whether to apply SigLIP's pooling head to each token, so that features are in the space of its
    /// texts. CLIP's always are.
    pub text_space: bool,
    /// Mean of the colors, in 0 to 1.
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of the colors.
    pub std: Option<[f32; 3]>,
}
