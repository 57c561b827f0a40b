//! The perception node: a loop from camera to answer that never stalls.
//!
//! | part | here |
//! |---|---|
//! | the configuration file | [`config`] |
//! | images: files, generated scenes, recordings, cameras | [`source`], [`frame`] |
//! | stages on threads, newest frame wins, deadlines | [`pipeline`], [`mailbox`], [`degradation`] |
//! | the bundle as the stages use it | [`model`], [`regions`] |
//! | queries and answers | [`answer`], [`control`] |
//! | state, counters, times | [`health`], [`metrics`], [`histogram`], [`http`], [`notify`] |
//! | serial, UDP, images, MCAP, recordings, ROS 2 | [`sink`], [`ros`] |
//! | faults on purpose, and the proof that they do no harm | [`inject`], [`soak`] |
//!
//! `docs/node.md` describes it for those who run it.

#![forbid(unsafe_code)]

pub mod answer;
pub mod assemble;
pub mod config;
pub mod control;
pub mod degradation;
mod error;
pub mod frame;
pub mod health;
pub mod histogram;
pub mod http;
pub mod inject;
pub mod mailbox;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod pipeline;
pub mod regions;
pub mod ros;
pub mod sink;
pub mod soak;
pub mod source;
pub mod static_scene;
mod sync;
