//! ConvNeXts in the names of each library, compared with transformers and timm.

use loftup_import::{
    checkpoint::Checkpoint,
    convnext::{ConvNext, Preset},
    vit::{self, ConfigFiles, Vit, VitOptions},
};
use loftup_onnx::Tensor;

use crate::support::{self, Tensors, run_any_size, worst};

/// PyTorch and tract add in different orders; features have a magnitude of 1 to 5.
const TOLERANCE: f32 = 1e-5;
const GRIDS: [&str; 3] = ["2x2", "2x3", "4x2"];

fn fixture(prefix: &str) -> Tensors {
    support::fixture("convnext.safetensors", prefix)
}

fn transformers() -> Tensors {
    fixture("weights.")
}

fn renamed(pairs: &[(&str, &str)]) -> Tensors {
    let name = |key: String| pairs.iter().fold(key, |key, (a, b)| key.replace(a, b));
    let tensors = transformers().into_iter();
    tensors.map(|(key, tensor)| (name(key), tensor)).collect()
}

fn timm() -> Tensors {
    renamed(&[
        ("stages.0.downsample_layers", "stem"),
        ("downsample_layers", "downsample"),
        (".layers.", ".blocks."),
        ("depthwise_conv", "conv_dw"),
        ("pointwise_conv1", "mlp.fc1"),
        ("pointwise_conv2", "mlp.fc2"),
        ("layer_norm", "norm"),
    ])
}

fn facebook() -> Tensors {
    let mut pairs: Vec<(String, String)> = (0..4)
        .map(|i| {
            (
                format!("stages.{i}.downsample_layers"),
                format!("downsample_layers.{i}"),
            )
        })
        .collect();
    for (a, b) in [
        (".layers.", "."),
        ("depthwise_conv", "dwconv"),
        ("pointwise_conv", "pwconv"),
        ("layer_norm", "norm"),
    ] {
        pairs.push((a.into(), b.into()));
    }
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (&a[..], &b[..])).collect();
    let mut tensors = renamed(&pairs);
    // facebookresearch has the last norm twice.
    let norm = tensors["norm.weight"].clone();
    tensors.insert("norms.3.weight".into(), norm);
    tensors
}

fn read(tensors: Tensors, preset: &str) -> Result<ConvNext, String> {
    let checkpoint = Checkpoint::from_tensors("w.pth", tensors);
    let preset = Preset::parse(preset).unwrap();
    ConvNext::from_checkpoint(&checkpoint, preset).map_err(|e| e.to_string())
}

fn graph(tensors: Tensors) -> Vec<u8> {
    read(tensors, "dinov3-convnext").unwrap().graph()
}

#[test]
fn features_are_those_of_transformers_and_timm_at_any_size() {
    let model = read(transformers(), "dinov3-convnext").unwrap();
    assert_eq!(model.dim(), 16);
    let checkpoint = Checkpoint::from_tensors("w.pth", transformers());
    assert_eq!(
        ConvNext::outline(&checkpoint).unwrap(),
        "ConvNeXt (dinov3-convnext), 8, 12, 16 channels and 1, 2, 3 blocks to stage 3"
    );
    let graph = model.graph();
    for grid in GRIDS {
        let image = fixture("image.").remove(grid).unwrap();
        let expected = fixture("features.").remove(grid).unwrap();
        let error = worst(&run_any_size(&graph, &image), &expected);
        println!("{grid}: worst error {error:e}");
        assert!(error <= TOLERANCE, "{grid}: {error:e}");
    }
}

#[test]
fn names_of_every_library_give_the_same_graph() {
    let expected = graph(transformers());
    assert!(graph(timm()) == expected, "timm");
    assert!(graph(facebook()) == expected, "facebookresearch");
    let under = |prefix: &str, tensors: Tensors| -> Tensors {
        let tensors = tensors.into_iter();
        tensors
            .map(|(key, tensor)| (format!("{prefix}{key}"), tensor))
            .collect()
    };
    assert!(graph(under("model.", transformers())) == expected);
    let mut pair = under("student.backbone.", timm());
    pair.extend(under("teacher.backbone.", facebook()));
    assert!(graph(pair.clone()) == expected, "the teacher");
    pair.retain(|key, _| !key.starts_with("teacher"));
    pair.extend(under("other.", timm()));
    let message = read(pair, "dinov3-convnext").unwrap_err();
    assert!(message.contains("--prefix other"), "{message}");
    // The fourth stage is not needed.
    let mut short = transformers();
    short.retain(|key, _| !key.starts_with("stages.3") && !key.starts_with("layer_norm"));
    assert!(graph(short) == expected);
}

#[test]
fn what_is_not_a_convnext_of_that_size_is_an_error_with_the_remedy() {
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = transformers();
        change(&mut tensors);
        read(tensors, "dinov3-convnext").unwrap_err()
    };
    let zeros = |shape: &[usize]| Tensor::from_fn(shape, |_| 0.0);
    let cases = [
        (
            read(transformers(), "dinov3-convnext-tiny").unwrap_err(),
            "w.pth: contains a ConvNeXt with 8, 12, 16 channels and 1, 2, 3 blocks, not dinov3-convnext-tiny; use the backbone name dinov3-convnext",
        ),
        (
            with(&|t| t.retain(|key, _| key.contains("norm"))),
            "w.pth: no ConvNeXt in a known naming scheme",
        ),
        (
            with(&|t| drop(t.remove("stages.1.layers.1.gamma"))),
            "stages.1.layers.1.gamma",
        ),
        (
            with(&|t| {
                let name = "stages.2.layers.0.depthwise_conv.weight";
                t.insert(name.into(), zeros(&[16, 1, 5, 5]));
            }),
            "stages.2.layers.0.depthwise_conv.weight has shape [16, 1, 5, 5]; expected a depthwise",
        ),
        (
            with(&|t| {
                t.insert("stages.0.layers.0.grn.weight".into(), zeros(&[1]));
            }),
            "ConvNeXt V2",
        ),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    // Read as a vision transformer, the remedy is the right name.
    let checkpoint = Checkpoint::from_tensors("w.pth", timm());
    let preset = vit::Preset::parse("dinov3").unwrap();
    let files = ConfigFiles::default();
    let vit = Vit::from_checkpoint(&checkpoint, preset, &VitOptions::default(), &files);
    let message = vit.unwrap_err().to_string();
    assert!(
        message.contains("a ConvNeXt; use the backbone name dinov3-convnext"),
        "{message}"
    );
}
