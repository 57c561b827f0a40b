//! Heads on dense features, and how good the features are.
//!
//! A head is trained on the features that it will see ([`heads`]). [`segmentation`] trains the same
//! linear probe on features that were enlarged in different ways and compares what the probes see
//! in pictures that none of them was trained on. [`video`] measures how much features of the same
//! spot change from frame to frame while a camera moves.

#![forbid(unsafe_code)]

pub mod boundary;
pub mod confusion;
pub mod data;
mod error;
pub mod heads;
pub mod judging;
pub mod labels;
pub mod probe;
mod random;
pub mod resize;
mod sampling;
pub mod segmentation;
pub mod video;

pub use error::EvalError;
pub use sampling::Method;

/// What is going on, for a progress bar: the stage, steps done, steps in all.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);
