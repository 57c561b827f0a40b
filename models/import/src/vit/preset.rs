//! The named backbones.

use std::fmt;

use super::{Family, VitError};

/// The dimensions that distinguish the sizes of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dimensions {
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Channels of the transformer.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
}

impl fmt::Display for Dimensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "patch {}, width {}, depth {}",
            self.patch, self.width, self.depth
        )
    }
}

/// A backbone as named by a user: a family and, usually, a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    name: &'static str,
    family: Family,
    registers: bool,
    dimensions: Option<Dimensions>,
}

const SMALL: Option<Dimensions> = dimensions(14, 384, 12);
const BASE: Option<Dimensions> = dimensions(14, 768, 12);
const LARGE: Option<Dimensions> = dimensions(14, 1024, 24);
const GIANT: Option<Dimensions> = dimensions(14, 1536, 40);
const BASE_32: Option<Dimensions> = dimensions(32, 768, 12);
const BASE_16: Option<Dimensions> = dimensions(16, 768, 12);
const LARGE_16: Option<Dimensions> = dimensions(16, 1024, 24);
const SO400M_14: Option<Dimensions> = dimensions(14, 1152, 27);
const SO400M_16: Option<Dimensions> = dimensions(16, 1152, 27);
const GIANT_OPT: Option<Dimensions> = dimensions(16, 1536, 40);

const PRESETS: [Preset; 30] = [
    preset("dinov2-s14", Family::DinoV2, false, SMALL),
    preset("dinov2-b14", Family::DinoV2, false, BASE),
    preset("dinov2-l14", Family::DinoV2, false, LARGE),
    preset("dinov2-g14", Family::DinoV2, false, GIANT),
    preset("dinov2-s14-reg", Family::DinoV2, true, SMALL),
    preset("dinov2-b14-reg", Family::DinoV2, true, BASE),
    preset("dinov2-l14-reg", Family::DinoV2, true, LARGE),
    preset("dinov2-g14-reg", Family::DinoV2, true, GIANT),
    preset("clip-b32", Family::Clip, false, BASE_32),
    preset("clip-b16", Family::Clip, false, BASE_16),
    preset("clip-l14", Family::Clip, false, LARGE),
    preset("clip-h14", Family::Clip, false, dimensions(14, 1280, 32)),
    preset("clip-g14", Family::Clip, false, dimensions(14, 1408, 40)),
    preset("clip-bigg14", Family::Clip, false, dimensions(14, 1664, 48)),
    preset("siglip-b32", Family::SigLip, false, BASE_32),
    preset("siglip-b16", Family::SigLip, false, BASE_16),
    preset("siglip-l16", Family::SigLip, false, LARGE_16),
    preset("siglip-so400m14", Family::SigLip, false, SO400M_14),
    preset("siglip-so400m16", Family::SigLip, false, SO400M_16),
    preset("siglip2-b32", Family::SigLip, false, BASE_32),
    preset("siglip2-b16", Family::SigLip, false, BASE_16),
    preset("siglip2-l16", Family::SigLip, false, LARGE_16),
    preset("siglip2-so400m14", Family::SigLip, false, SO400M_14),
    preset("siglip2-so400m16", Family::SigLip, false, SO400M_16),
    preset("siglip2-giantopt16", Family::SigLip, false, GIANT_OPT),
    preset("dinov2", Family::DinoV2, false, None),
    preset("dinov2-reg", Family::DinoV2, true, None),
    preset("clip", Family::Clip, false, None),
    preset("siglip", Family::SigLip, false, None),
    preset("siglip2", Family::SigLip, false, None),
];

const fn dimensions(patch: usize, width: usize, depth: usize) -> Option<Dimensions> {
    Some(Dimensions {
        patch,
        width,
        depth,
    })
}

const fn preset(
    name: &'static str,
    family: Family,
    registers: bool,
    dimensions: Option<Dimensions>,
) -> Preset {
    Preset {
        name,
        family,
        registers,
        dimensions,
    }
}

impl Preset {
    /// The backbone called `name`: one of [`Preset::names`] or a common variant
    /// (`dinov2_vits14_reg`, `dinov2-small`, `clip-vit-base-patch16`, `ViT-B-16-SigLIP2`, ...).
    ///
    /// # Errors
    /// Unknown name; the error lists the names.
    pub fn parse(name: &str) -> Result<Self, VitError> {
        let key = canonical(name);
        PRESETS
            .into_iter()
            .find(|p| canonical(p.name) == key)
            .ok_or_else(|| VitError::UnknownPreset { given: name.into() })
    }

    /// All names: first with sizes, then the families, which accept any size.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRESETS.into_iter().map(|p| p.name)
    }

    /// The canonical name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The kind of transformer.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether the name includes register tokens.
    pub fn registers(&self) -> bool {
        self.registers
    }

    /// The size, unless the name is that of a family.
    pub fn dimensions(&self) -> Option<Dimensions> {
        self.dimensions
    }

    /// Names that match weights of this kind: the exact sizes, or else the families.
    pub(super) fn fitting(
        family: Family,
        registers: bool,
        dimensions: Dimensions,
    ) -> Vec<&'static str> {
        let of = |size: Option<Dimensions>| -> Vec<&'static str> {
            let fits =
                |p: &Preset| p.family == family && p.registers == registers && p.dimensions == size;
            PRESETS.into_iter().filter(fits).map(|p| p.name).collect()
        };
        let exact = of(Some(dimensions));
        if exact.is_empty() { of(None) } else { exact }
    }
}

/// Normalizes a name to `family size [reg]`, without case, separators and optional parts.
fn canonical(name: &str) -> String {
    let mut key: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    key.make_ascii_lowercase();
    for (long, short) in [
        ("withregisters", "reg"),
        ("registers", "reg"),
        ("reg4", "reg"),
        ("maskclip", "clip"),
        ("patch", ""),
        ("vit", ""),
        ("quickgelu", ""),
        ("depthanythingv2", "dinov2"),
        ("depthanything", "dinov2"),
        ("bigg", "G"),
        ("gigantic", "G"),
        ("giantopt", "O"),
        ("gopt", "O"),
        ("small", "s"),
        ("base", "b"),
        ("large", "l"),
        ("huge", "h"),
        ("giant", "g"),
    ] {
        key = key.replace(long, short);
    }
    let registers = key.contains("reg");
    let mut key = key.replace("reg", "");
    // Published names end with the image size of the training.
    const ENDS: [&str; 7] = ["14", "16", "32", "clip", "siglip", "siglip2", "dinov2"];
    let trained = ["224", "240", "256", "336", "378", "384", "512", "518"];
    if let Some(short) = trained.iter().find_map(|size| {
        key.strip_suffix(size)
            .filter(|k| ENDS.iter().any(|end| k.ends_with(end)))
    }) {
        key = short.into();
    }
    // open_clip and timm put the size before the family.
    for family in ["dinov2", "siglip2", "siglip", "clip"] {
        if let Some(size) = key.strip_suffix(family).filter(|size| !size.is_empty()) {
            key = format!("{family}{size}");
            break;
        }
    }
    // Each size of DINOv2 has one patch size, which may be omitted.
    if let Some(size @ ("s" | "b" | "l" | "g")) = key.strip_prefix("dinov2") {
        key = format!("dinov2{size}14");
    }
    // The usual name of so400m does not include the patch size, which is 14 or 16.
    if key.ends_with("so400m") {
        key += "14";
    }
    if registers { key + "reg" } else { key }
}
