//! The command line from outside: files in, files out, exit codes and messages.

mod answers;
mod builtin;
mod bundles;
mod checkpoints;
#[cfg(feature = "train")]
mod compact;
#[cfg(feature = "train")]
mod demo;
mod depth_and_clicks;
mod engines;
mod export;
mod foreign;
mod golden;
mod inputs;
mod interrupt;
#[cfg(not(feature = "train"))]
mod light;
mod measures;
mod places;
mod quantize;
mod siglip_words;
mod support;
mod tracking;
#[cfg(feature = "train")]
mod training;
mod video;
mod words;
