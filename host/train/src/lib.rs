//! Trains the LoftUp upsampler, as published (arXiv 2504.14032), for the backbone of any bundle.
//!
//! [`train()`] reads images ([`data`]), computes their features with the frozen [`backbone`], and
//! trains the upsampler ([`model`]) to match a target. In stage 1, the target is bicubic features
//! refined by masks; in stage 2, the output of a teacher that processes high-resolution crops of the
//! image. The state is one file ([`checkpoint`]), from which a training resumes bit for bit.

#![forbid(unsafe_code)]

pub mod backbone;
pub mod checkpoint;
pub mod config;
pub mod data;
mod device;
pub mod distillation;
mod error;
mod events;
mod host_batch;
mod inputs;
pub mod kernels;
mod log;
mod losses;
pub mod memory;
pub mod model;
pub mod optim;
mod prepare;
mod preview;
pub mod regions;
mod resample;
pub mod rng;
mod state;
mod step;
mod synthetic;
pub mod targets;
mod teacher;
mod train;

pub use config::Config;
pub use error::TrainError;
pub use train::{Event, Outcome, files, train};
