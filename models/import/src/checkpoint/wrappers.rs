//! Names from training: module wrappers, and several copies of a model.

use std::collections::BTreeMap;

use super::{entry::Entries, error::Problem};

/// Name components of wrappers, which are not modules of the model: data parallelism, compilation,
/// FSDP (two names) and activation checkpointing.
const WRAPPERS: [&str; 5] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
];

/// Renames the tensors to the names of the unwrapped model.
///
/// # Errors
/// If two tensors then have the same name.
pub(super) fn unwrapped(entries: Entries) -> Result<Entries, Problem> {
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    for name in entries.keys() {
        let bare = unwrap(name);
        if let Some(other) = renamed.get(&bare) {
            return Err(Problem::unsupported(
                format!(
                    "tensors {other} and {name} are both named {bare} without the wrappers added by training"
                ),
                "save the state_dict of only one of the two models",
            ));
        }
        renamed.insert(bare, name.clone());
    }
    let mut entries = entries;
    let take = |(bare, name): (String, String)| Some((bare, entries.remove(&name)?));
    Ok(renamed.into_iter().filter_map(take).collect())
}

/// A name without wrapper components. The last component always belongs to the tensor.
pub(super) fn unwrap(name: &str) -> String {
    let Some((modules, own)) = name.rsplit_once('.') else {
        return name.into();
    };
    let kept = modules.split('.').filter(|part| !WRAPPERS.contains(part));
    kept.chain([own]).collect::<Vec<_>>().join(".")
}

/// If two prefixes differ only in `student` and `teacher`, the teacher's. DINO and DINOv2 train
/// both; the teacher, a moving average of the student, is the one that is evaluated and published.
pub(crate) fn teacher_of<'a>(prefixes: &[&'a str]) -> Option<&'a str> {
    let [one, other] = prefixes else { return None };
    let is_teacher = |teacher: &str, student: &str| {
        let (mut teachers, mut students) = (teacher.split('.'), student.split('.'));
        let mut differ = false;
        loop {
            match (teachers.next(), students.next()) {
                (None, None) => return differ,
                (Some("teacher"), Some("student")) if !differ => differ = true,
                (teacher, student) if teacher == student => {}
                _ => return false,
            }
        }
    };
    match (is_teacher(one, other), is_teacher(other, one)) {
        (true, _) => Some(one),
        (_, true) => Some(other),
        _ => None,
    }
}

/// Formats prefixes for a message: a few of them, and the number of the others.
pub(crate) fn listed<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<&str> = prefixes.into_iter().collect();
    let shown: Vec<String> = all.iter().take(SHOWN).map(|p| format!("{p}*")).collect();
    match all.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::entry::Entry;
    use loftup_onnx::Tensor;

    #[test]
    fn wrappers_are_taken_off_anywhere_in_a_name() {
        for (name, bare) in [
            ("norm.weight", "norm.weight"),
            ("module.norm.weight", "norm.weight"),
            ("module._orig_mod.norm.weight", "norm.weight"),
            (
                "blocks.0._orig_mod.attn.qkv.weight",
                "blocks.0.attn.qkv.weight",
            ),
            (
                "_fsdp_wrapped_module.blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.norm1.bias",
                "blocks.0.norm1.bias",
            ),
            ("model._orig_mod", "model._orig_mod"),
            ("module", "module"),
            ("modules.module_list.w", "modules.module_list.w"),
            ("", ""),
            ("..w", "..w"),
        ] {
            assert_eq!(unwrap(name), bare, "{name}");
        }
    }

    #[test]
    fn two_tensors_of_one_name_are_an_error_that_names_both() {
        let entry = |name: &str| (name.to_string(), Entry::Held(Tensor::from_fn([1], |_| 0.0)));
        let entries = Entries::from(["a.w", "module.a.w", "b.w"].map(entry));
        match unwrapped(entries).unwrap_err() {
            Problem::Unsupported { what, .. } => {
                assert!(
                    what.contains("a.w and module.a.w are both named a.w"),
                    "{what}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_teacher_is_known_by_its_student() {
        for (prefixes, teacher) in [
            (
                &["student.backbone.", "teacher.backbone."][..],
                Some("teacher.backbone."),
            ),
            (&["teacher.", "student."], Some("teacher.")),
            (
                &["model.student.", "model.teacher."],
                Some("model.teacher."),
            ),
            (&["teacher.backbone."], None),
            (&["teacher.a.", "student.b."], None),
            (&["teacher.", "student.", "other."], None),
            (&["teacher.student.", "student.teacher."], None),
            (&["teacher.", "teacher."], None),
        ] {
            assert_eq!(teacher_of(prefixes), teacher, "{prefixes:?}");
        }
    }
}
