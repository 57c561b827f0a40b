//! The precisions of graphs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Precision of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats, with 32-bit floats where required.
    Fp16,
    /// 8-bit products with constants, 32-bit floats elsewhere.
    Int8,
    /// Weights stored as 16-bit floats, arithmetic in 32 bits.
    Fp16Weights,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 4] = [Self::Fp32, Self::Fp16, Self::Int8, Self::Fp16Weights];

    /// The name in manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Fp16Weights => "fp16-weights",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
