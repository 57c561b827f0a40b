//! Comparison with the slow reference implementation, for what the golden cases do not cover: other
//! numbers of heads (with and without padding), one block, tanh GELU.

use loftup_import::vit::{Activation, ConfigFiles, Preset, Vit, VitOptions};
use loftup_onnx::Tensor;

use crate::{
    slow::Slow,
    support::{Tensors, noise, run, try_with, vit, weights, worst},
};

/// 32 bits compared with 64; features have a magnitude of 1 to 4.
const TOLERANCE: f32 = 5e-5;

fn image(height: usize, width: usize) -> Tensor {
    let mut noise = noise(7);
    Tensor::from_fn([1, 3, height, width], |_| 2.0 * noise())
}

/// Compares at the training size; `name` maps the checkpoint's names to DINOv2's.
fn check(tensors: Tensors, preset: &str, heads: usize, name: fn(&str) -> String) {
    check_built(
        &vit(tensors.clone(), preset, Some(heads)),
        tensors,
        preset,
        heads,
        name,
    );
}

/// As `check`, for a backbone that has already been read from the tensors.
fn check_built(vit: &Vit, tensors: Tensors, preset: &str, heads: usize, name: fn(&str) -> String) {
    let config = vit.config();
    let clip = preset == "clip";
    let plain = |(key, tensor): (String, Tensor)| match name(&key) {
        key if key == "projection.weight" => (key, tensor.transposed()),
        key => (key, tensor),
    };
    let mut renamed: Tensors = tensors.into_iter().map(plain).collect();
    let zero = || Tensor::from_fn([config.width], |_| 0.0);
    renamed
        .entry("patch_embed.proj.bias".into())
        .or_insert_with(zero);
    let slow = Slow {
        tensors: &renamed,
        depth: config.depth,
        heads,
        eps: config.eps.into(),
        activation: config.activation.value,
        clip,
        periods: None,
    };
    let side = config.position.grid().unwrap() * config.patch;
    let image = image(side, side);
    let worst = worst(&run(vit, &image), &slow.features(&image));
    println!("{preset}, {heads} heads: worst error {worst:e}");
    assert!(worst <= TOLERANCE, "{preset}, {heads} heads: {worst:e}");
}

fn same(name: &str) -> String {
    name.into()
}

fn openai(name: &str) -> String {
    let mut name = name.trim_start_matches("visual.").to_string();
    for (theirs, ours) in [
        ("class_embedding", "cls_token"),
        ("positional_embedding", "pos_embed"),
        ("conv1", "patch_embed.proj"),
        ("ln_pre", "norm_pre"),
        ("ln_post", "norm"),
        ("transformer.resblocks", "blocks"),
        ("in_proj_", "qkv."),
        ("out_proj", "proj"),
        ("ln_", "norm"),
        ("c_fc", "fc1"),
        ("c_proj", "fc2"),
    ] {
        name = name.replace(theirs, ours);
    }
    if name == "proj" {
        "projection.weight".into()
    } else {
        name
    }
}

fn trunk(name: &str) -> String {
    name.trim_start_matches("visual.trunk.").into()
}

#[test]
fn dinov2_with_any_heads_is_the_slow_transformer() {
    // Heads of 16 and 8 channels, and of 12 and 4, which are padded.
    for heads in [3, 6, 4, 12] {
        check(weights("dinov2.bin"), "dinov2", heads, same);
    }
}

#[test]
fn registers_are_part_of_the_attention() {
    for heads in [3, 4] {
        check(weights("dinov2_reg.bin"), "dinov2-reg", heads, same);
    }
}

#[test]
fn clip_with_any_heads_is_the_slow_transformer() {
    for heads in [3, 4] {
        check(weights("clip.bin"), "clip", heads, openai);
    }
}

#[test]
fn clip_of_one_block_has_no_attention() {
    let first = |name: &String, _: &mut Tensor| {
        !name.contains("resblocks.") || name.contains("resblocks.0.")
    };
    let mut tensors = weights("clip.bin");
    tensors.retain(first);
    check(tensors, "clip", 3, openai);
}

#[test]
fn siglip_with_any_heads_is_the_slow_transformer() {
    for heads in [3, 4] {
        check(weights("siglip.safetensors"), "siglip", heads, trunk);
    }
}

#[test]
fn siglip_with_the_tanh_gelu_is_the_slow_transformer() {
    let mut tensors = weights("siglip.safetensors");
    // The two GELUs differ by up to 5e-4, near 2: large weights make that visible.
    for (name, tensor) in &mut tensors {
        if name.ends_with("mlp.fc1.weight") || name.ends_with("mlp.fc2.weight") {
            *tensor = tensor.clone().map(|_, x| 20.0 * x);
        }
    }
    let options = VitOptions {
        heads: Some(3),
        activation: Some(Activation::GeluTanh),
        ..VitOptions::default()
    };
    let preset = Preset::parse("siglip").unwrap();
    let built = try_with(tensors.clone(), preset, &options, &ConfigFiles::default()).unwrap();
    check_built(&built, tensors.clone(), "siglip", 3, trunk);

    // The exact GELU is a different function, which this test would detect.
    let renamed = tensors
        .into_iter()
        .map(|(key, tensor)| (trunk(&key), tensor))
        .collect();
    let [tanh, exact] = [Activation::GeluTanh, Activation::Gelu].map(|activation| {
        let slow = Slow {
            tensors: &renamed,
            depth: 3,
            heads: 3,
            eps: 1e-6,
            activation,
            clip: false,
            periods: None,
        };
        slow.features(&image(96, 96))
    });
    let difference = worst(&tanh, &exact);
    println!("the two GELUs differ by {difference:e}");
    assert!(difference > 4.0 * TOLERANCE);
}
