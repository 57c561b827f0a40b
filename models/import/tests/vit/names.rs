//! The same weights in every naming scheme give the same graph, byte for byte.

use loftup_onnx::Tensor;

use crate::support::{Tensors, vit, weights};

/// The graph, at the training size and at another one.
fn graphs(tensors: Tensors, preset: &str) -> [Vec<u8>; 2] {
    let vit = vit(tensors, preset, Some(3));
    let config = vit.config();
    let patch = config.patch;
    let side = config.position.grid().unwrap() * patch;
    [
        vit.graph(side, side).unwrap(),
        vit.graph(side + patch, side - patch).unwrap(),
    ]
}

/// Checks that `renamed` gives the same graphs as `original`.
fn same(original: Tensors, renamed: Tensors, preset: &str) {
    assert_ne!(
        original.keys().collect::<Vec<_>>(),
        renamed.keys().collect::<Vec<_>>()
    );
    assert!(
        graphs(original, preset) == graphs(renamed, preset),
        "the graphs differ"
    );
}

fn renamed(tensors: &Tensors, name: impl Fn(&str) -> String) -> Tensors {
    tensors
        .iter()
        .map(|(key, tensor)| (name(key), tensor.clone()))
        .collect()
}

fn replaced(tensors: &Tensors, pairs: &[(&str, &str)]) -> Tensors {
    renamed(tensors, |key| {
        pairs
            .iter()
            .fold(key.into(), |key: String, (a, b)| key.replace(a, b))
    })
}

/// Splits fused projections called `*{fused}{weight|bias}` into three modules.
fn split(tensors: Tensors, fused: &str, parts: [&str; 3]) -> Tensors {
    let mut result = Tensors::new();
    for (key, tensor) in tensors {
        let Some((block, kind)) = key.split_once(fused) else {
            result.insert(key, tensor);
            continue;
        };
        let rows = tensor.shape()[0] / 3;
        for (i, part) in parts.iter().enumerate() {
            result.insert(format!("{block}{part}.{kind}"), tensor.rows(i * rows, rows));
        }
    }
    result
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::from_fn(shape, |_| 0.0)
}

