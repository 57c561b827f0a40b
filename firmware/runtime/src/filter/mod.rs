//! Filtering upsamplers: each output is a weighted mean of nearby backbone features, with weights
//! that depend on the image only.
//!
//! The output is in the backbone's own feature space, and a linear head can be applied to the
//! features before they are upsampled. Joint bilateral upsampling ([`jbu`]) and NAF ([`naf`]) are of
//! this kind; to add another one, implement the two traits.

pub(crate) mod jbu;
pub(crate) mod naf;

use loftup_bundle::Size;

use crate::{ExecutionOptions, Rect, RuntimeError, heads::Head};

/// A frame of a filter, with everything that is computed once per frame.
pub(crate) trait FilterFrame: Send + Sync {
    /// Size of the output.
    fn size(&self) -> Size;

    /// Number of channels of the features.
    fn dim(&self) -> usize;

    /// Threads and tile size.
    fn options(&self) -> ExecutionOptions;

    /// Sets a head whose number of input channels is [`FilterFrame::dim`].
    fn set_head(&mut self, head: &Head) -> Result<(), RuntimeError>;

    /// Creates a worker for one thread. `head` is the head that was set, if any.
    fn worker<'a>(&'a self, head: Option<&'a Head>) -> Box<dyn FilterWorker + 'a>;

    /// Returns a copy, to set another head.
    fn boxed_clone(&self) -> Box<dyn FilterFrame>;

    /// The frame, if the filter is NAF.
    fn as_naf(&self) -> Option<&naf::NafFrame> {
        None
    }

    /// Maximum number of threads to use.
    fn threads(&self) -> usize {
        self.options().threads
    }

    /// Longest side of a tile.
    fn tile(&self) -> usize {
        self.options().tile.unwrap_or(TILE)
    }
}

impl Clone for Box<dyn FilterFrame> {
    fn clone(&self) -> Self {
        self.as_ref().boxed_clone()
    }
}

/// Computes tiles in one thread.
pub(crate) trait FilterWorker {
    /// Returns the output for the given tiles, `[pixels, channels]`.
    fn run(&mut self, tiles: &mut dyn Iterator<Item = Rect>) -> Result<&[f32], RuntimeError>;
}

/// Longest side of a tile.
const TILE: usize = 64;
