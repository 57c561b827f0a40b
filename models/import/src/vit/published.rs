//! Heads and activations of published models.

use super::{Activation, Dimensions, Family, schemes::Library};

/// Number of attention heads of the published model with these dimensions, if there is one.
pub(super) fn heads(family: Family, size: Dimensions) -> Option<usize> {
    Some(match (family, size.width, size.depth, size.patch) {
        (Family::DinoV2, 384, 12, 14) => 6,
        (Family::DinoV2, 768, 12, 14) => 12,
        (Family::DinoV2, 1024, 24, 14) => 16,
        (Family::DinoV2, 1536, 40, 14) => 24,
        (Family::DinoV3, 192, 12, 16) => 3,
        (Family::DinoV3, 384, 12, 16) => 6,
        (Family::DinoV3, 768, 12, 16) => 12,
        (Family::DinoV3, 1024, 24, 16) => 16,
        (Family::DinoV3, 1280, 32, 16) => 20,
        (Family::DinoV3, 1536, 40, 16) => 24,
        (Family::Clip, 768, 12, 16 | 32) => 12,
        (Family::Clip, 896, 12, 16) => 14,
        (Family::Clip, 1024, 24, 14) => 16,
        // H, g and bigG: 16 heads of 80, 88 and 104 channels.
        (Family::Clip, 1280, 32, 14) | (Family::Clip, 1408, 40, 14) => 16,
        (Family::Clip, 1664, 48, 14) => 16,
        (Family::SigLip, 768, 12, 16 | 32) => 12,
        (Family::SigLip, 1024, 24, 16) => 16,
        // so400m and g-opt: 16 heads of 72 and 96 channels.
        (Family::SigLip, 1152, 27, 14 | 16) | (Family::SigLip, 1536, 40, 16) => 16,
        _ => return None,
    })
}

/// The activation of all published models with these dimensions, or the candidates and their users.
///
/// Every SigLIP was trained with the tanh form, which transformers uses as well. timm, and
/// open_clip with timm models, use the exact form for some sizes.
pub(super) fn activation(
    family: Family,
    size: Dimensions,
    grid: Option<usize>,
    library: Library,
) -> Result<Activation, &'static str> {
    const SIGLIP: &str = "gelu-tanh (SigLIP in transformers, and some sizes in timm) or gelu (other sizes in timm and open_clip)";
    let known = heads(family, size).is_some();
    match (family, size.width, size.patch, library) {
        (Family::DinoV2 | Family::DinoV3, ..) => Ok(Activation::Gelu),
        (Family::Clip, 896 | 1408, ..) if known => Ok(Activation::Gelu),
        (Family::Clip, 1280, ..) => Err(
            "gelu (LAION's, and open_clip models not called quickgelu) or quick-gelu (Apple's DFN5B and MetaCLIP, called quickgelu)",
        ),
        (Family::Clip, 1664, ..) => {
            Err("gelu (LAION's) or quick-gelu (MetaCLIP's, called quickgelu)")
        }
        (Family::Clip, ..) => Err(
            "quick-gelu (OpenAI's, and open_clip models called quickgelu) or gelu (LAION's, DataComp's, and other open_clip models)",
        ),
        (Family::SigLip, ..) if !known => Err(SIGLIP),
        (Family::SigLip, _, _, Library::Transformers) => Ok(Activation::GeluTanh),
        (Family::SigLip, _, _, Library::OpenAi) => Err(SIGLIP),
        (Family::SigLip, _, 32, _) => Ok(Activation::GeluTanh),
        (Family::SigLip, 1024, 16, _) if grid == Some(32) => Ok(Activation::GeluTanh),
        (Family::SigLip, 1152, 16, _) | (Family::SigLip, 1536, ..) => Ok(Activation::GeluTanh),
        (Family::SigLip, ..) => Ok(Activation::Gelu),
    }
}
