//! What can be wrong with a backbone.

use std::path::PathBuf;

use super::Family;
use crate::checkpoint::CheckpointError;

/// A backbone that cannot be made. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VitError {
    /// No backbone goes by that name.
    #[error("unknown backbone {given:?}; expected one of {}", super::Preset::names().collect::<Vec<_>>().join(", "))]
    UnknownPreset {
        /// The name that was given.
        given: String,
    },
    /// A tensor is missing, misshapen or not finite.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The names in the checkpoint are those of no known vision transformer.
    #[error("{}: no vision transformer in a known naming scheme (DINOv2, OpenAI CLIP, timm, open_clip, Hugging Face); {}", path.display(), examples(.found))]
    NotAVit {
        /// The checkpoint file.
        path: PathBuf,
        /// A few of its names.
        found: Vec<String>,
    },
    /// The checkpoint holds more than one.
    #[error("{}: holds several vision transformers, at {prefixes}; choose one by its prefix, as in --prefix {example}", path.display())]
    Ambiguous {
        /// The checkpoint file.
        path: PathBuf,
        /// What the names of each begin with.
        prefixes: String,
        /// One of them, as a command line has it.
        example: String,
    },
    /// There is none under the prefix that was given.
    #[error("{}: no vision transformer under the prefix {prefix} ({}); the file has one at {elsewhere}", path.display(), examples(.names))]
    NotThere {
        /// The checkpoint file.
        path: PathBuf,
        /// The prefix that was given.
        prefix: String,
        /// A few names under it.
        names: Vec<String>,
        /// What the names of those that there are begin with.
        elsewhere: String,
    },
    /// The weights are of another family than was asked for.
    #[error("{}: holds a {found} backbone, not {asked}; use the backbone name {suggestion}", path.display())]
    WrongFamily {
        /// The checkpoint file.
        path: PathBuf,
        /// The family of the weights.
        found: Family,
        /// The family that was asked for.
        asked: Family,
        /// The name that fits the weights.
        suggestion: &'static str,
    },
    /// The weights have other dimensions than the named backbone.
    #[error("{}: holds {found}, not {asked}; {remedy}", path.display())]
    WrongSize {
        /// The checkpoint file.
        path: PathBuf,
        /// What the weights are.
        found: String,
        /// The name that was asked for.
        asked: &'static str,
        /// What to do.
        remedy: String,
    },
    /// The name says registers, and the weights have none.
    #[error("{}: has no register tokens, but {asked} has; use the backbone name {suggestion}", path.display())]
    NoRegisters {
        /// The checkpoint file.
        path: PathBuf,
        /// The name that was asked for.
        asked: &'static str,
        /// The name that fits the weights.
        suggestion: &'static str,
    },
    /// Settings that are neither in the weights nor known otherwise.
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
        /// Which settings; at least one.
        settings: Vec<Undecided>,
    },
    /// A config file that cannot be used.
    #[error("{}: {what}; correct this file or move it away from the weights", path.display())]
    ConfigFile {
        /// The config file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A config file is about other weights.
    #[error("{}: describes a model with {given}, but {} has {found}; put the weights next to their own config file, or move this one away", config.display(), weights.display())]
    Contradiction {
        /// The config file.
        config: PathBuf,
        /// The checkpoint file.
        weights: PathBuf,
        /// What the config file says.
        given: String,
        /// What the weights say.
        found: String,
    },
    /// The number of heads does not divide the width.
    #[error("{}: {what} for a width of {width}; give the number of attention heads that the model was trained with (--heads)", path.display())]
    Heads {
        /// The checkpoint file.
        path: PathBuf,
        /// Channels of the transformer.
        width: usize,
        /// What is wrong.
        what: String,
    },
    /// The weights are of a variant that is not written here.
    #[error("{}: unsupported: {what}", path.display())]
    Unsupported {
        /// The checkpoint file.
        path: PathBuf,
        /// Which variant, and how it was recognized.
        what: String,
    },
    /// The picture size does not fit the patch.
    #[error("a picture of {width}x{height} does not divide into patches of {patch}x{patch}; the nearest size that does is {}x{}", nearest(*.width, *.patch), nearest(*.height, *.patch))]
    Size {
        /// Width, in pixels.
        width: usize,
        /// Height, in pixels.
        height: usize,
        /// Side of a patch, in pixels.
        patch: usize,
    },
    /// The picture has too many patches.
    #[error("a picture of {width}x{height} has {patches} patches of {patch}x{patch}, more than {max}; use a smaller size", max = super::VitConfig::MAX_PATCHES)]
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

/// A setting of a backbone that nothing says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// What it is, as in "the activation".
    pub name: &'static str,
    /// The command-line option that gives it, and its candidates.
    pub option: String,
}

impl VitError {
    /// Of two errors, one that says both if they are about settings of the same backbone, else the
    /// first.
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
        "it holds no tensors".into()
    } else {
        format!("it holds tensors like {}", found.join(", "))
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
