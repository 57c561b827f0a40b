//! Heads on dense features, and evaluation of the features.
//!
//! [`heads`] trains heads on the features of a bundle. [`segmentation`] trains the same linear probe
//! on features upsampled in different ways and compares the scores on held-out images. [`maps`] does the same for
//! feature maps provided by the caller, [`depth`] for depth, and [`clicks`] for segmentation from clicks. [`video`]
//! measures how much the features of a surface point change from frame to frame under camera motion. [`vos`]
//! follows objects through videos and scores their masks.

#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod boundary;
pub mod clicks;
pub mod confusion;
pub mod data;
pub mod dense;
pub mod depth;
mod distance;
mod error;
pub mod evaluation;
mod gray_png;
pub mod heads;
pub mod labels;
pub mod maps;
pub mod probe;
mod probe_run;
mod random;
pub mod resize;
mod ridge;
mod sampling;
pub mod segmentation;
pub mod video;
pub mod vos;

pub use error::EvalError;
pub use sampling::{Method, Photo};

/// Progress: stage, steps done, total steps.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);
