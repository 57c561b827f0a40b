//! The built-in NAF with a backbone that it was not trained with.

use std::{ops::ControlFlow, path::Path};

use loftup_bundle::{Size, UpsamplerKind};
use loftup_convert::{BackboneSource, BuiltinUpsampler, Request, convert};
use loftup_import::{builtin, vit::VitOptions};
use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, Features, Perceptor, Rect, image::RgbImage,
    jbu::JbuOptions, sinks::VecSink,
};
use loftup_spec::{SplitMix64, interpolate::bilinear};

const SIDE: usize = 126;
const GRID: usize = 9;
const DIM: usize = 64;

/// A bundle of the backbone for scenes and the built-in NAF.
fn bundle(folder: &Path) -> Perceptor {
    let backbone = folder.join("backbone.safetensors");
    std::fs::write(&backbone, builtin::scenes::BACKBONE).unwrap();
    let naf = BuiltinUpsampler::create().unwrap();
    let out = folder.join("naf.loftup");
    let request = Request {
        backbone: Some(BackboneSource::Checkpoint {
            preset: builtin::scenes::PRESET.into(),
            weights: backbone,
            options: VitOptions {
                heads: Some(builtin::scenes::HEADS),
                ..Default::default()
            },
        }),
        upsampler: Some(naf.path().to_owned()),
        size: Some(Size {
            width: SIDE,
            height: SIDE,
        }),
        out: out.clone(),
        prefix: None,
        license: None,
        replace: false,
    };
    let converted = convert(&request, |_| ControlFlow::Continue(())).unwrap();
    assert!(converted.checks.iter().all(|check| check.passed));
    let upsampler = converted.manifest.upsampler.unwrap();
    assert_eq!((upsampler.kind, upsampler.dim), (UpsamplerKind::Naf, DIM));
    Perceptor::open_on_cpu(&out, ExecutionOptions::default()).unwrap()
}

/// Whether a pixel is inside a disc, which is smaller than five patches.
fn inside(x: usize, y: usize) -> bool {
    x.abs_diff(57).pow(2) + y.abs_diff(68).pow(2) < 30 * 30
}

/// A disc of another color with noise, and features that tell its pixels from the others in every head.
fn scene() -> (RgbImage, Features) {
    let mut rng = SplitMix64::new(5);
    let mut data = Vec::new();
    for y in 0..SIDE {
        for x in 0..SIDE {
            let color = if inside(x, y) {
                [190, 80, 60]
            } else {
                [90, 110, 140]
            };
            data.extend(color.map(|c: u8| c + rng.below(16) as u8));
        }
    }
    let patch = SIDE / GRID;
    let mut tokens = vec![0.0; GRID * GRID * DIM];
    for (cell, token) in tokens.chunks_exact_mut(DIM).enumerate() {
        let (top, left) = (cell / GRID * patch, cell % GRID * patch);
        let pixels = (0..patch * patch).filter(|i| inside(left + i % patch, top + i / patch));
        let share = pixels.count() as f32 / (patch * patch) as f32;
        token.iter_mut().step_by(16).for_each(|x| *x = share);
    }
    let features = Features {
        dim: DIM,
        height: GRID,
        width: GRID,
        tokens,
    };
    (RgbImage::new(SIDE, SIDE, data).unwrap(), features)
}

/// The mean squared error of the channels that tell the disc from the others.
fn error(value: impl Fn(usize, usize, usize) -> f32) -> f32 {
    let mut sum = 0.0;
    for y in 0..SIDE {
        for x in 0..SIDE {
            let wanted = f32::from(inside(x, y));
            let channels = (0..DIM).step_by(16);
            sum += channels
                .map(|c| (value(y, x, c) - wanted).powi(2))
                .sum::<f32>();
        }
    }
    sum / (SIDE * SIDE * DIM / 16) as f32
}

fn error_of(frame: &EncodedFrame<'_>) -> f32 {
    let mut sink = VecSink::new(Rect::whole(frame.size()), frame.dim()).unwrap();
    frame.frame(&mut |tile| sink.push(tile)).unwrap();
    let values = sink.into_values();
    error(|y, x, c| values[(y * SIDE + x) * DIM + c])
}

#[test]
fn it_follows_the_edges_of_an_image_better_than_interpolation() {
    let folder = tempfile::tempdir().unwrap();
    let perceptor = bundle(folder.path());
    let (image, features) = scene();
    let size = Size {
        width: SIDE,
        height: SIDE,
    };
    let guidance = perceptor.to_tensor(&image, size).unwrap();
    let naf = perceptor.encode_features(&features, &guidance, ColorRange::PerImage);
    let naf = error_of(&naf.unwrap());
    let jbu = perceptor.encode_jbu(features.clone(), &guidance, JbuOptions::default());
    let jbu = error_of(&jbu);
    let interpolated = error(|y, x, c| {
        let ((y, ty), (x, tx)) = (bilinear(y, GRID, SIDE), bilinear(x, GRID, SIDE));
        let at = |y: usize, x: usize| {
            features.tokens[(y.min(GRID - 1) * GRID + x.min(GRID - 1)) * DIM + c]
        };
        let row = |y| at(y, x) * (1.0 - tx) + at(y, x + 1) * tx;
        row(y) * (1.0 - ty) + row(y + 1) * ty
    });
    println!("mean squared error: NAF {naf:.4}, JBU {jbu:.4}, bilinear {interpolated:.4}");
    assert!(naf < 0.5 * interpolated, "{naf}, {interpolated}");
}
