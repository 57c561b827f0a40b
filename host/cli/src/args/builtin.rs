//! A bundle, or a built-in model.

use std::{
    borrow::Cow,
    fmt,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use loftup_bundle::Bundle;
use loftup_convert::Builtin;
use loftup_runtime::user_cache;

use crate::progress;

/// `--builtin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BuiltinArg {
    /// EfficientNet-Lite0 with a LoftUp trained on photographs
    Photos,
    /// A small vision transformer and its LoftUp, trained on generated scenes
    Scenes,
}

impl BuiltinArg {
    pub fn model(self) -> Builtin {
        match self {
            Self::Photos => Builtin::Photos,
            Self::Scenes => Builtin::Scenes,
        }
    }
}

/// A bundle or `--builtin`.
#[derive(Debug, Clone, Args)]
pub struct BundleArgs {
    /// The bundle
    #[arg(required_unless_present = "builtin")]
    bundle: Option<PathBuf>,
    /// Use a built-in model instead of a bundle. Its bundle is kept in the user's cache directory
    #[arg(
        long,
        value_name = "MODEL",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "photos",
        conflicts_with = "bundle"
    )]
    builtin: Option<BuiltinArg>,
}

impl fmt::Display for BundleArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bundle {
            Some(bundle) => bundle.display().fmt(f),
            None => f.write_str("the built-in model"),
        }
    }
}

impl BundleArgs {
    /// Where the bundle is. A built-in model is converted first, unless an earlier run did.
    pub fn path(&self) -> Result<Cow<'_, Path>> {
        match (&self.bundle, self.builtin) {
            (Some(bundle), _) => Ok(Cow::Borrowed(bundle)),
            (None, model) => {
                cached(model.map_or(Builtin::default(), BuiltinArg::model)).map(Cow::Owned)
            }
        }
    }
}

fn cached(model: Builtin) -> Result<PathBuf> {
    let folder = user_cache::directory("builtin").context(
        "the bundle of a built-in model is kept in the user's cache directory, but neither XDG_CACHE_HOME \
         nor HOME is set; write one with `loftup convert --builtin --out FILE`",
    )?;
    // Another version of the program may write another format.
    let name = format!(
        "{}-{}.loftup",
        env!("CARGO_PKG_VERSION"),
        &model.hash()[..16]
    );
    let path = folder.join(name);
    if Bundle::open(&path).is_ok() {
        return Ok(path);
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let bar = progress::spinner();
    bar.set_message("preparing the built-in model");
    let written = model.write(&path, true, |_| ControlFlow::Continue(()));
    bar.finish_and_clear();
    match written {
        // Another process may have been faster.
        Err(_) if Bundle::open(&path).is_ok() => Ok(path),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(path),
    }
}
