//! The perception node: a pipeline from camera to output that does not stall.
//!
//! | subject | modules |
//! |---|---|
//! | configuration file | [`config`] |
//! | sources: image files, generated scenes, recordings, cameras | [`source`], [`frame`] |
//! | pipeline stages, queues, deadlines | [`pipeline`], [`mailbox`], [`degradation`] |
//! | the bundle and its heads | [`model`], [`regions`], [`static_scene`] |
//! | tracked objects | [`objects`], [`tracking`] |
//! | queries, outputs, commands | [`output`], [`control`] |
//! | health and metrics | [`health`], [`metrics`], [`latency`], [`http`] |
//! | sinks: serial, UDP, images, MCAP, recordings, ROS 2 | [`sink`], [`ros`] |
//! | fault injection and soak test | [`inject`], [`soak`] |
//!
//! The user manual is `docs/node.md`.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod config;
pub mod control;
pub mod degradation;
mod error;
pub mod frame;
pub mod health;
pub mod http;
pub mod inject;
pub mod latency;
pub mod mailbox;
pub mod metrics;
pub mod model;
pub mod objects;
pub mod output;
pub mod pipeline;
pub mod regions;
pub mod ros;
pub mod sink;
pub mod soak;
pub mod source;
pub mod static_scene;
pub mod tracking;
