//! A left operand in any format.

use super::{
    Epilogue, PackedA, gemm,
    narrow::{NarrowA, NarrowB, gemm_narrow},
    nr,
};
use crate::{
    simd::{SupportedFormat, SupportedIsa},
    tokens::{scale_columns, unnormalized_softmax},
};

/// A left operand `[rows][depth]` in the format that its products are computed in.
#[derive(Debug)]
pub(crate) enum Packed {
    Fp32(PackedA),
    Narrow(NarrowA),
}

/// The right operand of a product, rounded.
pub(crate) type Scratch = NarrowB;

impl Packed {
    /// Packs the matrix whose element (row, k) is `at(row, k)`; without a format as 32-bit floats.
    pub fn new(
        isa: SupportedIsa,
        format: Option<SupportedFormat>,
        rows: usize,
        depth: usize,
        at: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let mut packed = match format {
            None => Self::Fp32(PackedA::new(isa, rows, depth, |_, _| 0.0)),
            Some(format) => Self::Narrow(NarrowA::new(format, rows, depth)),
        };
        packed.fill(at);
        packed
    }

    /// Replaces the values, keeping the shape.
    pub fn fill(&mut self, at: impl Fn(usize, usize) -> f32) {
        match self {
            Self::Fp32(a) => a.fill(at),
            Self::Narrow(a) => a.fill(at),
        }
    }

    /// Rows of A and C.
    pub fn rows(&self) -> usize {
        match self {
            Self::Fp32(a) => a.rows(),
            Self::Narrow(a) => a.rows(),
        }
    }

    /// Columns of A and rows of B.
    pub fn depth(&self) -> usize {
        match self {
            Self::Fp32(a) => a.depth(),
            Self::Narrow(a) => a.depth(),
        }
    }

    /// `C = A B` for panels of 32-bit floats, as in [`gemm`]. In other formats, B is rounded first.
    #[allow(clippy::too_many_arguments)]
    pub fn multiply(
        &self,
        b: &[f32],
        b_stride: usize,
        c: &mut [f32],
        c_stride: usize,
        panels: usize,
        epilogue: Epilogue<'_>,
        scratch: &mut Scratch,
    ) {
        match self {
            Self::Fp32(a) => gemm(a, b, b_stride, c, c_stride, panels, epilogue),
            Self::Narrow(a) => {
                scratch.pack(a.format(), b, b_stride, a.depth(), panels);
                gemm_narrow(a, scratch, c, c_stride, panels, epilogue);
            }
        }
    }

    /// `C = A softmax(B)` for a panel of scores B, with the softmax over each column. Scores are overwritten, and
    /// `inverse` `[NR]` is a buffer.
    pub fn multiply_softmax(
        &self,
        scores: &mut [f32],
        inverse: &mut [f32],
        c: &mut [f32],
        scratch: &mut Scratch,
    ) {
        match self {
            Self::Narrow(a) if a.format().format().is_scaled() => {
                scratch.pack_softmax(a.format(), scores, a.depth());
                gemm_narrow(a, scratch, c, 0, 1, Epilogue::Store);
            }
            _ => {
                let isa = self.isa();
                unnormalized_softmax(isa, scores, inverse);
                self.multiply(scores, 0, c, 0, 1, Epilogue::Store, scratch);
                scale_columns(isa, &mut c[..self.rows() * nr(isa)], inverse);
            }
        }
    }

    /// The instruction set.
    fn isa(&self) -> SupportedIsa {
        match self {
            Self::Fp32(a) => a.isa,
            Self::Narrow(a) => a.format().isa(),
        }
    }
}
