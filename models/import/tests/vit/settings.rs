//! Origin of heads, activation and normalization; variants of MLPs and projections.

use std::{collections::BTreeMap, fs, path::Path};

use loftup_import::{
    checkpoint::Checkpoint,
    vit::{Activation, ConfigFiles, Origin, Positions, Preset, Vit, VitOptions},
};
use loftup_onnx::Tensor;

use crate::support::{Tensors, noise, run, try_with, weights, worst};

fn renamed(tensors: &Tensors, pairs: &[(&str, &str)]) -> Tensors {
    let name = |key: &String| {
        pairs
            .iter()
            .fold(key.clone(), |key, (a, b)| key.replace(a, b))
    };
    tensors
        .iter()
        .map(|(key, tensor)| (name(key), tensor.clone()))
        .collect()
}

/// The golden CLIP with timm's names.
fn timm_clip() -> Tensors {
    let pairs = [
        ("visual.transformer.resblocks", "blocks"),
        ("visual.class_embedding", "cls_token"),
        ("visual.positional_embedding", "pos_embed"),
        ("visual.conv1", "patch_embed.proj"),
        ("visual.ln_pre", "norm_pre"),
        ("visual.ln_post", "norm"),
        ("visual.proj", "head.weight"),
        ("attn.in_proj_", "attn.qkv."),
        ("attn.out_proj", "attn.proj"),
        ("ln_1", "norm1"),
        ("ln_2", "norm2"),
        ("c_fc", "fc1"),
        ("c_proj", "fc2"),
    ];
    let mut tensors = renamed(&weights("clip.bin"), &pairs);
    let head = tensors["head.weight"].transposed();
    tensors.insert("head.weight".into(), head);
    tensors.insert("head.bias".into(), Tensor::from_fn([32], |_| 0.0));
    let class = tensors["cls_token"].clone().reshaped([1, 1, 48]);
    tensors.insert("cls_token".into(), class);
    tensors
}

fn files(texts: &[(&str, &str)]) -> Result<ConfigFiles, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in texts {
        fs::write(dir.path().join(name), text).unwrap();
    }
    ConfigFiles::next_to(&dir.path().join("model.safetensors")).map_err(|e| {
        let message = e.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    })
}

fn read(
    tensors: Tensors,
    preset: &str,
    options: VitOptions,
    texts: &[(&str, &str)],
) -> Result<Vit, String> {
    try_with(
        tensors,
        Preset::parse(preset).unwrap(),
        &options,
        &files(texts)?,
    )
}

const HEADS: VitOptions = VitOptions {
    heads: Some(3),
    activation: None,
    positions: None,
    text_space: false,
    mean: None,
    std: None,
};
const NONE: VitOptions = VitOptions {
    heads: None,
    activation: None,
    positions: None,
    text_space: false,
    mean: None,
    std: None,
};
/// A transformers config of the golden CLIP.
const CLIP: &str = r#"{"model_type": "clip", "vision_config": {"hidden_size": 48, "num_hidden_layers": 3,
    "patch_size": 16, "num_attention_heads": 3, "hidden_act": "gelu"}}"#;

