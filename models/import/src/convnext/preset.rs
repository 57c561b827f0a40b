//! The named sizes of ConvNeXts.

use std::fmt;

use super::STAGES;

/// Channels and blocks of the stages that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub channels: [usize; STAGES],
    pub blocks: [usize; STAGES],
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[usize; STAGES]| numbers.map(|n| n.to_string()).join(", ");
        write!(
            f,
            "{} channels and {} blocks",
            list(&self.channels),
            list(&self.blocks)
        )
    }
}

/// A ConvNeXt as named by a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    name: &'static str,
    sizes: Option<Sizes>,
}

const fn preset(name: &'static str, width: usize, blocks: usize) -> Preset {
    Preset {
        name,
        sizes: Some(Sizes {
            channels: [width, 2 * width, 4 * width],
            blocks: [3, 3, blocks],
        }),
    }
}

const ANY: Preset = Preset {
    name: "dinov3-convnext",
    sizes: None,
};
const PRESETS: [Preset; 5] = [
    preset("dinov3-convnext-tiny", 96, 9),
    preset("dinov3-convnext-small", 96, 27),
    preset("dinov3-convnext-base", 128, 27),
    preset("dinov3-convnext-large", 192, 27),
    ANY,
];

impl Preset {
    /// The ConvNeXt called `name`: one of [`Preset::names`], or a name of the libraries
    /// (`dinov3_convnext_tiny`, `convnext_tiny.dinov3_lvd1689m`,
    /// `facebook/dinov3-convnext-tiny-pretrain-lvd1689m`). `None` if it names something else.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let parts: Vec<&str> = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|part| !matches!(*part, "facebook" | "pretrain" | "lvd1689m" | ""))
            .collect();
        let has = |part: &str| parts.contains(&part);
        if !has("dinov3") || !has("convnext") {
            return None;
        }
        let size = parts.iter().find(|p| !matches!(**p, "dinov3" | "convnext"));
        PRESETS.into_iter().find(|p| {
            parts.len() == 2 + usize::from(size.is_some())
                && match size {
                    Some(size) => p.name.strip_prefix("dinov3-convnext-") == Some(*size),
                    None => *p == ANY,
                }
        })
    }

    /// All names: the sizes, then the one of any size.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRESETS.into_iter().map(|p| p.name)
    }

    /// The canonical name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether weights of these sizes match the name.
    pub(super) fn fits(&self, sizes: Sizes) -> bool {
        self.sizes.is_none_or(|own| own == sizes)
    }

    /// The name for weights of these sizes.
    pub(super) fn fitting(sizes: Sizes) -> Self {
        let exact = |p: &Preset| p.sizes == Some(sizes);
        PRESETS.into_iter().find(exact).unwrap_or(ANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_libraries_are_understood_and_others_are_not() {
        for name in Preset::names() {
            assert_eq!(Preset::parse(name).unwrap().name(), name);
        }
        for (given, expected) in [
            ("dinov3_convnext_tiny", "dinov3-convnext-tiny"),
            ("convnext_small.dinov3_lvd1689m", "dinov3-convnext-small"),
            (
                "facebook/dinov3-convnext-base-pretrain-lvd1689m",
                "dinov3-convnext-base",
            ),
            ("DINOv3-ConvNeXt", "dinov3-convnext"),
        ] {
            assert_eq!(Preset::parse(given).unwrap().name(), expected);
        }
        for other in [
            "dinov3",
            "dinov3-s16",
            "convnext-tiny",
            "dinov3-convnext-huge",
            "dinov3-convnext-tiny-small",
            "dinov3-convnext-",
        ] {
            let found = Preset::parse(other).map(|p| p.name());
            let expected = (other == "dinov3-convnext-").then_some("dinov3-convnext");
            assert_eq!(found, expected, "{other}");
        }
    }
}
