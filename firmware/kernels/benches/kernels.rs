//! The queries graph at the size of LoftUp for DINOv2 ViT-S: a complete tile, and the CPU time of
//! each stage; and the matrix products of training.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use loftup_kernels::{Isa, Queries, stages};
use loftup_spec::{HALO, SplitMix64};

use weights::{HEADS, head_width, noise, weights};

mod weights;

const DIM: usize = 384;
/// Side of the tile in pixels, and the number of keys for a 16x16 feature grid.
const SIDE: usize = 56;
const TOKENS: usize = 256;

/// CPU time of a stage so far.
fn stage(name: &str) -> Duration {
    let found = stages().find(|(stage, _)| *stage == name);
    found.map_or(Duration::ZERO, |(_, time)| time)
}

fn queries(c: &mut Criterion) {
    let mut random = SplitMix64::new(1);
    let isa = Isa::detect();
    let queries =
        Arc::new(Queries::new(isa, &weights(&mut random, DIM)).expect("consistent weights"));
    let mut context = queries.context(1, SIDE, SIDE, TOKENS);
    for layer in 0..2 {
        let len = HEADS * head_width(DIM) * TOKENS;
        let keys = noise(&mut random, len, 1.0);
        context.set_keys(layer, &keys).expect("keys");
        let values = noise(&mut random, len, 1.0);
        context.set_values(layer, &values).expect("values");
    }
    let side = SIDE + 2 * HALO;
    let area = side * side;
    let coords: Vec<f32> = (0..2 * area)
        .map(|i| [i % area / side, i % side][i / area] as f32 / 224.0 - 0.5)
        .collect();
    let mask = vec![1.0; area];
    // From an 8-bit image, where the first convolution uses lookup tables, and arbitrary floats.
    let floats = noise(&mut random, 3 * area, 0.5);
    let bytes: Vec<f32> = floats.iter().map(|x| (x * 255.0).round() / 255.0).collect();
    let mut out = vec![0.0; SIDE * SIDE * DIM];

    let mut group = c.benchmark_group(format!("queries {isa:?}, {SIDE}x{SIDE}, d = {DIM}"));
    group.sample_size(10);
    for (name, guidance) in [("8-bit", &bytes), ("float", &floats)] {
        let mut run = || {
            let result = context.run(black_box(guidance), &coords, &mask, &mut out);
            result.expect("inputs of the right size");
        };
        run();
        group.bench_function(format!("tile, {name} guidance"), |b| b.iter(&mut run));
        for (name_of_stage, before) in stages().collect::<Vec<_>>() {
            run();
            if stage(name_of_stage) == before {
                continue;
            }
            group.bench_function(format!("{name_of_stage}, {name} guidance"), |b| {
                b.iter_custom(|rounds| {
                    let before = stage(name_of_stage);
                    (0..rounds).for_each(|_| run());
                    stage(name_of_stage) - before
                });
            });
        }
    }
    group.finish();
}

/// `[3136, 404] x [404, 384]`: a linear layer on all pixels of the tile.
#[cfg(feature = "matrix")]
fn matrix(c: &mut Criterion) {
    use loftup_kernels::matrix::{Beta, Matrix, matmul};

    let mut random = SplitMix64::new(2);
    let (rows, width) = (SIDE * SIDE, weights::width(DIM));
    let a = noise(&mut random, rows * width, 1.0);
    let b = noise(&mut random, width * DIM, 1.0);
    let mut out = vec![0.0; rows * DIM];
    c.bench_function("matmul 3136x404x384, one thread", |bencher| {
        bencher.iter(|| {
            let a = Matrix::new(black_box(&a), [rows, width], [width, 1]);
            let b = Matrix::new(&b, [width, DIM], [DIM, 1]);
            matmul(a, b, &mut out, Beta::Zero, false);
        });
    });
}

#[cfg(not(feature = "matrix"))]
fn matrix(_: &mut Criterion) {}

criterion_group!(benches, queries, matrix);
criterion_main!(benches);
