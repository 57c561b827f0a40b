//! The CPU with the upsampler's products in 16 and 8 bits, on the built-in models, compared
//! with 32 bits.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use loftup_bundle::{Bundle, Size};
use loftup_convert::Builtin;
use loftup_runtime::{
    ColorRange, ExecutionOptions, Perceptor, Rect, RuntimeError,
    backend::{Arithmetic, Backend, BackendError, CpuBackend, Graph, Model, NarrowCpuBackend},
    image::RgbImage,
    sinks::VecSink,
};

const SIZE: Size = Size {
    width: 224,
    height: 224,
};

/// The backends of this CPU and the largest error of a frame, in standard deviations of the features.
fn backends() -> Vec<(Arithmetic, NarrowCpuBackend, f64)> {
    let all = [
        (Arithmetic::Int16, 0.01),
        (Arithmetic::Bf16, 0.06),
        (Arithmetic::Int8, 0.15),
    ];
    let available = all.into_iter().filter_map(|(arithmetic, limit)| {
        let backend = NarrowCpuBackend::new(arithmetic);
        if backend.is_none() {
            println!("skipped: this CPU has no instructions for {arithmetic:?}");
        }
        Some((arithmetic, backend?, limit))
    });
    available.collect()
}

/// A backend whose outputs are not compared with references before they are used.
struct Uncompared(NarrowCpuBackend);

impl Backend for Uncompared {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn Model>, BackendError> {
        self.0.load(graph)
    }

    fn arithmetic(&self) -> Option<Arithmetic> {
        None
    }
}

fn open(path: &Path, backend: Arc<dyn Backend>) -> Perceptor {
    let bundle = Bundle::open(path).unwrap();
    Perceptor::with_backend(bundle, backend, ExecutionOptions::default()).unwrap()
}

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
        let n = exact.len() as f64;
        let wide = || exact.iter().map(|x| f64::from(*x));
        let mean = wide().sum::<f64>() / n;
        let deviation = (wide().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        for (arithmetic, backend, limit) in backends() {
            let found = features(&open(&path, Arc::new(Uncompared(backend))), &photo).unwrap();
            let squares = wide().zip(&found).map(|(a, b)| (a - f64::from(*b)).powi(2));
            let error = (squares.sum::<f64>() / n).sqrt() / deviation;
            println!("{name}, {arithmetic:?}: error {error:.4} of the standard deviation");
            // Above zero, or the products were not rounded.
            assert!(
                error > 1e-4 && error < limit,
                "{name}, {arithmetic:?}: {error:.4}"
            );

            // The test features are noise, which is harder: scores before a softmax reach 80. What is too far
            // from the reference outputs there is refused.
            let perceptor = open(&path, Arc::new(backend));
            let compared = perceptor.compare_with_references().unwrap();
            for c in &compared {
                println!("{name}, {arithmetic:?}, {}, {}: {c}", c.part, c.asked);
            }
            let passed = compared.iter().all(|c| c.passed());
            assert!(!compared.is_empty());
            assert!(passed || arithmetic != Arithmetic::Int16, "{name}");
            match features(&perceptor, &photo) {
                Ok(same) => assert!(passed && same == found, "{name}, {arithmetic:?}"),
                Err(e) => {
                    let e = e.to_string();
                    assert!(!passed && e.lines().count() == 1, "{e}");
                }
            }
        }
    }
}
