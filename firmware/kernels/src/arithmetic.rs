//! The arithmetic of the matrix products.

use std::{fmt, str::FromStr};

use crate::{
    Isa,
    simd::{Format, SupportedFormat, SupportedIsa},
};

/// How the matrix products of the queries graph are computed. Fourier features, statistics and divisions
/// of normalizations, softmax, GELU, residuals and all sums always have 32 bits, except sums of a few
/// products in [`Arithmetic::Fp16`].
///
/// Below, "the precise format" is 16-bit integers on x86-64 and fp16 on 64-bit ARM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Arithmetic {
    /// 32-bit floating point.
    #[default]
    Fp32,
    /// Both operands of every product rounded to 16-bit integers: weights with a scale per output
    /// channel, activations with a scale per token, head or tile. On ARM it is no faster than 32 bits.
    Int16,
    /// Both operands of every product rounded to fp16, with the same scales. Up to 32 products are summed
    /// in fp16, and these sums in 32 bits. ARM only.
    Fp16,
    /// Both operands of linear layers and attention rounded to bfloat16; convolutions use the precise
    /// format, because Winograd's transform magnifies rounding errors.
    Bf16,
    /// Both operands of linear layers, except the projection to queries, rounded to 8-bit integers, and on
    /// x86-64 those of the weighted sums of values in attention; the rest uses the precise format.
    Int8,
}

impl Arithmetic {
    /// All variants, the most precise first.
    pub const ALL: [Self; 5] = [Self::Fp32, Self::Int16, Self::Fp16, Self::Bf16, Self::Int8];

    /// Names the instructions that it needs on this architecture.
    pub fn needs(self) -> &'static str {
        match (self, cfg!(target_arch = "aarch64")) {
            (Self::Fp32, _) => "nothing",
            (Self::Int16, true) => "NEON",
            (Self::Fp16, true) => "FEAT_FP16",
            (Self::Bf16, true) => "FEAT_BF16 and FEAT_FP16",
            (Self::Int8, true) => "FEAT_DotProd and FEAT_FP16",
            (Self::Int16, false) => "AVX2 or, with AVX-512, AVX512-VNNI",
            (Self::Int8, false) => "AVX-VNNI or AVX512-VNNI",
            (Self::Fp16, false) => "FEAT_FP16 of 64-bit ARM",
            (Self::Bf16, false) => "AVX512-BF16 and AVX512-VNNI",
        }
    }

    /// Whether this CPU has the instructions, in its fastest instruction set.
    pub fn is_available(self) -> bool {
        self.is_available_in(Isa::detect())
    }

    /// Whether this CPU has the instructions in an instruction set.
    pub fn is_available_in(self, isa: Isa) -> bool {
        isa.supported()
            .is_some_and(|isa| self.formats(isa).is_some())
    }

    /// Returns the format of each part for an instruction set; `None` if it has no instructions for one of them.
    pub(crate) fn formats(self, isa: SupportedIsa) -> Option<Formats> {
        if self == Self::Fp32 {
            return Some(Formats::default());
        }
        let [fp16, bf16, int16, int8] = [Format::Fp16, Format::Bf16, Format::Int16, Format::Int8]
            .map(|format| format.supported(isa));
        let precise = match cfg!(target_arch = "aarch64") {
            true => fp16,
            false => int16,
        };
        // Not measured on ARM.
        let values = match cfg!(target_arch = "aarch64") {
            true => precise,
            false => int8,
        };
        let [linear, attention, values, convolution] = match self {
            Self::Fp32 | Self::Int16 => [int16; 4],
            Self::Fp16 => [fp16; 4],
            Self::Bf16 => [bf16, bf16, bf16, precise],
            Self::Int8 => [int8, precise, values, precise],
        };
        Some(Formats {
            linear: Some(linear?),
            query: Some(attention?),
            attention: Some(attention?),
            values: Some(values?),
            convolution: Some(convolution?),
        })
    }
}

/// The format of the products of each part; `None` is 32-bit floats.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Formats {
    /// Linear layers.
    pub linear: Option<SupportedFormat>,
    /// The projection to queries, whose rounding errors are magnified by the softmax.
    pub query: Option<SupportedFormat>,
    /// Scores.
    pub attention: Option<SupportedFormat>,
    /// Weighted sums of values.
    pub values: Option<SupportedFormat>,
    /// 3x3 convolutions, in a 16-bit format.
    pub convolution: Option<SupportedFormat>,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Int16 => "int16",
            Self::Fp16 => "fp16",
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
