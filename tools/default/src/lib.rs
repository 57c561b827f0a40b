//! Trains the built-in weights: a small vision transformer and its LoftUp, both on generated scenes
//! only.
//!
//! [`backbone`] trains a transformer ([`vit`]) to predict the contents of each patch of a scene,
//! [`upsampler`] trains LoftUp for it with the scenes' exact masks, [`recalibrate`] recomputes its batch
//! statistics, and [`evaluate`] compares linear probes on its features and on interpolated ones, on
//! scenes that nothing was trained on. All random numbers derive from the seeds in [`scenes`].

#![forbid(unsafe_code)]

pub mod backbone;
pub mod evaluate;
pub mod recalibrate;
pub mod scenes;
pub mod upsampler;
pub mod vit;
pub mod weights;

/// Seed of all random numbers.
pub const SEED: u64 = 20;

/// Receives progress: the stage, steps done, total steps, and a message.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, u64, &str);