#[test]
fn clips_activation_is_never_guessed() {
    let message = read(weights("clip.bin"), "clip", HEADS, &[]).unwrap_err();
    for part in ["w.pth", "activation", "--activation", "quick-gelu", "LAION"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn settings_that_are_missing_are_named_at_once() {
    let message = read(weights("clip.bin"), "clip", NONE, &[]).unwrap_err();
    for part in [
        "attention heads and the activation of this CLIP",
        "are not in the weights",
        "--heads N",
        " and --activation quick-gelu",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// A TorchScript archive with the layout of OpenAI's, whose three numbers are integer buffers.
#[test]
fn openais_own_archive_is_quick_gelu() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/openai_clip.pt");
    let checkpoint = Checkpoint::open(&archive).unwrap();
    let options = VitOptions {
        heads: Some(1),
        ..NONE
    };
    let read = |checkpoint: &Checkpoint| {
        let preset = Preset::parse("clip").unwrap();
        Vit::from_checkpoint(checkpoint, preset, &options, &ConfigFiles::default())
            .map(|vit| (vit.config().activation.value, vit.config().activation.from))
            .map_err(|error| error.to_string())
    };
    let expected = (Activation::QuickGelu, Origin::Weights);
    assert_eq!(read(&checkpoint).unwrap(), expected);
    for missing in ["input_resolution", "context_length", "vocab_size"] {
        let other = checkpoint
            .clone()
            .renamed(|name| (name != missing).then(|| name.into()));
        let message = read(&other).unwrap_err();
        assert!(message.contains("--activation"), "{missing}: {message}");
    }
}

#[test]
fn settings_come_from_options_then_config_files_then_published_models() {
    let open_clip = r#"{"model_cfg": {"quick_gelu": true, "vision_cfg": {"width": 48, "head_width": 16, "layers": 3,
        "patch_size": 16}}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}}"#;
    let timm = r#"{"architecture": "vit_base_patch16_clip_quickgelu_224", "model_args": {"embed_dim": 48, "depth": 3,
        "num_heads": 3}, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}"#;
    let json = Origin::ConfigJson;
    let quick = VitOptions {
        activation: Some(Activation::QuickGelu),
        ..HEADS
    };
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Tensors, VitOptions, Files, Activation, Origin); 6] = [
        (
            weights("clip.bin"),
            NONE,
            &[("config.json", CLIP)],
            Activation::Gelu,
            json,
        ),
        (
            weights("clip.bin"),
            quick,
            &[("config.json", CLIP)],
            Activation::QuickGelu,
            Origin::CommandLine,
        ),
        (
            weights("clip.bin"),
            NONE,
            &[("config.json", CLIP), ("open_clip_config.json", open_clip)],
            Activation::QuickGelu,
            Origin::OpenClipConfigJson,
        ),
        (
            timm_clip(),
            NONE,
            &[("config.json", timm)],
            Activation::QuickGelu,
            json,
        ),
        (
            timm_clip(),
            NONE,
            &[("open_clip_config.json", open_clip)],
            Activation::QuickGelu,
            Origin::OpenClipConfigJson,
        ),
        (
            weights("clip.bin"),
            NONE,
            &[(
                "config.json",
                &CLIP
                    .replace("clip\"", "clip_vision_model\"")
                    .replace(r#", "hidden_act": "gelu""#, ""),
            )],
            Activation::QuickGelu,
            json,
        ),
    ];
    for (i, (tensors, options, texts, activation, from)) in cases.into_iter().enumerate() {
        let vit = read(tensors, "clip", options, texts).unwrap();
        let config = vit.config();
        assert_eq!(
            (config.activation.value, config.activation.from),
            (activation, from),
            "case {i}"
        );
        assert_eq!(config.heads.value, 3, "case {i}");
    }
    let vit = read(timm_clip(), "clip", NONE, &[("config.json", timm)]).unwrap();
    assert_eq!(vit.config().mean, [0.1, 0.2, 0.3]);
    let processor = r#"{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.25]}"#;
    let texts = [
        ("config.json", CLIP),
        ("preprocessor_config.json", processor),
    ];
    let vit = read(weights("clip.bin"), "clip", NONE, &texts).unwrap();
    assert_eq!(
        (vit.config().std, vit.config().normalization),
        ([0.5, 0.5, 0.25], json)
    );
}

