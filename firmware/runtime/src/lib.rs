//! Runs a bundle: from a picture to dense features, for a frame, a region or some points of it.
//!
//! A [`Perceptor`] is a bundle in an inference engine ([`backend`]). A picture becomes a [`EncodedFrame`],
//! which is asked for a frame, a region or points. Answers come tile by tile, so that memory stays
//! bounded whatever their size; tile size and thread count change nothing beyond rounding.
//!
//! A loop that has a picture and wants one answer needs a single call, [`Perceptor::perceive`].

#![forbid(unsafe_code)]

mod backbone;
pub mod backend;
pub mod class_map;
mod error;
mod guidance;
pub mod heads;
pub mod image;
pub mod jbu;
pub mod npy;
pub mod pca;
mod perceive;
mod perceptor;
pub mod picture;
mod plans;
pub mod references;
mod self_test;
pub mod sinks;
mod threads;
mod tiles;
pub mod tuning;
mod upsampler;
mod user_cache;
mod video;
mod view;

pub use backbone::Features;
pub use error::{RuntimeError, SinkError};
pub use guidance::{ColorRange, Guidance};
pub use perceive::{Answer, Area, Frame, Query};
pub use perceptor::{ExecutionOptions, ImageTensor, Perceptor};
pub use references::Comparison;
pub use tiles::Rect;
pub use video::{IncrementalUpsampler, UpdateStats};
pub use view::{EncodedFrame, Point, Sink, TileFeatures};
