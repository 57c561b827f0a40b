//! The precisions of graphs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Precision of a graph's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// 16-bit floats, and 32-bit ones where those are not enough.
    Fp16,
    /// 8-bit products with constants, 32-bit floats for the rest.
    Int8,
    /// Weights kept as 16-bit floats, arithmetic in 32 bits.
    Fp16Weights,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fp32, Self::Fp16, Self::Int8, Self::Fp16Weights];

    /// Its name in manifests and on the command line.
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
