//! Vision transformers that are recognized but not supported.

use super::VitError;
use crate::{checkpoint::Checkpoint, convnext::ConvNext};

/// A model, and suffixes that together occur only in its checkpoints.
struct Sign {
    model: &'static str,
    all: &'static [&'static str],
    none: &'static [&'static str],
}

const fn sign(
    model: &'static str,
    all: &'static [&'static str],
    none: &'static [&'static str],
) -> Sign {
    Sign { model, all, none }
}

/// The first match is used.
const SIGNS: [Sign; 12] = [
    sign("Sapiens2", &["blocks.0.attn.wq.weight"], &[]),
    sign("RADIO", &["patch_generator.pos_embed"], &[]),
    sign(
        "a ViT with rotary positions other than DINOv3's (timm's Eva class)",
        &["patch_embed.proj.weight", "blocks.0.gamma_1"],
        &["pos_embed"],
    ),
    sign(
        "EVA",
        &[
            "patch_embed.proj.weight",
            "blocks.0.attn.q_bias",
            "blocks.0.attn.v_bias",
        ],
        &[],
    ),
    sign(
        "EVA-02",
        &["patch_embed.proj.weight", "blocks.0.attn.q_proj.weight"],
        &[],
    ),
    sign(
        "EVA or BEiT",
        &["patch_embed.proj.weight", "blocks.0.gamma_1"],
        &[],
    ),
    sign("BEiT", &["encoder.layer.0.lambda_1"], &[]),
    sign(
        "SAM's image encoder",
        &["patch_embed.proj.weight", "blocks.0.attn.rel_pos_h"],
        &[],
    ),
    sign(
        "a Swin transformer",
        &[
            "patch_embed.proj.weight",
            "layers.0.blocks.0.attn.relative_position_bias_table",
        ],
        &[],
    ),
    sign(
        "CLIPA or another CLIP without ln_pre",
        &[
            "transformer.resblocks.0.ln_1.weight",
            "conv1.weight",
            "class_embedding",
        ],
        &["ln_pre.weight"],
    ),
    sign(
        "a plain ViT (DINO v1, MAE, DeiT or an ImageNet classifier)",
        &["encoder.layer.0.layernorm_before.weight"],
        &[],
    ),
    sign(
        "a plain ViT with a class token and without LayerScale (DINO v1, iBOT, MAE, DeiT or an ImageNet classifier)",
        &[
            "patch_embed.proj.weight",
            "cls_token",
            "blocks.0.attn.qkv.weight",
        ],
        &["blocks.0.ls1.gamma", "norm_pre.weight"],
    ),
];

/// Adds the name of the model and a hint to the error, if the checkpoint contains a known but
/// unsupported model.
pub(super) fn explained(error: VitError, checkpoint: &Checkpoint) -> VitError {
    let because = match &error {
        VitError::Unsupported { what, .. } => format!(" ({what})"),
        VitError::NotAVit { .. } => String::new(),
        _ => return error,
    };
    let (model, remedy) = match recognize(checkpoint) {
        _ if is_naflex(checkpoint) => (
            "a NaFlex model (SigLIP 2 NaFlex or timm's NaFlexVit), which takes patches instead of an image",
            "use a SigLIP 2 model with a fixed resolution, such as siglip2-base-patch16-224",
        ),
        // The first version and DINOv3's can be converted.
        _ if ConvNext::found(checkpoint) => ("a ConvNeXt", "use the backbone name dinov3-convnext"),
        Some(model) => (
            model,
            "export the model to ONNX and use --backbone-onnx and --patch",
        ),
        None => return error,
    };
    VitError::Unsupported {
        path: checkpoint.path().into(),
        what: format!("{model}{because}; {remedy}"),
    }
}

/// Whether the patch embedding is a matrix, for patches extracted by the preprocessing of
/// transformers or timm. All other names of these models are the same as in SigLIP.
fn is_naflex(checkpoint: &Checkpoint) -> bool {
    ["embeddings.patch_embedding.weight", "embeds.proj.weight"]
        .iter()
        .any(|end| {
            checkpoint.all_prefixes(end).any(|prefix| {
                checkpoint
                    .shape(&format!("{prefix}{end}"))
                    .is_ok_and(|shape| shape.len() == 2)
            })
        })
}

/// The name of the model in the checkpoint, if it is known but unsupported.
fn recognize(checkpoint: &Checkpoint) -> Option<&'static str> {
    let has = |end: &&str| {
        checkpoint.names().any(|name| {
            name.strip_suffix(*end)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    };
    SIGNS
        .iter()
        .find(|sign| sign.all.iter().all(has) && !sign.none.iter().any(has))
        .map(|sign| sign.model)
}
