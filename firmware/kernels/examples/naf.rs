//! Prints the CPU time of NAF on one thread for features and for classes, with the statistics of each image
//! and with those of the image before.
//!
//! ```text
//! cargo run --workspace --example naf -- [WIDTH HEIGHT [REPEAT]]
//! ```

use std::{error::Error, sync::Arc};

use loftup_kernels::{
    Isa, KernelError, cpu_time,
    naf::{Area, EncodedImage, Image, Naf, Values, in_order},
};
use loftup_spec::{SplitMix64, naf::NafWeights};

/// Channels of the features, outputs of the head, and side of a patch.
const DIM: usize = 384;
const CLASSES: usize = 19;
const PATCH: usize = 16;
/// Side of a tile of the output.
const TILE: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<usize> =
        (std::env::args().skip(1).map(|n| n.parse())).collect::<Result<_, _>>()?;
    let (sizes, repeat) = match args[..] {
        [] => (vec![(224, 224), (448, 448), (1024, 768)], 5),
        [width, height] => (vec![(width, height)], 5),
        [width, height, repeat] => (vec![(width, height)], repeat),
        _ => return Err("expected WIDTH HEIGHT REPEAT".into()),
    };
    let naf = Arc::new(Naf::new(Isa::detect(), &NafWeights::random(1))?);
    println!(
        "| output | statistics | encoding | features | {CLASSES} classes |\n|---|---|---|---|---|"
    );
    for (width, height) in sizes {
        let grid = (height / PATCH, width / PATCH);
        let cells = grid.0 * grid.1;
        let mut random = SplitMix64::new(1);
        let mut noise =
            |n: usize| -> Vec<f32> { (0..n).map(|_| 2.0 * random.uniform() - 1.0).collect() };
        // Every pixel differs, so that no encoding is shared.
        let [before, image] = [(), ()].map(|()| {
            Arc::new(Image {
                data: noise(3 * width * height),
                height,
                width,
            })
        });
        let features = noise(cells * DIM);
        let (weight, bias) = (noise(CLASSES * DIM), noise(CLASSES));
        let classes = Values::linear(Isa::detect(), (&features, DIM), &weight, &bias)?;
        let values = [Values::features(features, DIM)?, classes];
        let first = naf.encode(before, grid, &in_order)?;
        let second = first.encode_next(image.clone(), grid)?;
        let mut changed = (*image).clone();
        for plane in changed.data.chunks_exact_mut(width * height) {
            for row in plane.chunks_exact_mut(width).skip(height / 2).take(64) {
                row.iter_mut()
                    .skip(width / 2)
                    .take(64)
                    .for_each(|x| *x = -*x);
            }
        }
        let changed = Arc::new(changed);
        for fixed in [false, true] {
            let encode = || match fixed {
                false => naf.encode(image.clone(), grid, &in_order),
                true => first.encode_next(image.clone(), grid),
            };
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..repeat {
                let start = cpu_time::thread();
                drop(encode()?);
                times[0].push((cpu_time::thread() - start).as_secs_f64());
                for (times, values) in times[1..].iter_mut().zip(&values) {
                    let start = cpu_time::thread();
                    tiles(&encode()?, values, None)?;
                    times.push((cpu_time::thread() - start).as_secs_f64());
                }
            }
            let what = if fixed {
                "of the one before"
            } else {
                "of the image"
            };
            let [encoding, features, classes] = times.map(median);
            println!(
                "| {width}x{height} | {what} | {encoding:.3} s | {features:.3} s | {classes:.3} s |"
            );
        }
        tiles(&second, &values[0], None)?;
        let mut found = Vec::new();
        for values in &values {
            let mut times = Vec::new();
            for _ in 0..repeat {
                let start = cpu_time::thread();
                let next = second.encode_next(changed.clone(), grid)?;
                let computed = tiles(&next, values, Some(&second))?;
                times.push((cpu_time::thread() - start).as_secs_f64());
                found.push((computed, median(times.clone())));
            }
        }
        let [(computed, features), (_, classes)] = [found[repeat - 1], found[2 * repeat - 1]];
        println!(
            "| {width}x{height} | 64x64 pixels changed: {computed} tiles | | {features:.3} s | {classes:.3} s |"
        );
    }
    Ok(())
}

/// Computes the tiles that are not those of the last image, and returns their number.
fn tiles(
    encoded: &EncodedImage,
    values: &Values,
    last: Option<&EncodedImage>,
) -> Result<usize, KernelError> {
    let (height, width) = encoded.size();
    let mut out = vec![0.0; TILE * TILE * values.outputs()];
    let mut computed = 0;
    for y in (0..height).step_by(TILE) {
        for x in (0..width).step_by(TILE) {
            let area = Area {
                x,
                y,
                width: TILE.min(width - x),
                height: TILE.min(height - y),
            };
            if last.is_none_or(|last| !encoded.shares(last, area)) {
                encoded.attend(values, area, &mut out[..area.pixels() * values.outputs()])?;
                computed += 1;
            }
        }
    }
    Ok(computed)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
