//! DINOv3 in the names of each library, compared with timm and transformers and with the slow
//! reference implementation.

use loftup_import::vit::{
    Activation, ConfigFiles, Origin, PositionEmbedding, Preset, Vit, VitOptions,
};
use loftup_onnx::Tensor;

use crate::{
    slow::Slow,
    support::{self, Tensors, noise, run, try_with, worst},
};

/// PyTorch and tract add in different orders; features have a magnitude of 1 to 4.
const TOLERANCE: f32 = 1e-5;
const WIDTH: usize = 32;
const GRIDS: [(usize, usize); 3] = [(2, 3), (1, 5), (3, 3)];

fn fixture(prefix: &str) -> Tensors {
    support::fixture("dinov3.safetensors", prefix)
}

pub fn transformers() -> Tensors {
    fixture("transformers.weights.")
}

pub fn timm() -> Tensors {
    fixture("timm.weights.")
}

/// Any settings but the heads, which only some files have.
pub fn read(tensors: Tensors, heads: Option<usize>) -> Result<Vit, String> {
    let options = VitOptions {
        heads,
        ..VitOptions::default()
    };
    let preset = Preset::parse("dinov3").unwrap();
    try_with(tensors, preset, &options, &ConfigFiles::default())
}

fn renamed(tensors: Tensors, pairs: &[(&str, &str)]) -> Tensors {
    let name = |key: String| {
        pairs
            .iter()
            .fold(key, |key, (theirs, ours)| key.replace(theirs, ours))
    };
    tensors
        .into_iter()
        .map(|(key, tensor)| (name(key), tensor))
        .collect()
}

/// timm's model in facebookresearch's names. The bias of the keys is masked.
pub fn facebook() -> Tensors {
    let pairs = [
        ("reg_token", "storage_tokens"),
        ("gamma_1", "ls1.gamma"),
        ("gamma_2", "ls2.gamma"),
        ("mlp.fc1_g", "mlp.w1"),
        ("mlp.fc1_x", "mlp.w2"),
        ("mlp.fc2", "mlp.w3"),
    ];
    let mut tensors = renamed(timm(), &pairs);
    for block in 0..2 {
        let attn = format!("blocks.{block}.attn");
        let [q, v] = ["q", "v"].map(|x| tensors.remove(&format!("{attn}.{x}_bias")).unwrap());
        let part = |i: usize| [Some(&q), None, Some(&v)][i / WIDTH];
        let bias = |i: usize| part(i).map_or(7.0, |bias| bias.data()[i % WIDTH]);
        let mask = |i: usize| f32::from(u8::from(part(i).is_some()));
        tensors.insert(
            format!("{attn}.qkv.bias"),
            Tensor::from_fn([3 * WIDTH], bias),
        );
        tensors.insert(
            format!("{attn}.qkv.bias_mask"),
            Tensor::from_fn([3 * WIDTH], mask),
        );
    }
    tensors.insert("mask_token".into(), Tensor::from_fn([1, WIDTH], |_| 9.0));
    tensors
}

/// facebookresearch's names with periods rounded to bfloat16.
fn facebook_with_periods() -> Tensors {
    let mut tensors = facebook();
    let periods = fixture("rounded.").remove("periods").unwrap();
    tensors.insert("rope_embed.periods".into(), periods);
    tensors
}

/// timm's model in the names of transformers.
fn timm_as_transformers() -> Tensors {
    let pairs = [
        ("cls_token", "embeddings.cls_token"),
        ("reg_token", "embeddings.register_tokens"),
        ("patch_embed.proj", "embeddings.patch_embeddings"),
        ("blocks.", "layer."),
        ("gamma_1", "layer_scale1.lambda1"),
        ("gamma_2", "layer_scale2.lambda1"),
        ("mlp.fc1_g", "mlp.gate_proj"),
        ("mlp.fc1_x", "mlp.up_proj"),
        ("mlp.fc2", "mlp.down_proj"),
        ("attn.proj", "attention.o_proj"),
        ("attn.q_bias", "attention.q_proj.bias"),
        ("attn.v_bias", "attention.v_proj.bias"),
    ];
    let mut tensors = renamed(timm(), &pairs);
    for block in 0..2 {
        let qkv = tensors
            .remove(&format!("layer.{block}.attn.qkv.weight"))
            .unwrap();
        for (i, part) in ["q", "k", "v"].into_iter().enumerate() {
            let name = format!("layer.{block}.attention.{part}_proj.weight");
            tensors.insert(name, qkv.rows(i * WIDTH, WIDTH));
        }
    }
    tensors
}

fn graph(tensors: Tensors) -> Vec<u8> {
    read(tensors, Some(2)).unwrap().graph(10, 6).unwrap()
}

#[test]
fn features_are_those_of_timm_and_transformers() {
    let cases = [
        ("transformers", read(transformers(), Some(2)).unwrap()),
        ("timm", read(timm(), Some(2)).unwrap()),
        // The heads are those of the periods.
        ("rounded", read(facebook_with_periods(), None).unwrap()),
    ];
    for (name, vit) in &cases {
        let config = vit.config();
        assert_eq!((config.patch, config.dim, config.depth), (2, WIDTH, 2));
        assert_eq!(
            (config.heads.value, config.registers, config.eps),
            (2, 3, 1e-5)
        );
        for (rows, columns) in GRIDS {
            let grid = format!("{rows}x{columns}");
            let image = fixture("image.").remove(&grid).unwrap();
            let expected = fixture(&format!("{name}.")).remove(&grid).unwrap();
            let error = worst(&run(vit, &image), &expected);
            println!("{name} {grid}: worst error {error:e}");
            assert!(error <= TOLERANCE, "{name} {grid}: {error:e}");
        }
    }
    // The rounding of the periods matters more than the tolerance.
    let [exact, rounded] =
        ["timm.2x3", "rounded.2x3"].map(|name| fixture(name).remove("").unwrap());
    assert!(worst(&exact, &rounded) > 10.0 * TOLERANCE);
}

