//! Suggests the name that was probably meant.

/// Longer names are skipped, because the edit distance takes time proportional to the product of the
/// lengths.
const MAX_LEN: usize = 256;

/// The most similar of `names`, if any is similar: equal except for a prefix, or within a few edits.
pub(super) fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for name in names.filter(|name| name.len() <= MAX_LEN && wanted.len() <= MAX_LEN) {
        let distance = if is_tail(wanted, name) || is_tail(name, wanted) {
            // A missing or additional prefix is the most common difference. It ranks before any
            // typo, and shorter prefixes rank first.
            Some(wanted.len().abs_diff(name.len()))
        } else {
            let allowed = wanted.len() / 5;
            let distance = strsim::levenshtein(wanted, name);
            (distance <= allowed).then_some(MAX_LEN + distance)
        };
        if let Some(distance) = distance
            && best.is_none_or(|(least, _)| distance < least)
        {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Whether `whole` is a dotted prefix followed by `tail`.
fn is_tail(tail: &str, whole: &str) -> bool {
    // A single component ("weight", "bias") is too common.
    tail.contains('.')
        && whole
            .strip_suffix(tail)
            .is_some_and(|head| head.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_prefix_ranks_before_a_typo() {
        let names = [
            "blocks.0.attn.qkv.weighs",
            "model.blocks.0.attn.qkv.weight",
            "other",
        ];
        let found = closest("blocks.0.attn.qkv.weight", names.into_iter());
        assert_eq!(found, Some("model.blocks.0.attn.qkv.weight"));
        let found = closest(
            "model.blocks.0.attn.qkv.bias",
            ["blocks.0.attn.qkv.bias"].into_iter(),
        );
        assert_eq!(found, Some("blocks.0.attn.qkv.bias"));
    }

    #[test]
    fn a_typo_is_found_and_unrelated_names_are_not() {
        let names = ["patch_embed.proj.wieght", "pos_embed", "head.weight"];
        assert_eq!(
            closest("patch_embed.proj.weight", names.into_iter()),
            Some(names[0])
        );
        assert_eq!(closest("cls_token", names.into_iter()), None);
        assert_eq!(closest("weight", names.into_iter()), None);
    }
}
