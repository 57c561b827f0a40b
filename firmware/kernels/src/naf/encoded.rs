//! Encoded images.

use std::sync::Arc;

use super::{Naf, blocks::Blocks, frame::Frame, give};

/// An encoded image, which can compute attention for any of its pixels.
#[derive(Debug)]
pub struct EncodedImage {
    pub(super) frame: Frame,
    pub(super) encodings: Encodings,
}

/// Rotated encodings of pixels and scaled keys of cells.
#[derive(Debug)]
pub(super) enum Encodings {
    /// Of the whole image.
    Whole {
        /// By branch, `[height * width, 128]`.
        encodings: [Vec<f32>; 2],
        /// `[rows * columns, 256]`.
        keys: Vec<f32>,
    },
    /// Computed where they are needed.
    Blocks(Blocks),
}

impl EncodedImage {
    /// Rows and columns of the grid.
    pub fn grid(&self) -> (usize, usize) {
        self.frame.grid()
    }

    /// Rows and columns of the image.
    pub fn size(&self) -> (usize, usize) {
        self.frame.image.size()
    }

    /// Whether it was encoded with these weights.
    pub fn is_of(&self, naf: &Arc<Naf>) -> bool {
        Arc::ptr_eq(&self.frame.naf, naf)
    }
}

impl Drop for EncodedImage {
    fn drop(&mut self) {
        if let Encodings::Whole { encodings, .. } = &mut self.encodings {
            for map in encodings {
                give(&self.frame.naf.maps, std::mem::take(map));
            }
        }
    }
}
