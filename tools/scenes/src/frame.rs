//! Rendered frames.

/// An image with its labels. All buffers are row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height][width][3]`, 8 bits per channel.
    pub rgb: Vec<u8>,
    /// Class at the center of each pixel, an index into [`CLASSES`](crate::CLASSES).
    pub classes: Vec<u8>,
    /// Instance at the center of each pixel. An instance has the same number in every frame of a
    /// scene; the numbers have gaps.
    pub instances: Vec<u16>,
}
