//! The name that was probably meant.

/// Longer names are not compared: the comparison takes the product of both lengths.
const LONGEST: usize = 256;

/// The most similar of `names`, where one is similar: the same but for a prefix, or within a few
/// typing errors.
pub(super) fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for name in names.filter(|name| name.len() <= LONGEST && wanted.len() <= LONGEST) {
        let distance = if is_tail(wanted, name) || is_tail(name, wanted) {
            // A missing or an added prefix is the usual difference: the shorter the better, and
            // before any typing error.
            Some(wanted.len().abs_diff(name.len()))
        } else {
            let allowed = wanted.len() / 5;
            let distance = edits(wanted.as_bytes(), name.as_bytes());
            (distance <= allowed).then_some(LONGEST + distance)
        };
        if let Some(distance) = distance
            && best.is_none_or(|(least, _)| distance < least)
        {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Whether `whole` is `tail` behind a prefix of whole dotted parts.
fn is_tail(tail: &str, whole: &str) -> bool {
    // One part alone ("weight", "bias") says nothing.
    tail.contains('.')
        && whole
            .strip_suffix(tail)
            .is_some_and(|head| head.ends_with('.'))
}

/// Levenshtein distance: insertions, deletions and replacements that turn `a` into `b`.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_insertions_deletions_and_replacements() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edits(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
            assert_eq!(edits(b.as_bytes(), a.as_bytes()), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_missing_prefix_is_found_before_a_typing_error() {
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
    fn a_typing_error_is_found_and_an_unrelated_name_is_not() {
        let names = ["patch_embed.proj.wieght", "pos_embed", "head.weight"];
        assert_eq!(
            closest("patch_embed.proj.weight", names.into_iter()),
            Some(names[0])
        );
        assert_eq!(closest("cls_token", names.into_iter()), None);
        assert_eq!(closest("weight", names.into_iter()), None);
    }
}
