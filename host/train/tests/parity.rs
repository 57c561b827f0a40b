//! The upsampler that is trained is the upsampler that runs: the same weights through this crate
//! and through the graphs that `convert` writes.

use std::ops::ControlFlow;

use burn::tensor::Device;
use loftup_bundle::Size;
use loftup_convert::{Request, convert};
use loftup_runtime::{ColorRange, ExecutionOptions, Features, ImageTensor, Perceptor};
use loftup_train::{
    checkpoint,
    kernels::Grid,
    model::{Guidance, LoftUp, Mode, RangeOver, Tokens, device_matrix, host_values, init},
    rng::{Purpose, Rng},
};

#[test]
fn a_new_upsampler_converted_and_run_gives_what_training_sees() {
    let mut worst = 0.0f32;
    // Odd sizes, heads of odd width, images that are not square.
    for (d, (h, w), (height, width)) in [
        (16, (3, 5), (21, 33)),
        (44, (4, 4), (28, 28)),
        (384, (2, 2), (10, 12)),
    ] {
        let mut rng = Rng::new(d as u64, Purpose::Weights, 0);
        let config = init::published(d);
        let mut start = init::random(&config, &mut rng);
        // As after some training: statistics that are not those of the start.
        for tensor in start.statistics.values_mut() {
            let data = tensor
                .data()
                .iter()
                .map(|x| x * 0.7 + 0.2 * rng.uniform())
                .collect();
            *tensor = loftup_onnx::Tensor::new(tensor.shape(), data).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("up.safetensors");
        let all = start
            .weights
            .clone()
            .into_iter()
            .chain(start.statistics.clone())
            .collect();
        checkpoint::write(&weights, &all, None).unwrap();
        let out = folder.path().join("up.loftup");
        let request = Request {
            backbone: None,
            upsampler: Some(weights),
            size: None,
            out: out.clone(),
            prefix: None,
            license: None,
            replace: false,
        };
        convert(&request, |_| ControlFlow::Continue(())).unwrap();

        let features: Vec<f32> = (0..d * h * w).map(|_| rng.normal()).collect();
        let image: Vec<f32> = (0..3 * height * width).map(|_| rng.normal()).collect();
        let perceptor = Perceptor::open_on_cpu(&out, ExecutionOptions::default()).unwrap();
        let given = Features::from_map(&[1, d, h, w], &features, d).unwrap();
        let guidance = ImageTensor {
            size: Size { width, height },
            data: image.clone(),
        };
        let view = perceptor
            .encode_features(&given, &guidance, ColorRange::PerImage)
            .unwrap();
        let mut expected = vec![0.0; height * width * d];
        view.frame(&mut |tile| {
            for y in 0..tile.rect.height {
                let at = ((tile.rect.y + y) * width + tile.rect.x) * d;
                expected[at..][..tile.row(y).len()].copy_from_slice(tile.row(y));
            }
            Ok(())
        })
        .unwrap();

        let device = Device::flex();
        let grid = Grid {
            batch: 1,
            height: h,
            width: w,
        };
        let tokens = Tokens {
            values: device_matrix(given.tokens, h * w, d, &device),
            grid,
        };
        let guidance = Guidance::new(&[&image], height, width, RangeOver::Image);
        let upsampler = LoftUp::new(config, start, &device);
        let found = host_values(&upsampler.forward(&tokens, &guidance, Mode::Eval).features);
        let error = found
            .iter()
            .zip(&expected)
            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("d={d}: training against runtime {error:.1e}");
        worst = worst.max(error);
    }
    // Features have deviation 1. Phases of 22026 rad make single pixels differ by more than
    // rounding: a sine of an argument that is off by its last bit is off by 1e-3.
    assert!(worst < 1e-3, "{worst}");
}
