//! Errors of the tracker.

use loftup_bundle::Size;

use crate::{Rect, RuntimeError};

/// Why objects cannot be tracked. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// An option out of its range.
    #[error("{name} is {value}: {expected}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// Not enough memory for the context frames.
    #[error(
        "{frames} frames of {height} x {width} cells with {dim} channels do not fit into memory: use a smaller grid, or fewer `last_frames`"
    )]
    TooLarge {
        /// Frames.
        frames: usize,
        /// Rows of the grid.
        height: usize,
        /// Columns of the grid.
        width: usize,
        /// Channels.
        dim: usize,
    },
    /// Features whose size does not match the tracker.
    #[error(
        "{found} values of features: the tracker takes {height} x {width} cells with {dim} channels; make another tracker for another grid"
    )]
    FeatureCount {
        /// Values given.
        found: usize,
        /// Rows of the grid.
        height: usize,
        /// Columns of the grid.
        width: usize,
        /// Channels.
        dim: usize,
    },
    /// Features that are not finite.
    #[error(transparent)]
    NotFinite(#[from] RuntimeError),
    /// An object was started before the first frame.
    #[error("there is no frame yet: call `update` with its features, then `start`")]
    NoFrame,
    /// An invalid label.
    #[error("label {label}: labels are 1 to {most} (`max_objects`)")]
    Label {
        /// The label.
        label: u8,
        /// The largest one.
        most: usize,
    },
    /// A mask whose size differs from the image.
    #[error("a mask of {found} values for an image of {size}, expected {}", size.area())]
    MaskLength {
        /// Its values.
        found: usize,
        /// Size of the image.
        size: Size,
    },
    /// An object without pixels.
    #[error("object {0} has no pixel in its mask")]
    EmptyMask(u8),
    /// A box that is empty or not within the image.
    #[error("object {label}: the box {},{},{},{} is empty or not within the image of {size}", rect.x, rect.y, rect.width, rect.height)]
    BoxOutside {
        /// The object.
        label: u8,
        /// The box.
        rect: Rect,
        /// Size of the image.
        size: Size,
    },
    /// A click outside the image.
    #[error("object {label}: the click {x},{y} is outside the image of {size}")]
    ClickOutside {
        /// The object.
        label: u8,
        /// Column.
        x: usize,
        /// Row.
        y: usize,
        /// Size of the image.
        size: Size,
    },
}
