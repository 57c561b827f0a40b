//! From checkpoints to bundles, and the checks a bundle must pass.

#![forbid(unsafe_code)]

pub mod compare;
mod convert;
mod foreign;
mod provenance;
pub mod quantize;
mod verify;

pub use convert::{BackboneSource, ConvertError, Request, convert};
pub use verify::{Check, against, verify, verify_with};
