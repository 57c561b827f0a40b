//! The values that attention averages.

use loftup_spec::naf::HEADS;

use crate::{
    KernelError,
    gemm::{GemmPackedB, nr},
};

/// The values that pixels attend to: features, or the outputs of a linear layer on them.
///
/// Each head attends to a quarter of the channels. So a linear layer on the output equals the sum over
/// the heads of attention to the values of a linear layer on their quarter. With `k` outputs, these are
/// `4 k` values per cell instead of all channels, and no features of pixels are computed.
#[derive(Debug, Clone)]
pub struct Values {
    /// `[cells, HEADS, width]`.
    pub(super) data: Vec<f32>,
    /// Number of values per head.
    pub(super) width: usize,
    /// If present, the heads are summed and this bias is added; otherwise they are concatenated.
    pub(super) bias: Option<Vec<f32>>,
}

impl Values {
    /// Uses features `[cells, dim]` directly.
    ///
    /// # Errors
    /// If `dim` is not a multiple of the number of heads.
    pub fn features(features: Vec<f32>, dim: usize) -> Result<Self, KernelError> {
        let width = check_features(&features, dim)?;
        Ok(Self {
            data: features,
            width,
            bias: None,
        })
    }

    /// `features weight^T + bias` of features `[cells, dim]`, with `weight` `[k, dim]` and `bias`
    /// `[k]`.
    ///
    /// # Errors
    /// If `dim` is not a multiple of the number of heads, or the weights have the wrong size.
    pub fn linear(
        isa: crate::Isa,
        (features, dim): (&[f32], usize),
        weight: &[f32],
        bias: &[f32],
    ) -> Result<Self, KernelError> {
        let isa = isa.supported().ok_or(KernelError::Isa(isa))?;
        let depth = check_features(features, dim)?;
        let outputs = bias.len();
        if weight.len() != outputs * dim || outputs == 0 {
            return Err(KernelError::Weight {
                what: "the linear layer".into(),
                expected: outputs.max(1) * dim,
                found: weight.len(),
            });
        }
        let (cells, columns) = (features.len() / dim, nr(isa));
        let padded = outputs.next_multiple_of(columns);
        let mut data = vec![0.0; cells * HEADS * outputs];
        let mut product = vec![0.0; cells * padded];
        for head in 0..HEADS {
            let mut b = vec![0.0; depth * padded];
            for (o, row) in weight.chunks_exact(dim).enumerate() {
                for (k, w) in row[head * depth..][..depth].iter().enumerate() {
                    b[(o / columns * depth + k) * columns + o % columns] = *w;
                }
            }
            let gemm = GemmPackedB {
                rows: cells,
                depth,
                cols: padded,
                a: &features[head * depth..],
                a_stride: dim,
                b: &b,
                c: &mut product,
                c_stride: padded,
                scales: None,
            };
            gemm.run(isa);
            for (to, from) in data
                .chunks_exact_mut(HEADS * outputs)
                .zip(product.chunks(padded))
            {
                to[head * outputs..][..outputs].copy_from_slice(&from[..outputs]);
            }
        }
        Ok(Self {
            data,
            width: outputs,
            bias: Some(bias.to_vec()),
        })
    }

    /// `[cells, HEADS, width]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Number of values per cell and attention head.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The bias of a linear layer, whose values are summed over the heads; `None` for features.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Number of output channels per pixel.
    pub fn outputs(&self) -> usize {
        match self.bias {
            Some(_) => self.width,
            None => HEADS * self.width,
        }
    }

    pub(super) fn cells(&self) -> usize {
        self.data.len() / (HEADS * self.width)
    }
}

/// Returns the number of channels per head.
fn check_features(features: &[f32], dim: usize) -> Result<usize, KernelError> {
    if dim == 0 || !dim.is_multiple_of(HEADS) {
        return Err(KernelError::Channels(dim));
    }
    if features.is_empty() || !features.len().is_multiple_of(dim) {
        return Err(KernelError::Size {
            what: "features",
            expected: features.len().next_multiple_of(dim).max(dim),
            found: features.len(),
        });
    }
    Ok(dim / HEADS)
}
