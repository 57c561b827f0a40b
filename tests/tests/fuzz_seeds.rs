//! Runs the fuzz targets on their seeds and mutations of them. `tests/fuzz/README.md` describes how
//! to run the fuzzer.

#[path = "../fuzz/harness.rs"]
mod harness;

use std::{fs, path::PathBuf};

use loftup_onnx::{
    Tensor,
    loftup::{Affine, Layer, LoftUp, read_queries},
};
use loftup_spec::{Config, SplitMix64};

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(directory(target)).expect("a directory of seeds");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a seed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "{target}: {} seeds", paths.len());
    let read = |path: &PathBuf| fs::read(path).expect("a seed");
    paths.iter().map(read).collect()
}

/// Changes, inserts, deletes or duplicates a few bytes.
fn vary(random: &mut SplitMix64, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.insert(at, random.next_u64() as u8),
            1 => bytes.truncate(at),
            2 => {
                let other = &seeds[random.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            _ if at == bytes.len() => {}
            3 => drop(bytes.remove(at)),
            4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
    bytes
}

fn run(target: &str, rounds: usize, harness: fn(&[u8])) {
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| harness(seed));
    let mut random = SplitMix64::new(0xF022);
    for _ in 0..rounds {
        harness(&vary(&mut random, &seeds));
    }
}

macro_rules! targets {
    ($($target:ident: $rounds:expr,)*) => {$(
        #[test]
        fn $target() {
            run(stringify!($target), $rounds, harness::$target);
        }
    )*};
}

targets! {
    pickle: 3_000,
    torch_legacy: 3_000,
    torch_zip: 3_000,
    safetensors: 3_000,
    npy: 1_000,
    manifest: 3_000,
    onnx: 3_000,
    image: 3_000,
    config: 1_000,
}

/// The smallest queries graph: one head and one frequency.
fn queries() -> Vec<u8> {
    let config = Config {
        dim: 4,
        layers: 1,
        heads: 1,
        frequencies: 1,
        grid_frequencies: 1,
    };
    let (d, e, n) = (config.dim, config.width(), config.padded_head_width());
    let tensor = |shape: &[usize]| Tensor::from_fn(shape, |_| 0.5);
    let affine = |shape: &[usize]| Affine {
        weight: tensor(shape),
        bias: tensor(&shape[..1]),
    };
    let upsampler = LoftUp {
        config,
        channel_norm: affine(&[d]),
        grid_phases: tensor(&[2, 2]),
        phases: tensor(&[2, 5]),
        guidance_norm: affine(&[config.guidance_channels()]),
        conv1: affine(&[e, config.guidance_channels(), 3, 3]),
        conv2: affine(&[e, e, 3, 3]),
        layers: vec![Layer {
            query: affine(&[n, e]),
            key: affine(&[n, e]),
            value: affine(&[n, e]),
            out: affine(&[e, n]),
            mlp_in: affine(&[d, e]),
            mlp_out: affine(&[e, d]),
        }],
        last: affine(&[d, e]),
        last_norm: affine(&[d]),
    };
    upsampler.queries_graph()
}

#[test]
fn a_queries_graph_is_read_and_its_variations_hold() {
    let graph = queries();
    assert!(read_queries(&graph, 1).is_some());
    let mut random = SplitMix64::new(0x0E55);
    for _ in 0..500 {
        harness::onnx(&vary(&mut random, std::slice::from_ref(&graph)));
    }
}