#[test]
fn config_files_that_contradict_the_weights_or_are_broken_are_named() {
    let cases = [
        (
            CLIP.replace("48", "64"),
            vec!["width 64", "w.pth", "width 48"],
        ),
        (
            CLIP.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 12"),
            vec!["depth 12", "depth 3"],
        ),
        (
            CLIP.replace("\"patch_size\": 16", "\"patch_size\": 32"),
            vec!["patch 32", "patch 16"],
        ),
        (
            CLIP.replace("\"clip\"", "\"siglip\""),
            vec!["SigLIP", "CLIP"],
        ),
        (
            CLIP.replace("heads\": 3", "heads\": 5"),
            vec!["5 attention heads", "48"],
        ),
        (
            CLIP.replace("heads\": 3", "heads\": \"x\""),
            vec!["num_attention_heads", "positive integer"],
        ),
        (
            CLIP.replace("heads\": 3", "heads\": 0"),
            vec!["num_attention_heads", "positive integer"],
        ),
        (
            CLIP.replace("\"gelu\"", "\"relu\""),
            vec!["hidden_act", "relu"],
        ),
        (CLIP[..CLIP.len() / 2].into(), vec!["not valid JSON"]),
        ("[".repeat(100_000), vec!["not valid JSON"]),
        (" ".repeat(5 << 20), vec!["4 MiB"]),
    ];
    for (text, parts) in cases {
        let message =
            read(weights("clip.bin"), "clip", NONE, &[("config.json", &text)]).unwrap_err();
        let shown = &message[..message.len().min(300)];
        let named = message.contains("config.json") || message.contains("attention heads");
        assert!(named, "{shown}");
        for part in parts {
            assert!(message.contains(part), "{part}: {shown}");
        }
    }
    // A config of another kind of model is ignored.
    let other = [("config.json", r#"{"model_type": "bert", "hidden_size": 7}"#)];
    assert!(read(weights("dinov2.bin"), "dinov2", HEADS, &other).is_ok());
}

#[test]
fn timm_names_give_the_features_of_the_same_clip() {
    let options = VitOptions {
        activation: Some(Activation::QuickGelu),
        ..HEADS
    };
    let mut noise = noise(9);
    let image = Tensor::from_fn([1, 3, 96, 96], |_| 2.0 * noise());
    let [a, b] = [weights("clip.bin"), timm_clip()]
        .map(|tensors| run(&read(tensors, "clip", options, &[]).unwrap(), &image));
    assert_eq!(worst(&a, &b), 0.0);
    let mut biased = timm_clip();
    biased.insert("head.bias".into(), Tensor::from_fn([32], |i| i as f32));
    let c = run(&read(biased, "clip", options, &[]).unwrap(), &image);
    let shifted = Tensor::from_fn(a.shape(), |i| a.data()[i] + (i / 36) as f32);
    // Numbers of magnitude 30 in 32 bits.
    assert!(worst(&c, &shifted) < 1e-5);
    let mut classifier = timm_clip();
    classifier.insert("head.weight".into(), Tensor::from_fn([1000, 48], |_| 0.1));
    classifier.insert("head.bias".into(), Tensor::from_fn([1000], |_| 0.1));
    let message = read(classifier, "clip", options, &[]).unwrap_err();
    assert!(message.contains("classifier"), "{message}");
    let mut headless = timm_clip();
    headless.retain(|name, _| !name.starts_with("head."));
    let message = read(headless, "clip", options, &[]).unwrap_err();
    assert!(
        message.contains("without its visual projection head.weight"),
        "{message}"
    );
}

/// The golden DINOv2 with SwiGLU MLPs of random weights, with the names of each library.
fn giants() -> BTreeMap<&'static str, Tensors> {
    let mut noise = noise(5);
    let mut facebook = weights("dinov2.bin");
    facebook.retain(|name, _| !name.contains(".mlp."));
    for block in 0..3 {
        for (name, shape) in [
            ("w12.weight", vec![66, 48]),
            ("w12.bias", vec![66]),
            ("w3.weight", vec![48, 33]),
            ("w3.bias", vec![48]),
        ] {
            let tensor = Tensor::from_fn(shape, |_| 0.4 * noise());
            facebook.insert(format!("blocks.{block}.mlp.{name}"), tensor);
        }
    }
    let timm = renamed(&facebook, &[("mlp.w12", "mlp.fc1"), ("mlp.w3", "mlp.fc2")]);
    BTreeMap::from([("facebook", facebook), ("timm", timm)])
}

#[test]
fn swiglu_is_read_in_all_names_and_computed() {
    let side = 98;
    let mut noise = noise(9);
    let image = Tensor::from_fn([1, 3, side, side], |_| 2.0 * noise());
    let giants = giants();
    let [facebook, timm] = ["facebook", "timm"].map(|name| {
        let vit = read(giants[name].clone(), "dinov2", HEADS, &[]).unwrap();
        assert_eq!(vit.config().activation.value, Activation::SwiGlu);
        assert_eq!(vit.config().activation.from, Origin::Weights);
        run(&vit, &image)
    });
    assert_eq!(worst(&facebook, &timm), 0.0);
    let slow = crate::slow::Slow {
        tensors: &giants["facebook"],
        depth: 3,
        heads: 3,
        eps: 1e-6,
        activation: Activation::SwiGlu,
        clip: false,
        periods: None,
    };
    let difference = worst(&facebook, &slow.features(&image));
    // 32 bits compared with 64; features have a magnitude of 1 to 4.
    assert!(difference <= 5e-5, "{difference:e}");

    let options = VitOptions {
        activation: Some(Activation::Gelu),
        ..HEADS
    };
    let message = read(giants["timm"].clone(), "dinov2", options, &[]).unwrap_err();
    assert!(message.contains("SwiGLU"), "{message}");
    let mut mixed = giants["facebook"].clone();
    for (name, tensor) in weights("dinov2.bin") {
        if name.starts_with("blocks.1.mlp.") {
            mixed.insert(name, tensor);
        }
    }
    mixed.retain(|name, _| !name.starts_with("blocks.1.mlp.w"));
    let message = read(mixed, "dinov2", HEADS, &[]).unwrap_err();
    assert!(
        message.contains("block 1 has another form of MLP"),
        "{message}"
    );
}

#[test]
fn resampling_is_the_chosen_librarys() {
    let all = [
        Positions::Facebook,
        Positions::Timm,
        Positions::Transformers,
    ];
    let graph = |file: &str, preset: &str, positions| {
        let options = VitOptions {
            activation: (preset != "dinov2").then_some(Activation::Gelu),
            positions: Some(positions),
            ..HEADS
        };
        let vit = read(weights(file), preset, options, &[]).unwrap();
        let side = 9 * vit.config().patch;
        vit.graph(side, side).unwrap()
    };
    for (file, preset, distinct) in [
        ("dinov2.bin", "dinov2", 3),
        ("dinov2_reg.bin", "dinov2", 1),
        ("clip.bin", "clip", 3),
        ("siglip.safetensors", "siglip", 2),
    ] {
        let mut graphs = all.map(|positions| graph(file, preset, positions)).to_vec();
        graphs.sort();
        graphs.dedup();
        assert_eq!(graphs.len(), distinct, "{file}");
    }
}

#[test]
fn models_that_are_not_supported_are_named() {
    let zeros = |shape: &[usize]| Tensor::from_fn(shape, |_| 0.0);
    let mut dino = weights("dinov2.bin");
    dino.retain(|name, _| !name.contains(".ls"));
    let mut eva = weights("dinov2.bin");
    eva.insert("blocks.0.attn.q_bias".into(), zeros(&[48]));
    eva.insert("blocks.0.attn.v_bias".into(), zeros(&[48]));
    for (tensors, name) in [(dino, "DINO v1"), (eva, "EVA")] {
        let message = read(tensors, "dinov2", HEADS, &[]).unwrap_err();
        assert!(message.contains(name), "{name}: {message}");
        assert!(message.contains("--backbone-onnx"), "{message}");
    }
}

/// SigLIP 2 NaFlex has the names of SigLIP in transformers, and different names in timm.
#[test]
fn naflex_is_named() {
    let matrix = || Tensor::from_fn([48, 588], |_| 0.1);
    let mut transformers = Tensors::new();
    for name in ["layer_norm1", "layer_norm2"] {
        let name = format!("vision_model.encoder.layers.0.{name}.weight");
        transformers.insert(name, Tensor::from_fn([48], |_| 1.0));
    }
    let patch = "vision_model.embeddings.patch_embedding.weight";
    transformers.insert(patch.into(), matrix());
    let mut timm = Tensors::new();
    timm.insert("visual.trunk.embeds.proj.weight".into(), matrix());
    timm.insert("visual.trunk.blocks.0.attn.qkv.weight".into(), matrix());
    for tensors in [transformers, timm] {
        let message = read(tensors, "siglip2", HEADS, &[]).unwrap_err();
        for part in ["w.pth", "SigLIP 2 NaFlex", "siglip2-base-patch16-224"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("--backbone-onnx"), "{message}");
    }
}

#[test]
fn no_config_file_is_none() {
    assert!(ConfigFiles::next_to(Path::new("/nonexistent/model.safetensors")).is_ok());
}
