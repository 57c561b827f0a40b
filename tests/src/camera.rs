//! Bundles with a backbone, camera images and heads, for tests of whole frames.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use loftup_bundle::{Bundle, BundleWriter, HeadKind, Linear, Precision, Size};
use loftup_convert::{BackboneSource, Builtin, OnnxBackbone, Request, convert};
use loftup_import::bundle as new;
use loftup_onnx::{Graph, Tensor};
use loftup_runtime::{heads::Head, image::RgbImage};
use loftup_spec::naf::NafWeights;

use crate::{
    golden::Case,
    synthetic::{Noise, upsampler_bundle},
};

/// The built-in model for generated scenes, whose backbone takes any size and has 64 channels, as a bundle
/// in `directory`.
///
/// # Panics
/// If it cannot be written.
pub fn scenes_bundle(directory: &Path) -> PathBuf {
    let path = directory.join("scenes.loftup");
    Builtin::Scenes
        .write(&path, false, |_| ControlFlow::Continue(()))
        .expect("a bundle");
    path
}

/// A small DINOv2, whose outputs are tokens, with an upsampler, both with random weights.
///
/// # Panics
/// If it cannot be written.
pub fn dino_bundle(directory: &Path) -> PathBuf {
    let path = directory.join("dino.loftup");
    let request = Case::load("dinov2_reg_native").request(&path);
    with_upsampler(request, directory)
}

/// The backbone of [`scenes_bundle`] with a NAF with random weights.
///
/// # Panics
/// If it cannot be written.
pub fn naf_bundle(directory: &Path) -> PathBuf {
    let scenes = Bundle::open(&scenes_bundle(directory)).expect("a bundle");
    let manifest = scenes.manifest();
    let backbone = manifest.backbone.clone().expect("a backbone");
    let path = directory.join("naf.loftup");
    let mut writer = BundleWriter::create(&path, false).expect("a directory");
    let file = &backbone.graphs[&Precision::Fp32];
    let onnx = scenes.read(file).expect("a graph");
    writer.add(file, &onnx).expect("written");
    let weights = NafWeights::random(7);
    let upsampler = new::add_naf(&mut writer, &weights, backbone.dim, Some(&backbone));
    let upsampler = Some(upsampler.expect("graphs"));
    let normalization = manifest.normalization;
    let manifest = new::manifest(normalization, Some(backbone), upsampler, Vec::new(), None);
    writer.seal(manifest).expect("a manifest");
    writer.commit().expect("written");
    path
}

/// A backbone of one convolution with `dim` channels for images of 224 x 224, and an upsampler with random
/// weights.
///
/// # Panics
/// If it cannot be written.
pub fn patches_bundle(dim: usize, directory: &Path) -> PathBuf {
    let (side, patch) = (224usize, 14usize);
    let grid = side / patch;
    let mut g = Graph::new("patches");
    let x = g.input("image", &[1.into(), 3.into(), side.into(), side.into()]);
    let mut noise = Noise::new(7);
    let weight = Tensor::from_fn([dim, 3, patch, patch], |_| noise.sample() / 10.0);
    let bias = Tensor::from_fn([dim], |_| 0.0);
    let y = g.conv(&x, &weight, &bias, patch);
    g.output(
        &y,
        "features",
        &[1.into(), dim.into(), grid.into(), grid.into()],
    );
    let onnx = directory.join("patches.onnx");
    std::fs::write(&onnx, g.finish()).expect("a file");
    let request = Request {
        backbone: Some(BackboneSource::Onnx(OnnxBackbone {
            path: onnx,
            patch,
            normalization: None,
            output: None,
            layout: None,
            extra_tokens: None,
        })),
        upsampler: None,
        size: None,
        out: directory.join("patches.loftup"),
        prefix: None,
        license: None,
        replace: false,
    };
    with_upsampler(request, directory)
}

/// Converts the backbone of `request`, and again with an upsampler for it.
fn with_upsampler(mut request: Request, directory: &Path) -> PathBuf {
    let go = |request: &Request| {
        convert(request, |_| ControlFlow::Continue(())).expect("a bundle");
    };
    go(&request);
    let bundle = Bundle::open(&request.out).expect("a bundle");
    let backbone = bundle.manifest().backbone.as_ref().expect("a backbone");
    upsampler_bundle(backbone.dim, 3, directory);
    request.upsampler = Some(directory.join("up.safetensors"));
    request.replace = true;
    go(&request);
    request.out
}

/// A generated scene.
///
/// # Panics
/// If a side is 0.
pub fn photo(Size { width, height }: Size) -> RgbImage {
    let frame = loftup_scenes::Scene::new(5).frame(0.0, width, height);
    RgbImage::new(frame.width, frame.height, frame.rgb).expect("an image")
}

/// A head of classes for features of `dim` channels.
///
/// # Panics
/// Never: the shapes match.
pub fn classes(dim: usize, outputs: usize) -> Head {
    let names = (0..outputs).map(|i| i.to_string()).collect();
    let manifest = loftup_bundle::Head {
        kind: HeadKind::Classes { names },
        dim,
        file: String::new(),
    };
    let weight = (0..dim * outputs).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0);
    let linear = Linear {
        inputs: dim,
        weight: weight.collect(),
        bias: (0..outputs).map(|i| i as f32 / 10.0).collect(),
    };
    Head::new(manifest, linear).expect("matching shapes")
}
