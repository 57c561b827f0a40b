//! Conversion of checkpoints to bundles, quantization, and verification.

#![forbid(unsafe_code)]

mod builtin;
mod check;
pub mod compact;
pub mod compare;
mod convert;
mod error;
mod fake_quantize;
mod foreign;
mod guard;
mod provenance;
mod quantization_check;
pub mod quantize;
mod references;
mod verify;

pub use builtin::{Builtin, BuiltinUpsampler};
pub use check::{Check, Measured, MinCosine};
pub use convert::{BackboneSource, Converted, Request, convert};
pub use error::ConvertError;
pub use foreign::{Layout, OnnxBackbone, remarks as onnx_remarks};
pub use verify::{against, verify, verify_with};
