//! The user's cache directory.

use std::path::PathBuf;

/// The directory `loftup-edge/name` in the user's cache directory (`XDG_CACHE_HOME`, else
/// `~/.cache`); `None` if neither is set.
pub fn directory(name: &str) -> Option<PathBuf> {
    let named = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    let base = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
    base.map(|base| base.join("loftup-edge").join(name))
}
