//! Checks the heads that the configuration names.

use std::path::PathBuf;

use loftup_bundle::{HeadKind, Manifest};

use crate::config::{
    Config,
    error::{Invalid, invalid},
};

/// The required kind of output of a head.
#[derive(Clone, Copy)]
enum Wanted {
    Classes,
    Descriptors,
    Depth,
    Words,
}

impl Wanted {
    fn fits(self, kind: &HeadKind) -> bool {
        match self {
            Self::Classes => kind.class_names().is_some(),
            Self::Descriptors => matches!(kind, HeadKind::Descriptors { .. }),
            Self::Depth => matches!(kind, HeadKind::Depth { .. }),
            Self::Words => matches!(kind, HeadKind::Words { .. }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Classes => "classes",
            Self::Descriptors => "descriptors",
            Self::Depth => "depth",
            Self::Words => "words",
        }
    }
}

/// Checks that the bundle has the heads, and that they output what they are used for.
pub fn check(config: &Config, manifest: &Manifest) -> Result<(), Invalid> {
    let model = &config.model;
    let names = manifest
        .heads
        .keys()
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let known = if names.is_empty() {
        "none".to_owned()
    } else {
        names
    };
    let words = config.words.as_ref().and_then(|words| {
        let file = |directory: &PathBuf, name: &String| {
            directory.join(format!("{name}.safetensors")).is_file()
        };
        let name = words.head.as_ref()?;
        let from_file = words.directory.as_ref().is_some_and(|d| file(d, name));
        (!from_file).then_some(name)
    });
    let jbu = model.jbu.clone().unwrap_or_default();
    for (key, name, wanted) in [
        ("model.head", Some(&model.head), Wanted::Classes),
        (
            "model.descriptors",
            model.descriptors.as_ref(),
            Wanted::Descriptors,
        ),
        ("model.depth", model.depth.as_ref(), Wanted::Depth),
        ("words.head", words, Wanted::Words),
        ("model.jbu.head", jbu.head.as_ref(), Wanted::Classes),
        (
            "model.jbu.descriptors",
            jbu.descriptors.as_ref(),
            Wanted::Descriptors,
        ),
        ("model.jbu.depth", jbu.depth.as_ref(), Wanted::Depth),
    ] {
        let Some(name) = name else { continue };
        let Some(head) = manifest.heads.get(name) else {
            return invalid(
                key,
                format!("the bundle has no head {name:?}; available: {known}"),
                "train one with `loftup head`, or use another",
            );
        };
        if !wanted.fits(&head.kind) {
            let wanted = wanted.name();
            return invalid(
                key,
                format!("head {name:?} does not output {wanted}"),
                format!("use a head that outputs {wanted}"),
            );
        }
    }
    let names = |head: &String| manifest.heads.get(head).map(|h| h.kind.class_names());
    if let Some(head) = &jbu.head
        && names(head) != names(&model.head)
    {
        return invalid(
            "model.jbu.head",
            format!("its classes are not those of {:?}", model.head),
            "use a head with the same classes in the same order",
        );
    }
    Ok(())
}
