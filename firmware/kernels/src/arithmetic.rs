//! The arithmetic of the matrix products.

use std::{fmt, str::FromStr};

use crate::{
    Isa,
    simd::{Format, SupportedFormat},
};

/// How the matrix products of the queries graph are computed. Fourier features, statistics and divisions
/// of normalizations, softmax, GELU, residuals and all sums have 32 bits in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Arithmetic {
    /// 32-bit floating point.
    #[default]
    Fp32,
    /// Both operands of every product rounded to 16-bit integers: weights with a scale for each output
    /// channel, activations with one for each token, head or tile. Needs AVX512-VNNI.
    Int16,
    /// Both operands of linear layers and attention rounded to bfloat16; convolutions are as in
    /// [`Arithmetic::Int16`], because Winograd's transform magnifies rounding errors. Needs AVX512-BF16 and
    /// AVX512-VNNI.
    Bf16,
    /// Both operands of linear layers rounded to 8-bit integers, except the projection to queries; the rest
    /// as in [`Arithmetic::Int16`]. Needs AVX512-VNNI.
    Int8,
}

impl Arithmetic {
    /// All of them, the most precise first.
    pub const ALL: [Self; 4] = [Self::Fp32, Self::Int16, Self::Bf16, Self::Int8];

    /// The instructions that it needs.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Fp32 => "nothing",
            Self::Bf16 => "AVX512-BF16 and AVX512-VNNI",
            Self::Int16 | Self::Int8 => "AVX512-VNNI",
        }
    }

    /// Whether this CPU has the instructions.
    pub fn is_available(self) -> bool {
        self.formats(Isa::detect()).is_some()
    }

    /// The formats of each part with an instruction set; `None` if this CPU or the instruction set does not
    /// have them.
    pub(crate) fn formats(self, isa: Isa) -> Option<Formats> {
        if self == Self::Fp32 {
            return Some(Formats::default());
        }
        if isa != Isa::Avx512 {
            return None;
        }
        let [bf16, int16, int8] =
            [Format::Bf16, Format::Int16, Format::Int8].map(Format::supported);
        let [linear, attention] = match self {
            Self::Bf16 => [bf16; 2],
            Self::Int8 => [int8, int16],
            _ => [int16; 2],
        };
        Some(Formats {
            linear: Some(linear?),
            query: Some(attention?),
            attention: Some(attention?),
            convolution: Some(int16?),
        })
    }
}

/// The format of the products of each part; 32-bit floats without one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Formats {
    /// Linear layers.
    pub linear: Option<SupportedFormat>,
    /// The projection to attention's queries: its rounding errors are magnified by the softmax.
    pub query: Option<SupportedFormat>,
    /// Scores, and weighted sums of values.
    pub attention: Option<SupportedFormat>,
    /// 3x3 convolutions: 16 bits.
    pub convolution: Option<SupportedFormat>,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Int16 => "int16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Arithmetic {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|arithmetic| arithmetic.to_string() == s).ok_or(())
    }
}
