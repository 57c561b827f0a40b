//! The time and the error of each arithmetic of the queries graph on one thread, on a frame of 224x224 with
//! random weights and a 16x16 grid of features.
//!
//! ```sh
//! cargo run -p loftup-kernels --example arithmetic -- 384 5
//! cargo run -p loftup-kernels --example arithmetic -- 384 5 avx2 avxvnni avx512
//! ```
//!
//! The arguments are the channels, the number of rounds, and instruction sets instead of the fastest. Rounds
//! alternate between arithmetics and instruction sets, so that whatever else the machine does slows all of
//! them down; medians are printed, and their ratios to 32 bits with the same instruction set.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use loftup_kernels::{Arithmetic, Context, Isa, Queries, stages};
use loftup_spec::{HALO, SplitMix64};

use weights::{HEADS, head_width, noise, weights};

#[path = "../benches/weights/mod.rs"]
mod weights;

/// Sides of the frame and of a tile, in pixels, and the number of keys.
const FRAME: usize = 224;
const TILE: usize = 32;
const TOKENS: usize = 256;

/// Guidance, coordinates and mask of a tile.
struct Inputs {
    guidance: Vec<f32>,
    coords: Vec<f32>,
    mask: Vec<f32>,
}

/// The tiles of a frame: gradients with a grating and noise, in 8-bit levels.
fn tiles(random: &mut SplitMix64) -> Vec<Inputs> {
    let image: Vec<f32> = (0..3 * FRAME * FRAME)
        .map(|i| {
            let (c, y, x) = (i / FRAME / FRAME, i / FRAME % FRAME, i % FRAME);
            let wave = (x as f32 * (0.1 + 0.05 * c as f32) + y as f32 * 0.07).sin();
            let value = 0.5 + 0.3 * wave + 0.1 * random.uniform() + (y as f32 - 112.0) / 1500.0;
            (value.clamp(0.0, 1.0) * 255.0).round() / 255.0 - 0.5
        })
        .collect();
    let side = TILE + 2 * HALO;
    let across = FRAME / TILE;
    (0..across * across)
        .map(|tile| {
            // Of a pixel of the tile in the frame; out of range outside.
            let place = |i: usize| {
                let at = |t: usize, i: usize| (t * TILE + i).wrapping_sub(HALO);
                (at(tile / across, i / side), at(tile % across, i % side))
            };
            let inside = |i: usize| place(i).0 < FRAME && place(i).1 < FRAME;
            let pixels = |f: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
                let value = |i| {
                    if inside(i) {
                        f(place(i).0, place(i).1)
                    } else {
                        0.0
                    }
                };
                (0..side * side).map(value).collect()
            };
            let linear = |i: usize| i as f32 / (FRAME - 1) as f32 * 2.0 - 1.0;
            let planes = (0..3).flat_map(|c| pixels(&|y, x| image[(c * FRAME + y) * FRAME + x]));
            Inputs {
                guidance: planes.collect(),
                coords: [pixels(&|y, _| linear(y)), pixels(&|_, x| linear(x))].concat(),
                mask: pixels(&|_, _| 1.0),
            }
        })
        .collect()
}

/// The features of a frame.
fn frame(context: &mut Context, tiles: &[Inputs], dim: usize) -> Vec<f32> {
    let mut features = vec![0.0; FRAME * FRAME * dim];
    let out = features.chunks_exact_mut(TILE * TILE * dim);
    for (tile, out) in tiles.iter().zip(out) {
        let run = context.run(&tile.guidance, &tile.coords, &tile.mask, out);
        run.expect("inputs of the right size");
    }
    features
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|n| n.parse().expect("a number"));
    let dim: usize = arguments.next().unwrap_or(384);
    let rounds = arguments.next().unwrap_or(5);

    let mut random = SplitMix64::new(1);
    let weights = weights(&mut random, dim);
    let tiles = tiles(&mut random);
    let len = HEADS * head_width(dim) * TOKENS;
    let pairs: Vec<[Vec<f32>; 2]> = (0..2)
        .map(|_| [(); 2].map(|()| noise(&mut random, len, 1.0)))
        .collect();
    let mut isas: Vec<Isa> = std::env::args()
        .skip(3)
        .map(|name| name.parse().expect("an instruction set"))
        .collect();
    if isas.is_empty() {
        isas.push(Isa::detect());
    }
    let all = (isas.iter()).flat_map(|isa| Arithmetic::ALL.map(|arithmetic| (*isa, arithmetic)));
    let mut contexts: Vec<(Isa, Arithmetic, Context)> = all
        .filter(|(isa, arithmetic)| arithmetic.is_available_in(*isa))
        .map(|(isa, arithmetic)| {
            let queries = Queries::with_arithmetic(isa, arithmetic, &weights);
            let queries = Arc::new(queries.expect("an available arithmetic"));
            let mut context = queries.context(1, TILE, TILE, TOKENS);
            for (layer, [keys, values]) in pairs.iter().enumerate() {
                context.set_keys(layer, keys).expect("keys");
                context.set_values(layer, values).expect("values");
            }
            (isa, arithmetic, context)
        })
        .collect();

    // The first round also fills caches; it measures the error.
    let mut exact = Vec::new();
    for (isa, arithmetic, context) in &mut contexts {
        let found = frame(context, &tiles, dim);
        if *arithmetic == Arithmetic::Fp32 {
            exact = found;
            continue;
        }
        let wide = || exact.iter().map(|x| f64::from(*x));
        let n = exact.len() as f64;
        let mean = wide().sum::<f64>() / n;
        let deviation = (wide().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let errors = || wide().zip(&found).map(|(a, b)| (a - f64::from(*b)).abs());
        let rms = (errors().map(|e| e * e).sum::<f64>() / n).sqrt();
        println!(
            "{isa}, {arithmetic}: error {:.4} of the standard deviation, worst {:.3}",
            rms / deviation,
            errors().fold(0.0, f64::max) / deviation
        );
    }

    let mut times: BTreeMap<(usize, &str), Vec<Duration>> = BTreeMap::new();
    for _ in 0..rounds {
        for (i, (_, _, context)) in contexts.iter_mut().enumerate() {
            let before: Vec<Duration> = stages().map(|(_, time)| time).collect();
            frame(context, &tiles, dim);
            let mut all = Duration::ZERO;
            for ((stage, time), before) in stages().zip(before) {
                times.entry((i, stage)).or_default().push(time - before);
                all += time - before;
            }
            times.entry((i, "frame")).or_default().push(all);
        }
    }
    println!("d = {dim}, CPU seconds per frame, median of {rounds}, and relative to fp32:");
    for stage in stages().map(|(stage, _)| stage).chain(["frame"]) {
        for isa in &isas {
            let mut line = format!("{stage:30} {:8}", isa.to_string());
            let mut first = None;
            for (i, (of, arithmetic, _)) in contexts.iter().enumerate() {
                if of == isa {
                    let time = median(times.get_mut(&(i, stage)).expect("every stage"));
                    let first = *first.get_or_insert(time);
                    line += &format!("  {arithmetic} {time:.4} ({:.2})", time / first.max(1e-9));
                }
            }
            println!("{line}");
        }
    }
}
