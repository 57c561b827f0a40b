//! Masks of objects in images: COCO's run-length encoding, and the JSON files of SA-1B.

#![forbid(unsafe_code)]

mod rle;
mod sa1b;

pub use rle::{Rle, RleError};
pub use sa1b::{BrokenMask, read_masks};

/// The pixels of an object or region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mask {
    pixels: Vec<u32>,
}

impl Mask {
    /// A region of the given pixels, row-major indices.
    pub fn new(pixels: Vec<u32>) -> Self {
        Self { pixels }
    }

    /// Its pixels, row-major indices.
    pub fn pixels(&self) -> &[u32] {
        &self.pixels
    }
}

/// A part of an image and the size at which it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First column of the part.
    pub x: usize,
    /// First row of the part.
    pub y: usize,
    /// Columns of the part.
    pub width: usize,
    /// Rows of the part.
    pub height: usize,
    /// Columns of the output.
    pub out_width: usize,
    /// Rows of the output.
    pub out_height: usize,
}

impl Window {
    /// The column of the image that column `x` of the output shows, by nearest neighbor as
    /// PyTorch does it.
    fn column(&self, x: usize) -> usize {
        self.x + x * self.width / self.out_width
    }

    fn row(&self, y: usize) -> usize {
        self.y + y * self.height / self.out_height
    }
}
