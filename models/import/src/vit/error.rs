//! Errors of backbones.

use std::path::PathBuf;

use super::Family;
use crate::checkpoint::CheckpointError;

/// The backbone cannot be created. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VitError {
    /// Unknown backbone name.
    #[error("unknown backbone {given:?}; expected one of {}", super::Preset::names().chain(crate::convnext::Preset::names()).collect::<Vec<_>>().join(", "))]
    UnknownPreset {
        /// The given name.
        given: String,
    },
    /// A tensor is missing, has the wrong shape, or is not finite.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The names in the checkpoint do not match any supported vision transformer.
    #[error("{}: no vision transformer in a known naming scheme (DINOv2, DINOv3, OpenAI CLIP, timm, open_clip, Hugging Face); {}", path.display(), examples(.found))]
    NotAVit {
        /// The checkpoint file.
        path: PathBuf,
        /// A few names in it.
        found: Vec<String>,
    },
    /// The checkpoint contains several backbones.
    #[error("{}: contains several vision transformers, at {prefixes}; select one with --prefix, such as --prefix {example}", path.display())]
    Ambiguous {
        /// The checkpoint file.
        path: PathBuf,
        /// The prefix of each.
        prefixes: String,
        /// One of them, as a command-line argument.
        example: String,
    },
    /// There is no backbone under the given prefix.
    #[error("{}: no vision transformer under the prefix {prefix} ({}); the file has one at {elsewhere}", path.display(), examples(.names))]
    NotThere {
        /// The checkpoint file.
        path: PathBuf,
        /// The given prefix.
        prefix: String,
        /// A few names under it.
        names: Vec<String>,
        /// The prefixes of the existing backbones.
        elsewhere: String,
    },
    /// The weights are of a different family than requested.
    #[error("{}: contains a {found} backbone, not {asked}; use the backbone name {suggestion}", path.display())]
    WrongFamily {
        /// The checkpoint file.
        path: PathBuf,
        /// The family of the weights.
        found: Family,
        /// The requested family.
        asked: Family,
        /// The name that matches the weights.
        suggestion: &'static str,
    },
    /// The dimensions of the weights differ from those of the requested backbone.
    #[error("{}: contains {found}, not {asked}; {remedy}", path.display())]
    WrongSize {
        /// The checkpoint file.
        path: PathBuf,
        /// Description of the weights.
        found: String,
        /// The requested name.
        asked: &'static str,
        /// A hint.
        remedy: String,
    },
    /// The requested backbone has registers, but the weights have none.
    #[error("{}: has no register tokens, but {asked} has; use the backbone name {suggestion}", path.display())]
    NoRegisters {
        /// The checkpoint file.
        path: PathBuf,
        /// The requested name.
        asked: &'static str,
        /// The name that matches the weights.
        suggestion: &'static str,
    },
    /// Settings that are unknown: not in the weights, and not determined otherwise.
    #[error("{}: {} of this {model} {} not in the weights; give {}, or put the model's config.json (or open_clip_config.json) next to the weights",
        path.display(),
        joined(.settings, |s| format!("the {}", s.name)),
        if settings.len() == 1 { "is" } else { "are" },
        joined(.settings, |s| s.option.clone()))]
    Undecided {
        /// The checkpoint file.
        path: PathBuf,
        /// Family and dimensions.
        model: String,
        /// The settings; at least one.
        settings: Vec<Undecided>,
    },
    /// An invalid config file.
    #[error("{}: {what}; correct this file or move it away from the weights", path.display())]
    ConfigFile {
        /// The config file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A config file that belongs to other weights.
    #[error("{}: describes a model with {given}, but {} has {found}; put the weights next to their own config file, or move this one away", config.display(), weights.display())]
    Contradiction {
        /// The config file.
        config: PathBuf,
        /// The checkpoint file.
        weights: PathBuf,
        /// The value in the config file.
        given: String,
        /// The value in the weights.
        found: String,
    },
    /// The width is not a multiple of the number of heads.
    #[error("{}: {what} for a width of {width}; give the number of attention heads that the model was trained with (--heads)", path.display())]
    Heads {
        /// The checkpoint file.
        path: PathBuf,
        /// Channels of the transformer.
        width: usize,
        /// What is wrong.
        what: String,
    },
    /// The weights are of an unsupported variant.
    #[error("{}: unsupported: {what}", path.display())]
    Unsupported {
        /// The checkpoint file.
        path: PathBuf,
        /// The variant, and how it was recognized.
        what: String,
    },
    /// The image size is not a multiple of the patch size.
    #[error("an image of {width}x{height} cannot be divided into patches of {patch}x{patch}; the nearest valid size is {}x{}", nearest(*.width, *.patch), nearest(*.height, *.patch))]
    Size {
        /// Width, in pixels.
        width: usize,
        /// Height, in pixels.
        height: usize,
        /// Side of a patch, in pixels.
        patch: usize,
    },
    /// The image has too many patches.
    #[error("an image of {width}x{height} has {patches} patches of {patch}x{patch}, more than {max}; use a smaller size", max = super::VitConfig::MAX_PATCHES)]
    TooLarge {
        /// Width, in pixels.
        width: usize,
        /// Height, in pixels.
        height: usize,
        /// Side of a patch, in pixels.
        patch: usize,
        /// Number of patches.
        patches: usize,
    },
}

/// An unknown setting of a backbone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// Its name, as in "the activation".
    pub name: &'static str,
    /// The command-line option that sets it, with candidates.
    pub option: String,
}

impl VitError {
    /// Merges two errors about unknown settings of the same backbone; otherwise returns the first
    /// error.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Undecided {
                    path,
                    model,
                    mut settings,
                },
                Self::Undecided { settings: more, .. },
            ) => {
                settings.extend(more);
                Self::Undecided {
                    path,
                    model,
                    settings,
                }
            }
            (first, _) => first,
        }
    }
}

fn joined(settings: &[Undecided], part: impl Fn(&Undecided) -> String) -> String {
    settings.iter().map(part).collect::<Vec<_>>().join(" and ")
}

fn examples(found: &[String]) -> String {
    if found.is_empty() {
        "it contains no tensors".into()
    } else {
        format!("it contains tensors such as {}", found.join(", "))
    }
}

/// The multiple of `patch` nearest to `side`, at least one patch.
fn nearest(side: usize, patch: usize) -> usize {
    let down = side / patch * patch;
    let up = if side - down >= patch.div_ceil(2) {
        down.saturating_add(patch)
    } else {
        down
    };
    up.max(patch)
}
