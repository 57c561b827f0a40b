//! Backbone names, and errors for checkpoints that do not match.

use loftup_import::vit::{Family, Preset, VitConfig, VitError};
use loftup_onnx::Tensor;

use crate::support::{Tensors, try_vit, vit, weights};

fn error(tensors: Tensors, preset: &str, heads: Option<usize>) -> String {
    let message = try_vit(tensors, preset, heads).unwrap_err();
    assert!(message.starts_with("w.pth: "), "{message}");
    println!("{message}");
    message
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// Tensors, preset, heads, and the expected parts of the error, separated by `|`.
type Case<'a> = (Tensors, &'a str, Option<usize>, &'a str);

#[track_caller]
fn refused<'a>(cases: impl IntoIterator<Item = Case<'a>>) {
    for (tensors, preset, heads, parts) in cases {
        let parts: Vec<&str> = parts.split('|').collect();
        says(&error(tensors, preset, heads), &parts);
    }
}

fn zeros<const N: usize>(shape: [usize; N]) -> Tensor {
    Tensor::from_fn(shape, |_| 0.0)
}

/// The weights of a file with one tensor added or replaced.
fn with(file: &str, name: &str, tensor: Tensor) -> Tensors {
    let mut tensors = weights(file);
    tensors.insert(name.into(), tensor);
    tensors
}

/// The weights of a file without the tensors whose names contain `part`.
fn without(file: &str, part: &str) -> Tensors {
    let mut tensors = weights(file);
    let before = tensors.len();
    tensors.retain(|name, _| !name.contains(part));
    assert!(tensors.len() < before, "{part}");
    tensors
}

/// A DINOv2 with only the tensors that determine its dimensions.
fn outline(width: usize, depth: usize, registers: usize) -> Tensors {
    let mut tensors = Tensors::from([
        ("patch_embed.proj.weight".into(), zeros([width, 3, 14, 14])),
        ("cls_token".into(), zeros([1, 1, width])),
        ("pos_embed".into(), zeros([1, 1370, width])),
    ]);
    for i in 0..depth {
        tensors.insert(format!("blocks.{i}.norm1.weight"), zeros([width]));
        tensors.insert(format!("blocks.{i}.ls1.gamma"), zeros([width]));
    }
    if registers > 0 {
        tensors.insert("register_tokens".into(), zeros([1, registers, width]));
    }
    tensors
}

#[test]
fn common_spellings_are_understood() {
    for (spelling, name) in [
        ("dinov2_vits14", "dinov2-s14"),
        ("dinov2_vitb14", "dinov2-b14"),
        ("DINOv2-Small", "dinov2-s14"),
        ("dinov2-base", "dinov2-b14"),
        ("vit_large_patch14_dinov2", "dinov2-l14"),
        ("dinov2_vits14_reg", "dinov2-s14-reg"),
        ("dinov2-s14-reg4", "dinov2-s14-reg"),
        ("vit_base_patch14_reg4_dinov2", "dinov2-b14-reg"),
        ("dinov2-with-registers-large", "dinov2-l14-reg"),
        ("dinov2_reg", "dinov2-reg"),
        ("dinov3_vits16", "dinov3-s16"),
        ("dinov3_vits16plus", "dinov3-s16-plus"),
        ("dinov3-vitl16-pretrain-sat493m", "dinov3-l16"),
        ("dinov3-vits16plus-pretrain-lvd1689m", "dinov3-s16-plus"),
        ("vit_base_patch16_dinov3.lvd1689m", "dinov3-b16"),
        ("vit_huge_plus_patch16_dinov3_qkvb", "dinov3-h16-plus"),
        ("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", "dinov3-t16"),
        ("eupe_vitb16", "dinov3-b16"),
        ("vit_large_patch16_lingbot", "dinov3-l16"),
        ("DINOv3", "dinov3"),
        ("CLIP", "clip"),
        ("maskclip", "clip"),
        ("ViT-B/16 CLIP", "clip-b16"),
        ("clip-vit-base-patch16", "clip-b16"),
        ("siglip_b16", "siglip-b16"),
        ("siglip-base-patch16-224", "siglip-b16"),
        ("ViT-B-16-SigLIP2", "siglip2-b16"),
        ("dinov2_vitg14_reg", "dinov2-g14-reg"),
        ("dinov2-giant", "dinov2-g14"),
        ("vit_giant_patch14_dinov2", "dinov2-g14"),
        ("depth-anything-v2-small", "dinov2-s14"),
        ("clip-vit-base-patch32", "clip-b32"),
        ("clip-vit-large-patch14-336", "clip-l14"),
        ("ViT-L-14-quickgelu CLIP", "clip-l14"),
        ("vit_base_patch16_clip_quickgelu_224", "clip-b16"),
        ("vit_huge_patch14_clip_378", "clip-h14"),
        ("vit_giant_patch14_clip_224", "clip-g14"),
        ("vit_gigantic_patch14_clip_224", "clip-bigg14"),
        ("CLIP-ViT-bigG-14", "clip-bigg14"),
        ("siglip-so400m-patch14-384", "siglip-so400m14"),
        ("ViT-SO400M-14-SigLIP-384", "siglip-so400m14"),
        ("vit_so400m_patch16_siglip_256", "siglip-so400m16"),
        ("siglip2-large-patch16-512", "siglip2-l16"),
        ("siglip2-giant-opt-patch16-256", "siglip2-giantopt16"),
        ("siglip2", "siglip2"),
    ] {
        assert_eq!(Preset::parse(spelling).unwrap().name(), name, "{spelling}");
    }
    for name in Preset::names() {
        assert_eq!(Preset::parse(name).unwrap().name(), name);
    }
}

