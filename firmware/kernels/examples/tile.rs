//! Computes one 32x32 tile of the queries graph, with random weights and a 16x16 grid of features, a number of
//! times on one thread: for tools that count instructions (`tools/count_instructions.sh`).
//!
//! ```sh
//! cargo run -p loftup-kernels --example tile -- 384 fp32 2
//! ```
//!
//! The arguments are the channels, the arithmetic and the number of runs. The first run also fills caches.

use std::sync::Arc;

use loftup_kernels::{Arithmetic, Isa, Queries};
use loftup_spec::{HALO, SplitMix64};

use weights::{HEADS, head_width, noise, weights};

#[path = "../benches/weights/mod.rs"]
mod weights;

const TILE: usize = 32;
const TOKENS: usize = 256;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.into());
    let dim: usize = next("384").parse().expect("a number of channels");
    let arithmetic: Arithmetic = next("fp32").parse().expect("an arithmetic");
    let runs: usize = next("1").parse().expect("a number of runs");

    let mut random = SplitMix64::new(1);
    let weights = weights(&mut random, dim);
    let queries = Queries::with_arithmetic(Isa::detect(), arithmetic, &weights);
    let queries = Arc::new(queries.unwrap_or_else(|e| panic!("{e}")));
    let mut context = queries.context(1, TILE, TILE, TOKENS);
    let len = HEADS * head_width(dim) * TOKENS;
    for layer in 0..weights.layers.len() {
        let mut set = || noise(&mut random, len, 1.0);
        let (keys, values) = (set(), set());
        context.set_keys(layer, &keys).expect("keys");
        context.set_values(layer, &values).expect("values");
    }
    let side = TILE + 2 * HALO;
    let area = side * side;
    // 8-bit levels, as in an image.
    let level = |i: usize| ((i / area * 70 + i % area % side * 2 + i % area / side) % 256) as f32;
    let guidance: Vec<f32> = (0..3 * area).map(|i| level(i) / 255.0 - 0.5).collect();
    let linear = |i: usize| i as f32 / 111.5 - 1.0;
    let coords: Vec<f32> = (0..2 * area)
        .map(|i| match i / area {
            0 => linear(i / side),
            _ => linear(i % side),
        })
        .collect();
    let mut out = vec![0.0; TILE * TILE * dim];
    for _ in 0..runs {
        let run = context.run(&guidance, &coords, &vec![1.0; area], &mut out);
        run.expect("inputs of the right size");
    }
    let hash = out.iter().fold(0u64, |hash, x| {
        (hash ^ u64::from(x.to_bits())).wrapping_mul(0x100_0000_01B3)
    });
    println!("{arithmetic}: {} {} ..., hash {hash:016x}", out[0], out[1]);
}
