//! Bundles: directories with everything needed to run a model on a robot.
//!
//! `manifest.json` describes the contents and has the SHA-256 of every file; the ONNX graphs are in
//! the same directory. `docs/bundle-format.md` specifies the format.

#![forbid(unsafe_code)]

mod architecture;
mod clicks;
mod error;
mod head;
mod manifest;
mod precision;
mod provenance;
mod quantization;
mod reader;
mod reference;
mod reference_outputs;
mod tensor_file;
mod tensors;
mod training;
mod writer;

use sha2::{Digest, Sha256};

pub use architecture::{Activation, Architecture, Family, Origin, Positions, Setting};
pub use clicks::Clicks;
pub use error::BundleError;
pub use head::{Head, HeadKind, Linear};
pub use manifest::{
    Backbone, FORMAT, FeatureLayout, FileEntry, Manifest, Normalization, Size, Upsampler,
    UpsamplerFiles, UpsamplerKind,
};
pub use precision::Precision;
pub use provenance::{Provenance, Source};
pub use quantization::{Calibration, CheckError, ErrorStats, HeadAccuracy, Quantization};
pub use reader::Bundle;
pub use reference::{PartErrors, ReferenceError, References};
pub use reference_outputs::ReferenceOutputs;
pub use tensor_file::TensorFile;
pub use training::Training;
pub use writer::BundleWriter;

/// Name of the manifest inside a bundle.
pub const MANIFEST: &str = "manifest.json";

/// SHA-256 of `bytes`, in the format of the manifest.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lowercase hexadecimal, as used for hashes.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
