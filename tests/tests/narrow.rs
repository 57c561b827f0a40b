//! The CPU with the upsampler's products in 16 and 8 bits, on the built-in models, compared
//! with 32 bits.

use std::{ops::ControlFlow, sync::Arc};

use loftup_bundle::Size;
use loftup_convert::Builtin;
use loftup_runtime::{
    ColorRange, Perceptor, Rect, RuntimeError,
    backend::{CpuBackend, Products},
    image::RgbImage,
    sinks::VecSink,
};
use loftup_tests::narrow::{Uncompared, backends, open, relative_error};

const SIZE: Size = Size {
    width: 224,
    height: 224,
};

fn features(perceptor: &Perceptor, photo: &RgbImage) -> Result<Vec<f32>, RuntimeError> {
    let frame = perceptor.encode(photo, SIZE, ColorRange::PerImage)?;
    let mut sink = VecSink::new(Rect::whole(SIZE), frame.dim())?;
    frame.frame(&mut |tile| sink.push(tile))?;
    Ok(sink.values().to_vec())
}

#[test]
fn frames_are_near_those_in_32_bits() {
    let photo = loftup_scenes::Scene::new(5).frame(0.0, 97, 61);
    let photo = RgbImage::new(photo.width, photo.height, photo.rgb).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, builtin) in [("scenes", Builtin::Scenes), ("photos", Builtin::Photos)] {
        let path = folder.path().join(name);
        builtin
            .write(&path, false, |_| ControlFlow::Continue(()))
            .unwrap();
        let exact = features(&open(&path, Arc::new(CpuBackend)), &photo).unwrap();
        for (products, backend, limit) in backends() {
            let found = features(&open(&path, Arc::new(Uncompared(backend))), &photo).unwrap();
            let error = relative_error(&found, &exact);
            println!("{name}, {products:?}: error {error:.4} of the standard deviation");
            // Above zero, or the products were not rounded.
            assert!(
                error > 1e-4 && error < limit,
                "{name}, {products:?}: {error:.4}"
            );

            // The test features are noise, which is harder: scores before a softmax reach 80. What is too far
            // from the reference outputs there is refused.
            let perceptor = open(&path, Arc::new(backend));
            let compared = perceptor.compare_with_references().unwrap();
            for c in &compared {
                println!("{name}, {products:?}, {}, {}: {c}", c.part, c.asked);
            }
            let passed = compared.iter().all(|c| c.passed());
            assert!(!compared.is_empty());
            assert!(passed || products != Products::Int16, "{name}");
            match features(&perceptor, &photo) {
                Ok(same) => assert!(passed && same == found, "{name}, {products:?}"),
                Err(e) => {
                    let e = e.to_string();
                    assert!(!passed && e.lines().count() == 1, "{e}");
                }
            }
        }
    }
}