#[test]
fn an_unknown_name_gets_the_list() {
    for name in [
        "dinov3-s14",
        "",
        "reg",
        "s14",
        "dinov2-s16",
        "clip-l13",
        "resnet50",
    ] {
        let message = Preset::parse(name).unwrap_err().to_string();
        says(
            &message,
            &["dinov2-s14", "dinov2-l14-reg", "siglip2-b16", "siglip2"],
        );
        assert!(message.contains(&format!("{name:?}")), "{message}");
    }
}

#[test]
fn weights_of_another_size_are_named() {
    let of = |tensors, preset, parts| (tensors, preset, None, parts);
    let small = "dinov2-s14 (patch 14, width 384, depth 12)|not dinov2-b14";
    let other = "another size|width 320|backbone name dinov2";
    refused([
        of(outline(384, 12, 0), "dinov2-b14", small),
        of(outline(768, 12, 4), "dinov2-s14-reg", "dinov2-b14-reg"),
        of(outline(320, 10, 0), "dinov2-s14", other),
    ]);
}

#[test]
fn explicit_heads_allow_another_size() {
    let vit = vit(weights("dinov2.bin"), "dinov2-s14", Some(3));
    assert_eq!((vit.config().width, vit.config().heads.value), (48, 3));
}

#[test]
fn weights_of_another_family_are_named() {
    let of = |file, preset, parts| (weights(file), preset, Some(3), parts);
    let reg = "DINOv2|not SigLIP|name dinov2-reg";
    refused([
        of("clip.bin", "dinov2-s14", "CLIP|not DINOv2|name clip"),
        of("dinov2_reg.bin", "siglip", reg),
        of("siglip.safetensors", "clip", "SigLIP|not CLIP|name siglip"),
        of("dinov2.bin", "dinov2-reg", "no register tokens|dinov2-reg"),
    ]);
}

#[test]
fn registers_that_are_there_are_used() {
    let vit = vit(weights("dinov2_reg.bin"), "dinov2", Some(3));
    assert_eq!(vit.config().registers, 4);
}

#[test]
fn heads_must_be_known_and_possible() {
    let of = |heads, parts| (weights("dinov2.bin"), "dinov2", heads, parts);
    refused([
        of(
            None,
            "number of attention heads|width 48|--heads|config.json",
        ),
        of(Some(5), "5 attention heads|48"),
        of(Some(0), "0 attention heads"),
        of(Some(usize::MAX), "heads"),
    ]);
}

#[test]
fn missing_and_misshapen_tensors_go_by_their_name_in_the_file() {
    let of = |tensors, preset, parts| (tensors, preset, Some(3), parts);
    let (siglip, clip, dinov2) = ("siglip.safetensors", "clip.bin", "dinov2.bin");
    let lost = "visual.trunk.blocks.1.attn.proj.bias";
    let narrow = "visual.transformer.resblocks.2.mlp.c_proj.weight";
    let shapes = format!("{narrow}|[48, 100]|[48, 192]");
    let narrow = with(clip, narrow, zeros([48, 100]));
    let pole = Tensor::from_fn([48], |i| 1.0 / (i as f32 - 3.0));
    let pole = with(dinov2, "norm.bias", pole);
    refused([
        of(without(siglip, lost), "siglip", &*format!("{lost}|missing")),
        of(narrow, "clip", &*shapes),
        of(pole, "dinov2", "norm.bias|inf|index 3"),
        of(without(dinov2, "cls_token"), "dinov2", "cls_token"),
        of(without(dinov2, "pos_embed"), "dinov2", "pos_embed"),
        of(without(dinov2, "patch_embed.proj.bias"), "dinov2", ""),
        of(without(dinov2, "blocks.0.ls1.gamma"), "dinov2", ""),
    ]);
}

