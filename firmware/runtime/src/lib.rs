//! Runs a bundle: from an image to dense features of the whole frame, a region, or some points.
//!
//! A [`Perceptor`] is a bundle loaded into an inference engine ([`backend`]). It encodes an image
//! into an [`EncodedFrame`], which computes the frame, regions or points on request. Output comes
//! tile by tile, so memory stays bounded at any size; tile size and thread count change nothing
//! beyond rounding.
//!
//! A loop that has an image and wants one output needs a single call, [`Perceptor::perceive`]. [`track`]
//! follows objects from frame to frame.

#![forbid(unsafe_code)]

mod backbone;
pub mod backend;
pub mod class_map;
pub mod click;
pub mod depth;
mod dot;
mod encoded_frame;
mod error;
mod execution;
mod features;
mod filter;
mod frame_engine;
mod frame_graph;
mod fused;
mod guidance;
pub mod heads;
pub mod image;
mod incremental;
pub mod jbu;
pub mod npy;
pub mod panels;
pub mod pca;
mod perceive;
mod perceptor;
mod plan_cache;
pub mod references;
mod self_test;
pub mod sinks;
mod tensor;
mod threads;
mod tiles;
pub mod track;
pub mod tuning;
mod upsampler;
pub mod user_cache;
pub mod video;
mod words;

pub use dot::dot;
pub use encoded_frame::{EncodedFrame, Point, Sink, TileFeatures};
pub use error::{RuntimeError, SinkError};
pub use execution::ExecutionOptions;
pub use features::Features;
pub use filter::naf::NafStatistics;
pub use frame_engine::{FrameEngine, FrameEngineQuery};
pub use frame_graph::{FrameGraphOutput, FrameGraphQuery};
pub use guidance::{ColorRange, Guidance};
pub use image::{Frame, PixelFormat};
pub use incremental::{IncrementalUpsampler, UpdateStats};
pub use loftup_kernels::cpu_time;
pub use perceive::{Area, Output, Query};
pub use perceptor::Perceptor;
pub use references::Comparison;
pub use tensor::{FrameInputs, ImageTensor};
pub use tiles::Rect;
