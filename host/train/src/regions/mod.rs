//! Class-agnostic regions of a picture: masks that come with it, or a segmentation by colour.

mod graph;
mod rle;

pub use graph::{Segmentation, segment};
pub use rle::{Rle, RleError};

/// A region: pixels of a guidance picture.
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

/// A part of a picture and the size at which it is looked at.
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
    /// Columns of the answer.
    pub out_width: usize,
    /// Rows of the answer.
    pub out_height: usize,
}

impl Window {
    /// The column of the picture that column `x` of the answer shows, by nearest neighbour as
    /// PyTorch does it.
    fn column(&self, x: usize) -> usize {
        self.x + x * self.width / self.out_width
    }

    fn row(&self, y: usize) -> usize {
        self.y + y * self.height / self.out_height
    }
}
