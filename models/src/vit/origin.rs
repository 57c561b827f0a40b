//! Where a setting of a backbone comes from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a setting of a backbone comes from. The first of these that knows it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// An option of the command line.
    CommandLine,
    /// `config.json` or `preprocessor_config.json` next to the weights.
    ConfigJson,
    /// `open_clip_config.json` next to the weights.
    OpenClipConfigJson,
    /// The table of published models: family, width, depth and patch match one of them.
    PublishedModel,
    /// The names and shapes of the weights.
    Weights,
    /// The default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "command line",
            Self::ConfigJson => "config.json",
            Self::OpenClipConfigJson => "open_clip_config.json",
            Self::PublishedModel => "known published shape",
            Self::Weights => "weights",
            Self::Default => "default",
        })
    }
}

/// A setting and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting<T> {
    /// The setting.
    pub value: T,
    /// Where it comes from.
    pub from: Origin,
}

impl<T> Setting<T> {
    pub(super) fn new(value: T, from: Origin) -> Self {
        Self { value, from }
    }
}

impl<T: fmt::Display> fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.value, self.from)
    }
}
