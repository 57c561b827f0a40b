//! Class-agnostic regions of an image: masks that come with it, or a segmentation by color.

mod color;
mod graph;

pub use color::ColorSpace;
pub use graph::{Segmentation, segment};
pub use loftup_masks::{Mask, Rle, RleError, Window};