#[test]
fn what_the_graph_cannot_express_is_refused() {
    let dinov2 = |name, tensor, parts| (with("dinov2.bin", name, tensor), "dinov2", Some(3), parts);
    let lacks = |part, parts| (without("dinov2.bin", part), "dinov2", Some(3), parts);
    let siglip = |name, tensor, parts| {
        let tensors = with("siglip.safetensors", name, tensor);
        (tensors, "siglip", Some(3), parts)
    };
    let (q_norm, registers) = (
        "visual.trunk.blocks.0.attn.q_norm.weight",
        "visual.trunk.reg_token",
    );
    let (patches, mlp) = ("patch_embed.proj.weight", "blocks.1.mlp.fc1.weight");
    let (square, oblong) = (zeros([1, 43, 48]), zeros([48, 3, 14, 7]));
    refused([
        siglip(q_norm, zeros([16]), &*format!("unsupported|{q_norm}")),
        siglip(registers, zeros([1, 4, 48]), &*format!("with {registers}")),
        dinov2("pos_embed", square, "pos_embed|42 patches|square"),
        dinov2(patches, oblong, &*format!("{patches}|[48, 3, 14, 7]")),
        dinov2(mlp, zeros([0, 48]), "block 1|MLP without channels"),
        lacks("blocks.1.", "blocks.1 is missing"),
        lacks("blocks.", "no blocks"),
        lacks(".ls", "with cls_token|no blocks.0.ls1.gamma"),
    ]);
}

#[test]
fn a_checkpoint_without_one_backbone_is_refused() {
    let other = Tensors::from([("layer1.0.conv1.weight".into(), zeros([1]))]);
    let mut two = Tensors::new();
    for (name, tensor) in weights("dinov2.bin") {
        two.insert(format!("model_ema.{name}"), tensor.clone());
        two.insert(format!("model.{name}"), tensor);
    }
    let of = |tensors, parts| (tensors, "dinov2", None, parts);
    refused([
        of(other, "no vision transformer|layer1.0.conv1.weight"),
        of(Tensors::new(), "no tensors"),
        of(two, "several|model.*|model_ema.*|--prefix model"),
    ]);
}

#[test]
fn sizes_are_whole_patches() {
    let vit = vit(weights("dinov2.bin"), "dinov2", Some(3));
    assert_eq!(vit.config().default_size(), (224, 224));
    for (width, height, nearest) in [
        (100, 98, "98x98"),
        (98, 111, "98x112"),
        (0, 14, "14x14"),
        (3, 20, "14x14"),
        (21, 14, "28x14"),
    ] {
        let message = vit.graph(width, height).unwrap_err().to_string();
        says(
            &message,
            &[
                &format!("{width}x{height}"),
                "14x14",
                &format!("is {nearest}"),
            ],
        );
    }
    assert!(matches!(
        vit.graph(usize::MAX, 14),
        Err(VitError::Size { .. })
    ));
    let side = 14 * (VitConfig::MAX_PATCHES.isqrt() + 1);
    assert!(matches!(
        vit.graph(side, side),
        Err(VitError::TooLarge { .. })
    ));
    assert!(matches!(
        vit.graph(usize::MAX / 14 * 14, 28),
        Err(VitError::TooLarge { .. })
    ));
}

#[test]
fn configurations_are_those_of_the_families() {
    let config = vit(weights("dinov2_reg.bin"), "dinov2-reg", Some(3))
        .config()
        .clone();
    assert_eq!(
        (config.family(), config.registers, config.position.grid()),
        (Family::DinoV2, 4, Some(7))
    );
    assert_eq!((config.mean[0], config.std[2]), (0.485, 0.225));
    let config = vit(weights("clip.bin"), "clip", Some(3)).config().clone();
    assert_eq!(
        (config.dim, config.width, config.patch, config.eps),
        (32, 48, 16, 1e-5)
    );
    let config = vit(weights("siglip.safetensors"), "siglip2", Some(3))
        .config()
        .clone();
    assert_eq!(
        (config.dim, config.mean, config.std),
        (48, [0.5; 3], [0.5; 3])
    );
}
