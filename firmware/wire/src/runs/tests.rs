use std::vec::Vec;

use super::*;
use crate::faults::Random;

extern crate std;

/// Slow reference decoder, pixel by pixel.
fn decode(chunks: &[(u32, u32, Vec<u8>)], width: u16, height: u16) -> Vec<Option<u8>> {
    let mut map = std::vec![None; usize::from(width) * usize::from(height)];
    for (first, count, code) in chunks {
        let mut at = 0;
        let mut pixel = *first as usize;
        while at < code.len() {
            let (mut control, mut shift) = (0u64, 0);
            loop {
                let byte = code[at];
                at += 1;
                control |= u64::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    break;
                }
            }
            for _ in 0..control / 2 + 1 {
                assert_eq!(map[pixel].replace(code[at]), None, "pixel {pixel} twice");
                pixel += 1;
                at += (control % 2) as usize;
            }
            at += ((control + 1) % 2) as usize;
        }
        assert_eq!(pixel - *first as usize, *count as usize);
    }
    map
}

fn write(width: u16, height: u16, classes: &[u8], rows: u16) -> Vec<(u32, u32, Vec<u8>)> {
    let mut writer = MapWriter::new(1, 0, width, height, classes)
        .unwrap()
        .with_max_rows(rows);
    let mut scratch = [0; MAX_DATA];
    let mut chunks = Vec::new();
    while let Some(chunk) = writer.next_chunk(&mut scratch) {
        // Compare both decoding interfaces of the crate with the reference.
        let mut pixels = Vec::new();
        for run in chunk.runs().unwrap() {
            assert_eq!(run.first as usize, chunk.first as usize + pixels.len());
            pixels.resize(pixels.len() + run.length as usize, run.class);
        }
        let from = chunk.first as usize;
        assert_eq!(pixels, classes[from..from + chunk.count as usize]);
        let mut pixel = chunk.first;
        for segment in chunk.segments().unwrap() {
            assert_eq!(
                pixel,
                u32::from(segment.row) * u32::from(width) + u32::from(segment.column)
            );
            assert!(segment.length > 0 && segment.column + segment.length <= width);
            assert_eq!(segment.class, classes[pixel as usize]);
            pixel += u32::from(segment.length);
        }
        assert_eq!(pixel, chunk.first + chunk.count);
        chunks.push((chunk.first, chunk.count, chunk.runs.to_vec()));
    }
    chunks
}

fn bytes(chunks: &[(u32, u32, Vec<u8>)]) -> usize {
    chunks.iter().map(|chunk| chunk.2.len()).sum()
}

/// Maps from constant to noise: each pixel starts a new class with a
/// probability of `ppm` per million.
fn map(random: &mut Random, pixels: usize, classes: u32, ppm: u32) -> Vec<u8> {
    let mut class = 0;
    let mut map = Vec::with_capacity(pixels);
    for _ in 0..pixels {
        if random.chance(ppm) {
            class = random.below(classes) as u8;
        }
        map.push(class);
    }
    map
}

#[test]
fn every_map_comes_back_pixel_by_pixel_and_none_grows_beyond_the_bound() {
    let mut random = Random::new(7);
    let mut worst: f64 = 0.0;
    for (width, height) in [(1, 1), (1, 300), (300, 1), (17, 13), (224, 224), (448, 448)] {
        for classes in [1, 2, 11, 256] {
            for ppm in [0, 10_000, 300_000, 600_000, 1_000_000] {
                let pixels = usize::from(width) * usize::from(height);
                let map = map(&mut random, pixels, classes, ppm);
                let chunks = write(width, height, &map, u16::MAX);
                let back: Option<Vec<u8>> = decode(&chunks, width, height).into_iter().collect();
                assert_eq!(back.as_deref(), Some(&map[..]), "{width}x{height}");
                let bound = pixels + pixels.div_ceil(64) + 3 * chunks.len();
                assert!(bytes(&chunks) <= bound, "{} > {bound}", bytes(&chunks));
                worst = worst.max(bytes(&chunks) as f64 / pixels.max(300) as f64);
            }
        }
    }
    std::println!("largest code: {worst:.4} bytes per pixel");
}

#[test]
fn the_worst_patterns_of_short_runs_stay_within_the_bound() {
    let pixels: usize = 448 * 448;
    let mut worst = 0;
    // Periods of a run of `a` equal pixels and `b` different ones.
    for a in 1..8 {
        for b in 0..140 {
            let map: Vec<u8> = (0..pixels)
                .map(|i| {
                    let phase = i % (a + b);
                    if phase < a { 255 } else { phase as u8 }
                })
                .collect();
            let chunks = write(448, 448, &map, u16::MAX);
            let bound = pixels + pixels.div_ceil(64) + 3 * chunks.len();
            assert!(bytes(&chunks) <= bound, "run {a}, literal {b}");
            worst = worst.max(bytes(&chunks));
        }
    }
    std::println!("largest code of {pixels} pixels: {worst} bytes");
}

#[test]
fn a_plain_map_is_one_chunk_unless_rows_are_limited() {
    let map = std::vec![3; 448 * 448];
    let chunks = write(448, 448, &map, u16::MAX);
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].2, [0xFE, 0xBF, 0x18, 3], "(448 * 448 - 1) * 2");
    assert_eq!(write(448, 448, &map, 32).len(), 14);
}

#[test]
fn a_map_of_another_size_is_refused() {
    assert!(MapWriter::new(0, 0, 4, 4, &[0; 15]).is_err());
    let mut empty = MapWriter::new(0, 0, 0, 9, &[]).unwrap();
    assert_eq!(empty.next_chunk(&mut [0; MAX_DATA]), None);
}

fn chunk(width: u16, first: u32, count: u32, runs: &[u8]) -> MapChunk<'_> {
    MapChunk {
        frame: 0,
        slot: 0,
        width,
        height: 2,
        first,
        count,
        runs: Bytes::new(runs).unwrap(),
    }
}

#[test]
fn a_chunk_that_contradicts_itself_is_refused_before_any_of_it_is_handed_over() {
    for (bad, why) in [
        (chunk(4, 6, 3, &[4, 1]), "past the end of the map"),
        (
            chunk(4, u32::MAX, u32::MAX, &[4, 1]),
            "far past the end of the map",
        ),
        (chunk(4, 0, 3, &[6, 1]), "one pixel too many"),
        (chunk(4, 0, 3, &[2, 1]), "one pixel too few"),
        (chunk(4, 0, 3, &[4]), "no class"),
        (chunk(4, 0, 3, &[5, 1, 1]), "truncated literal"),
        (chunk(4, 0, 3, &[0x84]), "truncated varint"),
        (
            chunk(4, 0, 3, &[0x84, 0x80, 0x80, 0x80, 0x80, 0, 1]),
            "varint too long",
        ),
        (
            chunk(4, 0, 3, &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1]),
            "varint beyond 2^32",
        ),
        (
            chunk(4, 7, 1, &[0xFE, 0xFF, 0xFF, 0xFF, 0xF, 1]),
            "run length overflows u32",
        ),
        (chunk(0, 0, 1, &[0, 1]), "map of width 0"),
    ] {
        assert!(bad.check().is_err(), "{why}");
        assert!(bad.runs().is_err(), "{why}");
        assert!(bad.segments().is_err(), "{why}");
    }
    assert!(chunk(4, 5, 3, &[4, 1]).check().is_ok());
    assert!(chunk(0, 0, 0, &[]).segments().unwrap().next().is_none());
}
