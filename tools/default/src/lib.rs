//! Makes the weights that ship with the project: a small vision transformer and its LoftUp, both
//! trained on generated scenes alone.
//!
//! [`backbone`] trains a transformer ([`vit`]) to say what is in each patch of a scene, [`upsampler`]
//! trains LoftUp for it with the scenes' exact masks, and [`judge`] compares what linear probes see
//! in the features, enlarged in different ways, of scenes that nothing was trained on. Everything
//! follows from the seeds in [`scenes`].

#![forbid(unsafe_code)]

pub mod backbone;
pub mod judge;
pub mod scenes;
pub mod settle;
pub mod upsampler;
pub mod vit;
pub mod weights;

/// Seed of every random draw.
pub const SEED: u64 = 20;

/// What is going on, for a progress bar: the stage, steps done, steps in all, and what to say.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, u64, &str);
