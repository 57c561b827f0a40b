//! The golden cases of the original PyTorch code, from checkpoint to output on the CPU.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use loftup_bundle::Size;
use loftup_convert::{compare::Tolerance, convert};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Features, ImageTensor, Perceptor, Point, Rect, backend::Products,
    sinks::VecSink,
};
use loftup_tests::{
    golden::{BACKBONES, Case, UPSAMPLERS, compare},
    narrow::{self, Uncompared, relative_error},
};

fn open(case: &Case, directory: &Path, options: ExecutionOptions) -> Perceptor {
    let out = directory.join("case.loftup");
    if !out.exists() {
        convert(&case.request(&out), |_| ControlFlow::Continue(())).expect("a bundle");
    }
    Perceptor::open_on_cpu(&out, options).expect("an engine")
}

#[test]
fn backbones_give_the_original_features() {
    for name in BACKBONES {
        let case = Case::load(name);
        let directory = tempfile::tempdir().expect("a directory");
        let perceptor = open(&case, directory.path(), ExecutionOptions::default());
        let image = ImageTensor::from_array(case.array("image")).expect("an image");
        let features = perceptor.features(&image).expect("features");
        let expected = case.array("out");
        assert_eq!(
            expected.shape,
            [1, features.dim, features.height, features.width]
        );
        compare(
            name,
            &features.to_map(),
            &expected.data,
            features.dim,
            Tolerance::BACKBONE,
        );
    }
}

#[test]
fn upsamplers_give_the_original_features_whatever_the_tiles() {
    for name in UPSAMPLERS {
        let case = Case::load(name);
        let directory = tempfile::tempdir().expect("a directory");
        let expected = case.array("out");
        let [1, dim, height, width] = expected.shape[..] else {
            panic!("{:?}", expected.shape)
        };
        let all = Rect::whole(Size { width, height });
        let mut first: Option<Vec<f32>> = None;
        for (threads, tile) in [(1, 16), (2, 16), (1, 32), (2, 56), (1, 4096)] {
            let options = ExecutionOptions {
                threads,
                tile: Some(tile),
            };
            let perceptor = open(&case, directory.path(), options);
            let lr = case.array("lr");
            let features = Features::from_map(&lr.shape, &lr.data, dim).expect("features");
            let image = ImageTensor::from_array(case.array("image")).expect("an image");
            let encoded = perceptor
                .encode_features(&features, &image, ColorRange::PerImage)
                .expect("an encoded frame");
            let mut sink = VecSink::new(all, dim).expect("memory");
            encoded.frame(&mut |tile| sink.push(tile)).expect("a frame");
            let frame = sink.to_map();
            let label = format!("{name}, tiles of {tile}, {threads} threads");
            compare(&label, &frame, &expected.data, dim, Tolerance::UPSAMPLER);

            let first = first.get_or_insert_with(|| frame.clone());
            compare(
                &format!("{label}, to the first"),
                &frame,
                first,
                dim,
                Tolerance::TILES,
            );

            let rect = Rect {
                x: 3,
                y: 11,
                width: width - 8,
                height: 29,
            };
            let mut sink = VecSink::new(rect, dim).expect("memory");
            encoded
                .region(rect, &mut |tile| sink.push(tile))
                .expect("a region");
            let pixel = |c: usize, x: usize, y: usize| frame[(c * height + y) * width + x];
            let crop: Vec<f32> = (0..dim * rect.area())
                .map(|i| {
                    let (c, at) = (i / rect.area(), i % rect.area());
                    pixel(c, rect.x + at % rect.width, rect.y + at / rect.width)
                })
                .collect();
            compare(
                &format!("{label}, region"),
                &sink.to_map(),
                &crop,
                dim,
                Tolerance::TILES,
            );

            let points: Vec<Point> = (0..70)
                .map(|i| Point {
                    x: i * 31 % width,
                    y: i * 17 % height,
                })
                .collect();
            let answer = encoded.points(&points).expect("points");
            for (p, token) in points.iter().zip(answer.chunks_exact(dim)) {
                for (c, value) in token.iter().enumerate() {
                    let difference = (value - pixel(c, p.x, p.y)).abs();
                    assert!(
                        difference <= 1e-4,
                        "{label}, {p:?}, channel {c}: {difference}"
                    );
                }
            }
        }
    }
}

#[test]
fn upsamplers_with_narrow_products_give_nearly_the_original_features() {
    for name in UPSAMPLERS {
        let case = Case::load(name);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("case.loftup");
        convert(&case.request(&path), |_| ControlFlow::Continue(())).unwrap();
        let expected = case.array("out");
        let [1, dim, height, width] = expected.shape[..] else {
            panic!("{:?}", expected.shape)
        };
        let lr = case.array("lr");
        let features = Features::from_map(&lr.shape, &lr.data, dim).unwrap();
        let image = ImageTensor::from_array(case.array("image")).unwrap();
        for (products, backend, _) in narrow::backends() {
            // Three times the measured errors.
            let limit = match products {
                Products::Int16 => 0.002,
                Products::Fp16 => 0.006,
                Products::Bf16 => 0.02,
                _ => 0.045,
            };
            let perceptor = narrow::open(&path, Arc::new(Uncompared(backend)));
            let encoded = perceptor
                .encode_features(&features, &image, ColorRange::PerImage)
                .unwrap();
            let mut sink = VecSink::new(Rect::whole(Size { width, height }), dim).unwrap();
            encoded.frame(&mut |tile| sink.push(tile)).unwrap();
            let error = relative_error(&sink.to_map(), &expected.data);
            println!("{name}, {products:?}: error {error:.4} of the standard deviation");
            // Above zero, or the products were not rounded.
            assert!(
                error > 1e-4 && error < limit,
                "{name}, {products:?}: {error:.4}"
            );
        }
    }
}
