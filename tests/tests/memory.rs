//! Memory is bounded for outputs of any size. In a file of its own, because the peak is that of the
//! process.

use std::fs;

use loftup_bundle::Size;
use loftup_runtime::{ColorRange, ExecutionOptions, Features, ImageTensor, Perceptor};
use loftup_tests::synthetic::{Noise, upsampler_bundle};

/// Peak resident memory of this process, in MB.
fn peak() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .expect("a peak");
    let kb: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("kB");
    kb / 1024.0
}

#[test]
fn a_large_answer_needs_little_more_memory_than_a_small_one() {
    let d = 48;
    let directory = tempfile::tempdir().expect("a directory");
    let out = upsampler_bundle(d, 5, directory.path());
    let perceptor = Perceptor::open_on_cpu(
        &out,
        ExecutionOptions {
            threads: 2,
            tile: None,
        },
    )
    .expect("an engine");
    let mut noise = Noise::new(6);
    let features = Features::from_map(&[1, d, 8, 8], &noise.vec(d * 64), d).expect("features");
    let mut peaks = Vec::new();
    for side in [128, 512] {
        let image = ImageTensor {
            size: Size {
                width: side,
                height: side,
            },
            data: noise.vec(3 * side * side),
        };
        let frame = perceptor
            .encode_features(&features, &image, ColorRange::PerImage)
            .expect("a frame");
        let mut pixels = 0;
        frame
            .frame(&mut |tile| {
                pixels += tile.rect.area();
                Ok(())
            })
            .expect("a frame");
        assert_eq!(pixels, side * side);
        peaks.push(peak());
    }
    let (grown, whole) = (peaks[1] - peaks[0], (d * 512 * 512 * 4) as f64 / 1e6);
    println!(
        "peak {:.0} MB, then {:.0} MB; the larger output has {whole:.0} MB",
        peaks[0], peaks[1]
    );
    // The image itself, normalized and scaled, takes 6 MB.
    assert!(
        grown < 20.0,
        "16 times as many pixels took {grown:.0} MB more"
    );
}
