//! Trains the LoftUp upsampler, as published (arXiv 2504.14032), for any bundle's backbone.
//!
//! [`train()`] reads pictures ([`data`]), asks the frozen [`backbone`] for their features, and
//! brings the upsampler ([`model`]) closer to a target step by step ([`step`](mod@step)). Stage 1
//! learns from bicubic features refined by masks, stage 2 from a [`teacher`] that sees parts of the
//! picture in high resolution. The state is one file ([`checkpoint`]), from which a training goes
//! on bit for bit.

#![forbid(unsafe_code)]

pub mod backbone;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod device;
mod error;
pub mod events;
mod host_batch;
pub mod kernels;
mod log;
pub mod losses;
pub mod memory;
pub mod model;
pub mod optim;
mod picture;
pub mod prepare;
pub mod regions;
pub mod resample;
pub mod rng;
mod state;
pub mod step;
pub mod teacher;
mod train;

pub use config::Config;
pub use error::TrainError;
pub use train::{Event, Outcome, files, train};
