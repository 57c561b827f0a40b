//! Upsamplers that filter: an output is a weighted mean of the backbone's features around it, and
//! the weights come from the image alone.
//!
//! The output is in the backbone's own feature space, and a linear head can be applied to the
//! features before they are upsampled. Joint bilateral upsampling ([`jbu`]) and NAF ([`naf`]) are of
//! this kind; another one implements the two traits.

pub(crate) mod jbu;
pub(crate) mod naf;

use loftup_bundle::Size;

use crate::{ExecutionOptions, Rect, RuntimeError, heads::Head};

/// A frame of a filter: the image after everything that is computed once.
pub(crate) trait FilterFrame: Send + Sync {
    /// Size of the output.
    fn size(&self) -> Size;

    /// Channels of the features.
    fn dim(&self) -> usize;

    /// Threads and tile size.
    fn options(&self) -> ExecutionOptions;

    /// Applies a head that takes as many channels as there are.
    fn set_head(&mut self, head: &Head) -> Result<(), RuntimeError>;

    /// What computes tiles in one thread. `head` is the one that was set, if any.
    fn worker<'a>(&'a self, head: Option<&'a Head>) -> Box<dyn FilterWorker + 'a>;

    /// A copy, for another head.
    fn boxed_clone(&self) -> Box<dyn FilterFrame>;

    /// Threads that are useful.
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
    /// The output for the given tiles, `[pixels, channels]`.
    fn run(&mut self, tiles: &mut dyn Iterator<Item = Rect>) -> Result<&[f32], RuntimeError>;
}

/// Longest side of a tile.
const TILE: usize = 64;