#[test]
fn settings_come_from_the_weights_where_they_have_them() {
    let plain = read(transformers(), Some(2)).unwrap();
    assert_eq!(plain.config().activation.value, Activation::Gelu);
    let rotary = |theta, from| PositionEmbedding::Rotary { theta, from };
    let published = rotary(Some(100.0), Origin::PublishedModel);
    assert_eq!(plain.config().position, published);
    let gated = read(facebook_with_periods(), None).unwrap();
    let config = gated.config();
    assert_eq!(config.activation.value, Activation::SwiGlu);
    assert_eq!(config.heads.from, Origin::Weights);
    assert_eq!(config.position, rotary(None, Origin::Weights));
    let architecture = config.architecture();
    architecture.validate().unwrap();
    assert_eq!(architecture.rotary_periods, Some(Origin::Weights));
}

#[test]
fn names_of_every_library_give_the_same_graph() {
    let timm = graph(timm());
    assert!(graph(facebook()) == timm, "facebookresearch");
    assert!(graph(timm_as_transformers()) == timm, "transformers");
    let under = |prefix: &str, tensors: Tensors| -> Tensors {
        tensors
            .into_iter()
            .map(|(key, tensor)| (format!("{prefix}{key}"), tensor))
            .collect()
    };
    assert!(graph(under("teacher.backbone.", facebook())) == timm);
    assert!(graph(under("dinov3_vit.", timm_as_transformers())) == timm);
    let state_dict = |tensors| -> Tensors {
        let name = |key: String| match key.starts_with("layer.") {
            true => format!("model.{key}"),
            false => key,
        };
        let tensors: Tensors = tensors;
        tensors.into_iter().map(|(key, t)| (name(key), t)).collect()
    };
    assert!(graph(state_dict(timm_as_transformers())) == timm);
    assert!(graph(under("model.", state_dict(timm_as_transformers()))) == timm);
    // Masked or not there, the bias of the keys is none.
    let mut unmasked = facebook();
    unmasked.retain(|key, _| !key.ends_with("bias_mask"));
    assert!(graph(unmasked) != timm);
}

#[test]
fn biases_and_registers_are_optional() {
    let mut bare = transformers();
    bare.retain(|key, _| !key.contains("q_proj.bias") && !key.contains("v_proj.bias"));
    let mut zero = transformers();
    for (key, tensor) in &mut zero {
        if key.contains("q_proj.bias") || key.contains("v_proj.bias") {
            *tensor = Tensor::from_fn([WIDTH], |_| 0.0);
        }
    }
    assert!(graph(bare) == graph(zero));
    let name = "embeddings.register_tokens";
    let mut without = transformers();
    without.remove(name);
    let mut empty = without.clone();
    empty.insert(name.into(), Tensor::from_fn([1, 0, WIDTH], |_| 0.0));
    assert_eq!(read(empty.clone(), Some(2)).unwrap().config().registers, 0);
    assert!(graph(empty) == graph(without));
    // Without storage tokens, facebookresearch's periods identify the model.
    let mut stored = facebook_with_periods();
    stored.remove("storage_tokens");
    assert_eq!(read(stored, None).unwrap().config().registers, 0);
}

#[test]
fn any_heads_and_grids_are_the_slow_transformer() {
    let mut slow_names = renamed(facebook(), &[("storage_tokens", "register_tokens")]);
    for block in 0..2 {
        let (mlp, attn) = (
            format!("blocks.{block}.mlp"),
            format!("blocks.{block}.attn"),
        );
        for kind in ["weight", "bias"] {
            let [gate, values] = ["w1", "w2"].map(|w| {
                slow_names
                    .remove(&format!("{mlp}.{w}.{kind}"))
                    .unwrap()
                    .into_data()
            });
            let both = [gate, values].concat();
            let shape = match kind {
                "weight" => vec![both.len() / WIDTH, WIDTH],
                _ => vec![both.len()],
            };
            let both = Tensor::new(shape, both).unwrap();
            slow_names.insert(format!("{mlp}.w12.{kind}"), both);
        }
        let mask = slow_names.remove(&format!("{attn}.qkv.bias_mask")).unwrap();
        let bias = slow_names.remove(&format!("{attn}.qkv.bias")).unwrap();
        let bias = bias.map(|i, x| x * mask.data()[i]);
        slow_names.insert(format!("{attn}.qkv.bias"), bias);
    }
    // Heads of 32, 16 and 8 channels.
    for heads in [1, 2, 4] {
        let count = WIDTH / heads / 4;
        let period = |k: usize| 100f64.powf(k as f64 / count as f64);
        let slow = Slow {
            tensors: &slow_names,
            depth: 2,
            heads,
            eps: 1e-5,
            activation: Activation::SwiGlu,
            clip: false,
            periods: Some((0..count).map(period).collect()),
        };
        let vit = read(facebook(), Some(heads)).unwrap();
        for (rows, columns) in [(1, 1), (1, 7), (5, 2)] {
            let mut noise = noise(8);
            let image = Tensor::from_fn([1, 3, 2 * rows, 2 * columns], |_| 2.0 * noise());
            let error = worst(&run(&vit, &image), &slow.features(&image));
            println!("{heads} heads, {rows}x{columns}: worst error {error:e}");
            assert!(
                error <= TOLERANCE,
                "{heads} heads, {rows}x{columns}: {error:e}"
            );
        }
    }
}
