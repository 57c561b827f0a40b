//! The built-in bundle on the CPU with one thread: a frame and its parts; and the files around it.

use std::{hint::black_box, ops::ControlFlow};

use criterion::{Criterion, criterion_group, criterion_main};
use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};
use loftup_bundle::Size;
use loftup_convert::Builtin;
use loftup_runtime::{
    ColorRange, ExecutionOptions, Frame, Perceptor, Query, Rect,
    image::{self as images, RgbImage},
    npy,
};
use loftup_scenes::Scene;

/// Size of the output.
const SIZE: Size = Size {
    width: 224,
    height: 224,
};

fn bundle(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("builtin.loftup");
    Builtin::Scenes
        .write(&path, false, |_| ControlFlow::Continue(()))
        .expect("a bundle");
    let options = ExecutionOptions {
        threads: 1,
        ..ExecutionOptions::default()
    };
    let perceptor = Perceptor::open(&path, options).expect("a bundle");
    perceptor.compile(SIZE, (1, 1)).expect("engines");
    let seen = Scene::new(3).frame(0.0, 320, 240);
    let frame = Frame::packed(&seen.rgb, seen.width, seen.height);
    let photo = frame.to_image().expect("an image");
    let image_tensor = perceptor.to_tensor(&photo, SIZE).expect("an image");
    let features = perceptor.features(&image_tensor).expect("features");

    let mut group = c.benchmark_group("built-in bundle, 224x224, one thread");
    group.sample_size(10);
    group.bench_function("resize and normalize", |b| {
        b.iter(|| {
            perceptor
                .to_tensor(black_box(&photo), SIZE)
                .expect("an image")
        });
    });
    group.bench_function("backbone", |b| {
        b.iter(|| {
            perceptor
                .features(black_box(&image_tensor))
                .expect("features")
        });
    });
    let range = ColorRange::default();
    group.bench_function("keys", |b| {
        b.iter(|| {
            perceptor
                .encode_features(black_box(&features), &image_tensor, range)
                .expect("keys")
        });
    });
    let view = perceptor
        .encode_features(&features, &image_tensor, range)
        .expect("keys");
    let tile = Rect {
        x: 84,
        y: 84,
        width: 56,
        height: 56,
    };
    group.bench_function("one tile of 56x56", |b| {
        b.iter(|| view.region(tile, &mut |_| Ok(())).expect("a tile"));
    });
    group.bench_function("frame", |b| {
        b.iter(|| {
            let query = Query::frame(SIZE);
            perceptor
                .perceive(black_box(&frame), &query)
                .expect("features")
        });
    });
    group.finish();
}

fn files(c: &mut Criterion) {
    let seen = Scene::new(3).frame(0.0, 1280, 720);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 90)
        .write_image(&seen.rgb, 1280, 720, ExtendedColorType::Rgb8)
        .expect("a JPEG");
    c.bench_function("JPEG of 1280x720: check and decode", |b| {
        b.iter(|| images::decode(black_box(&jpeg), "camera").expect("an image"));
    });
    c.bench_function("JPEG of 1280x720, cut short: check", |b| {
        let cut = &jpeg[..jpeg.len() - 100];
        b.iter(|| images::decode(black_box(cut), "camera").expect_err("a part of an image"));
    });
    let photo = RgbImage::new(1280, 720, seen.rgb).expect("an image");
    c.bench_function("resize 1280x720 to 224x224", |b| {
        b.iter(|| black_box(&photo).resized(224, 224).expect("an image"));
    });

    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("features.npy");
    let shape = [1, 64, SIZE.height, SIZE.width];
    let values = vec![0.5; shape.iter().product()];
    let mut group = c.benchmark_group("features of 64 channels, 224x224");
    group.sample_size(10);
    group.bench_function("npy write and sync", |b| {
        b.iter(|| npy::write(&path, &shape, black_box(&values)).expect("a file"));
    });
    group.bench_function("npy read", |b| b.iter(|| npy::read(&path).expect("a file")));
    group.finish();
}

criterion_group!(benches, bundle, files);
criterion_main!(benches);
