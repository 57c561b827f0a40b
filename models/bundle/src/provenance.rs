//! The provenance of a bundle.

use serde::{Deserialize, Serialize};

use super::{Training, training::usable};

/// Provenance of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version that wrote the bundle.
    pub tool: String,
    /// Creation time, in seconds since 1970-01-01 UTC.
    pub created: u64,
    /// The files that it was converted from.
    pub sources: Vec<Source>,
    /// License of the weights, as stated by the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// How the upsampler was trained, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

impl Provenance {
    /// Maximum length of a license, in bytes.
    pub const LONGEST_LICENSE: usize = 256;

    /// Checks that a license is one line of text of a sensible length.
    ///
    /// # Errors
    /// What is expected.
    pub fn usable_license(license: &str) -> Result<(), String> {
        usable("license", license, Self::LONGEST_LICENSE)
    }

    /// Validates the fields beyond their types.
    ///
    /// # Errors
    /// The name of the invalid field and what is expected.
    pub fn validate(&self) -> Result<(), String> {
        if let Some(license) = &self.license {
            Self::usable_license(license)?;
        }
        let training = self.training.as_ref().map_or(Ok(()), Training::validate);
        training.map_err(|what| format!("training: {what}"))
    }
}

/// A source file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its role.
    pub role: String,
    /// File name, without directories.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
}
