//! Runs the fuzz targets on their seeds and thousands of mutations of them.
//! `fuzz/README.md` describes how to run the fuzzer.

#[path = "../fuzz/harness.rs"]
mod harness;

use std::fs;
use std::path::Path;

use loftup_wire::faults::Random;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let files = fs::read_dir(directory.join(target)).expect("a directory of seeds");
    let mut paths: Vec<_> = files.map(|file| file.expect("a seed").path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths
        .iter()
        .map(|path| fs::read(path).expect("a seed"))
        .collect();
    assert!(seeds.len() >= 3, "{target}: {} seeds", seeds.len());
    seeds
}

/// Changes, deletes, duplicates or joins a few bytes.
fn vary(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| seeds[random.below(seeds.len() as u32) as usize].clone();
    let mut bytes = pick(random);
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() as u32 + 1) as usize;
        match random.below(5) {
            0 => bytes.insert(at, random.next() as u8),
            1 => bytes.truncate(at),
            2 => bytes.extend(pick(random)),
            _ if at == bytes.len() => {}
            3 => drop(bytes.remove(at)),
            _ => bytes[at] ^= random.next() as u8 >> random.below(8),
        }
    }
    bytes
}

fn run(target: &str, rounds: u32, harness: fn(&[u8])) {
    let seeds = seeds(target);
    for seed in &seeds {
        harness(seed);
    }
    let mut random = Random::new(0xF022);
    for _ in 0..rounds {
        harness(&vary(&mut random, &seeds));
    }
}

#[test]
fn the_decoder_holds_its_promises_on_seeds_and_variations() {
    run("decoder", 40_000, harness::decoder);
}

#[test]
fn round_trips_hold_on_seeds_and_variations() {
    run("round_trip", 100_000, harness::round_trip);
}

#[test]
fn the_reassembler_holds_its_promises_on_seeds_and_variations() {
    run("reassembler", 40_000, harness::reassembler);
}
