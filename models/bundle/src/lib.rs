//! The bundle: a directory with everything a robot needs of a model.
//!
//! `manifest.json` says what is in it; the ONNX graphs lie beside it; the manifest holds the
//! SHA-256 of every file. The format is described in `docs/bundle-format.md`.

#![forbid(unsafe_code)]

mod architecture;
mod error;
mod head;
mod manifest;
mod precision;
mod quantization;
mod reader;
mod reference;
mod reference_outputs;
mod tensors;
mod training;
mod writer;

use sha2::{Digest, Sha256};

pub use architecture::{Activation, Architecture, Family, Origin, Positions, Setting};
pub use error::BundleError;
pub use head::{Head, HeadKind, Linear};
pub use manifest::{
    Backbone, FORMAT, FeatureLayout, FileEntry, Manifest, Normalization, Provenance, Size, Source,
    Upsampler, UpsamplerFiles,
};
pub use precision::Precision;
pub use quantization::{Calibration, CheckError, ErrorStats, HeadAccuracy, Quantization};
pub use reader::Bundle;
pub use reference::{PartErrors, ReferenceError, References};
pub use reference_outputs::ReferenceOutputs;
pub use training::Training;
pub use writer::BundleWriter;

/// Name of the manifest inside a bundle.
pub const MANIFEST: &str = "manifest.json";

/// SHA-256 of `bytes`, as the manifest writes it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal, as hashes are written.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
