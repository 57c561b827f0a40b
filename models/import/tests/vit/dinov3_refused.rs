//! Files and settings that are refused for DINOv3, with the reason.

use std::fs;

use loftup_import::vit::{ConfigFiles, Origin, PositionEmbedding, Positions, Preset, VitOptions};
use loftup_onnx::Tensor;

use crate::{
    dinov3::{facebook, read, timm, transformers},
    support::{Tensors, try_with},
};

fn zeros<const N: usize>(shape: [usize; N]) -> Tensor {
    Tensor::from_fn(shape, |_| 0.0)
}

fn with(mut tensors: Tensors, name: &str, tensor: Tensor) -> Tensors {
    tensors.insert(name.into(), tensor);
    tensors
}

fn without(mut tensors: Tensors, name: &str) -> Tensors {
    tensors.remove(name).unwrap();
    tensors
}

#[track_caller]
fn says(message: &str, parts: &str) {
    println!("{message}");
    assert!(
        message.contains("w.pth") || message.contains("config.json"),
        "{message}"
    );
    for part in parts.split('|') {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn other_models_and_damaged_files() {
    let nan = Tensor::from_fn([96], |_| f32::NAN);
    let periods = |values: &[f32]| Tensor::new([values.len()], values.to_vec()).unwrap();
    let stored = |values| with(facebook(), "rope_embed.periods", periods(values));
    let cases = [
        (
            with(facebook(), "blocks.0.attn.qkv.bias_mask", nan),
            "blocks.0.attn.qkv.bias_mask|NaN",
        ),
        (
            without(facebook(), "blocks.1.attn.qkv.bias_mask"),
            "blocks.1.attn.qkv.bias_mask|missing",
        ),
        (
            without(timm(), "blocks.1.attn.q_bias"),
            "blocks.1.attn.q_bias|missing",
        ),
        (
            with(timm(), "pos_embed", zeros([1, 9, 32])),
            "EVA|with pos_embed|--backbone-onnx",
        ),
        (
            without(timm(), "reg_token"),
            "rotary positions other than DINOv3's|no reg_token|--backbone-onnx",
        ),
        (
            with(timm(), "rope.freqs", zeros([2, 2, 2])),
            "rotary positions other than DINOv3's|with rope.freqs",
        ),
        (without(timm(), "cls_token"), "no cls_token"),
        (
            without(facebook(), "blocks.0.ls1.gamma"),
            "no blocks.0.ls1.gamma",
        ),
        (
            with(timm(), "blocks.0.attn.q_norm.weight", zeros([16])),
            "blocks.0.attn.q_norm.weight",
        ),
        (
            stored(&[1.0, 2.0]),
            "2 attention heads (command line)|heads of 8 channels|width of 32",
        ),
        (stored(&[1.0, 2.0, 0.0, 4.0]), "rope_embed.periods|period 0"),
        (
            with(facebook(), "rope_embed.periods", zeros([2, 2])),
            "rope_embed.periods|[2, 2]",
        ),
    ];
    for (tensors, parts) in cases {
        says(&read(tensors, Some(2)).unwrap_err(), parts);
    }
}

#[test]
fn heads() {
    let message = read(timm(), None).unwrap_err();
    says(
        &message,
        "number of attention heads|DINOv3 with patch 2, width 32|--heads",
    );
    let message = read(timm(), Some(8)).unwrap_err();
    says(
        &message,
        "8 attention heads (command line) of 4 channels|multiples of 8",
    );
}

#[test]
fn resampling_of_positions() {
    let options = VitOptions {
        heads: Some(2),
        positions: Some(Positions::Timm),
        ..VitOptions::default()
    };
    let preset = Preset::parse("dinov3").unwrap();
    let message = try_with(timm(), preset, &options, &ConfigFiles::default()).unwrap_err();
    says(&message, "--positions timm|rotary|omit");
}

/// With S and S+, which differ only in their MLPs.
#[test]
fn the_other_kind_of_mlp() {
    let mut plus = Tensors::from([
        (
            "embeddings.patch_embeddings.weight".into(),
            zeros([384, 3, 16, 16]),
        ),
        ("embeddings.cls_token".into(), zeros([1, 1, 384])),
        ("layer.0.mlp.gate_proj.weight".into(), zeros([1536, 384])),
    ]);
    for i in 0..12 {
        plus.insert(format!("layer.{i}.norm1.weight"), zeros([384]));
        plus.insert(format!("layer.{i}.layer_scale1.lambda1"), zeros([384]));
    }
    let read = |name, tensors| {
        let preset = Preset::parse(name).unwrap();
        try_with(
            tensors,
            preset,
            &VitOptions::default(),
            &ConfigFiles::default(),
        )
        .unwrap_err()
    };
    says(
        &read("dinov3-s16", plus.clone()),
        "dinov3-s16-plus (patch 16|not dinov3-s16",
    );
    says(
        &read("dinov3-b16", plus.clone()),
        "dinov3-s16-plus (patch 16|not dinov3-b16",
    );
    says(
        &read("dinov2-s14", plus.clone()),
        "DINOv3|not DINOv2|dinov3-s16-plus",
    );
    let plain = without(plus, "layer.0.mlp.gate_proj.weight");
    says(
        &read("dinov3-s16-plus", plain),
        "dinov3-s16 (patch 16|not dinov3-s16-plus",
    );
}

#[test]
fn satellite_weights_without_their_normalization() {
    let tensors = with(facebook(), "local_cls_norm.weight", zeros([32]));
    let message = read(tensors.clone(), Some(2)).unwrap_err();
    says(
        &message,
        "color normalization|--mean 0.430,0.411,0.296 --std 0.213|SAT-493M",
    );
    let message = read(tensors.clone(), None).unwrap_err();
    says(
        &message,
        "attention heads and the color normalization|--heads|--mean",
    );
    let given = VitOptions {
        heads: Some(2),
        mean: Some([0.430, 0.411, 0.296]),
        std: Some([0.213, 0.156, 0.143]),
        ..VitOptions::default()
    };
    let preset = Preset::parse("dinov3").unwrap();
    let vit = try_with(tensors, preset, &given, &ConfigFiles::default()).unwrap();
    let config = vit.config();
    assert_eq!((config.mean[0], config.std[0]), (0.430, 0.213));
    assert_eq!(config.normalization, Origin::CommandLine);
}

const CONFIG: &str = r#"{"model_type": "dinov3_vit", "hidden_size": 32, "num_hidden_layers": 2, "patch_size": 2,
    "num_attention_heads": 2, "num_register_tokens": 3, "rope_theta": 30.0}"#;

#[test]
fn config_files_of_transformers() {
    let read = |text: &str, tensors: Tensors| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();
        let files = ConfigFiles::next_to(&dir.path().join("model.safetensors"));
        let preset = Preset::parse("dinov3").unwrap();
        let files = files.map_err(|error| error.to_string())?;
        try_with(tensors, preset, &VitOptions::default(), &files)
    };
    let vit = read(CONFIG, transformers()).unwrap();
    let theta = PositionEmbedding::Rotary {
        theta: Some(30.0),
        from: Origin::ConfigJson,
    };
    assert_eq!(vit.config().position, theta);
    assert_eq!(vit.config().heads.from, Origin::ConfigJson);
    let gated = |act: &str| {
        let end = format!(", \"use_gated_mlp\": true, \"hidden_act\": {act}}}");
        CONFIG.replace('}', &end)
    };
    let cases = [
        (gated("\"gelu\""), "hidden_act gelu|use_gated_mlp|silu"),
        (gated("null"), "hidden_act gelu|use_gated_mlp|silu"),
        (gated("\"silu\""), "a SwiGLU MLP|a plain MLP"),
        (
            CONFIG.replace("tokens\": 3", "tokens\": 0"),
            "register tokens 0|register tokens 3",
        ),
        (
            CONFIG.replace("tokens\": 3", "tokens\": -1"),
            "num_register_tokens|-1",
        ),
        (CONFIG.replace("30.0", "0"), "rope_theta is 0"),
        (CONFIG.replace("dinov3_vit", "dinov2"), "DINOv2|DINOv3"),
    ];
    for (text, parts) in cases {
        says(&read(&text, transformers()).unwrap_err(), parts);
    }
}
