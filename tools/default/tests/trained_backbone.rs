//! The trainable transformer computes the same as its exported graph.

use std::collections::BTreeMap;

use burn::tensor::Device;
use loftup_bundle::Size;
use loftup_default::{
    backbone::normalized,
    evaluate::bundle,
    scenes::{Part, SIDE, labeled},
    vit::{Shape, Vit, patches},
    weights::write_half,
};
use loftup_onnx::Tensor;
use loftup_runtime::{ExecutionOptions, Perceptor, image::RgbImage};
use loftup_train::{
    checkpoint,
    model::{Params, host_values},
    rng::{Purpose, Rng},
};

/// Two blocks with weights that leave no parameter at 0 or 1.
fn model(device: &Device) -> Vit {
    let shape = Shape {
        depth: 2,
        ..Shape::SHIPPED
    };
    let mut rng = Rng::new(3, Purpose::Weights, 0);
    let vit = Vit::new(shape, &mut rng, device);
    let noisy: BTreeMap<String, Tensor> = vit
        .weights
        .to_host()
        .into_iter()
        .map(|(name, t)| (name, t.map(|_, x| x + 0.05 * rng.normal())))
        .collect();
    Vit {
        shape,
        weights: Params::new(noisy, device),
    }
}

#[test]
fn features_are_those_of_the_exported_graph() {
    let device = Device::flex();
    let vit = model(&device);
    let frames = labeled(Part::BackboneCheck, 0..2);
    let images: Vec<Vec<f32>> = frames.iter().map(|f| normalized(&f.rgb)).collect();
    let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    let trained = host_values(&vit.forward(patches(&vit.shape, &slices, &device), 2));

    let folder = tempfile::tempdir().unwrap();
    let (weights, out) = (
        folder.path().join("backbone.safetensors"),
        folder.path().join("backbone.loftup"),
    );
    checkpoint::write(&weights, &vit.tensors(), None).unwrap();
    bundle(&vit.shape, &weights, None, &out).unwrap();
    let perceptor = Perceptor::open_on_cpu(&out, ExecutionOptions::default()).unwrap();
    let size = Size {
        width: SIDE,
        height: SIDE,
    };
    let (n, d) = (vit.shape.tokens(), vit.shape.width);
    let (mut worst, mut largest) = (0f32, 0f32);
    for (i, frame) in frames.iter().enumerate() {
        let photo = RgbImage::new(SIDE, SIDE, frame.rgb.clone()).unwrap();
        let image = perceptor.to_tensor(&photo, size).unwrap();
        let exported = perceptor.features(&image).unwrap();
        assert_eq!(exported.tokens.len(), n * d);
        for token in 0..n {
            for c in 0..d {
                let (ours, theirs) = (
                    trained[(i * n + token) * d + c],
                    exported.tokens[token * d + c],
                );
                worst = worst.max((ours - theirs).abs());
                largest = largest.max(theirs.abs());
            }
        }
    }
    println!("worst error {worst:.1e}, largest feature {largest:.2}");
    assert!(largest > 1.0);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn weights_of_16_bit_are_read_back_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let tensor = Tensor::from_fn([2, 3], |i| 0.1 + i as f32);
    write_half(
        &path,
        &BTreeMap::from([("a.b".to_string(), tensor.clone())]),
    )
    .unwrap();
    let read = loftup_import::checkpoint::Checkpoint::open(&path).unwrap();
    let found = read.tensor("a.b", &[2, 3]).unwrap();
    for (a, b) in found.data().iter().zip(tensor.data()) {
        assert!((a - b).abs() <= b * 2f32.powi(-11), "{a} {b}");
    }
    let large = Tensor::from_fn([1], |_| 1e6);
    let error = write_half(&path, &BTreeMap::from([("big".to_string(), large)])).unwrap_err();
    assert!(
        format!("{error:#}").contains("big contains 1000000"),
        "{error:#}"
    );
}
