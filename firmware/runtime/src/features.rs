//! Features of the backbone on its grid of patches.

use crate::{RuntimeError, error::check_finite};

/// Features on a grid of patches, one token per patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Channels, `d`.
    pub dim: usize,
    /// Rows of the grid.
    pub height: usize,
    /// Columns of the grid.
    pub width: usize,
    /// `[height * width, dim]`: tokens in row-major order, the channels of a token contiguous.
    pub tokens: Vec<f32>,
}

impl Features {
    /// Creates features from an array `[1, d, h, w]`, the layout of a convolutional feature map.
    ///
    /// # Errors
    /// If it has a different shape or contains NaN.
    pub fn from_map(shape: &[usize], map: &[f32], dim: usize) -> Result<Self, RuntimeError> {
        match *shape {
            [1, d, height, width]
                if d == dim && height > 0 && width > 0 && map.len() == d * height * width =>
            {
                check_finite("the features", map)?;
                Ok(Self {
                    dim,
                    height,
                    width,
                    tokens: transposed(map, dim, height * width),
                })
            }
            _ => Err(RuntimeError::FeatureShape {
                found: shape.to_vec(),
                dim,
            }),
        }
    }

    /// The features as a map `[d, h, w]`.
    pub fn to_map(&self) -> Vec<f32> {
        transposed(&self.tokens, self.height * self.width, self.dim)
    }
}

/// Transposes a row-major matrix of `rows x columns`.
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    // Blocks keep the source and the destination in the cache.
    const BLOCK: usize = 16;
    let mut out = vec![0.0; values.len()];
    for top in (0..rows).step_by(BLOCK) {
        let below = (top + BLOCK).min(rows);
        for left in (0..columns).step_by(BLOCK) {
            for column in left..(left + BLOCK).min(columns) {
                for row in top..below {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_become_tokens_and_back() {
        for (dim, height, width) in [(1, 1, 1), (3, 1, 5), (17, 3, 2), (33, 16, 17)] {
            let map: Vec<f32> = (0..dim * height * width).map(|i| i as f32).collect();
            let features = Features::from_map(&[1, dim, height, width], &map, dim).unwrap();
            let area = height * width;
            for (i, value) in features.tokens.iter().enumerate() {
                assert_eq!(*value, map[i % dim * area + i / dim]);
            }
            assert_eq!(features.to_map(), map);
        }
    }
}
