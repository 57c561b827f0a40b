//! From checkpoints to bundles, and the checks a bundle must pass.

#![forbid(unsafe_code)]

mod builtin;
pub mod compare;
mod convert;
mod foreign;
mod provenance;
pub mod quantize;
mod references;
mod verify;

pub use builtin::builtin;
pub use convert::{BackboneSource, ConvertError, Request, convert};
pub use foreign::{Layout, OnnxBackbone, remarks as onnx_remarks};
pub use verify::{Check, against, verify, verify_with};
