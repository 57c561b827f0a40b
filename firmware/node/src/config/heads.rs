//! The heads that the configuration names.

use serde::Deserialize;

/// `[model.jbu]`: queries whose head is missing are skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JbuHeads {
    /// The head for class maps and regions, with the same classes.
    pub head: Option<String>,
    /// The head for features at points.
    pub descriptors: Option<String>,
    /// The head for depth maps.
    pub depth: Option<String>,
}

/// The heads for the features of one upsampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadNames<'a> {
    /// For class maps and regions.
    pub classes: Option<&'a str>,
    /// For features at points.
    pub descriptors: Option<&'a str>,
    /// For depth maps.
    pub depth: Option<&'a str>,
    /// Whether features at points are the upsampler's features if there is no head for them.
    pub plain_features: bool,
}
