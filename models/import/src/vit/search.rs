//! Selects a vision transformer if a checkpoint contains several.

use std::collections::BTreeMap;

use super::{
    Dimensions, Preset, VitError,
    names::Tower,
    schemes::{SCHEMES, Scheme},
};
use crate::checkpoint::{Checkpoint, listed, teacher_of};

/// Finds the vision transformer in a checkpoint. Of several, the one that matches `preset` is used;
/// of a student and its teacher, the teacher.
///
/// # Errors
/// There is none, or several remain.
pub(super) fn find(checkpoint: &Checkpoint, preset: Option<Preset>) -> Result<Tower<'_>, VitError> {
    let path = || checkpoint.path().to_path_buf();
    let mut found: BTreeMap<&str, &'static Scheme> = BTreeMap::new();
    for scheme in &SCHEMES {
        for prefix in checkpoint.prefixes(scheme.marker) {
            // If two schemes match, the earlier one is used.
            found.entry(prefix).or_insert(scheme);
        }
    }
    let mut prefixes: Vec<&str> = found.keys().copied().collect();
    if let [prefix] = prefixes[..] {
        return Tower::at(checkpoint, found[prefix], prefix);
    }
    if prefixes.is_empty() {
        let elsewhere: Vec<&str> = SCHEMES
            .iter()
            .flat_map(|scheme| checkpoint.all_prefixes(scheme.marker))
            .collect();
        let under = |name: &&str| name.starts_with(checkpoint.prefix());
        return Err(match elsewhere[..] {
            [] => VitError::NotAVit {
                path: path(),
                found: checkpoint.names().take(3).map(String::from).collect(),
            },
            _ => VitError::NotThere {
                path: path(),
                prefix: checkpoint.prefix().into(),
                names: checkpoint
                    .names()
                    .filter(under)
                    .take(3)
                    .map(String::from)
                    .collect(),
                elsewhere: listed(elsewhere),
            },
        });
    }
    // The preset decides: first by family, then by size.
    let towers: BTreeMap<&str, Tower> = prefixes
        .iter()
        .filter_map(|prefix| Some((*prefix, Tower::at(checkpoint, found[prefix], prefix).ok()?)))
        .collect();
    let fits = |prefix: &&str, fits: &dyn Fn(&Tower) -> bool| towers.get(prefix).is_some_and(fits);
    let family = preset.map(|p| p.family());
    let size = preset.and_then(|p| p.dimensions());
    let of_family = |tower: &Tower| family.is_some() && tower.family().ok() == family;
    let of_size = |tower: &Tower| size.is_some() && dimensions(tower) == size;
    for criterion in [&of_family as &dyn Fn(&Tower) -> bool, &of_size] {
        let fitting: Vec<&str> = prefixes
            .iter()
            .copied()
            .filter(|p| fits(p, criterion))
            .collect();
        if !fitting.is_empty() {
            prefixes = fitting;
        }
    }
    let all = || listed(found.keys().copied());
    let file = checkpoint.path().display();
    let prefix = match (&prefixes[..], teacher_of(&prefixes)) {
        ([prefix], _) => {
            log::info!(
                "{file}: found vision transformers at {}; using {prefix}*",
                all()
            );
            *prefix
        }
        (_, Some(teacher)) => {
            log::warn!(
                "{file}: found vision transformers at {}; using the teacher {teacher}*; select another with --prefix",
                all()
            );
            teacher
        }
        _ => {
            return Err(VitError::Ambiguous {
                path: path(),
                example: prefixes[0].trim_end_matches('.').into(),
                prefixes: listed(prefixes),
            });
        }
    };
    Tower::at(checkpoint, found[prefix], prefix)
}

fn dimensions(tower: &Tower) -> Option<Dimensions> {
    let (width, patch) = tower.patch_shape().ok()?;
    let depth = tower.depth();
    Some(Dimensions {
        patch,
        width,
        depth,
    })
}