const HF_DINOV2: [(&str, &str); 10] = [
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("register_tokens", "embeddings.register_tokens"),
    ("mask_token", "embeddings.mask_token"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("blocks.", "encoder.layer."),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    ("attn.proj", "attention.output.dense"),
    ("attn.qkv", "attention.qkv"),
];

fn hugging_face_dinov2(tensors: &Tensors) -> Tensors {
    let tensors = replaced(tensors, &HF_DINOV2);
    let tensors = renamed(&tensors, |key| match key {
        "norm.weight" => "layernorm.weight".into(),
        "norm.bias" => "layernorm.bias".into(),
        key => key.into(),
    });
    let parts = ["query", "key", "value"].map(|p| format!("attention.attention.{p}"));
    split(
        tensors,
        "attention.qkv.",
        parts.each_ref().map(String::as_str),
    )
}

#[test]
fn hugging_face_dinov2_is_dinov2() {
    for (file, preset) in [("dinov2.bin", "dinov2"), ("dinov2_reg.bin", "dinov2-reg")] {
        let original = weights(file);
        same(original.clone(), hugging_face_dinov2(&original), preset);
    }
}

#[test]
fn hugging_face_dinov2_may_stand_under_its_model() {
    let original = weights("dinov2_reg.bin");
    let model = renamed(&hugging_face_dinov2(&original), |k| {
        format!("dinov2_with_registers.{k}")
    });
    same(original, model, "dinov2-reg");
    let original = weights("dinov2.bin");
    let mut model = renamed(&hugging_face_dinov2(&original), |k| format!("dinov2.{k}"));
    model.insert("classifier.weight".into(), zeros(&[10, 96]));
    same(original, model, "dinov2");
}

#[test]
fn hugging_face_dinov2_of_version_5_is_dinov2() {
    let original = weights("dinov2.bin");
    let pairs = [
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
    ];
    same(
        original.clone(),
        replaced(&hugging_face_dinov2(&original), &pairs),
        "dinov2",
    );
}

#[test]
fn dinov2_in_chunks_is_dinov2() {
    let original = weights("dinov2.bin");
    let pairs = [("blocks.0.", "blocks.0.0."), ("blocks.1.", "blocks.0.1.")];
    let chunked = renamed(&replaced(&original, &pairs), |key| {
        match key.strip_prefix("blocks.2.") {
            Some(rest) => format!("blocks.1.2.{rest}"),
            None => key.into(),
        }
    });
    same(original, chunked, "dinov2");
}

#[test]
fn dinov2_may_stand_under_any_prefix() {
    let original = weights("dinov2.bin");
    let teacher = renamed(&original, |key| format!("teacher.backbone.{key}"));
    same(original, teacher, "dinov2");
}

#[test]
fn timm_dinov2_keeps_the_class_position_in_the_class_token() {
    let original = weights("dinov2_reg.bin");
    let mut timm = replaced(&original, &[("register_tokens", "reg_token")]);
    let positions = timm["pos_embed"].clone().reshaped([50, 48]);
    let class = timm["cls_token"]
        .clone()
        .map(|i, x| x + positions.data()[i]);
    timm.insert("cls_token".into(), class);
    timm.insert(
        "pos_embed".into(),
        positions.rows(1, 49).reshaped([1, 49, 48]),
    );
    same(original, timm, "dinov2-reg");
}

#[test]
fn clip_needs_no_visual_prefix() {
    let original = weights("clip.bin");
    same(
        original.clone(),
        replaced(&original, &[("visual.", "")]),
        "clip",
    );
}

#[test]
fn clip_with_its_text_encoder_is_clip() {
    let original = weights("clip.bin");
    let mut whole = original.clone();
    whole.insert("positional_embedding".into(), zeros(&[77, 32]));
    whole.insert("token_embedding.weight".into(), zeros(&[9, 32]));
    whole.insert("ln_final.weight".into(), zeros(&[32]));
    whole.insert("transformer.resblocks.0.ln_1.weight".into(), zeros(&[32]));
    whole.insert("logit_scale".into(), zeros(&[]));
    same(original, whole, "clip");
}

#[test]
fn hugging_face_clip_is_clip() {
    let original = weights("clip.bin");
    let pairs = [
        (
            "visual.transformer.resblocks.",
            "vision_model.encoder.layers.",
        ),
        (
            "visual.class_embedding",
            "vision_model.embeddings.class_embedding",
        ),
        (
            "visual.positional_embedding",
            "vision_model.embeddings.position_embedding.weight",
        ),
        ("visual.conv1", "vision_model.embeddings.patch_embedding"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("visual.proj", "visual_projection.weight"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("c_fc", "fc1"),
        ("c_proj", "fc2"),
    ];
    let mut hf = replaced(&original, &pairs);
    let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    hf = split(hf, "attn.in_proj_", parts);
    let projection = hf["visual_projection.weight"].transposed();
    hf.insert("visual_projection.weight".into(), projection);
    hf.insert(
        "text_model.encoder.layers.0.layer_norm1.weight".into(),
        zeros(&[32]),
    );
    same(original, hf, "clip");
}

#[test]
fn bare_timm_siglip_is_siglip() {
    let original = weights("siglip.safetensors");
    same(
        original.clone(),
        replaced(&original, &[("visual.trunk.", "")]),
        "siglip",
    );
}

#[test]
fn hugging_face_siglip_is_siglip() {
    let original = weights("siglip.safetensors");
    let mut bare = replaced(&original, &[("visual.trunk.", "")]);
    bare.retain(|key, _| !key.starts_with("attn_pool"));
    let pairs = [
        ("blocks.", "vision_model.encoder.layers."),
        (
            "patch_embed.proj",
            "vision_model.embeddings.patch_embedding",
        ),
        (
            "pos_embed",
            "vision_model.embeddings.position_embedding.weight",
        ),
        ("attn.proj", "self_attn.out_proj"),
        ("norm1", "layer_norm1"),
        ("norm2", "layer_norm2"),
    ];
    let hf = renamed(&replaced(&bare, &pairs), |key| {
        match key.strip_prefix("norm.") {
            Some(rest) => format!("vision_model.post_layernorm.{rest}"),
            None => key.into(),
        }
    });
    let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    let mut hf = split(hf, "attn.qkv.", parts);
    let name = "vision_model.embeddings.position_embedding.weight";
    let positions = hf[name].clone().reshaped([36, 48]);
    hf.insert(name.into(), positions);
    hf.insert("vision_model.head.probe".into(), zeros(&[1, 1, 48]));
    hf.insert(
        "text_model.encoder.layers.0.layer_norm1.weight".into(),
        zeros(&[48]),
    );
    hf.insert(
        "text_model.embeddings.position_embedding.weight".into(),
        zeros(&[64, 48]),
    );
    same(original, hf, "siglip2");
}
