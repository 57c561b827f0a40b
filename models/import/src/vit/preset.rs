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
    variant: Variant,
    dimensions: Option<Dimensions>,
}

/// Models with the same dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// The usual one.
    Plain,
    /// DINOv2 with registers.
    Registers,
    /// The plus sizes of DINOv3, with SwiGLU.
    Plus,
}

use Variant::{Plain, Plus, Registers};

const SMALL: Option<Dimensions> = dimensions(14, 384, 12);
const BASE: Option<Dimensions> = dimensions(14, 768, 12);
const LARGE: Option<Dimensions> = dimensions(14, 1024, 24);
const GIANT: Option<Dimensions> = dimensions(14, 1536, 40);
const TINY_16: Option<Dimensions> = dimensions(16, 192, 12);
const SMALL_16: Option<Dimensions> = dimensions(16, 384, 12);
const BASE_32: Option<Dimensions> = dimensions(32, 768, 12);
const BASE_16: Option<Dimensions> = dimensions(16, 768, 12);
const LARGE_16: Option<Dimensions> = dimensions(16, 1024, 24);
const HUGE_16: Option<Dimensions> = dimensions(16, 1280, 32);
const SO400M_14: Option<Dimensions> = dimensions(14, 1152, 27);
const SO400M_16: Option<Dimensions> = dimensions(16, 1152, 27);
const GIANT_OPT: Option<Dimensions> = dimensions(16, 1536, 40);

const PRESETS: [Preset; 38] = [
    preset("dinov2-s14", Family::DinoV2, Plain, SMALL),
    preset("dinov2-b14", Family::DinoV2, Plain, BASE),
    preset("dinov2-l14", Family::DinoV2, Plain, LARGE),
    preset("dinov2-g14", Family::DinoV2, Plain, GIANT),
    preset("dinov2-s14-reg", Family::DinoV2, Registers, SMALL),
    preset("dinov2-b14-reg", Family::DinoV2, Registers, BASE),
    preset("dinov2-l14-reg", Family::DinoV2, Registers, LARGE),
    preset("dinov2-g14-reg", Family::DinoV2, Registers, GIANT),
    preset("dinov3-t16", Family::DinoV3, Plain, TINY_16),
    preset("dinov3-s16", Family::DinoV3, Plain, SMALL_16),
    preset("dinov3-s16-plus", Family::DinoV3, Plus, SMALL_16),
    preset("dinov3-b16", Family::DinoV3, Plain, BASE_16),
    preset("dinov3-l16", Family::DinoV3, Plain, LARGE_16),
    preset("dinov3-l16-plus", Family::DinoV3, Plus, LARGE_16),
    preset("dinov3-h16-plus", Family::DinoV3, Plus, HUGE_16),
    preset("clip-b32", Family::Clip, Plain, BASE_32),
    preset("clip-b16", Family::Clip, Plain, BASE_16),
    preset("clip-l14", Family::Clip, Plain, LARGE),
    preset("clip-h14", Family::Clip, Plain, dimensions(14, 1280, 32)),
    preset("clip-g14", Family::Clip, Plain, dimensions(14, 1408, 40)),
    preset("clip-bigg14", Family::Clip, Plain, dimensions(14, 1664, 48)),
    preset("siglip-b32", Family::SigLip, Plain, BASE_32),
    preset("siglip-b16", Family::SigLip, Plain, BASE_16),
    preset("siglip-l16", Family::SigLip, Plain, LARGE_16),
    preset("siglip-so400m14", Family::SigLip, Plain, SO400M_14),
    preset("siglip-so400m16", Family::SigLip, Plain, SO400M_16),
    preset("siglip2-b32", Family::SigLip, Plain, BASE_32),
    preset("siglip2-b16", Family::SigLip, Plain, BASE_16),
    preset("siglip2-l16", Family::SigLip, Plain, LARGE_16),
    preset("siglip2-so400m14", Family::SigLip, Plain, SO400M_14),
    preset("siglip2-so400m16", Family::SigLip, Plain, SO400M_16),
    preset("siglip2-giantopt16", Family::SigLip, Plain, GIANT_OPT),
    preset("dinov2", Family::DinoV2, Plain, None),
    preset("dinov2-reg", Family::DinoV2, Registers, None),
    preset("dinov3", Family::DinoV3, Plain, None),
    preset("clip", Family::Clip, Plain, None),
    preset("siglip", Family::SigLip, Plain, None),
    preset("siglip2", Family::SigLip, Plain, None),
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
    variant: Variant,
    dimensions: Option<Dimensions>,
) -> Preset {
    Preset {
        name,
        family,
        variant,
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
        self.variant == Registers
    }

    /// Whether weights of this variant and size match the name.
    pub(super) fn fits(&self, variant: Variant, dimensions: Dimensions) -> bool {
        let plus = |v| v == Plus;
        self.dimensions
            .is_none_or(|d| d == dimensions && plus(self.variant) == plus(variant))
    }

    /// The size, unless the name is a family name.
    pub fn dimensions(&self) -> Option<Dimensions> {
        self.dimensions
    }

    /// Names that match weights of this kind: the exact sizes, or else the families.
    pub(super) fn fitting(
        family: Family,
        variant: Variant,
        dimensions: Dimensions,
    ) -> Vec<&'static str> {
        let of = |size: Option<Dimensions>| -> Vec<&'static str> {
            let same = |p: &Preset| match size {
                Some(_) => p.variant == variant,
                // DINOv3's family name includes the plus sizes.
                None => p.registers() == (variant == Registers),
            };
            let fits = |p: &Preset| p.family == family && p.dimensions == size && same(p);
            PRESETS.into_iter().filter(fits).map(|p| p.name).collect()
        };
        let exact = of(Some(dimensions));
        if exact.is_empty() { of(None) } else { exact }
    }
}

/// Normalizes a name to `family size [plus] [reg]`, without case, separators and optional parts.
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
        ("dinov3qkvb", "dinov3"),
        ("eupelvd1689m", ""),
        ("pretrainlvd1689m", ""),
        ("lvd1689m", ""),
        ("pretrainsat493m", ""),
        ("sat493m", ""),
        ("lingbotvision", "dinov3"),
        ("lingbot", "dinov3"),
        ("eupe", "dinov3"),
        ("bigg", "G"),
        ("gigantic", "G"),
        ("giantopt", "O"),
        ("gopt", "O"),
        ("tiny", "t"),
        ("small", "s"),
        ("base", "b"),
        ("large", "l"),
        ("huge", "h"),
        ("giant", "g"),
    ] {
        key = key.replace(long, short);
    }
    let registers = key.contains("reg");
    let plus = key.contains("plus");
    let mut key = key.replace("reg", "").replace("plus", "");
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
    for family in ["dinov2", "dinov3", "siglip2", "siglip", "clip"] {
        if let Some(size) = key.strip_suffix(family).filter(|size| !size.is_empty()) {
            key = format!("{family}{size}");
            break;
        }
    }
    // Each size of DINOv2 and DINOv3 has one patch size, which may be omitted.
    if let Some(size @ ("s" | "b" | "l" | "g")) = key.strip_prefix("dinov2") {
        key = format!("dinov2{size}14");
    }
    if let Some(size @ ("t" | "s" | "b" | "l" | "h")) = key.strip_prefix("dinov3") {
        key = format!("dinov3{size}16");
    }
    // The usual name of so400m does not include the patch size, which is 14 or 16.
    if key.ends_with("so400m") {
        key += "14";
    }
    if plus {
        key += "plus";
    }
    if registers { key + "reg" } else { key }
}
